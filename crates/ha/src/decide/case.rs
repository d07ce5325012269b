//! One decision in the making: what is known, what is remembered, and what has been decided so far.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::announcement::Announcement;
use crate::decision::{Action, Decision, Purpose, Reason, Swap};
use crate::electorate::Electorate;
use crate::memory::Memory;
use crate::record::{LeaderId, Record};
use crate::types::{Epoch, Instant, MemberId, Version};
use crate::view::{Names, Peer, View};

/// An announcement older than this says nothing about the present: five heartbeats.
pub(super) const FRESH: Duration = Duration::from_secs(1);

/// A snapshot of the record; without a version nothing may be swapped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Snapshot<'a> {
    pub(super) record: &'a Record,
    pub(super) version: Option<&'a Version>,
    pub(super) confirmed_at: Option<Instant>,
}

/// One decision in the making.
pub(super) struct Case<'a> {
    pub(super) memory: &'a mut Memory,
    pub(super) view: &'a View,
    pub(super) now: Instant,
    pub(super) snapshot: Snapshot<'a>,
    pub(super) out: &'a mut Decision,
}

impl<'a> Case<'a> {
    pub(super) fn record(&self) -> &'a Record {
        self.snapshot.record
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.snapshot.record.epoch
    }

    pub(super) fn me(&self) -> &'a MemberId {
        &self.view.member
    }

    pub(super) fn act(&mut self, action: Action) {
        self.out.actions.push(action);
    }

    pub(super) fn because(&mut self, reason: Reason) {
        self.out.because.push(reason);
    }

    pub(super) fn waiting(&mut self, what: impl Into<String>) {
        self.out.because.push(Reason::Waiting { what: what.into() });
    }

    /// Look again then at the latest.
    pub(super) fn wake(&mut self, at: Instant) {
        if at > self.now {
            self.out.wake_at = Some(self.out.wake_at.map_or(at, |known| known.min(at)));
        }
    }

    /// Orders an act at most once per pause and wakes for the next try.
    pub(super) fn act_paced(&mut self, name: &'static str, pause: Duration, action: Action) {
        if self.memory.paced(name, self.now, pause) {
            self.act(action);
        } else if let Some(last) = self.memory.ordered.get(name).copied() {
            self.wake(last.after(pause));
        }
    }

    /// Whether a swap may be tried: on a known snapshot, with none of ours under way, and one per decision.
    pub(super) fn may_swap(&self) -> bool {
        self.snapshot.version.is_some()
            && !self.view.swapping
            && !self.out.actions.iter().any(|action| matches!(action, Action::Swap(_)))
    }

    /// Tries a swap on the snapshot's own version; true when it was ordered.
    pub(super) fn swap(&mut self, mut record: Record, purpose: Purpose) -> bool {
        let Some(version) = self.snapshot.version else { return false };
        if !self.may_swap() {
            self.waiting("the outcome of an earlier compare-and-swap");
            return false;
        }
        if record != *self.record() {
            record.generation = self.record().generation + 1;
        }
        let swap = Swap { expect: version.clone(), record: Box::new(record), purpose };
        if self.memory.swapped.as_ref().is_none_or(|(known, _)| known != version) {
            self.memory.swapped = Some((version.clone(), self.now));
        }
        self.act(Action::Swap(swap));
        true
    }

    /// This life as a leader.
    pub(super) fn this_life(&self) -> LeaderId {
        LeaderId {
            name: self.me().name.clone(),
            pod_uid: self.view.pod_uid.clone(),
            boot: self.view.boot,
            incarnation: self.me().incarnation,
            node: self.view.node.clone(),
            stopped: false,
        }
    }

    /// The record names this member in this very life.
    pub(super) fn names_this_life(&self) -> bool {
        self.record()
            .leader
            .as_ref()
            .is_some_and(|leader| leader.member() == *self.me() && leader.boot == self.view.boot)
    }

    /// No older process of this incarnation can still lead (§2): this is the recorded life itself, or a later one
    /// that holds the volume's lock where that excludes the old one.
    pub(super) fn excludes_older_lives(&self) -> bool {
        let Some(leader) = self.record().leader.as_ref() else { return false };
        leader.boot == self.view.boot
            || !self.memory.rules.lead_on_needs_lock
            || (self.view.holds_volume_lock && (leader.node == self.view.node || leader.stopped))
    }

    pub(super) fn fresh(&self, peer: &Peer) -> bool {
        self.now.since(peer.heard_at) <= FRESH
    }

    /// What was heard lately of the others.
    pub(super) fn fresh_peers(&self) -> impl Iterator<Item = &'a Announcement> + use<'a> {
        let now = self.now;
        self.view
            .peers
            .values()
            .filter(move |peer| now.since(peer.heard_at) <= FRESH)
            .map(|peer| &peer.announcement)
    }

    /// The recorded leader's own peer entry, whatever its life.
    pub(super) fn leader_peer(&self) -> Option<&'a Peer> {
        let leader = self.record().leader.as_ref()?;
        self.view.peers.get(&leader.name).filter(|peer| peer.announcement.member == leader.member())
    }

    pub(super) fn electable(&self) -> bool {
        self.view.settings.electable.contains(&self.me().name)
    }

    /// Whether these sealed members satisfy every electorate (I4). `leader_counts`: the recorded leader's seal is of a
    /// life that excludes older ones, so it stands for the electorates of its own term. `doubtful`: sealed members of
    /// which an older life may still lead: they stand for no term of their own.
    pub(super) fn satisfied(
        &self,
        sealed: &BTreeSet<MemberId>,
        leader_counts: bool,
        doubtful: &BTreeSet<MemberId>,
    ) -> bool {
        let record = self.record();
        let leader = record.leader.as_ref().map(LeaderId::member);
        let one = |electorate: &Electorate| {
            let recorded = leader.as_ref() == Some(&electorate.leader);
            // Once the recorded life has won, its log holds what its own older terms had acknowledged.
            let counts = if recorded { leader_counts } else { !doubtful.contains(&electorate.leader) };
            if counts {
                electorate.satisfied_by(sealed)
            } else {
                let mut sealed = sealed.clone();
                sealed.remove(&electorate.leader);
                electorate.satisfied_by(&sealed)
            }
        };
        if self.memory.rules.all_electorates {
            !record.electorates.is_empty() && record.electorates.iter().all(one)
        } else {
            record.current_electorate().is_some_and(one)
        }
    }
}

/// The names that let through what this electorate lets through.
pub(super) fn names_for(electorate: &Electorate) -> Names {
    if electorate.members.is_empty() || electorate.acks == 0 {
        Names::Alone
    } else {
        Names::Quorum {
            members: electorate.members.iter().map(|member| member.incarnation).collect(),
            acks: electorate.acks,
        }
    }
}
