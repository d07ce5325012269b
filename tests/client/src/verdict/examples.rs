//! Logs for the tests of verdicts.

use crate::attempt::{Attempt, Identity, Mode, Workload};
use crate::clock::Anchor;
use crate::journal::Log;
use crate::outcome::Outcome;

/// An attempt that began at this millisecond and took half of one.
pub(crate) fn attempt(n: i64, outcome: Outcome, at: u64) -> Attempt {
    Attempt {
        n,
        outcome,
        began: at * 1000,
        ended: at * 1000 + 500,
        wall: 0,
        server: None,
        port: None,
        timeline: None,
        in_recovery: None,
        position: None,
        code: None,
        text: None,
    }
}

/// One that a member of this number acknowledged on this timeline.
pub(crate) fn acknowledged(n: i64, at: u64, member: u8, timeline: u32) -> Attempt {
    Attempt {
        server: Some([10, 0, 0, member].into()),
        port: Some(5432),
        timeline: Some(timeline),
        ..attempt(n, Outcome::Ok, at)
    }
}

/// A log of these attempts.
pub(crate) fn log(attempts: impl Into<Vec<Attempt>>) -> Log {
    let identity = Identity {
        writer: "w".into(),
        mode: Mode::Kept,
        host: "h".into(),
        table: "t".into(),
        workload: Workload::Rows,
        size: 1,
    };
    Log { identity, anchor: Anchor::default(), attempts: attempts.into() }
}
