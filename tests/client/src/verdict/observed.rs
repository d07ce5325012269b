//! What the observers saw together: two members out of recovery at once, on one timeline or on two.
//!
//! On one timeline it breaks a promise, since a promotion always begins a new one. On two it is told and no more: a
//! member that was cut off is out of recovery until it is fenced, and harmless while it acknowledges nothing, which
//! [`super::members`] judges.

use std::collections::BTreeMap;

use serde::Serialize;

use super::members::{self, Span};
use crate::attempt::Member;
use crate::observer::observation::{Observed, Role};

/// Masters as they were seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Masters {
    /// Pairs of members that were out of recovery on one timeline at once.
    pub(crate) at_once: Vec<String>,
    /// How long two members were certainly out of recovery at once, on any timelines, in milliseconds.
    pub(crate) two_ms: u64,
}

/// Judges what all observers saw.
///
/// Times of different observers are compared only where they are more than `skew` microseconds apart.
pub(crate) fn judge(observed: &[Observed], skew: u64) -> Masters {
    let mut by_timeline: BTreeMap<u32, BTreeMap<Member, Span>> = BTreeMap::new();
    let mut stretches: Vec<(Member, u64, u64)> = Vec::new();
    for run in observed.iter().flat_map(|observed| &observed.runs) {
        let (Role::Master, Some(member)) = (run.seen.role, run.member()) else { continue };
        if run.first_ended.saturating_add(skew) < run.last_began {
            stretches.push((member, run.first_ended, run.last_began));
        }
        if let Some(timeline) = run.seen.timeline {
            let span = Span { first_ended: run.first_ended, last_began: run.last_began, count: run.looks };
            let reigns = by_timeline.entry(timeline).or_default();
            reigns.entry(member).and_modify(|known| known.add(span)).or_insert(span);
        }
    }
    Masters { at_once: members::at_once(&by_timeline, skew), two_ms: two(&stretches) / 1000 }
}

/// Microseconds during which stretches of at least two members run.
fn two(stretches: &[(Member, u64, u64)]) -> u64 {
    let mut edges: Vec<(u64, bool, Member)> = Vec::new();
    for (member, from, to) in stretches {
        edges.push((*from, true, *member));
        edges.push((*to, false, *member));
    }
    edges.sort_unstable();
    let mut open: BTreeMap<Member, u64> = BTreeMap::new();
    let (mut total, mut last) = (0, 0);
    for (at, begins, member) in edges {
        if open.len() > 1 {
            total += at - last;
        }
        last = at;
        let count = open.entry(member).or_default();
        *count = if begins { *count + 1 } else { count.saturating_sub(1) };
        open.retain(|_, count| *count > 0);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::observation::{Listener, Look, Run};

    fn seen(member: u8, timeline: u32, from: u64, to: u64) -> Observed {
        let look = Look {
            listener: Listener::Up,
            role: Role::Master,
            server: Some([10, 0, 0, member].into()),
            port: Some(5432),
            timeline: Some(timeline),
            code: None,
        };
        let run = Run {
            began: from * 1000 - 500,
            first_ended: from * 1000,
            last_began: to * 1000,
            ended: to * 1000 + 500,
            wall: 0,
            looks: 2,
            seen: look,
        };
        Observed { host: format!("pg-{member}"), anchor: crate::clock::Anchor::default(), runs: vec![run] }
    }

    #[test]
    fn one_master_after_the_other_is_clean() {
        let masters = judge(&[seen(1, 1, 10, 100), seen(2, 2, 110, 200)], 0);
        assert_eq!(masters, Masters::default());
    }

    #[test]
    fn a_member_that_was_cut_off_is_told_and_not_judged() {
        let masters = judge(&[seen(1, 1, 10, 100), seen(2, 2, 60, 200)], 0);
        assert_eq!((masters.two_ms, masters.at_once.len()), (40, 0));
    }

    #[test]
    fn two_masters_of_one_timeline_at_once_are_seen() {
        let masters = judge(&[seen(1, 4, 10, 100), seen(2, 4, 60, 200)], 0);
        assert_eq!(masters.at_once, ["10.0.0.1:5432 and 10.0.0.2:5432 on timeline 4 for 40 ms"]);
    }

    #[test]
    fn one_server_under_two_names_is_one() {
        assert_eq!(judge(&[seen(1, 1, 10, 100), seen(1, 1, 20, 90)], 0), Masters::default());
    }
}
