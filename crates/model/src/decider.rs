//! The decisions that are possible in a state, each computed once: `decide` is a pure function, and most states differ
//! only in what the member at hand does not know.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use ha::{Rules, Settings};

use crate::bound::Bound;
use crate::local::{Act, Heard, Local, Own, Said, Seen};
use crate::state::{Member, Server, State};
use crate::who::{Each, Who};

/// Quick, and good enough for keys that nobody chooses with ill will.
#[derive(Debug, Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.write_u64(u64::from_ne_bytes(word));
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(u64::from(byte));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word.cast_unsigned() as u64);
    }
}

type Known<K, V> = Mutex<HashMap<K, V, BuildHasherDefault<Quick>>>;

/// Memorises `decide`.
#[derive(Debug)]
pub struct Decider {
    rules: Rules,
    settings: Settings,
    believes_show: bool,
    decided: Known<Local, Arc<[Act]>>,
    said: Known<Own, Said>,
}

fn remembered<K: Hash + Eq + Clone, V: Clone>(memory: &Known<K, V>, key: &K, make: impl FnOnce() -> V) -> V {
    let mut known = memory.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(value) = known.get(key) {
        return value.clone();
    }
    let value = make();
    known.insert(key.clone(), value.clone());
    value
}

impl Decider {
    /// For the rules and wishes of this bound.
    pub fn new(bound: &Bound) -> Self {
        Self {
            rules: bound.rules,
            settings: bound.settings(),
            believes_show: !bound.world.names_surely_in_force,
            decided: Mutex::default(),
            said: Mutex::default(),
        }
    }

    /// How many different questions were put to `decide`.
    pub fn asked(&self) -> usize {
        self.decided.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// What a member would announce now.
    pub fn said(&self, state: &State, who: Who) -> Said {
        let own = self.own(state, who);
        remembered(&self.said, &own, || Local::said(own.clone(), self.rules, &self.settings))
    }

    /// The acts that a member may be told to do now, whatever has been lost or comes late.
    pub fn acts(&self, state: &State, who: Who, members: usize) -> Vec<Act> {
        let own = self.own(state, who);
        if own.seen == Seen::Starting {
            return Vec::new();
        }
        let mut heard = Each(Who::ALL.map(|_| vec![Heard::Nothing]));
        for other in Who::first(members).filter(|other| *other != who) {
            let options = heard.of_mut(other);
            options.push(Heard::Now(self.said(state, other)));
            options.extend(state.members.of(other).outlived.map(Heard::Report));
        }
        let mut acts = Vec::new();
        for a in heard.of(Who::A) {
            for b in heard.of(Who::B) {
                for c in heard.of(Who::C) {
                    let local = Local { own: own.clone(), heard: Each([*a, *b, *c]) };
                    let decided = remembered(&self.decided, &local, || self.decide(&local));
                    for act in decided.iter() {
                        if !acts.contains(act) {
                            acts.push(act.clone());
                        }
                    }
                }
            }
        }
        acts
    }

    fn decide(&self, local: &Local) -> Arc<[Act]> {
        let decision = local.decide(self.rules, &self.settings);
        decision.actions.iter().filter_map(Act::of).collect()
    }

    fn own(&self, state: &State, who: Who) -> Own {
        let member = state.members.of(who);
        let known = state.numbered(member.known).cloned();
        let epoch = known.as_ref().map(|record| record.epoch);
        let last = state.numbered(member.last_record).filter(|last| Some(last.epoch) > epoch).cloned();
        Own {
            who,
            boot: member.boot,
            sealed: member.sealed,
            last_epoch: member.last_epoch,
            last_timeline: member.last_timeline,
            rewinding: member.rewinding,
            timeline: member.log.timeline(),
            end: member.log.end(),
            seen: self.seen(state, who, member),
            known,
            last,
            swapping: member.unanswered.is_some(),
            token: member.token,
            to_rewind: member.to_rewind,
        }
    }

    fn seen(&self, state: &State, who: Who, member: &Member) -> Seen {
        match member.server {
            Server::Down => {
                Seen::Down { control: member.control, was_standby: member.was_standby, clean: member.clean }
            }
            Server::Promoting { .. } => Seen::Starting,
            Server::Standby { upstream } => {
                Seen::Standby { upstream, streaming: upstream.is_some() && member.streaming() }
            }
            Server::Primary(primary) => {
                let names = match primary.next {
                    None => Some(primary.names),
                    Some(next) if self.believes_show => Some(next),
                    Some(_) => None,
                };
                let senders = Each::from_fn(|standby| {
                    let stream = state.members.of(standby).stream;
                    stream.filter(|stream| stream.from == who).map(|stream| stream.replied)
                });
                Seen::Primary {
                    first: primary.first,
                    names,
                    since: primary.since,
                    open: primary.open,
                    senders,
                }
            }
        }
    }
}
