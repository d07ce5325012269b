//! Timeline history: where timelines forked, and whether a log belongs to another's past.
//!
//! Decides follow or rewind (§4 step 10, P12) from history and position alone, never from what a tool says. Must never
//! call a diverged log a prefix. Proved by `tests` and `tests/servers/life.rs`.

pub mod plant;

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use ha::{Lsn, Position, Timeline};

/// One ancestor: this timeline up to, and without, that position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// The ancestor.
    pub timeline: Timeline,
    /// Where its successor forked off.
    pub at: Lsn,
}

/// A timeline and its ancestors, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The timeline itself.
    pub timeline: Timeline,
    /// Its ancestors; empty for timeline 1.
    pub ancestors: Vec<Fork>,
}

/// How one log stands to another timeline's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// It is a prefix: it can follow by streaming.
    Prefix,
    /// It has WAL that the other lacks, from this position on: it must rewind.
    Diverged {
        /// The end of what both share; none when no common timeline is known.
        common: Option<Lsn>,
    },
}

/// Why there is no history.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A line is not `timeline, position, reason`, or the order is wrong.
    #[error("line {line} of the history of timeline {timeline} is not one: {text:?}")]
    Line {
        /// Of which timeline.
        timeline: Timeline,
        /// Which line, from 1.
        line: usize,
        /// What it says.
        text: String,
    },
}

/// `0000000N.history`.
pub fn file_name(timeline: Timeline) -> String {
    format!("{:08X}.history", timeline.0)
}

impl History {
    /// The first timeline, which has no file.
    pub fn first() -> Self {
        Self { timeline: Timeline(1), ancestors: Vec::new() }
    }

    /// Reads a file's content: `parent timeline, tab, switch point, tab, reason`, comments and blank lines ignored.
    pub fn parse(timeline: Timeline, text: &str) -> Result<Self, HistoryError> {
        let mut ancestors: Vec<Fork> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let wrong = || HistoryError::Line { timeline, line: index + 1, text: line.to_owned() };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = line.split_whitespace();
            let (Some(id), Some(at)) = (words.next(), words.next()) else { return Err(wrong()) };
            let fork = Fork {
                timeline: Timeline(id.parse().map_err(|_| wrong())?),
                at: at.parse().map_err(|_| wrong())?,
            };
            let ordered = ancestors.last().is_none_or(|last| last.timeline < fork.timeline);
            if !ordered || fork.timeline >= timeline {
                return Err(wrong());
            }
            ancestors.push(fork);
        }
        Ok(Self { timeline, ancestors })
    }

    /// The file of this timeline in a `pg_wal` directory; none when there is no such file (timeline 1 has none).
    pub fn load(wal: &Path, timeline: Timeline) -> Result<Option<Self>, HistoryError> {
        if timeline == Timeline(1) {
            return Ok(Some(Self::first()));
        }
        let path = wal.join(file_name(timeline));
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(timeline, &text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(HistoryError::Read { path, source }),
        }
    }

    /// The file's content.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for fork in &self.ancestors {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{}\t{}\tforked off", fork.timeline, fork.at);
        }
        out
    }

    /// The history of a timeline that forks off this one at `at`.
    #[must_use]
    pub fn child(&self, timeline: Timeline, at: Lsn) -> Self {
        let mut ancestors = self.ancestors.clone();
        ancestors.push(Fork { timeline: self.timeline, at });
        Self { timeline, ancestors }
    }

    /// Where this history left `timeline`: none for itself (it has no end), and for a stranger.
    pub fn fork_of(&self, timeline: Timeline) -> Option<Lsn> {
        self.ancestors.iter().find(|f| f.timeline == timeline).map(|f| f.at)
    }

    /// Whether a log that ends at `end` is a prefix of this timeline (P12).
    ///
    /// `own` is that log's own history, used only to name the common end; the answer does not depend on it.
    pub fn relation_of(&self, end: Position, own: Option<&History>) -> Relation {
        if end.timeline == self.timeline {
            return Relation::Prefix;
        }
        match self.fork_of(end.timeline) {
            Some(fork) if end.lsn <= fork => Relation::Prefix,
            Some(fork) => Relation::Diverged { common: Some(fork) },
            None => Relation::Diverged { common: own.and_then(|own| self.common_end(own)) },
        }
    }

    /// The end of the last timeline that both histories share.
    pub fn common_end(&self, other: &History) -> Option<Lsn> {
        self.common_position(other).map(|position| position.lsn)
    }

    /// The last position that both histories share: on the last timeline that both have been on, where the first of
    /// them left it. None when they share none.
    pub fn common_position(&self, other: &History) -> Option<Position> {
        let shared = |timeline: Timeline| {
            let leave = |h: &History| {
                if h.timeline == timeline { Some(Lsn(u64::MAX)) } else { h.fork_of(timeline) }
            };
            Some(Position { timeline, lsn: leave(self)?.min(leave(other)?) })
        };
        let mut timelines: Vec<Timeline> = self.ancestors.iter().map(|f| f.timeline).collect();
        timelines.push(self.timeline);
        timelines.into_iter().rev().find_map(shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(timeline: u32, forks: &[(u32, u64)]) -> History {
        let ancestors = forks.iter().map(|(t, at)| Fork { timeline: Timeline(*t), at: Lsn(*at) }).collect();
        History { timeline: Timeline(timeline), ancestors }
    }

    fn at(timeline: u32, lsn: u64) -> Position {
        Position { timeline: Timeline(timeline), lsn: Lsn(lsn) }
    }

    #[test]
    fn files_are_read_as_postgres_writes_them() {
        let text = "1\t0/3000108\tno recovery target specified\n\n# c\n2\t0/5000000\tx y\n";
        let parsed = History::parse(Timeline(4), text).unwrap();
        assert_eq!(parsed, history(4, &[(1, 0x0300_0108), (2, 0x0500_0000)]));
        assert_eq!(History::parse(Timeline(4), &parsed.render()).unwrap(), parsed);
        for bad in ["1", "x\t0/1\t", "1\tx\t", "2\t0/1\t\n1\t0/2\t", "4\t0/1\tself"] {
            assert!(History::parse(Timeline(4), bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn p12_ahead_of_the_fork_is_diverged_and_up_to_it_a_prefix() {
        let leader = history(3, &[(1, 100), (2, 200)]);
        assert_eq!(leader.relation_of(at(1, 100), None), Relation::Prefix);
        assert_eq!(leader.relation_of(at(1, 101), None), Relation::Diverged { common: Some(Lsn(100)) });
        assert_eq!(leader.relation_of(at(2, 200), None), Relation::Prefix);
        assert_eq!(leader.relation_of(at(3, 900), None), Relation::Prefix);
    }

    #[test]
    fn i11_a_timeline_that_the_leader_never_had_is_diverged() {
        let leader = history(5, &[(1, 100), (3, 300)]);
        let own = history(4, &[(1, 100), (3, 250)]);
        assert_eq!(leader.relation_of(at(4, 260), Some(&own)), Relation::Diverged { common: Some(Lsn(250)) });
        assert_eq!(leader.relation_of(at(4, 260), None), Relation::Diverged { common: None });
        // A log on a planted timeline: its id is in the leader's history only if the promotion went through.
        let own = history(2, &[(1, 90)]);
        assert_eq!(leader.common_end(&own), Some(Lsn(90)));
    }
}
