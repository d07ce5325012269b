//! The write-ahead log of one member: at most ten records, one unit of LSN each.
//!
//! A record is known by an id that is unique in the world, so that two logs agree where their ids agree; PostgreSQL
//! itself compares only timelines ([`Log::attaches_to`]). Everything written is flushed: what a member has not
//! flushed it has not received, since only the flush is ever told to anybody.

use std::fmt;

use ha::{Lsn, Position, Timeline};

/// How many records a log holds at most; a bound that needs more is told as such, never cut.
pub const CAPACITY: usize = 10;

/// One record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Entry {
    /// Unique in the world; renumbered in the canonical form.
    pub id: u8,
    /// The timeline that it was written on.
    pub timeline: u8,
}

/// A log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Log {
    len: u8,
    entries: [Entry; CAPACITY],
}

impl Log {
    /// The end of the log.
    pub const fn end(&self) -> u8 {
        self.len
    }

    /// The records in order.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.entries.iter().copied().take(usize::from(self.len))
    }

    /// The same, to renumber them.
    pub fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut().take(usize::from(self.len))
    }

    /// The record that begins at this position.
    pub fn after(&self, end: u8) -> Option<Entry> {
        self.entries().nth(usize::from(end))
    }

    /// The timeline of the last record.
    pub fn timeline(&self) -> u8 {
        self.entries().last().map_or(0, |entry| entry.timeline)
    }

    /// The end as a position.
    pub fn position(&self) -> Position {
        Position { timeline: Timeline(u32::from(self.timeline())), lsn: Lsn(u64::from(self.len)) }
    }

    /// Writes a record; false when there is no room.
    #[must_use]
    pub fn push(&mut self, entry: Entry) -> bool {
        let Some(free) = self.entries.get_mut(usize::from(self.len)) else { return false };
        *free = entry;
        self.len += 1;
        true
    }

    /// The first `end` records.
    #[must_use]
    pub fn prefix(&self, end: u8) -> Self {
        let mut prefix = Self::default();
        for entry in self.entries().take(usize::from(end)) {
            let _ = prefix.push(entry);
        }
        prefix
    }

    /// The length of the common beginning, by content.
    pub fn common(&self, other: &Self) -> u8 {
        let agree = self.entries().zip(other.entries()).take_while(|(one, two)| one.id == two.id);
        agree.fold(0, |n, _| n + 1)
    }

    /// Whether everything in `other` is in this log, in the same order.
    pub fn holds(&self, other: &Self) -> bool {
        self.common(other) == other.end()
    }

    /// Whether a standby with this log can stream from a server with that one, as far as PostgreSQL can tell.
    pub fn attaches_to(&self, upstream: &Self) -> bool {
        self.end() <= upstream.end()
            && self.entries().zip(upstream.entries()).all(|(one, two)| one.timeline == two.timeline)
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> =
            self.entries().map(|entry| format!("{}@{}", entry.id, entry.timeline)).collect();
        write!(f, "[{}]", texts.join(" "))
    }
}
