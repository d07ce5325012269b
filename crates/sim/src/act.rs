//! What the driver does with each action: at once, in steps that a crash can come between, or as a long act.

use ha::{Action, Bootstrap, Epoch, Gate, Names, Timeline};

use crate::api_server::Request;
use crate::event::Event;
use crate::member::{Pending, State};
use crate::world::World;

impl World {
    /// Begins an action, unless it is under way already.
    #[allow(clippy::too_many_lines, reason = "one arm per action")]
    pub(crate) fn order(&mut self, m: usize, life: u64, action: Action) {
        let marks = self.world_rules.mark_rewinding;
        let (quick, slow) = (self.dice.millis(1, 40), self.dice.millis(300, 2500));
        let Some(member) = self.members.get_mut(m) else { return };
        let record =
            member.pod.as_ref().and_then(|pod| Some(pod.agent.as_ref()?.known.as_ref()?.record.clone()));
        let boot = member.pod.as_ref().map(|pod| pod.boot);
        let current = |epoch: Epoch| {
            record.as_ref().is_some_and(|record| {
                record.epoch == epoch && record.leader.as_ref().map(|leader| leader.boot) == boot
            })
        };
        let down = member.pod.as_ref().is_some_and(|pod| matches!(pod.state, State::Down));
        let Some(agent) = member.agent_mut(life) else { return };
        let key: &'static str = match action {
            Action::Seal { .. } => "seal",
            Action::SetNames { .. } => "names",
            Action::Prepare { .. } => "prepare",
            Action::Provision => "provision",
            Action::OpenGate => "open",
            Action::Publish { .. } => "publish",
            Action::Retract => "retract",
            Action::Follow { .. } => "follow",
            _ => "",
        };
        if agent.busy.is_some() || (!key.is_empty() && agent.doing.contains(key)) {
            return;
        }
        match action {
            Action::Swap(swap) => {
                if agent.pending.is_some() {
                    return;
                }
                let request = Request::Swap(swap.clone());
                let id = self.ask(m, life, request);
                if let Some(agent) = self.members.get_mut(m).and_then(|member| member.agent_mut(life)) {
                    agent.pending = Some(Pending { id, swap });
                }
                return;
            }
            Action::Publish { epoch } => {
                agent.doing.insert(key);
                let boot = boot.unwrap_or(ha::Boot(0));
                self.ask(m, life, Request::Publish { epoch, boot });
                return;
            }
            Action::Retract => {
                let boot = boot.unwrap_or(ha::Boot(0));
                self.ask(m, life, Request::Retract { boot });
                return;
            }
            _ => {}
        }
        self.say(|| format!("pg-{m} does {action:?}"));
        let Some(member) = self.members.get_mut(m) else { return };
        match action {
            Action::Initialise => {
                member.promise.bootstrap = Bootstrap::Unrecorded;
                member.promise.system_identifier = Some(quick);
                self.begin(m, life, "initdb", slow, Action::Initialise);
            }
            Action::Clone { .. } => self.begin(m, life, "clone", slow, action),
            Action::Rewind { .. } if down => {
                member.promise.rewinding = marks;
                if let Some(data) = &mut member.data {
                    data.torn = true;
                }
                self.begin(m, life, "rewind", slow, action);
            }
            Action::Reclone { .. } if down => {
                self.truth_wiped(m);
                if let Some(member) = self.members.get_mut(m) {
                    member.data = None;
                    member.promise.bootstrap = Bootstrap::Empty;
                    member.promise.rewinding = false;
                }
                self.begin(m, life, "clone", slow, action);
            }
            Action::WipeUnrecorded if member.promise.bootstrap == Bootstrap::Unrecorded && down => {
                self.truth_wiped(m);
                if let Some(member) = self.members.get_mut(m) {
                    member.data = None;
                    member.promise.bootstrap = Bootstrap::Empty;
                    member.promise.system_identifier = None;
                }
            }
            Action::StartStandby if down => self.start_postgres(m, None),
            Action::StartPrimary { fence, names } if down && current(fence.epoch()) => {
                member.promise.last_epoch = fence.epoch();
                member.promise.last_timeline = fence.timeline();
                member.promise.led = record.as_ref().and_then(|record| record.leader.clone());
                member.promise.last_record = record;
                member.promise.bootstrap = Bootstrap::Member;
                self.start_postgres(m, Some(names));
            }
            Action::Promote { fence, timeline, names } if current(fence.epoch()) => {
                member.promise.last_epoch = fence.epoch();
                member.promise.last_timeline = timeline;
                member.promise.led = record.as_ref().and_then(|record| record.leader.clone());
                member.promise.last_record = record;
                if let Some(agent) = member.agent_mut(life) {
                    agent.busy = Some("promotion");
                }
                self.clear_planted(m);
                self.plant(m, timeline);
                self.later(quick, Event::PromoteStep { m, agent: life, timeline: timeline.0, names });
                self.at_a_step(m);
            }
            Action::Stop { mode: ha::StopMode::Immediate } => {
                self.kill_postgres(m);
            }
            Action::Stop { mode: ha::StopMode::Fast } if !down => {
                if let Some(agent) = member.agent_mut(life) {
                    agent.busy = Some("stop");
                }
                self.stop_fast(m);
            }
            Action::Seal { .. }
            | Action::SetNames { .. }
            | Action::Prepare { .. }
            | Action::Provision
            | Action::OpenGate
            | Action::CloseGate
            | Action::Follow { .. } => {
                if let Some(agent) = member.agent_mut(life) {
                    agent.doing.insert(key);
                    if let Action::SetNames { names } = &action {
                        agent.names_ordered = Some(names.clone());
                    }
                }
                // A disk that takes its time: the order to change the names is under way for seconds.
                let slow_disk = key == "names" && self.slow_names.remove(&m);
                let stalls = slow_disk || (key == "names" && !self.calm && self.dice.permille(80));
                let quick = if stalls { slow } else { quick };
                self.later(quick, Event::Done { m, agent: life, action: Box::new(action) });
            }
            _ => {}
        }
    }

    /// Every id between the own timeline and the next, so that PostgreSQL chooses that one (P11).
    pub(crate) fn plant(&mut self, m: usize, timeline: Timeline) {
        let plant = self.world_rules.plant_timelines;
        let Some(member) = self.members.get_mut(m) else { return };
        let Some(data) = &mut member.data else { return };
        let from = data.wal.timeline().0 + 1;
        if plant {
            member.promise.planted = (from..timeline.0).map(Timeline).collect();
            data.planted.extend(from..timeline.0);
        }
    }

    /// The files are planted and the names rendered: the gate closes, then Postgres is told to promote.
    pub(crate) fn promote_step(&mut self, m: usize, life: u64, timeline: u32, names: Names) {
        let close = self.world_rules.close_gate;
        let Some(member) = self.members.get_mut(m) else { return };
        if member.agent_mut(life).is_none() {
            return;
        }
        if let Some(data) = &mut member.data {
            // A hot standby admits readers; their sessions can write at once after a promotion (P21).
            data.gate_open = !close;
        }
        self.promote(m, timeline, names);
    }

    fn begin(&mut self, m: usize, life: u64, what: &'static str, delay: u64, action: Action) {
        if let Some(agent) = self.members.get_mut(m).and_then(|member| member.agent_mut(life)) {
            agent.busy = Some(what);
        }
        self.later(delay, Event::Done { m, agent: life, action: Box::new(action) });
    }

    #[allow(clippy::too_many_lines, reason = "one arm per action")]
    pub(crate) fn done(&mut self, m: usize, life: u64, action: &Action) {
        let (record, disk, now) = (self.id(), self.dice.millis(1, 20), self.now);
        let Some(member) = self.members.get_mut(m) else { return };
        let known =
            member.pod.as_ref().and_then(|pod| Some(pod.agent.as_ref()?.known.as_ref()?.record.clone()));
        let boot = member.pod.as_ref().map(|pod| pod.boot);
        let Some(agent) = member.agent_mut(life) else { return };
        match action {
            Action::Initialise => {
                agent.busy = None;
                let mut data = crate::member::Data { control: 1, clean: true, ..Default::default() };
                data.wal.append(record, 1);
                data.wal.flushed = 1;
                member.data = Some(data);
            }
            Action::Clone { .. } | Action::Rewind { .. } | Action::Reclone { .. } => {
                agent.busy = None;
                self.copy_done(m, action);
            }
            Action::Seal { below } => {
                self.detach(m);
                self.later(disk, Event::SealPromise { m, agent: life, below: below.0 });
                return;
            }
            Action::SetNames { names } => {
                if agent.names_ordered.as_ref() != Some(names) {
                    return;
                }
                agent.doing.remove("names");
                if member.primary().is_some() {
                    self.set_names(m, names.clone());
                }
            }
            Action::Prepare { members } => {
                agent.doing.remove("prepare");
                if let Some(primary) = member.primary_mut() {
                    primary.prepared.extend(members.iter().map(|member| member.incarnation));
                }
            }
            Action::Provision => {
                agent.doing.remove("provision");
                if member.primary().is_some()
                    && let Some(data) = &mut member.data
                {
                    data.provisioned = true;
                }
            }
            Action::OpenGate => {
                agent.doing.remove("open");
                let allowed = known
                    .as_ref()
                    .is_some_and(|record| record.leader.as_ref().map(|leader| leader.boot) == boot);
                if allowed && let Some(primary) = member.primary_mut() {
                    primary.gate = Gate::Open;
                    if let Some(data) = &mut member.data {
                        data.gate_open = true;
                    }
                    self.say(|| format!("pg-{m} opens its gate"));
                    self.truth_opened(m);
                }
            }
            Action::CloseGate => {
                if let Some(primary) = member.primary_mut() {
                    primary.gate = Gate::Closed;
                }
                if let Some(data) = &mut member.data {
                    data.gate_open = false;
                }
            }
            Action::Follow { upstream } => {
                agent.doing.remove("follow");
                self.clear_planted(m);
                let Some(member) = self.members.get_mut(m) else { return };
                if member.full_until <= now
                    && member.promise.sealed_below <= upstream.epoch
                    && member.promise.last_epoch <= upstream.epoch
                    && member.standby().is_some_and(|standby| standby.promoting.is_none())
                {
                    member.promise.last_epoch = upstream.epoch;
                    let id = member.id();
                    if let (Some(known), Some(boot)) = (known, boot) {
                        member.promise.keep(&known, &id, boot);
                    }
                    self.attach(m, upstream);
                }
            }
            _ => {}
        }
        self.nudge(m);
    }

    pub(crate) fn seal_promise(&mut self, m: usize, life: u64, below: u64) {
        let full = self.members.get(m).is_some_and(|member| member.full_until > self.now);
        let Some(member) = self.members.get_mut(m) else { return };
        let Some(agent) = member.agent_mut(life) else { return };
        agent.doing.remove("seal");
        if full {
            // Nothing is promised that is not on disk; the order comes again.
            return;
        }
        member.promise.sealed_below = member.promise.sealed_below.max(Epoch(below));
        // A life that has stopped its Postgres cleanly and sealed itself leads no more.
        let ended = member.data.as_ref().is_some_and(|data| data.clean && !data.was_standby)
            && member.pod.as_ref().is_some_and(|pod| matches!(pod.state, State::Down));
        let boot = member.pod.as_ref().map(|pod| pod.boot);
        if let Some(led) = member.promise.led.as_mut().filter(|led| ended && Some(led.boot) == boot) {
            led.stopped = true;
        }
        self.at_a_seal(m);
        let Some(member) = self.members.get(m) else { return };
        let connected = member.standby().is_some_and(|standby| standby.upstream.is_some());
        if connected {
            // Followed again in between: the next order detaches it again.
            self.nudge(m);
            return;
        }
        if self.world_rules.measure_end {
            self.measure(m);
        } else if let (Some(pg), Some(standby)) = (member.pg_life(), member.standby()) {
            let upstreams = standby.upstreams;
            self.measured(m, pg, upstreams);
        }
        self.nudge(m);
    }
}
