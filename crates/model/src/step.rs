//! What can happen next, and what comes of it.

use std::sync::Arc;

use stateright::{Model, Property};

use crate::bound::Bound;
use crate::decider::Decider;
use crate::local::Act;
use crate::log::Entry;
use crate::phase::Observer;
use crate::state::{Server, State, Stream, Token};
use crate::truth::Broken;
use crate::who::Who;

/// One atomic step.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// A member decides, and does this.
    Does(Who, Act),
    /// The API server's answer to a swap that took effect arrives.
    Answer(Who),
    /// A member reads the record.
    Read(Who),
    /// A standby connects to its upstream.
    Connect(Who),
    /// A standby receives and flushes one more record.
    Receive(Who),
    /// Its reply arrives.
    Reply(Who),
    /// The connection of a standby ends, or its master notices that it has ended.
    Disconnect(Who),
    /// Every process of the master uses the new names.
    NamesInForce(Who),
    /// A promotion completes.
    Promoted(Who),
    /// A client begins a commit.
    Write(Who),
    /// A Postgres dies.
    PostgresDies(Who),
    /// A Postgres dies in a promotion that has written its first record already (P24).
    PromotionDies(Who),
    /// An agent dies and starts again.
    AgentDies(Who),
    /// A pod dies and starts again.
    PodDies(Who),
}

impl Step {
    /// Whose step it is.
    pub const fn who(&self) -> Who {
        match self {
            Self::Does(who, _)
            | Self::Answer(who)
            | Self::Read(who)
            | Self::Connect(who)
            | Self::Receive(who)
            | Self::Reply(who)
            | Self::Disconnect(who)
            | Self::NamesInForce(who)
            | Self::Promoted(who)
            | Self::Write(who)
            | Self::PostgresDies(who)
            | Self::PromotionDies(who)
            | Self::AgentDies(who)
            | Self::PodDies(who) => *who,
        }
    }
}

/// The protocol within a bound.
#[derive(Debug)]
pub struct Protocol {
    /// How large the world is.
    pub bound: Bound,
    /// Its decisions.
    pub decider: Decider,
    /// Notes what members are and become, when anybody wants to know.
    pub observer: Option<Arc<Observer>>,
}

impl Protocol {
    /// Within this bound.
    pub fn new(bound: Bound) -> Self {
        let decider = Decider::new(&bound);
        Self { bound, decider, observer: None }
    }

    fn who(&self) -> impl Iterator<Item = Who> + Clone {
        Who::first(self.bound.members)
    }

    fn steps(&self, state: &State, steps: &mut Vec<Step>) {
        for who in self.who() {
            for act in self.decider.acts(state, who, self.bound.members) {
                if self.possible(state, who, &act) {
                    steps.push(Step::Does(who, act));
                }
            }
        }
        for who in self.who() {
            self.world_steps(state, who, steps);
            if state.spent.crashes < self.bound.crashes {
                Self::crashes(state, who, steps);
            }
        }
    }

    fn world_steps(&self, state: &State, who: Who, steps: &mut Vec<Step>) {
        let member = state.members.of(who);
        if member.unanswered.is_some() {
            steps.push(Step::Answer(who));
        }
        if member.known != state.newest() {
            steps.push(Step::Read(who));
        }
        if let Some(stream) = member.stream {
            if stream.open && stream.flushed < state.members.of(stream.from).log.end() {
                steps.push(Step::Receive(who));
            }
            if stream.replied < stream.flushed {
                steps.push(Step::Reply(who));
            }
            steps.push(Step::Disconnect(who));
        }
        match member.server {
            Server::Standby { upstream: Some(upstream) } if !member.streaming() => {
                let other = state.members.of(upstream.member);
                let there = other.boot == upstream.boot && other.primary().is_some();
                if there && member.log.attaches_to(&other.log) {
                    steps.push(Step::Connect(who));
                }
            }
            Server::Promoting { .. } => steps.push(Step::Promoted(who)),
            Server::Primary(primary) => {
                if primary.next.is_some() {
                    steps.push(Step::NamesInForce(who));
                }
                if primary.open && state.spent.writes < self.bound.writes {
                    steps.push(Step::Write(who));
                }
            }
            _ => {}
        }
    }

    fn crashes(state: &State, who: Who, steps: &mut Vec<Step>) {
        let member = state.members.of(who);
        if member.server != Server::Down {
            steps.push(Step::PostgresDies(who));
        }
        if matches!(member.server, Server::Promoting { .. }) {
            steps.push(Step::PromotionDies(who));
        }
        steps.push(Step::AgentDies(who));
        steps.push(Step::PodDies(who));
    }

    /// What the driver checks again just before an act, and what the bound allows.
    fn possible(&self, state: &State, who: Who, act: &Act) -> bool {
        let member = state.members.of(who);
        let standby = matches!(member.server, Server::Standby { .. });
        let down = member.server == Server::Down;
        let recorded = |epoch: u8| {
            state
                .numbered(member.known)
                .is_some_and(|known| known.epoch == epoch && known.names_life(who, member.boot))
        };
        match act {
            Act::Seal(below) => {
                standby && (member.sealed < *below || member.upstream().is_some() || member.streaming())
            }
            Act::Swap(record, _) => {
                let expected = member.known == state.newest() || !self.bound.world.compare_and_swap;
                let widens = state.record().is_some_and(|old| {
                    record.epoch == old.epoch && record.electorates.len() > old.electorates.len()
                });
                let replaces = state
                    .record()
                    .is_some_and(|old| record.epoch == old.epoch && record.newest() != old.newest());
                expected
                    && record.epoch <= self.bound.epochs
                    && (!(widens || replaces) || state.spent.changes < self.bound.changes)
            }
            Act::Promote { epoch, .. } => standby && recorded(*epoch),
            Act::StartPrimary { epoch, .. } => down && recorded(*epoch),
            Act::StartStandby => down,
            Act::Follow(upstream) => {
                standby && member.sealed <= upstream.epoch && member.last_epoch <= upstream.epoch
            }
            Act::Stop { .. } => !down,
            Act::Rewind(from) | Act::Reclone(from) => {
                let other = state.members.of(from.member);
                down && other.boot == from.boot && other.primary().is_some()
            }
            Act::SetNames(names) => member.primary().is_some_and(|primary| primary.next != Some(*names)),
            Act::OpenGate => {
                let known = state.numbered(member.known);
                member.primary().is_some_and(|primary| !primary.open)
                    && known.is_some_and(|known| known.names_life(who, member.boot))
            }
        }
    }

    /// The state after a step.
    pub fn after(&self, state: &State, step: &Step) -> State {
        let mut next = state.clone();
        // Nobody else's report changes: it says what is on the member's own volume, while it is off its stream.
        let (who, before) = (step.who(), self.decider.said(state, step.who()).report);
        next.take(self, step);
        if next.broken.is_none() {
            if let Some(before) = before {
                let now = self.decider.said(&next, who).report;
                let outlived = &mut next.members.of_mut(who).outlived;
                if now != Some(before) {
                    *outlived = Some(before);
                } else if *outlived == now {
                    *outlived = None;
                }
            }
            next.settle(&self.bound);
        }
        next
    }
}

impl State {
    fn take(&mut self, protocol: &Protocol, step: &Step) {
        let world = protocol.bound.world;
        match *step {
            Step::Does(who, ref act) => self.does(protocol, who, act),
            Step::Answer(who) => self.answer(who),
            Step::Read(who) => self.members.of_mut(who).known = self.newest(),
            Step::Connect(who) => self.connect(who),
            Step::Receive(who) => self.receive(who),
            Step::Reply(who) => {
                let Some(stream) = &mut self.members.of_mut(who).stream else { return };
                stream.replied = stream.flushed;
                let master = stream.from;
                self.acknowledge(master);
            }
            Step::Disconnect(who) => self.members.of_mut(who).stream = None,
            Step::NamesInForce(who) => {
                let since = self.members.of(who).log.end();
                let Some(primary) = self.members.of_mut(who).primary_mut() else { return };
                if let Some(names) = primary.next.take() {
                    (primary.names, primary.since) = (names, since);
                }
                self.acknowledge(who);
            }
            Step::Promoted(who) => self.promoted(who),
            Step::Write(who) => {
                self.spent.writes += 1;
                let timeline = self.members.of(who).log.timeline();
                self.write(who, timeline);
                self.acknowledge(who);
            }
            Step::PostgresDies(who) => {
                self.spent.crashes += 1;
                self.kill(who);
            }
            Step::PromotionDies(who) => {
                self.spent.crashes += 1;
                if let Server::Promoting { timeline, .. } = self.members.of(who).server {
                    self.timeline_used(timeline);
                    self.write(who, timeline);
                }
                self.kill(who);
                self.members.of_mut(who).was_standby = true;
            }
            Step::AgentDies(who) => {
                self.spent.crashes += 1;
                self.forget(who);
            }
            Step::PodDies(who) => {
                self.spent.crashes += 1;
                self.kill(who);
                self.forget(who);
                let member = self.members.of_mut(who);
                member.boot += 1;
                if !world.seal_durable {
                    member.sealed = 0;
                }
            }
        }
    }

    /// The agent's memory is gone.
    fn forget(&mut self, who: Who) {
        let member = self.members.of_mut(who);
        member.known = None;
        member.unanswered = None;
        member.token = None;
        member.to_rewind = None;
    }

    /// Every process of this Postgres is gone; what was written stays.
    fn kill(&mut self, who: Who) {
        for standby in Who::ALL {
            let member = self.members.of_mut(standby);
            if member.stream.is_some_and(|stream| stream.from == who) {
                member.stream = None;
            }
        }
        self.hang_up(who);
        let member = self.members.of_mut(who);
        member.was_standby = !matches!(member.server, Server::Primary(_));
        member.clean = false;
        member.server = Server::Down;
    }

    /// The standby's end of its stream is gone; its master does not know yet.
    fn hang_up(&mut self, who: Who) {
        if let Some(stream) = &mut self.members.of_mut(who).stream {
            stream.open = false;
        }
    }

    fn write(&mut self, who: Who, timeline: u8) {
        let entry = Entry { id: self.free_id(), timeline };
        if !self.members.of_mut(who).log.push(entry) {
            self.broke(Broken::Capacity);
        }
    }

    fn answer(&mut self, who: Who) {
        let member = self.members.of_mut(who);
        let Some(number) = member.unanswered.take() else { return };
        member.known = member.known.max(Some(number));
        let Some(record) = self.records.get(usize::from(number)) else { return };
        let token = Token { epoch: record.epoch, timeline: record.timeline };
        let member = self.members.of_mut(who);
        if member.token.is_none_or(|old| old.epoch <= token.epoch) {
            member.token = Some(token);
        }
    }

    fn connect(&mut self, who: Who) {
        let member = self.members.of_mut(who);
        let Some(upstream) = member.upstream() else { return };
        let end = member.log.end();
        member.stream = Some(Stream { from: upstream.member, flushed: end, replied: end, open: true });
        self.acknowledge(upstream.member);
    }

    fn receive(&mut self, who: Who) {
        let Some(stream) = self.members.of(who).stream else { return };
        let Some(entry) = self.members.of(stream.from).log.after(stream.flushed) else { return };
        let member = self.members.of_mut(who);
        if !member.log.push(entry) {
            self.broke(Broken::Capacity);
            return;
        }
        if let Some(stream) = &mut member.stream {
            stream.flushed += 1;
        }
    }

    fn promoted(&mut self, who: Who) {
        let Server::Promoting { timeline, names } = self.members.of(who).server else { return };
        self.timeline_used(timeline);
        self.hang_up(who);
        self.members.of_mut(who).control = timeline;
        self.write(who, timeline);
        self.lead(who, names);
    }

    /// Out of recovery, with its first record written.
    fn lead(&mut self, who: Who, names: crate::record::Quorum) {
        let member = self.members.of_mut(who);
        let first = member.log.end();
        member.server =
            Server::Primary(crate::state::Primary { first, names, next: None, since: first, open: false });
    }

    fn does(&mut self, protocol: &Protocol, who: Who, act: &Act) {
        let world = protocol.bound.world;
        let member = self.members.of_mut(who);
        let known = member.known;
        let leading = member.primary().is_some();
        if leading && matches!(act, Act::Swap(..) | Act::SetNames(_) | Act::OpenGate) {
            // A leader that runs has no use for a proof any more, and drops it at every look.
            member.token = None;
        }
        match act {
            Act::Seal(below) => {
                member.sealed = member.sealed.max(*below);
                if let Server::Standby { upstream } = &mut member.server {
                    *upstream = None;
                }
                if world.seal_stops_stream {
                    self.hang_up(who);
                }
            }
            Act::Swap(record, why) => {
                let Some(old) = self.record().cloned() else { return };
                if record.epoch == old.epoch && record.newest() != old.newest() {
                    self.spent.changes += 1;
                }
                self.records.push(record.clone());
                let number = self.newest();
                self.members.of_mut(who).unanswered = number;
                self.swapped(who, &old, record, *why);
            }
            Act::Promote { epoch, timeline, names } => {
                (member.last_epoch, member.last_timeline, member.last_record) = (*epoch, *timeline, known);
                member.token = None;
                member.server = Server::Promoting { timeline: *timeline, names: *names };
            }
            Act::StartPrimary { epoch, names } => {
                let timeline = member.log.timeline();
                (member.last_epoch, member.last_timeline, member.last_record) = (*epoch, timeline, known);
                member.token = None;
                member.clean = false;
                self.write(who, timeline);
                self.lead(who, *names);
            }
            Act::StartStandby => {
                member.clean = false;
                member.was_standby = true;
                member.to_rewind = None;
                member.server = Server::Standby { upstream: None };
            }
            Act::Follow(upstream) => {
                let same = member
                    .upstream()
                    .is_some_and(|old| (old.member, old.boot) == (upstream.member, upstream.boot));
                member.last_epoch = upstream.epoch;
                member.last_record = known;
                member.server = Server::Standby { upstream: Some(*upstream) };
                if !same {
                    self.hang_up(who);
                }
            }
            Act::Stop { fast } => {
                let standby = !leading;
                self.kill(who);
                let epoch = self.numbered(known).map(|record| record.epoch);
                let member = self.members.of_mut(who);
                member.clean = *fast;
                // Nobody is told to leave in the model: a standby stops cleanly only to be rewound.
                member.to_rewind = epoch.filter(|_| *fast && standby);
            }
            Act::Rewind(from) | Act::Reclone(from) => {
                let source = *self.members.of(from.member);
                let member = self.members.of_mut(who);
                member.log = source.log;
                member.control = source.log.timeline();
                member.clean = false;
                member.rewinding = false;
                member.to_rewind = None;
            }
            Act::SetNames(names) => {
                if let Some(primary) = member.primary_mut() {
                    primary.next = Some(*names);
                }
                self.acknowledge(who);
            }
            Act::OpenGate => {
                if let Some(primary) = member.primary_mut() {
                    primary.open = true;
                }
                self.opened(who);
            }
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::healthy(&self.bound)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        if state.broken.is_none() {
            self.steps(state, actions);
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let next = self.after(state, &step);
        if let Some(observer) = &self.observer {
            observer.step(state, &next, self.bound.members);
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        crate::check::properties()
    }
}
