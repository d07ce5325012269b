//! What breaks, and what is mended again.

pub(crate) mod ambush;
mod people;

use std::rc::Rc;

use ha::{DurabilityMode, Handover, Incarnation, Promise, WhenShort};

use crate::dice::{Dice, MS, SECOND, seconds};
use crate::event::Event;
use crate::world::World;

/// A fault that ends.
#[derive(Debug, Clone, Copy)]
pub enum Heal {
    /// The network.
    Network,
    /// The API server.
    Api,
    /// One member's way to the API server.
    ApiLink(usize),
    /// A member is no longer to leave.
    Leaving(usize),
    /// A terminating pod ends at the latest.
    Terminated(usize, u64),
    /// A member is no longer cut off.
    Cut(usize),
    /// A ghost ends.
    Ghost(usize),
    /// A member may lead again.
    Electable(usize),
    /// The controller is paused no more.
    Paused,
    /// A human takes back what was asked for by force.
    Forced,
    /// A human mends the record.
    Record,
    /// A human looks whether the recorded leader's last life has surely ended.
    Attest,
}

type Fault = fn(&mut World, usize);

/// Every kind of fault by name, and how often it usually comes.
pub const FAULTS: [(&str, u64, Fault); 31] = [
    ("postgres", 12, |w, m| {
        w.say(|| format!("FAULT pg-{m}: Postgres is killed"));
        w.kill_postgres(m);
    }),
    ("agent", 8, |w, m| w.kill_agent(m)),
    ("pod", 10, |w, m| w.restart_pod(m, false)),
    ("power", 10, |w, m| w.restart_pod(m, true)),
    ("freeze", 16, World::freeze),
    ("partition", 16, World::partition),
    ("api-link", 6, World::cut_api),
    ("api", 6, |w, _| w.api_down()),
    ("volume", 4, World::lose_volume),
    ("terminate", 5, World::terminate),
    ("leave", 3, World::leaves),
    ("handover", 6, World::wish_handover),
    ("postmaster", 6, |w, m| {
        w.say(|| format!("FAULT pg-{m}: the postmaster is killed"));
        w.kill_postmaster(m);
    }),
    ("force", 5, |w, m| {
        if w.members.get(m).is_some_and(|member| member.primary().is_some()) {
            w.say(|| format!("FAULT pg-{m}: the pod is deleted by force and goes on"));
            w.force_delete(m);
        }
    }),
    ("swizzle", 6, |w, _| w.swizzle()),
    ("link", 8, World::bad_link),
    ("disk", 5, World::disk_full),
    ("wishes", 6, World::other_wishes),
    ("record", 4, |w, _| match w.dice.between(0, 2) {
        0 => w.meddle(),
        1 => w.restore_backup(),
        _ => w.move_route(),
    }),
    ("promote", 3, World::force_promotion),
    ("pause", 2, |w, _| w.pause()),
    ("promotion", 2, |w, _| w.await_promotion()),
    ("win", 2, |w, _| w.await_win()),
    ("renewal", 1, |w, _| w.await_renewal()),
    ("lease", 1, |w, _| w.await_prolonging()),
    ("change", 2, |w, _| w.await_change()),
    ("turn", 1, |w, _| w.await_turn()),
    ("laggard", 2, |w, _| w.leave_a_laggard()),
    ("two-left", 1, |w, _| w.leave_two()),
    ("blind", 1, |w, _| w.await_a_blind_seal()),
    ("forgetting", 1, |w, _| w.await_forgetting()),
];

impl World {
    fn any(&mut self) -> usize {
        let n = self.real();
        self.dice.index(n)
    }

    /// Most faults hit whom the record names.
    fn victim(&mut self) -> usize {
        match self.leader() {
            Some(leader) if leader < self.real() && self.dice.permille(500) => leader,
            _ => self.any(),
        }
    }

    pub(crate) fn fault(&mut self) {
        if self.calm {
            return;
        }
        let pause = match (self.sparse, self.dice.permille(300)) {
            (true, _) => self.dice.millis(1_000, 9_000),
            (false, true) => self.dice.millis(20, 900),
            (false, false) => self.dice.millis(900, 9_000),
        };
        self.later(pause, Event::Fault);
        self.fault_count += 1;
        let number = self.fault_count;
        if self.skip.contains(&number) {
            return;
        }
        // Dice of its own, so that a fault stays the same when an earlier one is left out.
        let own = Dice::new(self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number);
        let usual = std::mem::replace(&mut self.dice, own);
        self.one_fault();
        self.dice = usual;
    }

    fn one_fault(&mut self) {
        let m = self.victim();
        let mut left = self.dice.between(0, self.weights.iter().sum::<u64>().saturating_sub(1));
        for (weight, (_, _, fault)) in self.weights.into_iter().zip(FAULTS) {
            if left < weight {
                fault(self, m);
                return;
            }
            left -= weight;
        }
    }

    fn cut_api(&mut self, m: usize) {
        let until = self.dice.millis(300, 15_000);
        self.lose_api(m);
        self.later(until, Event::Heal(Heal::ApiLink(m)));
    }

    fn api_down(&mut self) {
        let until = self.dice.millis(300, 15_000);
        self.say(|| "FAULT the API server is down".to_owned());
        self.api.down = true;
        self.later(until, Event::Heal(Heal::Api));
    }

    fn leaves(&mut self, m: usize) {
        let name = self.members.get(m).map(|member| member.name.clone());
        self.say(|| format!("FAULT pg-{m} is to leave"));
        self.settings.leaving.extend(name);
        self.spread_wishes();
        let until = self.dice.millis(3_000, 20_000);
        self.later(until, Event::Heal(Heal::Leaving(m)));
    }

    /// Each member learns of new wishes at its own time; two controllers, or an old and a new one, may overtake each
    /// other on the way.
    fn spread_wishes(&mut self) {
        let settings = Rc::new(self.settings.clone());
        for m in 0..self.real() {
            let delay =
                if self.dice.permille(700) { self.dice.millis(5, 300) } else { self.dice.millis(300, 8_000) };
            self.later(delay, Event::Wishes { m, settings: settings.clone() });
        }
    }

    fn other_wishes(&mut self, m: usize) {
        let n = self.real();
        let name = self.members.get(m).map(|member| member.name.clone());
        match self.dice.between(0, 3) {
            0 => self.settings.acks = if self.settings.acks == 1 && n > 2 { 2 } else { 1 },
            1 => {
                let priority = i32::try_from(self.dice.between(0, 20)).unwrap_or(0);
                self.settings.priorities.extend(name.map(|name| (name, priority)));
            }
            2 if n > 2 => {
                // It may never lead; later it may again.
                self.settings.electable.retain(|known| Some(known) != name.as_ref());
                let until = self.dice.millis(2_000, 15_000);
                self.later(until, Event::Heal(Heal::Electable(m)));
            }
            _ => {
                self.settings.when_short = match self.settings.when_short {
                    WhenShort::Continue if n > 2 => WhenShort::Block,
                    _ => WhenShort::Continue,
                };
            }
        }
        self.say(|| {
            let s = &self.settings;
            format!("FAULT other wishes: acks {} {:?} electable {:?}", s.acks, s.when_short, s.electable)
        });
        self.spread_wishes();
    }

    /// Everybody is cut off and comes back, in two different orders.
    fn swizzle(&mut self) {
        self.say(|| "FAULT a swizzled partition".to_owned());
        for m in 0..self.real() {
            if self.dice.permille(700) {
                let at = self.dice.millis(1, 3_000);
                let back = at + self.dice.millis(200, 10_000);
                self.later(at, Event::Cut { m });
                self.later(back, Event::Heal(Heal::Cut(m)));
            }
        }
    }

    fn bad_link(&mut self, m: usize) {
        let other = self.any();
        let (loss, delay) = (self.dice.between(0, 1000), self.dice.between(0, 3000));
        let until = self.dice.millis(1_000, 15_000);
        let both = self.dice.permille(500);
        self.say(|| format!("FAULT pg-{m} to pg-{other}: loses {loss} in 1000, {delay} ms slower"));
        for (from, to) in [(m, other), (other, m)].into_iter().take(if both { 2 } else { 1 }) {
            if let Some(link) = self.net.link_mut(from, to) {
                link.loss = loss;
                link.delay = delay;
            }
        }
        self.later(until, Event::Heal(Heal::Network));
    }

    fn disk_full(&mut self, m: usize) {
        let until = self.now + self.dice.millis(500, 15_000);
        self.say(|| format!("FAULT pg-{m}: no space left until {:.3}", seconds(until)));
        if let Some(member) = self.members.get_mut(m) {
            member.full_until = until;
        }
    }

    /// The user pauses the controller.
    fn pause(&mut self) {
        self.say(|| "FAULT the controller is paused".to_owned());
        self.settings.paused = true;
        self.spread_wishes();
        let until = self.dice.millis(2_000, 30_000);
        self.later(until, Event::Heal(Heal::Paused));
    }

    fn kill_agent(&mut self, m: usize) {
        let delay = self.dice.millis(200, 5_000);
        self.kill_agent_for(m, delay);
    }

    fn kill_agent_for(&mut self, m: usize, delay: u64) {
        let Some(pod) = self.members.get_mut(m).and_then(|member| member.pod.as_mut()) else { return };
        pod.agent = None;
        let pod = pod.boot.0;
        self.say(|| format!("FAULT pg-{m}: the agent is killed"));
        self.later(delay, Event::AgentStart { m, pod });
    }

    fn restart_pod(&mut self, m: usize, power: bool) {
        let delay = self.dice.millis(300, 15_000);
        self.say(|| format!("FAULT pg-{m}: {}", if power { "power cut" } else { "the pod is killed" }));
        self.kill_pod(m, power);
        self.later(delay, Event::PodStart { m });
    }

    fn freeze(&mut self, m: usize) {
        let long = self.dice.millis(300, 12_000);
        let until = self.now + long;
        let what = self.dice.between(0, 3);
        // A clock that stands breaks what asynchronous mode asks of clocks (§1.2).
        let stands = what == 0 && self.dice.permille(400) && self.settings.mode == DurabilityMode::Quorum;
        self.say(|| {
            format!("FAULT pg-{m}: frozen ({what}, clock stands: {stands}) until {:.3}", seconds(until))
        });
        let Some(member) = self.members.get_mut(m) else { return };
        if what != 1 {
            member.agent_frozen = until;
        }
        if what != 2 {
            member.pg_frozen = until;
        }
        self.later(long, Event::Thaw { m, stood: if stands { long } else { 0 } });
    }

    /// A virtual machine that was paused takes up where it was, clock and all.
    pub(crate) fn thaw(&mut self, m: usize, stood: u64) {
        let now = self.now;
        let Some(member) = self.members.get_mut(m) else { return };
        member.thawed = now;
        if stood > 0 {
            member.offset = member.offset.saturating_sub(stood / 1000 * member.rate);
        }
    }

    fn partition(&mut self, m: usize) {
        let n = self.real();
        let one_way = self.dice.permille(250);
        let mut inside = vec![false; n];
        for (other, inside) in inside.iter_mut().enumerate() {
            *inside = other == m || self.dice.permille(250);
        }
        let api_too = self.dice.permille(500);
        self.say(|| format!("FAULT partition {inside:?} one way {one_way} API too {api_too}"));
        for from in 0..n {
            for to in 0..n {
                let (a, b) = (inside.get(from) == Some(&true), inside.get(to) == Some(&true));
                if ((a && !b) || (b && !a && !one_way))
                    && let Some(link) = self.net.link_mut(from, to)
                {
                    link.up = false;
                }
            }
            if api_too
                && inside.get(from) == Some(&true)
                && let Some(up) = self.net.api.get_mut(from)
            {
                *up = false;
            }
        }
        let until = self.dice.millis(500, 15_000);
        self.later(until, Event::Heal(Heal::Network));
    }

    /// Only when everybody else is well: more is more than any protocol survives (§3).
    fn lose_volume(&mut self, m: usize) {
        let record = &self.api.record;
        let Some(newest) = record.current_electorate() else { return };
        let leader_well = self
            .leader()
            .is_some_and(|leader| self.members.get(leader).is_some_and(|member| member.primary().is_some()));
        let whole = newest.members.len() + 1 == self.members.len()
            && record.electorates.len() == 1
            && record.fence_xid.is_some()
            && newest.seals_needed().is_some_and(|needed| needed < self.members.len())
            && self.members.len() > 2
            && self.members.iter().all(|member| member.pod.is_some() && member.data.is_some());
        let relied = self.truth.relied_on.len();
        let all_hold = self.members.iter().all(|member| {
            member.data.as_ref().is_some_and(|data| {
                data.wal.flushed >= relied
                    && relied.checked_sub(1).is_none_or(|last| {
                        data.wal.records.get(last).map(|rec| rec.id) == self.truth.relied_on.last().copied()
                    })
            })
        });
        if !whole || !leader_well || !all_hold {
            return;
        }
        self.replace_volume(m);
    }

    /// The volume is gone, and another, empty one takes its place.
    pub(crate) fn replace_volume(&mut self, m: usize) {
        self.say(|| format!("FAULT pg-{m}: its volume is lost"));
        self.kill_pod(m, true);
        let (incarnation, delay) = (self.dice.number(), self.dice.millis(500, 5_000));
        let keep = !self.world_rules.new_incarnation;
        let Some(member) = self.members.get_mut(m) else { return };
        let old = member.promise.incarnation;
        member.data = None;
        member.promise = Promise::new(if keep { old } else { Incarnation(incarnation) }, "cluster");
        self.later(delay, Event::PodStart { m });
    }

    pub(crate) fn terminate(&mut self, m: usize) {
        let Some(pod) = self.members.get_mut(m).and_then(|member| member.pod.as_mut()) else { return };
        pod.terminating = true;
        let boot = pod.boot.0;
        self.say(|| format!("FAULT pg-{m}: the pod is terminated"));
        self.nudge(m);
        self.later(500 * MS, Event::Heal(Heal::Terminated(m, boot)));
    }

    fn wish_handover(&mut self, m: usize) {
        if self.api.record.leader.is_none() || self.api.down || self.api.newest.is_some() {
            return;
        }
        let name = self.members.get(m).map(|member| member.name.clone());
        self.say(|| format!("FAULT somebody wishes pg-{m} to lead"));
        let to = name.filter(|_| self.dice.permille(700));
        self.api.record.handover = Some(Handover { to });
        self.api.record.generation += 1;
        self.api.version += 1;
    }

    pub(crate) fn heal(&mut self, heal: Heal) {
        match heal {
            Heal::Network => {
                self.say(|| "healed: the network".to_owned());
                self.net.mend();
            }
            Heal::Api => self.api.down = false,
            Heal::ApiLink(m) => {
                if let Some(up) = self.net.api.get_mut(m) {
                    *up = true;
                }
            }
            Heal::Leaving(m) => {
                if let Some(name) = self.members.get(m).map(|member| member.name.clone()) {
                    self.settings.leaving.remove(&name);
                    self.spread_wishes();
                }
            }
            Heal::Electable(m) => {
                if let Some(name) = self.members.get(m).map(|member| member.name.clone()) {
                    self.settings.electable.insert(name);
                    self.spread_wishes();
                }
            }
            Heal::Cut(m) => {
                self.say(|| format!("healed: pg-{m} is no longer cut off"));
                self.net.isolate(m, true);
            }
            Heal::Ghost(z) => self.end_ghost(z),
            Heal::Paused => {
                self.settings.paused = false;
                self.spread_wishes();
            }
            Heal::Forced => {
                self.settings.forced = None;
                self.spread_wishes();
            }
            Heal::Record => self.mend_record(),
            Heal::Attest => self.attest(),
            Heal::Terminated(m, boot) => {
                let now = self.now;
                let Some(member) = self.members.get(m) else { return };
                let Some(pod) = member.pod.as_ref().filter(|pod| pod.boot.0 == boot) else { return };
                let down = matches!(pod.state, crate::member::State::Down);
                let over = now.saturating_sub(pod.beat) > 30 * SECOND;
                // The kubelet ends the pod when PID 1 ends, some time after Postgres did.
                if (down && self.dice.permille(150)) || over {
                    self.restart_pod(m, false);
                } else {
                    self.later(500 * MS, Event::Heal(Heal::Terminated(m, boot)));
                }
            }
        }
    }

    /// Everything is mended; nothing breaks any more.
    pub(crate) fn calm_down(&mut self) {
        self.say(|| "CALM".to_owned());
        self.calm = true;
        self.ambushes.clear();
        self.slow_names.clear();
        self.api.deaf.clear();
        self.later(20 * SECOND, Event::Heal(Heal::Attest));
        self.net.heal();
        self.api.down = false;
        self.api.lost_answers = 0;
        self.api.refuses = 0;
        self.api.late = 0;
        self.api.repeats = 0;
        self.api.lags = 0;
        self.mend_record();
        self.settings.leaving.clear();
        self.settings.paused = false;
        self.settings.forced = None;
        self.settings.electable = self.members.iter().map(|member| member.name.clone()).collect();
        for z in self.real()..self.members.len() {
            self.end_ghost(z);
        }
        let settings = Rc::new(self.settings.clone());
        for m in 0..self.real() {
            // After the last of those that are still on their way.
            self.later(9 * SECOND, Event::Wishes { m, settings: settings.clone() });
            if let Some(member) = self.members.get_mut(m) {
                member.full_until = 0;
            }
            if let Some(member) = self.members.get_mut(m) {
                // What is frozen thaws by itself within its bound.
                if member.pod.is_none() {
                    self.later(SECOND, Event::PodStart { m });
                }
            }
        }
    }
}
