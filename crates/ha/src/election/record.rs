//! What the Lease says, what is asked of it, and what may come back.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::{Instant, Version};

/// One who stands for election.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Candidacy {
    /// The name that applications see.
    pub name: String,
    /// The higher, the sooner it takes a free Lease. Never 0: who does not stand is not listed.
    pub priority: u32,
}

/// What the Lease says, its version aside.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Content {
    /// The identity of the holder; `None` when it was released or never held.
    pub holder: Option<String>,
    /// The epoch of the last term; `None` when it was never held under these rules.
    pub epoch: Option<u64>,
    /// Differs after each renewal; compared only for equality, together with holder and epoch.
    pub renewal: u64,
    /// How long the holder must be silent before another may take over; `None` when the record says nothing.
    pub ttl: Option<Duration>,
    /// The identity that a released Lease was handed to.
    pub successor: Option<String>,
    /// Who stands for election, by identity.
    pub candidates: BTreeMap<String, Candidacy>,
}

/// The Lease as it was read or seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    /// Its version.
    pub version: Version,
    /// What it says.
    pub content: Content,
}

impl Record {
    /// Kubernetes' versions of one kind are decimal numbers that grow, over deletions too; `None` if this is none.
    pub(super) fn number(&self) -> Option<u64> {
        self.version.0.parse().ok()
    }

    /// Who renewed, in which term, and how often.
    pub(super) fn stamp(&self) -> (Option<&str>, Option<u64>, u64) {
        (self.content.holder.as_deref(), self.content.epoch, self.content.renewal)
    }

    /// The name of the holder, for people and applications.
    pub fn holder_name(&self) -> Option<&str> {
        let holder = self.content.holder.as_deref()?;
        let listed = self.content.candidates.get(holder).map(|candidacy| candidacy.name.as_str());
        // Identities are `name_uid_start`, and a name of a pod has no underscore.
        Some(listed.unwrap_or_else(|| holder.split('_').next().unwrap_or(holder)))
    }
}

/// What to ask the API server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Request {
    /// A fresh read.
    Read,
    /// Create it with this content.
    Create(Content),
    /// Replace it on this very version.
    Replace {
        /// The version.
        on: Version,
        /// The new content.
        content: Content,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// A read found this.
    Found(Record),
    /// A read, or a replacement, found none.
    Missing,
    /// The write took place; this is the new version.
    Written(Version),
    /// The write did not take place now: another version is there, which may be one's own.
    Lost,
    /// Nobody knows.
    Unknown,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Ask this now.
    Ask(Request),
    /// Nothing before this instant, unless something is observed.
    Wait(Instant),
}
