//! Which member acknowledged when, on which timeline: never two at once, and none after it was superseded.
//!
//! A promotion always begins a timeline of its own, so a timeline stands for a term. Two findings, both proved by times of
//! one clock: an attempt that *began* after another member had acknowledged on a later timeline and was acknowledged all
//! the same is stale; and two members whose acknowledgements of one timeline lie between each other's rule at once. An
//! acknowledgement without server or timeline proves nothing and is counted as such.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Verdict;
use crate::attempt::{Member, Mode};
use crate::journal::Log;
use crate::outcome::Outcome;

/// When a member certainly did something for the first and for the last time.
///
/// It did so within each pair of times; so at the earliest end it had, and at the latest beginning it still would.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// The earliest end.
    pub(crate) first_ended: u64,
    /// The latest beginning.
    pub(crate) last_began: u64,
    /// How often.
    pub(crate) count: u64,
}

impl Span {
    /// Once, between these times.
    pub(crate) fn of(began: u64, ended: u64) -> Self {
        Self { first_ended: ended, last_began: began, count: 1 }
    }

    /// Adds to it.
    pub(crate) fn add(&mut self, other: Self) {
        self.first_ended = self.first_ended.min(other.first_ended);
        self.last_began = self.last_began.max(other.last_began);
        self.count += other.count;
    }

    /// Microseconds for which both certainly went on at once; none when one may have ended before the other began.
    pub(crate) fn overlap(&self, other: &Self, skew: u64) -> Option<u64> {
        let begin = self.first_ended.max(other.first_ended);
        let end = self.last_began.min(other.last_began);
        let interleaved = self.first_ended.saturating_add(skew) < other.last_began
            && other.first_ended.saturating_add(skew) < self.last_began;
        interleaved.then(|| end.saturating_sub(begin))
    }
}

/// One member's acknowledgements on one timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Reign {
    /// The timeline.
    pub(crate) timeline: u32,
    /// The member.
    pub(crate) member: String,
    /// How many attempts it acknowledged.
    pub(crate) acknowledged: u64,
    /// When the first acknowledgement arrived, in microseconds since 1970.
    pub(crate) first_ended: u64,
    /// When the last acknowledged attempt began.
    pub(crate) last_began: u64,
}

/// Who acknowledged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Members {
    /// By timeline and member.
    pub(crate) reigns: Vec<Reign>,
    /// Pairs of members that acknowledged on one timeline at once.
    pub(crate) at_once: Vec<String>,
    /// Acknowledgements whose server or timeline nobody knows.
    pub(crate) unjudged: u64,
}

type Spans = BTreeMap<u32, BTreeMap<Member, Span>>;

/// Judges all logs together; adds what is stale to the verdict of the log that has it.
///
/// Times of different logs are compared only where they are more than `skew` microseconds apart.
pub(crate) fn judge(logs: &[&Log], skew: u64, verdicts: &mut [Verdict]) -> Members {
    let mut members = Members::default();
    let mut spans = Spans::new();
    for attempt in logs.iter().filter(|log| log.identity.mode != Mode::Read).flat_map(|log| &log.attempts) {
        if attempt.outcome != Outcome::Ok {
            continue;
        }
        let (Some(member), Some(timeline)) = (attempt.member(), attempt.timeline) else {
            members.unjudged += 1;
            continue;
        };
        let span = Span::of(attempt.began, attempt.ended);
        let reigns = spans.entry(timeline).or_default();
        reigns.entry(member).and_modify(|known| known.add(span)).or_insert(span);
    }
    let superseded = superseded(&spans);
    for (log, verdict) in logs.iter().zip(verdicts) {
        stale(log, &superseded, skew, verdict);
    }
    members.at_once = at_once(&spans, skew);
    for (timeline, reigns) in &spans {
        members.reigns.extend(reigns.iter().map(|(member, span)| Reign {
            timeline: *timeline,
            member: member.to_string(),
            acknowledged: span.count,
            first_ended: span.first_ended,
            last_began: span.last_began,
        }));
    }
    members
}

/// For each timeline, when the first acknowledgement on a later one arrived.
fn superseded(spans: &Spans) -> BTreeMap<u32, u64> {
    let mut first = u64::MAX;
    let mut at = BTreeMap::new();
    for (timeline, reigns) in spans.iter().rev() {
        at.insert(*timeline, first);
        first = reigns.values().map(|span| span.first_ended).min().unwrap_or(u64::MAX).min(first);
    }
    at
}

fn stale(log: &Log, superseded: &BTreeMap<u32, u64>, skew: u64, verdict: &mut Verdict) {
    for attempt in log.attempts.iter().filter(|attempt| attempt.outcome == Outcome::Ok) {
        let Some(&since) = attempt.timeline.and_then(|timeline| superseded.get(&timeline)) else { continue };
        if attempt.server.is_some() && attempt.began > since.saturating_add(skew) {
            verdict.stale += 1;
            verdict.stale_ms = verdict.stale_ms.max(attempt.ended.saturating_sub(since) / 1000);
            verdict.note("acknowledged by a superseded member", attempt.n);
        }
    }
}

/// Pairs of members on one timeline that went on at once, in words.
pub(crate) fn at_once(spans: &Spans, skew: u64) -> Vec<String> {
    let mut pairs = Vec::new();
    for (timeline, reigns) in spans {
        for (index, (one, its)) in reigns.iter().enumerate() {
            for (other, others) in reigns.iter().skip(index + 1) {
                if let Some(overlap) = its.overlap(others, skew) {
                    pairs.push(format!("{one} and {other} on timeline {timeline} for {} ms", overlap / 1000));
                }
            }
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::super::examples::{acknowledged, attempt, log};
    use super::*;

    fn judged(logs: &[&Log], skew: u64) -> (Members, Vec<Verdict>) {
        let mut verdicts = vec![Verdict::default(); logs.len()];
        let members = judge(logs, skew, &mut verdicts);
        (members, verdicts)
    }

    #[test]
    fn a_failover_and_one_back_are_clean() {
        let one = log([
            acknowledged(1, 0, 1, 1),
            acknowledged(2, 10, 2, 2),
            attempt(3, Outcome::Error, 20),
            acknowledged(4, 30, 1, 3),
        ]);
        // It began before the other member acknowledged, so it may have been committed before that.
        let slow = log([crate::attempt::Attempt { ended: 12_000, ..acknowledged(1, 9, 1, 1) }]);
        let (members, verdicts) = judged(&[&one, &slow], 0);
        assert!(
            members.at_once.is_empty() && verdicts.iter().all(Verdict::is_clean),
            "{members:?} {verdicts:?}"
        );
        assert_eq!(members.reigns.len(), 3);
    }

    #[test]
    fn an_isolated_member_that_goes_on_is_stale() {
        let fresh = log([acknowledged(1, 0, 1, 1), acknowledged(2, 100, 2, 2)]);
        let pinned = log([acknowledged(1, 50, 1, 1), acknowledged(2, 150, 1, 1), acknowledged(3, 400, 1, 1)]);
        let (members, verdicts) = judged(&[&fresh, &pinned], 0);
        assert!(verdicts[0].is_clean(), "{:?}", verdicts[0]);
        assert_eq!(verdicts[1].violations(), [("acknowledged by a superseded member", 2)]);
        assert_eq!(verdicts[1].stale_ms, 300);
        assert!(members.at_once.is_empty(), "not on one timeline");
        assert!(judged(&[&fresh, &pinned], 1_000_000).1[1].is_clean(), "clocks that far apart prove nothing");
    }

    #[test]
    fn two_members_that_acknowledge_on_one_timeline_at_once_are_seen() {
        let one = log([acknowledged(1, 0, 1, 5), acknowledged(2, 20, 1, 5)]);
        let other = log([acknowledged(1, 10, 2, 5)]);
        assert_eq!(
            judged(&[&one, &other], 0).0.at_once,
            ["10.0.0.1:5432 and 10.0.0.2:5432 on timeline 5 for 0 ms"]
        );
        let after = log([acknowledged(1, 30, 2, 5)]);
        assert!(judged(&[&one, &after], 0).0.at_once.is_empty(), "one after the other: its address changed");
    }

    #[test]
    fn who_does_not_say_who_it_is_is_not_judged() {
        let (members, verdicts) = judged(&[&log([attempt(1, Outcome::Ok, 0)])], 0);
        assert_eq!((members.unjudged, members.reigns.len()), (1, 0));
        assert!(verdicts[0].is_clean());
    }
}
