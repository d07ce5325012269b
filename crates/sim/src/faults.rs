//! What breaks, and what is mended again.

use ha::{Handover, Incarnation, Promise};

use crate::dice::{MS, SECOND, seconds};
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
}

impl World {
    fn any(&mut self) -> usize {
        self.dice.index(self.members.len())
    }

    /// Most faults hit whom the record names.
    fn victim(&mut self) -> usize {
        match self.leader() {
            Some(leader) if self.dice.permille(500) => leader,
            _ => self.any(),
        }
    }

    pub(crate) fn fault(&mut self) {
        if self.calm {
            return;
        }
        let pause =
            if self.dice.permille(300) { self.dice.millis(20, 900) } else { self.dice.millis(900, 9_000) };
        self.later(pause, Event::Fault);
        let m = self.victim();
        match self.dice.between(0, 99) {
            0..12 => {
                self.say(|| format!("FAULT pg-{m}: Postgres is killed"));
                self.kill_postgres(m);
            }
            12..20 => self.kill_agent(m),
            20..30 => self.restart_pod(m, false),
            30..40 => self.restart_pod(m, true),
            40..56 => self.freeze(m),
            56..72 => self.partition(m),
            72..78 => {
                let until = self.dice.millis(300, 15_000);
                self.say(|| format!("FAULT pg-{m}: cut off from the API server"));
                if let Some(up) = self.net.api.get_mut(m) {
                    *up = false;
                }
                self.later(until, Event::Heal(Heal::ApiLink(m)));
            }
            78..84 => {
                let until = self.dice.millis(300, 15_000);
                self.say(|| "FAULT the API server is down".to_owned());
                self.api.down = true;
                self.later(until, Event::Heal(Heal::Api));
            }
            84..88 => self.lose_volume(m),
            88..93 => self.terminate(m),
            93..96 => {
                let name = self.members.get(m).map(|member| member.name.clone());
                self.say(|| format!("FAULT pg-{m} is to leave"));
                self.settings.leaving.extend(name);
                let until = self.dice.millis(3_000, 20_000);
                self.later(until, Event::Heal(Heal::Leaving(m)));
            }
            _ => self.wish_handover(m),
        }
    }

    fn kill_agent(&mut self, m: usize) {
        let delay = self.dice.millis(200, 5_000);
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
        let until = self.now + self.dice.millis(300, 12_000);
        let what = self.dice.between(0, 3);
        self.say(|| format!("FAULT pg-{m}: frozen ({what}) until {:.3}", seconds(until)));
        let Some(member) = self.members.get_mut(m) else { return };
        if what != 1 {
            member.agent_frozen = until;
        }
        if what != 2 {
            member.pg_frozen = until;
        }
    }

    fn partition(&mut self, m: usize) {
        let n = self.members.len();
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
                    && let Some(up) = self.net.up.get_mut(from).and_then(|row| row.get_mut(to))
                {
                    *up = false;
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

    fn terminate(&mut self, m: usize) {
        let Some(pod) = self.members.get_mut(m).and_then(|member| member.pod.as_mut()) else { return };
        pod.terminating = true;
        let boot = pod.boot.0;
        self.say(|| format!("FAULT pg-{m}: the pod is terminated"));
        self.nudge(m);
        self.later(500 * MS, Event::Heal(Heal::Terminated(m, boot)));
    }

    fn wish_handover(&mut self, m: usize) {
        if self.api.record.leader.is_none() || self.api.down {
            return;
        }
        let name = self.members.get(m).map(|member| member.name.clone());
        self.say(|| format!("FAULT somebody wishes pg-{m} to lead"));
        let to = name.filter(|_| self.dice.permille(700));
        self.api.record.handover = Some(Handover { to });
        self.api.version += 1;
    }

    pub(crate) fn heal(&mut self, heal: Heal) {
        match heal {
            Heal::Network => {
                self.say(|| "healed: the network".to_owned());
                let (loss, delay) = (self.net.loss, self.net.delay);
                self.net.heal();
                self.net.loss = loss;
                self.net.delay = delay;
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
                }
            }
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
        self.net.heal();
        self.api.down = false;
        self.api.lost_answers = 0;
        self.settings.leaving.clear();
        for m in 0..self.members.len() {
            if let Some(member) = self.members.get_mut(m) {
                // What is frozen thaws by itself within its bound.
                if member.pod.is_none() {
                    self.later(SECOND, Event::PodStart { m });
                }
            }
        }
    }
}
