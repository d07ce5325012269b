//! What must always hold, judged from outside with perfect knowledge.
//!
//! The heart is one log: the prefix that somebody may rely on, because a commit in it was acknowledged or a client
//! could read it. Every later leader must hold it (S1, S8). A broken invariant is part of the state in which it broke,
//! and such a state has no successors.

use crate::local::Why;
use crate::log::Log;
use crate::record::{Quorum, Record};
use crate::state::{Server, State};
use crate::who::{Set, Who};

/// An invariant, by its number in the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Broken {
    /// Acknowledged without w flushers of an electorate of the record.
    I1,
    /// Won without satisfying every electorate of the record that was replaced.
    I4,
    /// Won below the position of those that were needed.
    I5,
    /// Two leaders in one epoch, or an epoch that does not grow.
    I6,
    /// An electorate left the record although those that stay do not hold everything.
    I8,
    /// A timeline used twice.
    I11,
    /// A leader without a commit that was acknowledged, or without a row that a client could read.
    S1S8,
    /// An epoch or a timeline went back.
    S4,
    /// The model itself is too small for this world: a defect of the bound.
    Capacity,
}

impl Broken {
    /// All of them, with the words of the protocol.
    pub const ALL: [(Self, &'static str); 9] = [
        (
            Self::I1,
            "I1 a commit is acknowledged only after w members of an electorate in the record flushed it",
        ),
        (Self::I4, "I4 a promotion was satisfied in every electorate of the record it replaced"),
        (Self::I5, "I5 the promoted member's position is the maximum of those that satisfied it"),
        (Self::I6, "I6 one leader per epoch; epochs only grow"),
        (Self::I8, "I8 an electorate leaves the record only when those that stay hold everything"),
        (Self::I11, "I11 a timeline is never used by two leaders"),
        (
            Self::S1S8,
            "S1/S8 what was acknowledged, or readable by a client, is in the log of every later leader",
        ),
        (Self::S4, "S4 epochs and timelines of the record grow"),
        (Self::Capacity, "the model has room for every state within the bound"),
    ];
}

impl State {
    /// Notes the first broken invariant.
    pub(crate) fn broke(&mut self, rule: Broken) {
        self.broken.get_or_insert(rule);
    }

    /// Who holds the whole of this log, by content.
    fn holders(&self, log: &Log) -> Set {
        Who::ALL.into_iter().filter(|who| self.members.of(*who).log.holds(log)).collect()
    }

    /// Who is sealed above this epoch, as far as its log reaches no further than this one.
    fn sealed_above(&self, epoch: u8, at_most: Option<ha::Position>) -> Set {
        let sealed = |who: &Who| {
            let member = self.members.of(*who);
            member.sealed > epoch && at_most.is_none_or(|most| member.log.position() <= most)
        };
        Who::ALL.into_iter().filter(sealed).collect()
    }

    fn must_hold_all(&mut self, who: Who) {
        if !self.members.of(who).log.holds(&self.relied) {
            self.broke(Broken::S1S8);
        }
    }

    /// Everything up to this end of this member's log is relied on from now on.
    fn rely_on(&mut self, who: Who, end: u8) {
        let prefix = self.members.of(who).log.prefix(end);
        if prefix.common(&self.relied) < prefix.end().min(self.relied.end()) {
            self.broke(Broken::S1S8);
            return;
        }
        if prefix.end() > self.relied.end() {
            self.relied = prefix;
        }
        if let Some(leader) = self.record().map(|record| record.leader).filter(|leader| *leader != who) {
            self.must_hold_all(leader);
        }
    }

    /// A swap takes effect: `old` is replaced by what is the newest now.
    pub(crate) fn swapped(&mut self, who: Who, old: &Record, new: &Record, why: Why) {
        if new.epoch < old.epoch || new.timeline < old.timeline {
            self.broke(Broken::S4);
        }
        let leads = matches!(why, Why::Win | Why::LeadOn);
        let same_leader = (new.leader, new.boot) == (old.leader, old.boot);
        if leads != (new.epoch > old.epoch) || (!leads && !same_leader) || (leads && new.leader != who) {
            self.broke(Broken::I6);
        }
        if why == Why::Win {
            let end = self.members.of(who).log.position();
            let (all, at_most) =
                (self.sealed_above(old.epoch, None), self.sealed_above(old.epoch, Some(end)));
            if !old.electorates.iter().all(|one| one.satisfied_by(all)) {
                self.broke(Broken::I4);
            } else if !old.electorates.iter().all(|one| one.satisfied_by(at_most)) {
                self.broke(Broken::I5);
            }
        }
        if leads {
            self.must_hold_all(who);
        }
        let left = old.electorates.iter().any(|one| !new.electorates.contains(one));
        let holders = self.holders(&self.relied);
        if left && !new.newest().is_some_and(|newest| newest.acknowledged_by(holders)) {
            self.broke(Broken::I8);
        }
    }

    /// A promotion completed.
    pub(crate) fn timeline_used(&mut self, timeline: u8) {
        let bit = 1_u16.checked_shl(u32::from(timeline)).unwrap_or(0);
        if bit == 0 {
            self.broke(Broken::Capacity);
        } else if self.timelines & bit != 0 {
            self.broke(Broken::I11);
        }
        self.timelines |= bit;
    }

    /// The gate opens: all that was there before is visible (P6).
    pub(crate) fn opened(&mut self, who: Who) {
        let Server::Primary(primary) = self.members.of(who).server else { return };
        let boot = self.members.of(who).boot;
        if self.record().is_some_and(|record| record.names_life(who, boot)) {
            self.must_hold_all(who);
        }
        self.rely_on(who, primary.first);
    }

    /// Commits whose wait has ended are acknowledged at once: later is no worse, since only a reply ends a wait.
    pub(crate) fn acknowledge(&mut self, who: Who) {
        let member = self.members.of(who);
        let Server::Primary(primary) = member.server else { return };
        let own = member.log.end();
        if !primary.open || own <= primary.first {
            return;
        }
        let by = |names: Quorum| {
            if names.members.is_empty() {
                return own;
            }
            let mut replied: Vec<u8> =
                names.members.iter().filter_map(|standby| self.replied(standby, who)).collect();
            replied.sort_unstable_by(|one, other| other.cmp(one));
            let last = usize::from(names.acks).checked_sub(1).and_then(|nth| replied.get(nth));
            last.copied().unwrap_or(0)
        };
        let until = [Some(primary.names), primary.next]
            .into_iter()
            .flatten()
            .map(|names| (by(names).min(own), names))
            .max_by_key(|(end, _)| *end);
        let Some((end, names)) = until.filter(|(end, _)| *end > primary.first) else { return };
        let prefix = member.log.prefix(end);
        if self.relied.end() < end || prefix.common(&self.relied) < end {
            self.acknowledged_rightly(who, end, names);
            self.rely_on(who, end);
        }
    }

    /// What this standby has told its master.
    fn replied(&self, standby: Who, master: Who) -> Option<u8> {
        let stream = self.members.of(standby).stream.filter(|stream| stream.from == master)?;
        Some(stream.replied)
    }

    fn acknowledged_rightly(&mut self, who: Who, end: u8, names: Quorum) {
        let member = self.members.of(who);
        let flushed = self.holders(&member.log.prefix(end));
        let mut right =
            names.members.iter().filter(|one| flushed.contains(*one)).count() >= names.acks.into();
        if let Some(record) = self.record().filter(|record| record.names_life(who, member.boot)) {
            right &= record.electorates.iter().any(|one| {
                one.members == names.members && (names.members.is_empty() || one.acks == names.acks)
            });
        }
        if !right {
            self.broke(Broken::I1);
        }
    }
}
