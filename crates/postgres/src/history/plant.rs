//! Planted history files: how a promotion is made to choose timeline T (P11, I11).
//!
//! Decides which files: every missing id from the current timeline + 1 to T − 1, each with the full parent history and
//! the member's own end as its fork. PostgreSQL takes the id after the highest that it finds without a gap. Must never
//! plant before the list is durable in the promise, nor leave a planted file behind for a start or a follow unless the
//! promotion to T completed. Proved by `tests` and `tests/servers/life.rs`.
//!
//! A startup process that notices the files before it is told to promote makes the highest one the parent of T. Whoever
//! stands behind the end then streams its last segment from the parent's file of that segment: so the highest id gets
//! one, with what the segment holds up to the end. Files are planted from the highest down, so that no other can be
//! noticed. `tests/differential` shows it on servers.

use std::io;
use std::path::{Path, PathBuf};

use ha::{Position, Timeline};

use super::{History, HistoryError, file_name};
use crate::durable::{self, DurableError};
use crate::wal::SegmentSize;

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
    /// The log's directory cannot be listed, or a segment not be read.
    #[error("cannot read {}", path.display())]
    Segment {
        /// What.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
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
    if let Some(highest) = planned.iter().max() {
        plant_segment(wal, end, *highest)?;
    }
    let mut falling = planned.to_vec();
    falling.sort_unstable_by(|one, other| other.cmp(one));
    for timeline in falling {
        let history = parent.child(timeline, end.lsn);
        durable::write(&wal.join(file_name(timeline)), history.render().as_bytes(), 0o600)?;
    }
    Ok(())
}

/// The segment that holds the end, up to the end, as a segment of this timeline: what a real switch leaves. None when
/// the end is a segment's beginning, or when this member has not got the segment: then nobody can stream it from here.
fn plant_segment(wal: &Path, end: Position, timeline: Timeline) -> Result<(), PlantError> {
    let Some((size, _)) = segments(wal)?.first().cloned() else { return Ok(()) };
    let rest = end.lsn.0 - size.start(end.lsn).0;
    let source = wal.join(size.file_name(end.timeline, end.lsn));
    if rest == 0 || !source.exists() {
        return Ok(());
    }
    let mut content =
        std::fs::read(&source).map_err(|error| PlantError::Segment { path: source, source: error })?;
    if let Some(beyond) = usize::try_from(rest).ok().and_then(|rest| content.get_mut(rest..)) {
        beyond.fill(0);
    }
    durable::write(&wal.join(size.file_name(timeline, end.lsn)), &content, 0o600)?;
    Ok(())
}

/// Every whole segment, with its size and its name.
fn segments(wal: &Path) -> Result<Vec<(SegmentSize, String)>, PlantError> {
    let failed = |source| PlantError::Segment { path: wal.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(wal).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        let Some(size) = SegmentSize::new(entry.metadata().map_err(failed)?.len()) else { continue };
        if size.parse_file_name(&name).is_some() {
            found.push((size, name));
        }
    }
    Ok(found)
}

/// Removes planted files again, durably, and planted segments; those already gone are no error. Nobody ever writes a
/// record on a planted timeline. To be called before any start or follow
/// unless the promotion completed, then the list is cleared in the promise.
pub fn uproot(wal: &Path, planted: &[Timeline]) -> Result<(), PlantError> {
    // From the lowest up: the highest must not be noticed without its segment.
    for timeline in planted {
        durable::remove(&wal.join(file_name(*timeline)))?;
    }
    for (size, name) in segments(wal)? {
        if size.parse_file_name(&name).is_some_and(|(timeline, _)| planted.contains(&timeline)) {
            durable::remove(&wal.join(name))?;
        }
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
    fn p11_the_highest_id_gets_the_last_segment_up_to_the_end() {
        let wal = tempfile::tempdir().unwrap();
        let wal = wal.path();
        let size = 1 << 20;
        let own = wal.join("000000010000000000000002");
        std::fs::write(&own, vec![7; size]).unwrap();
        let planned = plan(wal, Timeline(1), Timeline(4)).unwrap();
        plant(wal, Position { timeline: Timeline(1), lsn: Lsn((2 << 20) + 1000) }, &planned).unwrap();
        let segment = std::fs::read(wal.join("000000030000000000000002")).unwrap();
        assert_eq!(segment.len(), size);
        assert!(
            segment[..1000].iter().all(|byte| *byte == 7) && segment[1000..].iter().all(|byte| *byte == 0)
        );
        assert!(!wal.join("000000020000000000000002").exists());
        uproot(wal, &planned).unwrap();
        assert_eq!(std::fs::read_dir(wal).unwrap().count(), 1);
        assert!(own.exists());
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
