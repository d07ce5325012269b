//! Planted history files: how a promotion is made to choose timeline T (P11, I11).
//!
//! Decides which files: every missing id from the current timeline + 1 to T − 1, each with the full parent history and
//! the member's own end as its fork. PostgreSQL takes the id after the highest that it finds without a gap. Must never
//! plant before the list is durable in the promise, nor leave a planted file behind for a start or a follow unless the
//! promotion to T completed. Proved by `tests` and `tests/servers/life.rs`.

use std::path::Path;

use ha::{Position, Timeline};

use super::{History, HistoryError, file_name};
use crate::durable::{self, DurableError};

/// Why timeline T cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PlantError {
    /// T is not above the current timeline.
    #[error("timeline {target} is not above {current}")]
    NotAbove {
        /// The timeline that is replayed.
        current: Timeline,
        /// The one that is wanted.
        target: Timeline,
    },
    /// More ids lie between than any sane history has.
    #[error("{0} timelines would have to be planted")]
    TooMany(u32),
    /// T or a higher id is in use: PostgreSQL would choose another.
    #[error("there is a history file of timeline {0} already")]
    Taken(Timeline),
    /// The current timeline's own history is missing.
    #[error("there is no history file of the current timeline {0}")]
    NoHistory(Timeline),
    /// A history cannot be read.
    #[error("cannot read a history")]
    Read(#[from] HistoryError),
    /// A file cannot be written or removed durably.
    #[error("cannot plant a history")]
    Write(#[from] DurableError),
}

/// The most ids that are planted at once: each is one file that every follower fetches.
pub const MOST: u32 = 10_000;

/// The ids that must be planted for a promotion from `current` to `target`, to be stored in the promise first.
pub fn plan(wal: &Path, current: Timeline, target: Timeline) -> Result<Vec<Timeline>, PlantError> {
    if target <= current {
        return Err(PlantError::NotAbove { current, target });
    }
    let count = target.0 - current.0 - 1;
    if count > MOST {
        return Err(PlantError::TooMany(count));
    }
    if wal.join(file_name(target)).exists() {
        return Err(PlantError::Taken(target));
    }
    // A file of an earlier leader, fetched by this member, is as good as ours and stays.
    Ok((current.0 + 1..target.0).map(Timeline).filter(|t| !wal.join(file_name(*t)).exists()).collect())
}

/// Writes the planned files, each durably. `end` is the member's own end, on the timeline that it replays.
pub fn plant(wal: &Path, end: Position, planned: &[Timeline]) -> Result<(), PlantError> {
    let parent = History::load(wal, end.timeline)?.ok_or(PlantError::NoHistory(end.timeline))?;
    for timeline in planned {
        let history = parent.child(*timeline, end.lsn);
        durable::write(&wal.join(file_name(*timeline)), history.render().as_bytes(), 0o600)?;
    }
    Ok(())
}

/// Removes planted files again, durably; those already gone are no error. To be called before any start or follow
/// unless the promotion completed, then the list is cleared in the promise.
pub fn uproot(wal: &Path, planted: &[Timeline]) -> Result<(), PlantError> {
    for timeline in planted {
        durable::remove(&wal.join(file_name(*timeline)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ha::Lsn;

    #[test]
    fn p11_every_missing_id_is_planted_with_the_full_history() {
        let wal = tempfile::tempdir().unwrap();
        let wal = wal.path();
        std::fs::write(wal.join("00000003.history"), "1\t0/100\ta\n2\t0/200\tb\n").unwrap();
        std::fs::write(wal.join("00000005.history"), "1\t0/100\ta\n3\t0/280\tfetched\n").unwrap();
        let planned = plan(wal, Timeline(3), Timeline(8)).unwrap();
        assert_eq!(planned, [Timeline(4), Timeline(6), Timeline(7)]);
        let end = Position { timeline: Timeline(3), lsn: Lsn(0x300) };
        plant(wal, end, &planned).unwrap();
        let seventh = History::load(wal, Timeline(7)).unwrap().unwrap();
        assert_eq!(seventh.fork_of(Timeline(3)), Some(Lsn(0x300)));
        assert_eq!(seventh.fork_of(Timeline(1)), Some(Lsn(0x100)));
        uproot(wal, &planned).unwrap();
        uproot(wal, &planned).unwrap();
        assert!(wal.join("00000005.history").exists() && !wal.join("00000006.history").exists());
    }

    #[test]
    fn i11_a_taken_or_lower_timeline_is_refused() {
        let wal = tempfile::tempdir().unwrap();
        std::fs::write(wal.path().join("00000003.history"), "1\t0/1\t\n").unwrap();
        assert!(matches!(plan(wal.path(), Timeline(1), Timeline(3)), Err(PlantError::Taken(Timeline(3)))));
        assert!(matches!(plan(wal.path(), Timeline(3), Timeline(3)), Err(PlantError::NotAbove { .. })));
        assert!(matches!(plan(wal.path(), Timeline(1), Timeline(20_000)), Err(PlantError::TooMany(_))));
        assert_eq!(plan(wal.path(), Timeline(1), Timeline(2)).unwrap(), []);
    }
}
