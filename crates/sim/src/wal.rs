//! The write-ahead log of one data directory: a list of records, one unit of LSN each.
//!
//! A crash of the process keeps what was written, a power cut only what was flushed (and by luck a part of the rest).

use ha::{Lsn, Position, Timeline};

/// One record. `id` is unique in the world, and each record knows the one before it: two logs that have one record in
/// common have everything before it in common, as long as nobody glues strange ends together (checked, I11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rec {
    /// Unique.
    pub id: u64,
    /// The record before it; 0 for the first.
    pub prev: u64,
    /// The timeline that it was written on.
    pub timeline: u32,
}

/// A log and how far it is safe against power cuts.
#[derive(Debug, Clone, Default)]
pub struct Wal {
    /// All valid records.
    pub records: Vec<Rec>,
    /// So many of them are flushed.
    pub flushed: usize,
}

impl Wal {
    /// The number of records: the end of the log.
    pub fn end(&self) -> usize {
        self.records.len()
    }

    /// The timeline of the last record.
    pub fn timeline(&self) -> Timeline {
        Timeline(self.records.last().map_or(0, |rec| rec.timeline))
    }

    /// Writes a record at the end.
    pub fn append(&mut self, id: u64, timeline: u32) {
        let prev = self.records.last().map_or(0, |rec| rec.id);
        self.records.push(Rec { id, prev, timeline });
    }

    /// The position of this end.
    pub fn position_of(&self, end: usize) -> Position {
        Position { timeline: Timeline(self.at(end).map_or(0, |rec| rec.timeline)), lsn: Lsn(end as u64) }
    }

    /// The end as a position.
    pub fn position(&self) -> Position {
        Position { timeline: self.timeline(), lsn: Lsn(self.end() as u64) }
    }

    /// The record that ends at this position.
    pub fn at(&self, end: usize) -> Option<Rec> {
        end.checked_sub(1).and_then(|index| self.records.get(index)).copied()
    }

    /// The length of the common beginning, by content.
    pub fn common(&self, other: &Self) -> usize {
        let agree =
            |at: usize| self.records.get(at).map(|rec| rec.id) == other.records.get(at).map(|rec| rec.id);
        let (mut low, mut high) = (0, self.end().min(other.end()));
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if agree(middle - 1) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        low
    }

    /// Whether a standby with this log can stream from a server with that one, as far as PostgreSQL can tell: by
    /// timelines, not by content.
    pub fn attaches_to(&self, upstream: &Self) -> bool {
        self.end() <= upstream.flushed
            && self.records.iter().zip(&upstream.records).all(|(one, two)| one.timeline == two.timeline)
    }
}
