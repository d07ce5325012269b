//! Whether a log can go on from the recorded leader's: a pure function over the record's history (§4 step 10, P12).
//!
//! A member whose log ends on the path of timelines that leads to the record's, at or before the place where that
//! path left its timeline, follows. Everything else is diverged. It never guesses in favour of following.

use crate::record::Record;
use crate::types::Position;

/// How a log stands to the leader's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    /// It is a prefix of what the leader's log began with, or on the leader's own timeline.
    InLine,
    /// It holds what the leader's has not, or the history does not reach back far enough to tell.
    Diverged,
    /// It is on a timeline above the record's: the record here is old.
    Ahead,
}

/// How a log that ends here stands to the log of the record's leader.
pub(super) fn relation(record: &Record, end: Position) -> Relation {
    if end.timeline > record.timeline {
        return Relation::Ahead;
    }
    let mut timeline = record.timeline;
    // Each step goes to a strictly lower timeline, so this ends.
    loop {
        if timeline == end.timeline {
            return Relation::InLine;
        }
        let fork = record
            .history
            .iter()
            .find(|entry| entry.timeline == timeline && entry.parent.is_some())
            .and_then(|entry| Some((entry.parent?, entry.fork_lsn?)));
        match fork {
            Some((parent, at)) if parent == end.timeline => {
                return if end.lsn <= at { Relation::InLine } else { Relation::Diverged };
            }
            Some((parent, _)) if parent < timeline => timeline = parent,
            _ => return Relation::Diverged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::HistoryEntry;
    use crate::types::{Epoch, Lsn, Timeline};

    fn record() -> Record {
        let entry = |epoch, timeline, fork: Option<(u32, u64)>| HistoryEntry {
            epoch: Epoch(epoch),
            timeline: Timeline(timeline),
            fork_lsn: fork.map(|(_, at)| Lsn(at)),
            parent: fork.map(|(parent, _)| Timeline(parent)),
        };
        let mut record = Record::uninitialised("u");
        record.timeline = Timeline(5);
        // 3 was won and came to nothing: 4 left 2.
        record.history = vec![
            entry(1, 1, None),
            entry(2, 2, Some((1, 100))),
            entry(3, 3, Some((2, 200))),
            entry(4, 4, Some((2, 150))),
            entry(5, 4, None),
            entry(6, 5, Some((4, 300))),
        ];
        record
    }

    #[test]
    fn p12_only_a_log_on_the_path_below_the_fork_follows() {
        use Relation::{Ahead, Diverged, InLine};
        for (timeline, lsn, expected) in [
            (5, 999, InLine),
            (4, 300, InLine),
            (4, 301, Diverged),
            (3, 140, Diverged),
            (2, 150, InLine),
            (2, 151, Diverged),
            (1, 100, InLine),
            (1, 120, Diverged),
            (6, 1, Ahead),
        ] {
            let end = Position { timeline: Timeline(timeline), lsn: Lsn(lsn) };
            assert_eq!(relation(&record(), end), expected, "{end}");
        }
    }

    #[test]
    fn forgotten_history_is_never_taken_for_agreement() {
        let mut record = record();
        record.history.drain(..5);
        assert_eq!(relation(&record, Position { timeline: Timeline(2), lsn: Lsn(1) }), Relation::Diverged);
    }
}
