//! What must always hold, judged from outside with perfect knowledge.
//!
//! The heart is one list: the log prefix that somebody may rely on, because a commit in it was acknowledged or a
//! client could read it. Every later leader must have it (S1, S8), in this order (S3). Everything else is checked
//! where it happens.

use std::collections::{BTreeMap, BTreeSet};

use ha::{
    Boot, DurabilityMode, Epoch, Forced, Gate, Incarnation, MemberId, MemberName, Names, Phase, Position,
    Purpose, Swap, Timeline, Upstream,
};

use crate::dice::SECOND;
use crate::world::World;

/// What is known to be true of a world.
#[derive(Debug, Default)]
pub struct Truth {
    /// Record ids that somebody may rely on, from the beginning of the log.
    pub relied_on: Vec<u64>,
    /// Acknowledged commits.
    pub acknowledged: u64,
    /// When the last one was.
    pub acknowledged_at: u64,
    /// The longest time between two.
    pub longest_gap: u64,
    /// Time in gaps of more than a second.
    pub gaps: u64,
    /// Looks of clients at what masters show.
    pub reads: u64,
    acknowledged_by: Option<(Epoch, Boot)>,
    /// Won elections after the first.
    pub elections: u64,
    /// Epochs in all.
    pub epochs: u64,
    seals: BTreeMap<Incarnation, Seal>,
    timelines: BTreeMap<u32, MemberId>,
    followed: BTreeMap<(Incarnation, Epoch), (Incarnation, Boot)>,
    published: Epoch,
    /// In which epoch each life last won.
    led: BTreeMap<Boot, Epoch>,
    /// What humans asked for by force and did not get yet.
    asked: BTreeSet<(MemberName, Epoch)>,
    /// The newest term that was forced.
    forced: Option<Epoch>,
    /// Terms that were forced.
    pub forced_terms: u64,
    /// Records that somebody relied on and a human gave up.
    pub given_up: u64,
    two_masters_since: Option<(BTreeSet<usize>, u64)>,
}

#[derive(Debug, Clone, Copy)]
struct Seal {
    below: Epoch,
    end: Position,
}

impl World {
    /// After every event.
    pub fn check(&mut self) {
        self.seals_only_grow();
        self.one_master();
    }

    /// I3. Also remembers what lost volumes had promised and held.
    fn seals_only_grow(&mut self) {
        let mut broken = None;
        for member in self.members.iter().filter(|member| !member.ghost) {
            let below = member.promise.sealed_below;
            let end = member.data.as_ref().map(|data| data.wal.position());
            let seal = self
                .truth
                .seals
                .entry(member.promise.incarnation)
                .or_insert(Seal { below, end: Position { timeline: Timeline(0), lsn: ha::Lsn(0) } });
            if below < seal.below {
                broken = Some(format!("I3: {} took back its seal {} for {below}", member.name, seal.below));
            }
            seal.below = below;
            if let Some(end) = end {
                seal.end = end;
            }
        }
        if let Some(broken) = broken {
            self.violated(broken);
        }
    }

    /// I15: two open masters whose supervisors run, for longer than `fence` and 2 s.
    fn one_master(&mut self) {
        let now = self.now;
        let open: BTreeSet<usize> = (0..self.members.len())
            .filter(|m| {
                self.members.get(*m).is_some_and(|member| {
                    member.agent_frozen <= now
                        && member.pg_frozen <= now
                        && member.primary().is_some_and(|primary| primary.gate == Gate::Open)
                }) && !self.knows_of_no_force(*m)
            })
            .collect();
        if open.len() < 2 {
            self.truth.two_masters_since = None;
            return;
        }
        match &self.truth.two_masters_since {
            Some((known, since)) if *known == open => {
                let fence = u64::try_from(self.settings.fence.as_nanos()).unwrap_or(u64::MAX);
                // Clocks may run five per cent slow, and a decision takes a heartbeat.
                if now - since > fence + fence / 20 + 2 * SECOND + SECOND / 2 {
                    self.violated(format!("I15: {open:?} have been masters with open gates for too long"));
                }
            }
            _ => self.truth.two_masters_since = Some((open, now)),
        }
    }

    /// The newest record that there ever was, whatever somebody put in its place.
    fn newest(&self) -> &ha::Record {
        self.api.newest.as_ref().unwrap_or(&self.api.record)
    }

    /// The recorded leader's index.
    pub fn leader(&self) -> Option<usize> {
        let leader = self.newest().leader.as_ref()?.member();
        let boot = self.newest().leader.as_ref()?.boot;
        let life = self.members.iter().position(|member| {
            member.pod.as_ref().is_some_and(|pod| pod.boot == boot && pod.beat != u64::MAX)
        });
        life.or_else(|| self.members.iter().position(|member| member.id() == leader))
    }

    /// The record names this very life of this member.
    fn names_life_of(&self, m: usize) -> bool {
        let boot = self.members.get(m).and_then(|member| member.pod.as_ref()).map(|pod| pod.boot);
        boot.is_some() && self.newest().leader.as_ref().map(|leader| leader.boot) == boot
    }

    /// A human asks for a forced promotion.
    pub(crate) fn truth_asked(&mut self, forced: Forced) {
        self.truth.asked.insert((forced.member, forced.epoch));
    }

    /// Whether this life led before the newest term that was forced, and in none since: whatever it still acknowledges
    /// or shows was given up by the human who forced it.
    fn is_forced_out(&self, m: usize) -> bool {
        let Some(forced) = self.truth.forced else { return false };
        let boot = self.members.get(m).and_then(|member| member.pod.as_ref()).map(|pod| pod.boot);
        boot.and_then(|boot| self.truth.led.get(&boot)).is_none_or(|led| *led < forced)
    }

    /// Nobody has sealed its standbys, so nothing stops it before it reads the record.
    fn knows_of_no_force(&self, m: usize) -> bool {
        let known = |member: &crate::member::Member| {
            Some(member.pod.as_ref()?.agent.as_ref()?.known.as_ref()?.record.epoch)
        };
        self.is_forced_out(m) && self.members.get(m).and_then(known) < self.truth.forced
    }

    /// F1: what a human asked for is done once, by the member and after the epoch that were named. What this member
    /// does not hold is given up; everything else is relied on as before.
    fn forced(&mut self, m: usize, old: &ha::Record, new: &ha::Record) {
        let Some(member) = self.members.get(m) else { return };
        let asked = (member.name.clone(), old.epoch);
        let kept = member.data.as_ref().map_or(0, |data| {
            let ids = data.wal.records.iter().map(|rec| rec.id);
            self.truth.relied_on.iter().copied().zip(ids).take_while(|(a, b)| a == b).count()
        });
        if !self.truth.asked.remove(&asked) {
            self.violated(format!(
                "F1: {} was forced after epoch {}, and nobody asked for it",
                asked.0, asked.1
            ));
        }
        if new.data_loss.as_ref().is_none_or(|loss| loss.epoch != new.epoch) {
            self.violated(format!("F1: the forced epoch {} is not recorded as one", new.epoch));
        }
        let lost = self.truth.relied_on.len().saturating_sub(kept);
        self.say(|| format!("RECORD a human gives up {lost} records that somebody relied on"));
        self.truth.relied_on.truncate(kept);
        self.truth.forced = Some(new.epoch);
        self.truth.forced_terms += 1;
        self.truth.given_up += lost as u64;
    }

    /// Whether this member's log has everything that is relied on.
    fn must_hold_all(&mut self, m: usize, rule: &str) {
        if self.settings.mode == DurabilityMode::Async {
            return;
        }
        let missing = {
            let Some(data) = self.members.get(m).and_then(|member| member.data.as_ref()) else { return };
            // One record in common means everything before it in common.
            let all = self.truth.relied_on.len();
            let last = data.wal.at(all).map(|rec| rec.id);
            if last == self.truth.relied_on.last().copied() {
                None
            } else {
                let ids = data.wal.records.iter().map(|rec| rec.id);
                Some(self.truth.relied_on.iter().copied().zip(ids).take_while(|(a, b)| a == b).count())
            }
        };
        if let Some(agree) = missing {
            let all = self.truth.relied_on.len();
            self.violated(format!("{rule}: pg-{m} leads with {agree} of {all} records that are relied on"));
        }
    }

    /// Everything up to this end of this member's log is relied on from now on.
    fn rely_on(&mut self, m: usize, end: usize, rule: &str) {
        if self.settings.mode == DurabilityMode::Async {
            return;
        }
        let mut contradiction = None;
        {
            let Some(data) = self.members.get(m).and_then(|member| member.data.as_ref()) else { return };
            let known = self.truth.relied_on.len();
            let agrees = data.wal.at(known.min(end)).map(|rec| rec.id)
                == known.min(end).checked_sub(1).and_then(|last| self.truth.relied_on.get(last)).copied();
            let from = if agrees { known.min(end) } else { 0 };
            for (index, rec) in data.wal.records.iter().enumerate().take(end).skip(from) {
                match self.truth.relied_on.get(index) {
                    Some(known) if *known == rec.id => {}
                    Some(_) => {
                        contradiction = Some(index);
                        break;
                    }
                    None => self.truth.relied_on.push(rec.id),
                }
            }
        }
        if let Some(index) = contradiction {
            self.violated(format!(
                "{rule}: pg-{m} served at {end} what contradicts record {index} served before"
            ));
        }
        if let Some(leader) = self.leader().filter(|leader| *leader != m) {
            self.must_hold_all(leader, rule);
        }
    }

    /// A commit is released to its client (I1, S1, S3).
    pub fn truth_acknowledged(&mut self, m: usize, at: usize, names: &Names) {
        let gap = self.now.saturating_sub(self.truth.acknowledged_at);
        self.truth.longest_gap = self.truth.longest_gap.max(gap);
        if gap > SECOND {
            self.truth.gaps += gap;
        }
        self.truth.acknowledged += 1;
        self.truth.acknowledged_at = self.now;
        if self.is_forced_out(m) {
            self.truth.given_up += 1;
            return;
        }
        self.one_acknowledges(m);
        let Some(rec) = self.members.get(m).and_then(|member| member.data.as_ref()?.wal.at(at)) else {
            return;
        };
        let recorded = self.newest().electorates.iter().any(|electorate| match names {
            Names::Alone => electorate.members.is_empty(),
            Names::Quorum { members, acks } => {
                let known: BTreeSet<Incarnation> =
                    electorate.members.iter().map(|id| id.incarnation).collect();
                known == *members && electorate.acks == *acks
            }
            _ => false,
        });
        if self.names_life_of(m) && !recorded {
            self.violated(format!("I1: pg-{m} acknowledged {at} by {names:?}, no electorate of the record"));
        }
        if let Names::Quorum { members, acks } = names {
            let holders = self
                .members
                .iter()
                .filter(|member| !member.ghost && members.contains(&member.promise.incarnation))
                .filter(|member| {
                    member
                        .data
                        .as_ref()
                        .is_some_and(|data| data.wal.flushed >= at && data.wal.at(at) == Some(rec))
                })
                .count();
            // A member may have lost its volume or rewound since it answered; only the living can be asked.
            let living: BTreeSet<Incarnation> =
                self.members.iter().map(|member| member.promise.incarnation).collect();
            let lost = members.difference(&living).count();
            if holders + lost < *acks as usize {
                self.violated(format!("I1: pg-{m} acknowledged {at}, flushed by {holders} of {acks}"));
            }
        }
        if self.truth.relied_on.len() >= at {
            if self.truth.relied_on.get(at - 1) != Some(&rec.id) {
                self.violated(format!("S1: pg-{m} acknowledged {at} where another record is relied on"));
            }
            return;
        }
        self.rely_on(m, at, "S1");
    }

    /// Asynchronous mode: the old master has stopped acknowledging before the new one starts (§1.2), except what a
    /// process acknowledges in the moment after it thawed.
    fn one_acknowledges(&mut self, m: usize) {
        if self.settings.mode == DurabilityMode::Quorum {
            return;
        }
        let Some(member) = self.members.get(m) else { return };
        let Some(boot) = member.pod.as_ref().map(|pod| pod.boot) else { return };
        let Some(epoch) = member.primary().map(|primary| primary.epoch) else { return };
        let thawed = self.now.saturating_sub(member.thawed) < 3 * SECOND;
        match self.truth.acknowledged_by {
            Some((newest, by)) if newest > epoch && by != boot && !thawed => {
                self.violated(format!("A1: pg-{m} acknowledges in epoch {epoch} after epoch {newest} did"));
            }
            Some((newest, _)) if newest > epoch => {}
            _ => self.truth.acknowledged_by = Some((epoch, boot)),
        }
    }

    /// The gate opens: what the log holds up to this start's first record can be read (P6, I13, S8).
    pub fn truth_opened(&mut self, m: usize) {
        let Some(first) = self.members.get(m).and_then(|member| Some(member.primary()?.first)) else {
            return;
        };
        // A leader that was deposed while it was frozen may still open its gate: it shows an old state, nothing new.
        if self.names_life_of(m) {
            self.must_hold_all(m, "S1");
        }
        if !self.is_forced_out(m) {
            self.rely_on(m, first, "S8");
        }
        if let Some(primary) = self.members.get_mut(m).and_then(crate::member::Member::primary_mut) {
            primary.visible = primary.visible.max(first);
        }
    }

    /// I5: a promotion begins exactly where it was won.
    pub fn truth_promoted(&mut self, m: usize) {
        let Some(member) = self.members.get(m) else { return };
        let (Some(data), Some(record)) = (&member.data, &member.promise.last_record) else { return };
        let (end, won) = (data.wal.end() as u64, record.fork_lsn.map(|lsn| lsn.0));
        if record.names(&member.id()) && won.is_some_and(|won| won != end) {
            self.violated(format!(
                "I5: pg-{m} is promoted at {end}, and was elected at {}",
                won.unwrap_or(0)
            ));
        }
    }

    /// A client reads what this master shows (S8).
    pub fn truth_read(&mut self, m: usize, visible: usize) {
        if self.settings.mode == DurabilityMode::Async || visible == 0 || self.is_forced_out(m) {
            return;
        }
        let Some(rec) = self.members.get(m).and_then(|member| member.data.as_ref()?.wal.at(visible)) else {
            return;
        };
        if self.truth.relied_on.get(visible - 1) != Some(&rec.id) {
            self.violated(format!("S8: pg-{m} shows {visible}, which a later master lacks"));
        }
        self.truth.reads += 1;
    }

    /// I11.
    pub fn truth_timeline(&mut self, timeline: u32, id: &MemberId) {
        if let Some(other) = self.truth.timelines.insert(timeline, id.clone()).filter(|other| other != id) {
            self.violated(format!("I11: timeline {timeline} was {other}'s and is now {id}'s"));
        }
    }

    /// S7.
    pub fn truth_followed(&mut self, m: usize, upstream: &Upstream, epoch: Epoch) {
        let Some(member) = self.members.get(m) else { return };
        let key = (member.promise.incarnation, epoch);
        let now = (upstream.member.incarnation, upstream.boot);
        let old = *self.truth.followed.entry(key).or_insert(now);
        if old != now {
            self.violated(format!("S7: pg-{m} followed two upstreams in epoch {epoch}"));
        }
    }

    /// S5.
    pub fn truth_published(&mut self, epoch: Epoch) {
        if epoch < self.truth.published {
            self.violated(format!("S5: the write route went back to epoch {epoch}"));
        }
        self.truth.published = self.truth.published.max(epoch);
    }

    /// S6: whoever is wiped is needed by no electorate and is not the last copy.
    pub fn truth_wiped(&mut self, m: usize) {
        let Some(member) = self.members.get(m) else { return };
        let id = member.id();
        let record = self.newest();
        let needed = record.phase == Phase::Running
            && (record.names(&id) || record.electorates.iter().any(|e| e.members.contains(&id)));
        // A half-rewound copy is none; then the leader's must be whole.
        let half = member.promise.rewinding || member.promise.catching_up.is_some();
        let leads = record.names(&id);
        if needed && (!half || leads) {
            self.violated(format!("S6: pg-{m} is wiped while the record rests on it"));
        } else if let Some(leader) = self.leader().filter(|_| needed) {
            self.must_hold_all(leader, "S6");
        }
    }

    /// I12: nobody rewinds before the epoch is committed.
    pub fn truth_rewound(&mut self, m: usize) {
        if self.newest().fence_xid.is_none() && self.rules.rewind_after_commit {
            // The record may have moved on since the order; then the copy that it names must not be this one.
            let id = self.members.get(m).map(crate::member::Member::id);
            if id.is_some_and(|id| self.newest().names(&id)) {
                self.violated(format!("I12: pg-{m} rewound while the record names it"));
            }
        }
    }

    /// A swap takes effect.
    pub fn truth_swapped(&mut self, m: usize, swap: &Swap) {
        let old = self.newest().clone();
        let new = &*swap.record;
        self.say(|| {
            let electorates: Vec<String> = new
                .electorates
                .iter()
                .map(|e| {
                    let names: Vec<String> = e.members.iter().map(|id| id.name.to_string()).collect();
                    format!("{}:{}/{}", e.leader.name, names.join("+"), e.acks)
                })
                .collect();
            format!(
                "RECORD {:?} by pg-{m}: epoch {} timeline {} {:?} committed {}",
                swap.purpose,
                new.epoch,
                new.timeline,
                electorates,
                new.fence_xid.is_some()
            )
        });
        if new.epoch < old.epoch || new.timeline < old.timeline {
            self.violated(format!(
                "S4: epoch {} to {}, timeline {} to {}",
                old.epoch, new.epoch, old.timeline, new.timeline
            ));
        }
        let leads =
            matches!(swap.purpose, Purpose::Win | Purpose::Force | Purpose::LeadOn | Purpose::Bootstrap);
        if leads != (new.epoch > old.epoch) {
            self.violated(format!("I6: {:?} from epoch {} to {}", swap.purpose, old.epoch, new.epoch));
        }
        if swap.purpose == Purpose::Bootstrap && old.phase != Phase::Uninitialised {
            self.violated("S6: a running cluster is initialised again".to_owned());
        }
        if leads {
            self.truth.epochs += 1;
            if let Some(leader) = &new.leader {
                self.truth.led.insert(leader.boot, new.epoch);
            }
        }
        match swap.purpose {
            Purpose::Win => {
                self.truth.elections += 1;
                self.won_rightly(m, &old, new);
                self.must_hold_all(m, "S1");
            }
            Purpose::Force => {
                self.truth.elections += 1;
                self.forced(m, &old, new);
            }
            Purpose::LeadOn => self.must_hold_all(m, "S1"),
            Purpose::CommitEpoch | Purpose::Narrow => self.narrowed_rightly(m, new),
            _ => {}
        }
    }

    /// I4 and I5, from the volumes themselves.
    fn won_rightly(&mut self, m: usize, old: &ha::Record, new: &ha::Record) {
        if old.lease_millis.is_some() {
            return;
        }
        let Some(member) = self.members.get(m) else { return };
        let Some(end) = member.data.as_ref().map(|data| data.wal.position()) else { return };
        let sealed = |limit: Option<Position>| -> BTreeSet<MemberId> {
            let known = old.electorates.iter().flat_map(|e| e.members.iter().chain([&e.leader]));
            known
                .filter(|id| {
                    self.truth.seals.get(&id.incarnation).is_some_and(|seal| {
                        seal.below > old.epoch && limit.is_none_or(|limit| seal.end <= limit)
                    })
                })
                .cloned()
                .collect()
        };
        let satisfied = ha::satisfied(&old.electorates, &sealed(None));
        let at_maximum = ha::satisfied(&old.electorates, &sealed(Some(end)));
        if !satisfied {
            self.violated(format!("I4: epoch {} was won without satisfying every electorate", new.epoch));
        } else if !at_maximum {
            self.violated(format!("I5: epoch {} was won at {end}, below those it needs", new.epoch));
        }
    }

    /// I8: who is left in the record holds everything.
    fn narrowed_rightly(&mut self, m: usize, new: &ha::Record) {
        let Some(newest) = new.current_electorate() else { return };
        let relied = self.truth.relied_on.len();
        let holders: BTreeSet<MemberId> = self
            .members
            .iter()
            .filter(|member| !member.ghost)
            .filter(|member| {
                member.data.as_ref().is_some_and(|data| {
                    data.wal.flushed >= relied
                        && relied.checked_sub(1).is_none_or(|last| {
                            data.wal.records.get(last).map(|rec| rec.id)
                                == self.truth.relied_on.last().copied()
                        })
                })
            })
            .map(crate::member::Member::id)
            .collect();
        let old: Vec<_> = self.api.record.electorates.iter().filter(|e| *e != newest).cloned().collect();
        // Commits acknowledged by the newest one alone, in this very moment, may be on their way to its others.
        if !old.is_empty() && !newest.acknowledged_by(&holders) && holders.is_empty() {
            self.violated(format!("I8: pg-{m} narrows to members none of whom holds what is relied on"));
        }
    }
}
