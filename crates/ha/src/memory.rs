//! What one agent remembers between decisions: observations with the instant they were first made, reports that
//! outlive their members, and proofs of won swaps. Losing it all (a restarted agent) must never be unsafe, only slower.

use std::collections::BTreeMap;

use crate::announcement::SealReport;
use crate::decision::FenceToken;
use crate::record::Record;
use crate::rules::Rules;
use crate::types::{Boot, Epoch, Incarnation, Instant, Lsn, MemberId, Version};
use crate::view::Names;

/// One agent's memory; start with [`Memory::default`] at every start of the agent.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    pub(crate) rules: Rules,
    /// Proof of the newest won swap, until it is consumed.
    pub(crate) won: Option<FenceToken>,
    /// The newest record seen: what to go by while the API server says nothing.
    pub(crate) record: Option<Record>,
    /// The current epoch and when this agent first saw it.
    pub(crate) epoch_seen: Option<(Epoch, Instant)>,
    /// The epoch for which a promotion or a start as master was ordered, and when.
    pub(crate) acting: Option<(Epoch, Instant)>,
    /// The newest epoch in which this agent saw its own Postgres lead.
    pub(crate) led: Option<Epoch>,
    /// When the leader of the current epoch gave its last sign of life.
    pub(crate) leader_at: Option<Instant>,
    /// The highest receive position seen: WAL that arrives is a sign of life.
    pub(crate) received: Option<Lsn>,
    /// The leader's own flush position as it announced it last (asynchronous mode's lag).
    pub(crate) leader_flushed: Option<(Epoch, Lsn)>,
    /// Seal reports by member; they stay valid when their member dies.
    pub(crate) reports: BTreeMap<MemberId, Reported>,
    /// Since when an election of this epoch could be won by this member.
    pub(crate) satisfied_since: Option<(Epoch, Instant)>,
    /// Since when this member is sealed for an epoch above the record's.
    pub(crate) sealed_since: Option<(Epoch, Instant)>,
    /// Since when this recorded leader is not running.
    pub(crate) down_since: Option<Instant>,
    /// The newest instant at which this leader's authority was confirmed (§5).
    pub(crate) authority_at: Option<Instant>,
    /// Names seen in force, and a position read in a later view than the one that first showed them.
    pub(crate) names_in_force: Option<(Names, Option<Lsn>)>,
    /// The gate was seen open since this start as master.
    pub(crate) gate_opened: bool,
    /// The standbys of this leader.
    pub(crate) standbys: BTreeMap<Incarnation, Track>,
    /// When a hand-over was first seen or wanted.
    pub(crate) handover_since: Option<Instant>,
    /// When the last hand-over came to nothing.
    pub(crate) handover_failed: Option<Instant>,
    /// When the own termination was first seen.
    pub(crate) terminating_since: Option<Instant>,
    /// When an uninitialised record was first seen.
    pub(crate) uninitialised_since: Option<Instant>,
    /// My log was found diverged from the leader's of this epoch: rewind once stopped.
    pub(crate) diverged: Option<Epoch>,
    /// When acts that must not be repeated at once were last ordered.
    pub(crate) ordered: BTreeMap<&'static str, Instant>,
    /// Asynchronous mode: the version of the record that this agent wrote last, and the instant before it was first sent.
    /// None: it has written none, so it cannot know how old the lease is that it reads.
    pub(crate) lease_from: Option<(Version, Instant)>,
    /// Since when this member is asked to lead by force in this epoch.
    pub(crate) forced_since: Option<(Epoch, Instant)>,
    /// The epoch in which a leader was heard that serves: what was asked for by force in it stays refused.
    pub(crate) force_refused: Option<Epoch>,
    /// The version that the last swap was to replace, and when one was first wanted: an earlier try may have been the
    /// one that took effect.
    pub(crate) swapped: Option<(Version, Instant)>,
}

/// A seal report and the life that gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reported {
    pub(crate) report: SealReport,
    pub(crate) boot: Boot,
    /// The record's epoch as whose leader it said that its Postgres is gone and no older life of it can lead.
    pub(crate) released: Option<Epoch>,
    /// An older life of it may still lead: its seal stands for no term of its own.
    pub(crate) older_life: bool,
}

impl Reported {
    /// Whether it stands for the electorates of the recorded leader's term: the recorded life itself, or a later one
    /// that vouches for the end of the older ones (§2).
    pub(crate) fn of_recorded_life(&self, record: &Record) -> bool {
        self.released == Some(record.epoch)
            || record.leader.as_ref().is_some_and(|leader| leader.boot == self.boot)
    }
}

/// How a standby has been doing, as its leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Track {
    /// Since when it has been streaming without a break.
    pub(crate) streaming_since: Option<Instant>,
    /// The leader's position at `well_at`: to be flushed next.
    pub(crate) mark: Lsn,
    /// When it was last seen streaming with the mark flushed.
    pub(crate) well_at: Instant,
}

impl Memory {
    /// A memory with some rules switched off: for mutation tests in the simulator only.
    pub fn with_rules(rules: Rules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// To be called by the driver when a swap of this very process is confirmed ([`crate::Swap::won`]), before the
    /// next `decide`. A newer token replaces an older one.
    pub fn won(&mut self, token: FenceToken) {
        // Told again, when what it was to prove could not begin: no news of the lease.
        if self.rules.deadline_before_request
            && self.lease_from.as_ref().is_none_or(|(known, _)| known != token.version())
            && let Some((_, at)) = self.swapped.take()
        {
            self.lease_from = Some((token.version().clone(), at));
        }
        if self.won.as_ref().is_none_or(|old| old.epoch() <= token.epoch()) {
            self.won = Some(token);
        }
    }

    /// Whether an act may be ordered now, at most once per `pause`; notes it when so.
    pub(crate) fn paced(&mut self, act: &'static str, now: Instant, pause: std::time::Duration) -> bool {
        let due = self.ordered.get(act).is_none_or(|last| now.since(*last) >= pause);
        if due {
            self.ordered.insert(act, now);
        }
        due
    }
}
