//! What a log says by itself.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::attempt::{Attempt, Identity};
use crate::outcome::Outcome;

/// A stretch without an acknowledged write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Gap {
    /// Its length in milliseconds.
    pub(crate) ms: u64,
    /// When the last acknowledgement before it arrived, in microseconds since 1970.
    pub(crate) from: u64,
    /// When the next one arrived.
    pub(crate) to: u64,
}

/// A log in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    /// Whose log.
    #[serde(flatten)]
    pub(crate) identity: Identity,
    /// Acknowledged attempts in the window.
    pub(crate) ok: u64,
    /// Refused ones.
    pub(crate) error: u64,
    /// Doubtful ones.
    pub(crate) unknown: u64,
    /// The longest stretch without an acknowledgement that touches the window.
    pub(crate) longest_gap: Gap,
    /// Acknowledged attempts that *began* within the window.
    pub(crate) ok_begun: u64,
    /// Which servers answered, and how often.
    pub(crate) servers: BTreeMap<String, u64>,
    /// What failures said, and how often.
    pub(crate) failures: BTreeMap<String, u64>,
    /// Failures by SQLSTATE; `-` where no server said anything.
    pub(crate) sqlstates: BTreeMap<String, u64>,
    /// For a reader: answers of a server that was not in recovery.
    pub(crate) from_master: u64,
}

/// Summarises the attempts that ended within the window; `until` also closes the last gap.
pub(crate) fn summarise(identity: &Identity, attempts: &[Attempt], from: u64, until: u64) -> Summary {
    let mut summary = Summary {
        identity: identity.clone(),
        ok: 0,
        error: 0,
        unknown: 0,
        longest_gap: Gap::default(),
        ok_begun: 0,
        servers: BTreeMap::new(),
        failures: BTreeMap::new(),
        sqlstates: BTreeMap::new(),
        from_master: 0,
    };
    let mut last_ok = None;
    for attempt in attempts {
        let inside = attempt.ended >= from && attempt.ended <= until;
        if attempt.outcome == Outcome::Ok {
            if let Some(last) = last_ok {
                widen(&mut summary.longest_gap, last, attempt.ended, from, until);
            }
            last_ok = Some(attempt.ended);
            summary.ok_begun += u64::from(attempt.began >= from && attempt.began <= until);
        }
        if !inside {
            continue;
        }
        match attempt.outcome {
            Outcome::Ok => summary.ok += 1,
            Outcome::Error => summary.error += 1,
            Outcome::Unknown => summary.unknown += 1,
        }
        summary.from_master += u64::from(attempt.in_recovery == Some(false));
        if let Some(server) = attempt.server {
            *summary.servers.entry(server.to_string()).or_default() += 1;
        }
        if attempt.outcome != Outcome::Ok {
            let code = attempt.code.as_deref().unwrap_or("-");
            let text = format!("{:?} {code} {}", attempt.outcome, attempt.text.as_deref().unwrap_or("-"));
            *summary.failures.entry(text).or_default() += 1;
            *summary.sqlstates.entry(code.to_owned()).or_default() += 1;
        }
    }
    if let Some(last) = last_ok.or_else(|| attempts.first().map(|attempt| attempt.began)) {
        widen(&mut summary.longest_gap, last, until, from, until);
    }
    summary
}

fn widen(gap: &mut Gap, begin: u64, end: u64, from: u64, until: u64) {
    if end < from || begin > until {
        return;
    }
    let ms = end.min(until).saturating_sub(begin) / 1000;
    if ms > gap.ms {
        *gap = Gap { ms, from: begin, to: end.min(until) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;
    use crate::verdict::examples::{attempt, log};

    #[test]
    fn the_longest_gap_lies_between_acknowledgements() {
        let log = log([
            attempt(1, Outcome::Ok, 0),
            attempt(2, Outcome::Unknown, 500),
            attempt(3, Outcome::Ok, 2000),
            attempt(4, Outcome::Ok, 2010),
        ]);
        let summary = summarise(&log.identity, &log.attempts, 0, 2_011_000);
        assert_eq!((summary.longest_gap.ms, summary.ok, summary.unknown), (2000, 3, 1));
        let later = summarise(&log.identity, &log.attempts, 2_005_000, 2_011_000);
        assert_eq!(later.longest_gap.ms, 10);
    }

    #[test]
    fn a_writer_that_never_wrote_again_has_a_gap_to_the_end() {
        let log = log([attempt(1, Outcome::Ok, 0), attempt(2, Outcome::Error, 1)]);
        assert_eq!(summarise(&log.identity, &log.attempts, 0, 60_000_500).longest_gap.ms, 60_000);
    }

    #[test]
    fn failures_are_counted_by_sqlstate() {
        let coded = |n, code: Option<&str>| Attempt {
            code: code.map(Into::into),
            ..attempt(n, Outcome::Error, n.unsigned_abs())
        };
        let log = log([coded(1, Some("25006")), coded(2, Some("25006")), coded(3, None)]);
        let summary = summarise(&log.identity, &log.attempts, 0, u64::MAX);
        let expected = [("25006".to_owned(), 2), ("-".to_owned(), 1)];
        assert_eq!(summary.sqlstates, BTreeMap::from(expected));
    }
}
