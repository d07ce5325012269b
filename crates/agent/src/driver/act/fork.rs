//! Where a member's log leaves the leader's, by the record's history alone.

use ha::{Lsn, Position, Record, Timeline};

/// The last position that a log on `mine` may share with the recorded leader's; none when the history does not reach
/// back that far, or when it is the leader's own timeline.
pub(super) fn fork(record: &Record, mine: Timeline) -> Option<Position> {
    let parent = |of: Timeline| -> Option<(Timeline, Lsn)> {
        let entry = record.history.iter().rev().find(|it| it.timeline == of && it.parent.is_some())?;
        Some((entry.parent?, entry.fork_lsn?))
    };
    let (mut own, mut bound) = (mine, Lsn(u64::MAX));
    // Each step goes to an older timeline; the history is bounded.
    for _ in 0..=record.history.len() {
        let mut leaders = record.timeline;
        for _ in 0..=record.history.len() {
            if leaders == own {
                // Ours left this timeline, which the leader is still on.
                return (own != mine).then_some(Position { timeline: own, lsn: bound });
            }
            let Some((older, at)) = parent(leaders) else { break };
            if older == own {
                return Some(Position { timeline: own, lsn: at.min(bound) });
            }
            leaders = older;
        }
        let (older, at) = parent(own)?;
        (own, bound) = (older, at.min(bound));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::super::fixtures::record;
    use super::*;

    fn with(terms: &[(u32, u32, u64)]) -> Record {
        let mut record = record(0, 1);
        for (timeline, parent, at) in terms {
            record.epoch = record.epoch.next();
            (record.timeline, record.fork_lsn) = (Timeline(*timeline), Some(Lsn(*at)));
            record.remember_term(Some(Timeline(*parent)));
        }
        record
    }

    fn at(timeline: u32, lsn: u64) -> Position {
        Position { timeline: Timeline(timeline), lsn: Lsn(lsn) }
    }

    #[test]
    fn the_fork_is_where_the_leaders_line_left_ours_or_ours_left_its() {
        let line = with(&[(2, 1, 500), (3, 2, 900)]);
        assert_eq!(fork(&line, Timeline(1)), Some(at(1, 500)));
        assert_eq!(fork(&line, Timeline(2)), Some(at(2, 900)));
        assert_eq!(fork(&line, Timeline(3)), None, "the same timeline");
        // 2 was promoted from 1 and came to nothing: 3 left 1 too, later or earlier.
        assert_eq!(fork(&with(&[(2, 1, 500), (3, 1, 700)]), Timeline(2)), Some(at(1, 500)));
        assert_eq!(fork(&with(&[(2, 1, 500), (3, 1, 300)]), Timeline(2)), Some(at(1, 300)));
        assert_eq!(fork(&line, Timeline(9)), None, "unknown");
    }
}
