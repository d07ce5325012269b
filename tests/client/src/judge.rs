//! The verdict: what the log says must be there against what is there.
//!
//! Every ok exactly once, every definite error absent, unknown either way; rows that nobody attempted are phantoms (S2).

use std::collections::BTreeMap;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio_postgres::types::Type;

use crate::journal::{Attempt, Identity, Mode};
use crate::outcome::Outcome;
use crate::session::Door;

/// Numbers of examples that a verdict names.
const EXAMPLES: usize = 20;

/// A stretch without an acknowledged write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gap {
    /// Its length in milliseconds.
    pub(crate) ms: u64,
    /// When the last acknowledgement before it arrived, in microseconds since 1970.
    pub(crate) from: u64,
    /// When the next one arrived.
    pub(crate) to: u64,
}

/// What a log says by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// For a reader: answers of a server that was not in recovery.
    pub(crate) from_master: u64,
}

/// What the database says about a log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// Acknowledged rows that are missing.
    pub(crate) lost: u64,
    /// Rows that are there more than once.
    pub(crate) duplicated: u64,
    /// Rows that are there though they were refused or never attempted.
    pub(crate) phantom: u64,
    /// Acknowledged rows that were found.
    pub(crate) found: u64,
    /// Doubtful rows that are there.
    pub(crate) unknown_present: u64,
    /// The first numbers of each kind that went wrong.
    pub(crate) examples: Vec<String>,
}

impl Verdict {
    /// Whether nothing went wrong.
    pub(crate) fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.phantom == 0
    }

    fn note(&mut self, what: &str, n: i64) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{what} {n}"));
        }
    }
}

/// A summary and, where it was asked for, a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Judgement {
    /// The log by itself.
    #[serde(flatten)]
    pub(crate) summary: Summary,
    /// The database about it.
    #[serde(flatten)]
    pub(crate) verdict: Verdict,
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
            let text = format!(
                "{:?} {} {}",
                attempt.outcome,
                attempt.code.as_deref().unwrap_or("-"),
                attempt.text.as_deref().unwrap_or("-")
            );
            *summary.failures.entry(text).or_default() += 1;
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

/// Compares a log with the rows that are there (number, count).
///
/// One number above the last logged one may be there: it was on its way when the log was cut.
pub(crate) fn compare(attempts: &[Attempt], rows: &BTreeMap<i64, i64>) -> Verdict {
    let mut verdict = Verdict::default();
    let outcomes: BTreeMap<i64, Outcome> =
        attempts.iter().map(|attempt| (attempt.n, attempt.outcome)).collect();
    let in_flight = outcomes.keys().next_back().map_or(1, |last| last + 1);
    for (&n, &outcome) in &outcomes {
        let there = rows.contains_key(&n);
        match outcome {
            Outcome::Ok if there => verdict.found += 1,
            Outcome::Ok => {
                verdict.lost += 1;
                verdict.note("lost", n);
            }
            Outcome::Error if there => {
                verdict.phantom += 1;
                verdict.note("phantom (refused)", n);
            }
            Outcome::Error => {}
            Outcome::Unknown => verdict.unknown_present += u64::from(there),
        }
    }
    for (&n, &count) in rows {
        if count > 1 {
            verdict.duplicated += 1;
            verdict.note("duplicated", n);
        }
        if !outcomes.contains_key(&n) && n != in_flight {
            verdict.phantom += 1;
            verdict.note("phantom (never attempted)", n);
        }
    }
    verdict
}

/// Asks the database for this writer's rows.
pub(crate) async fn rows(door: &Door, identity: &Identity) -> anyhow::Result<BTreeMap<i64, i64>> {
    let session = door.open().await?;
    let sql = format!("SELECT n, count(*) FROM {} WHERE writer = $1 GROUP BY n", identity.table);
    let rows = session
        .run(&sql, &[(&identity.writer, Type::TEXT)])
        .await
        .map_err(|failure| anyhow::anyhow!("{}", failure.text()))
        .context("count the rows")?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Summary and verdict of one log; a reader's log needs no verdict.
pub(crate) async fn judge(
    door: &Door,
    identity: &Identity,
    attempts: &[Attempt],
    until: u64,
) -> anyhow::Result<Judgement> {
    let verdict = match identity.mode {
        Mode::Read => Verdict::default(),
        Mode::Fresh | Mode::Kept => compare(attempts, &rows(door, identity).await?),
    };
    Ok(Judgement { summary: summarise(identity, attempts, 0, until), verdict })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(n: i64, outcome: Outcome, at: u64) -> Attempt {
        let (began, ended) = (at * 1000, at * 1000 + 500);
        Attempt { n, outcome, began, ended, server: None, in_recovery: None, code: None, text: None }
    }

    fn identity() -> Identity {
        Identity { writer: "w".into(), mode: Mode::Kept, host: "h".into(), table: "t".into() }
    }

    #[test]
    fn a_clean_run_is_clean_and_unknown_may_be_either() {
        let log = [
            attempt(1, Outcome::Ok, 0),
            attempt(2, Outcome::Unknown, 1),
            attempt(3, Outcome::Unknown, 2),
            attempt(4, Outcome::Error, 3),
        ];
        let verdict = compare(&log, &BTreeMap::from([(1, 1), (3, 1), (5, 1)]));
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!((verdict.found, verdict.unknown_present), (1, 1));
    }

    #[test]
    fn each_wrong_is_seen() {
        let log = [attempt(1, Outcome::Ok, 0), attempt(2, Outcome::Ok, 1), attempt(3, Outcome::Error, 2)];
        let verdict = compare(&log, &BTreeMap::from([(1, 2), (3, 1), (9, 1)]));
        assert_eq!((verdict.lost, verdict.duplicated, verdict.phantom), (1, 1, 2));
        assert!(!verdict.is_clean());
        assert_eq!(verdict.examples.len(), 4);
    }

    #[test]
    fn the_longest_gap_lies_between_acknowledgements() {
        let log = [
            attempt(1, Outcome::Ok, 0),
            attempt(2, Outcome::Unknown, 500),
            attempt(3, Outcome::Ok, 2000),
            attempt(4, Outcome::Ok, 2010),
        ];
        let summary = summarise(&identity(), &log, 0, 2_011_000);
        assert_eq!((summary.longest_gap.ms, summary.ok, summary.unknown), (2000, 3, 1));
        let later = summarise(&identity(), &log, 2_005_000, 2_011_000);
        assert_eq!(later.longest_gap.ms, 10);
    }

    #[test]
    fn a_writer_that_never_wrote_again_has_a_gap_to_the_end() {
        let log = [attempt(1, Outcome::Ok, 0), attempt(2, Outcome::Error, 1)];
        assert_eq!(summarise(&identity(), &log, 0, 60_000_500).longest_gap.ms, 60_000);
    }
}
