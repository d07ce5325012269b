//! `pg_controldata`: what a data directory says of itself, running or not.
//!
//! Decides nothing; reads. A field that is missing or unreadable is an error, never a zero. Proved by `tests` and by
//! every integration test.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ha::{Lsn, Position, Timeline};

use crate::binaries::Binaries;
use crate::process::{Program, ProgramError};
use crate::wal::{PAGE, SegmentSize};

/// `Database cluster state`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterState {
    /// Made by initdb or starting.
    StartingUp,
    /// A master that was stopped cleanly.
    ShutDown,
    /// A standby that was stopped cleanly.
    ShutDownInRecovery,
    /// A stop that did not end.
    ShuttingDown,
    /// Crash recovery that did not end.
    InCrashRecovery,
    /// A standby, running or killed.
    InArchiveRecovery,
    /// A master, running or killed.
    InProduction,
    /// A word of a newer PostgreSQL.
    Other(String),
}

impl ClusterState {
    /// Stopped cleanly, as master or as standby.
    pub fn is_clean(&self) -> bool {
        matches!(self, Self::ShutDown | Self::ShutDownInRecovery)
    }

    /// In recovery when it ran last.
    pub fn is_standby(&self) -> bool {
        matches!(self, Self::ShutDownInRecovery | Self::InArchiveRecovery)
    }

    fn parse(text: &str) -> Self {
        match text {
            "starting up" => Self::StartingUp,
            "shut down" => Self::ShutDown,
            "shut down in recovery" => Self::ShutDownInRecovery,
            "shutting down" => Self::ShuttingDown,
            "in crash recovery" => Self::InCrashRecovery,
            "in archive recovery" => Self::InArchiveRecovery,
            "in production" => Self::InProduction,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// The control file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlData {
    /// The same in every copy of one cluster.
    pub system_identifier: u64,
    /// What it was doing last.
    pub state: ClusterState,
    /// *Start* of the latest checkpoint record (P23).
    pub checkpoint: Lsn,
    /// Where recovery from that checkpoint begins.
    pub redo: Lsn,
    /// Timeline of the latest checkpoint. Follows a promotion only with its first checkpoint (P22).
    pub timeline: Timeline,
    /// How far a standby must recover before it is consistent; none when zero.
    pub minimum_recovery_end: Option<Position>,
    /// Bytes of a WAL segment.
    pub segment: SegmentSize,
    /// Data checksums are on.
    pub checksums: bool,
    /// Hint bits are logged (P22).
    pub wal_log_hints: bool,
    /// P19: the last master's values, by the names of their parameters.
    pub standby_floors: BTreeMap<String, u64>,
}

/// Why the control file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ControlDataError {
    /// The program failed.
    #[error("cannot read the control file")]
    Run(#[from] ProgramError),
    /// A field is missing or not what it should be.
    #[error("pg_controldata does not say {field}: {value:?}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it said, if anything.
        value: Option<String>,
    },
}

/// Reads a data directory's control file. Safe while a server runs on it.
pub async fn read(
    binaries: &Binaries,
    data: &Path,
    bound: Duration,
) -> Result<ControlData, ControlDataError> {
    let program = Program::new(binaries.program("pg_controldata")).option("-D", data);
    let finished = program.run(bound, |_| {}).await?;
    parse(&String::from_utf8_lossy(&finished.stdout))
}

/// The fields of `pg_controldata`'s output in the C locale.
pub fn parse(text: &str) -> Result<ControlData, ControlDataError> {
    let fields: BTreeMap<&str, &str> =
        text.lines().filter_map(|l| l.split_once(':')).map(|(k, v)| (k.trim(), v.trim())).collect();
    let wrong = |field| ControlDataError::Field { field, value: fields.get(field).map(|v| (*v).to_owned()) };
    let get = |field: &'static str| fields.get(field).copied().ok_or_else(|| wrong(field));
    let lsn = |field| get(field)?.parse::<Lsn>().map_err(|_| wrong(field));
    let number = |field| get(field)?.parse::<u64>().map_err(|_| wrong(field));
    let timeline = |field| get(field)?.parse::<u32>().map(Timeline).map_err(|_| wrong(field));

    if number("WAL block size")? != PAGE {
        return Err(wrong("WAL block size"));
    }
    let minimum = lsn("Minimum recovery ending location")?;
    let minimum_recovery_end = if minimum == Lsn(0) {
        None
    } else {
        Some(Position { timeline: timeline("Min recovery ending loc's timeline")?, lsn: minimum })
    };
    let mut standby_floors = BTreeMap::new();
    for (parameter, field) in [
        ("max_connections", "max_connections setting"),
        ("max_worker_processes", "max_worker_processes setting"),
        ("max_wal_senders", "max_wal_senders setting"),
        ("max_prepared_transactions", "max_prepared_xacts setting"),
        ("max_locks_per_transaction", "max_locks_per_xact setting"),
    ] {
        standby_floors.insert(parameter.to_owned(), number(field)?);
    }
    Ok(ControlData {
        system_identifier: number("Database system identifier")?,
        state: ClusterState::parse(get("Database cluster state")?),
        checkpoint: lsn("Latest checkpoint location")?,
        redo: lsn("Latest checkpoint's REDO location")?,
        timeline: timeline("Latest checkpoint's TimeLineID")?,
        minimum_recovery_end,
        segment: SegmentSize::new(number("Bytes per WAL segment")?)
            .ok_or_else(|| wrong("Bytes per WAL segment"))?,
        checksums: number("Data page checksum version")? != 0,
        wal_log_hints: get("wal_log_hints setting")? == "on",
        standby_floors,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
Database system identifier:           7415519362331337101
Database cluster state:               in archive recovery
Latest checkpoint location:           0/3000060
Latest checkpoint's REDO location:    0/3000028
Latest checkpoint's TimeLineID:       2
Minimum recovery ending location:     0/30000D8
Min recovery ending loc's timeline:   2
wal_log_hints setting:                on
max_connections setting:              100
max_worker_processes setting:         16
max_wal_senders setting:              20
max_prepared_xacts setting:           0
max_locks_per_xact setting:           64
WAL block size:                       8192
Bytes per WAL segment:                16777216
Data page checksum version:           1
";

    #[test]
    fn the_control_file_is_read() {
        let control = parse(SAMPLE).unwrap();
        assert_eq!(control.state, ClusterState::InArchiveRecovery);
        assert_eq!(control.timeline, Timeline(2));
        assert_eq!(
            control.minimum_recovery_end,
            Some(Position { timeline: Timeline(2), lsn: Lsn(0x0300_00D8) })
        );
        assert!(control.checksums && control.wal_log_hints);
        assert_eq!(control.standby_floors.get("max_wal_senders"), Some(&20));
    }

    #[test]
    fn a_missing_field_is_an_error_not_a_zero() {
        let text = SAMPLE.replace("Latest checkpoint's TimeLineID:       2\n", "");
        assert!(matches!(
            parse(&text),
            Err(ControlDataError::Field { field: "Latest checkpoint's TimeLineID", value: None })
        ));
    }
}
