//! All logs judged together: per log, per kind of connection, per member; as JSON and as text.
//!
//! It is clean when no promise is broken. What could not be judged is said, and never counted as well.

mod rows;
pub(crate) mod summary;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::attempt::{Mode, Workload};
use crate::clock::Anchor;
use crate::journal::Log;
use crate::observer::observation::Observed;
use crate::outcome::Outcome;
use crate::session::Door;
use crate::verdict::members::{self, Members};
use crate::verdict::observed::{self, Masters};
use crate::verdict::{self, Verdict};
use summary::{Gap, Summary, summarise};

/// A summary and a verdict; a reader's verdict is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Judgement {
    /// The log by itself.
    #[serde(flatten)]
    pub(crate) summary: Summary,
    /// The database about it.
    #[serde(flatten)]
    pub(crate) verdict: Verdict,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// Whether no promise is broken.
    pub(crate) clean: bool,
    /// Every broken promise, in words.
    pub(crate) violations: Vec<String>,
    /// What could not be judged, in words.
    pub(crate) unjudged: Vec<String>,
    /// By log.
    pub(crate) writers: Vec<Judgement>,
    /// The longest stretch without an acknowledgement that any writer of a kind of connection had; those of single rows
    /// by the connection alone, `kept`, those of others with what they write, `transfers kept`.
    pub(crate) longest_gaps: BTreeMap<String, Gap>,
    /// Failures of writers by SQLSTATE; `-` where no server said anything.
    pub(crate) sqlstates: BTreeMap<String, u64>,
    /// Who acknowledged.
    pub(crate) members: Members,
    /// Who was seen out of recovery.
    pub(crate) masters: Masters,
    /// What was seen of each member.
    pub(crate) observed: Vec<Observed>,
}

/// Logs on one axis of time.
pub(crate) struct Logs {
    /// By writer, each with when it ended.
    pub(crate) journals: Vec<(Log, u64)>,
    /// By member.
    pub(crate) observed: Vec<Observed>,
    /// Microseconds by which clocks of different logs may differ.
    pub(crate) skew: u64,
}

impl Logs {
    /// Puts all on the axis of the first; `skew` counts only where clocks are not one.
    pub(crate) fn new(mut journals: Vec<(Log, u64)>, mut observed: Vec<Observed>, skew: u64) -> Self {
        let anchors = || {
            journals
                .iter()
                .map(|(log, _)| &log.anchor)
                .chain(observed.iter().map(|observed| &observed.anchor))
        };
        let axis = anchors().next().cloned().unwrap_or_default();
        let boots: BTreeSet<&str> = anchors().map(|anchor| anchor.boot.as_str()).collect();
        // A lone log is on its own axis, whatever that is.
        let one = anchors().count() < 2 || (boots.len() == 1 && !boots.contains(""));
        let shift = |anchor: &Anchor| anchor.shift_to(&axis).unwrap_or(0);
        for (log, until) in &mut journals {
            let by = shift(&log.anchor);
            *until = until.saturating_add_signed(by);
            for attempt in &mut log.attempts {
                attempt.began = attempt.began.saturating_add_signed(by);
                attempt.ended = attempt.ended.saturating_add_signed(by);
            }
        }
        for observed in &mut observed {
            let by = shift(&observed.anchor);
            for run in &mut observed.runs {
                for time in [&mut run.began, &mut run.first_ended, &mut run.last_began, &mut run.ended] {
                    *time = time.saturating_add_signed(by);
                }
            }
        }
        Self { journals, observed, skew: if one { 0 } else { skew } }
    }

    /// Asks the database what is there and judges.
    pub(crate) async fn judge(self, door: &Door) -> anyhow::Result<Report> {
        let verdicts = self.verdicts(door).await?;
        Ok(self.report(verdicts))
    }

    async fn verdicts(&self, door: &Door) -> anyhow::Result<Vec<Verdict>> {
        let session = door.open().await?;
        let mut verdicts = vec![Verdict::default(); self.journals.len()];
        for ((log, _), verdict) in self.journals.iter().zip(&mut verdicts) {
            let identity = &log.identity;
            *verdict = match (identity.mode, identity.workload) {
                (Mode::Read, _) | (_, Workload::Appends) => continue,
                (_, Workload::Rows) => {
                    verdict::compare(&log.attempts, &rows::counted(&session, identity).await?)
                }
                (_, Workload::Deletes) => {
                    verdict::deletes::compare(&log.attempts, &rows::counted(&session, identity).await?)
                }
                (_, Workload::Transfers) => verdict::transfers::compare(
                    &log.attempts,
                    identity.size,
                    &rows::transfers(&session, identity).await?,
                    &rows::ledger(&session, &identity.table).await?,
                ),
            };
        }
        let appends =
            |log: &Log| log.identity.workload == Workload::Appends && log.identity.mode != Mode::Read;
        let tables: BTreeSet<&str> = self
            .journals
            .iter()
            .filter(|(log, _)| appends(log))
            .map(|(log, _)| log.identity.table.as_str())
            .collect();
        for table in tables {
            let of_table = |log: &Log| appends(log) && log.identity.table == table;
            let logs: Vec<&Log> =
                self.journals.iter().map(|(log, _)| log).filter(|log| of_table(log)).collect();
            let names = logs.iter().enumerate().map(|(at, log)| (log.identity.writer.as_str(), at)).collect();
            let (lengths, entries) = rows::lists(&session, table, &names).await?;
            let of_logs = verdict::appends::compare(&logs, &lengths, entries, self.skew);
            let places = self.journals.iter().zip(&mut verdicts).filter(|((log, _), _)| of_table(log));
            for ((_, place), verdict) in places.zip(of_logs) {
                *place = verdict;
            }
        }
        Ok(verdicts)
    }

    /// Puts everything together; `verdicts` are those of the journals, in their order.
    pub(crate) fn report(self, mut verdicts: Vec<Verdict>) -> Report {
        let logs: Vec<&Log> = self.journals.iter().map(|(log, _)| log).collect();
        let members = members::judge(&logs, self.skew, &mut verdicts);
        let masters = observed::judge(&self.observed, self.skew);
        let writers: Vec<Judgement> = self
            .journals
            .iter()
            .zip(verdicts)
            .map(|((log, until), verdict)| Judgement {
                summary: summarise(&log.identity, &log.attempts, 0, *until),
                verdict,
            })
            .collect();
        let mut report = Report {
            clean: false,
            violations: Vec::new(),
            unjudged: Vec::new(),
            writers,
            longest_gaps: BTreeMap::new(),
            sqlstates: BTreeMap::new(),
            members,
            masters,
            observed: self.observed,
        };
        report.sum_up(self.skew);
        report
    }
}

impl Report {
    fn sum_up(&mut self, skew: u64) {
        for Judgement { summary, verdict } in &self.writers {
            for (what, count) in verdict.violations() {
                self.violations.push(format!("{}: {count} {what}", summary.identity.writer));
            }
            if summary.identity.mode == Mode::Read {
                continue;
            }
            let (mode, workload) = (summary.identity.mode.word(), summary.identity.workload);
            let kind = match workload {
                Workload::Rows => mode.to_owned(),
                other => format!("{} {mode}", other.word()),
            };
            let longest = self.longest_gaps.entry(kind).or_default();
            if summary.longest_gap.ms >= longest.ms {
                *longest = summary.longest_gap.clone();
            }
            for (code, count) in &summary.sqlstates {
                *self.sqlstates.entry(code.clone()).or_default() += count;
            }
        }
        self.violations
            .extend(self.members.at_once.iter().map(|pair| format!("two acknowledged at once: {pair}")));
        self.violations
            .extend(self.masters.at_once.iter().map(|pair| format!("two out of recovery at once: {pair}")));
        if self.members.unjudged > 0 {
            let count = self.members.unjudged;
            self.unjudged
                .push(format!("{count} acknowledgements that do not say by whom or on which timeline"));
        }
        if skew > 0 {
            self.unjudged.push(format!(
                "what happened within {} ms of each other in logs of different machines",
                skew / 1000
            ));
        }
        self.clean = self.violations.is_empty();
    }

    /// How many attempts of writers had this outcome.
    pub(crate) fn attempts(&self, outcome: Outcome) -> u64 {
        let writers = self.writers.iter().filter(|judged| judged.summary.identity.mode != Mode::Read);
        writers
            .map(|Judgement { summary, .. }| match outcome {
                Outcome::Ok => summary.ok,
                Outcome::Error => summary.error,
                Outcome::Unknown => summary.unknown,
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::examples::{acknowledged, attempt, log};

    fn at(mut log: Log, boot: &str, monotonic: u64, wall: u64) -> (Log, u64) {
        log.anchor = Anchor { boot: boot.to_owned(), monotonic, wall };
        let until = log.attempts.last().map_or(0, |last| last.ended);
        (log, until)
    }

    /// The second log began three seconds after the first, by a wall clock that had gone back by five.
    fn two(boot: &str) -> Logs {
        let first = log([acknowledged(1, 10_000, 1, 1), acknowledged(2, 11_000, 2, 2)]);
        let second = log([acknowledged(1, 7_500, 1, 1)]);
        let journals = vec![at(first, "one", 1_000_000, 10_000_000), at(second, boot, 4_000_000, 8_000_000)];
        Logs::new(journals, Vec::new(), 1_000_000)
    }

    #[test]
    fn logs_of_one_boot_are_compared_by_its_monotonic_clock() {
        let logs = two("one");
        assert_eq!((logs.skew, logs.journals[1].0.attempts[0].began), (0, 12_500_000));
        let report = logs.report(vec![Verdict::default(); 2]);
        assert!(!report.clean);
        assert_eq!(report.violations, ["w: 1 acknowledged by a superseded member"]);
    }

    #[test]
    fn logs_of_two_machines_are_compared_by_wall_time_and_a_margin() {
        let logs = two("other");
        assert_eq!((logs.skew, logs.journals[1].0.attempts[0].began), (1_000_000, 7_500_000));
        let report = logs.report(vec![Verdict::default(); 2]);
        assert!(report.clean && report.unjudged.len() == 1, "{report:?}");
    }

    #[test]
    fn any_violation_of_any_log_makes_it_unclean_and_the_longest_gap_is_that_of_the_kind() {
        let one = log([attempt(1, Outcome::Ok, 0), attempt(2, Outcome::Ok, 100)]);
        let mut other = log([attempt(1, Outcome::Ok, 0), attempt(2, Outcome::Ok, 300)]);
        other.identity.mode = Mode::Fresh;
        let logs =
            || Logs::new(vec![at(one.clone(), "b", 0, 0), at(other.clone(), "b", 0, 0)], Vec::new(), 0);
        let clean = logs().report(vec![Verdict::default(); 2]);
        assert!(clean.clean, "{clean:?}");
        let gaps: Vec<_> = clean.longest_gaps.iter().map(|(kind, gap)| (kind.as_str(), gap.ms)).collect();
        assert_eq!(gaps, [("fresh", 300), ("kept", 100)]);
        other.identity.workload = Workload::Transfers;
        let logs =
            || Logs::new(vec![at(one.clone(), "b", 0, 0), at(other.clone(), "b", 0, 0)], Vec::new(), 0);
        assert!(logs().report(vec![Verdict::default(); 2]).longest_gaps.contains_key("transfers fresh"));
        let broken = Verdict { unbalanced: 1, ..Verdict::default() };
        let report = logs().report(vec![Verdict::default(), broken]);
        assert_eq!((report.clean, report.violations.len()), (false, 1));
    }
}
