//! One world: candidates, their machines, the API server, and whatever happens between them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use ha::election::{Candidate, Content, Times};
use sim::dice::{Dice, MS, SECOND};

use crate::algorithm::{Algorithm, Ours, Step};
use crate::clock::{Clock, Local};
use crate::mutation::Mutation;
use crate::register::{Ask, Register, Reply, Stored};
use crate::third_party::{ThirdParty, Which};

mod faults;

/// What kind of world a seed makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Everything breaks, clocks run at the ends of their bound.
    Chaos,
    /// Every request lands and is answered, but one answer now and then gets lost, and watches lag (E4).
    Gentle,
    /// Nothing breaks (E5).
    Calm,
    /// Delays, pauses and lost answers, but all clocks are one: what algorithms with wall clocks need at least.
    OneClock,
}

/// How long faults go on.
pub const FAULTS: u64 = 120 * SECOND;
/// How long a world has afterwards to come to rest (E3).
pub const RECOVERY: u64 = 75 * SECOND;
/// The true time at which all clocks are set, far from zero.
const WALL: u64 = 1_700_000_000 * SECOND;

#[derive(Debug)]
enum Event {
    Wake(usize, u64),
    Land(usize, u64, u64, Ask, u64),
    Answer(usize, u64, u64, Reply),
    GiveUp(usize, u64, u64),
    Watch(usize, u64, Option<Stored>),
    Fault,
    Resume(usize),
    Heal(usize),
    Start(usize),
    ApiUp,
    Calm,
}

/// One process on one machine.
struct Node {
    algorithm: Option<Box<dyn Algorithm>>,
    clock: Clock,
    times: Times,
    /// Counts starts: what belongs to an earlier one is dropped.
    life: u64,
    /// Counts wake-ups: only the newest counts.
    wake: u64,
    /// The request under way, when it was sent, and its number.
    call: Option<(Ask, Local, u64)>,
    paused: bool,
    cut: bool,
    held: Vec<Event>,
    /// Until then its watch has delivered everything, or will have.
    watched: u64,
    term: Option<u64>,
}

/// All of it.
pub struct World {
    /// The true time.
    pub now: u64,
    /// Events handled.
    pub events: u64,
    /// Terms begun.
    pub terms: u64,
    /// The first violated invariant.
    pub violation: Option<String>,
    /// What happened, when asked for.
    pub trace: Option<Vec<String>>,
    /// The API server.
    pub register: Register,
    dice: Dice,
    kind: Kind,
    mutation: Option<Mutation>,
    third_party: Option<Which>,
    nodes: Vec<Node>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    pending: BTreeMap<u64, Event>,
    serial: u64,
    faults: bool,
    api_down: bool,
    deletions: bool,
    highest: u64,
    lost_at: u64,
}

impl World {
    /// The world of this seed.
    pub fn new(
        seed: u64,
        kind: Kind,
        mutation: Option<Mutation>,
        third_party: Option<Which>,
        trace: bool,
    ) -> Self {
        let mut dice = Dice::new(seed);
        let mixed = kind == Kind::Chaos && third_party.is_none() && dice.between(0, 2) == 0;
        let count = dice.between(3, 5);
        let mut world = Self {
            now: 0,
            events: 0,
            terms: 0,
            violation: None,
            trace: trace.then(Vec::new),
            register: Register { revision: dice.between(10, 5000), ..Register::default() },
            kind,
            mutation,
            third_party,
            nodes: Vec::new(),
            queue: BinaryHeap::new(),
            pending: BTreeMap::new(),
            serial: 0,
            faults: true,
            api_down: false,
            deletions: !mixed && kind == Kind::Chaos && third_party.is_none(),
            highest: 0,
            lost_at: 0,
            dice,
        };
        match world.dice.between(0, 2) {
            0 => {}
            1 => world.put(Content::default()),
            _ => {
                let epoch = world.register.revision;
                world.put(Content { epoch: Some(epoch), ..Content::default() });
                world.highest = epoch;
            }
        }
        for node in 0..count {
            let seconds = if mixed { [5, 10, 20][world.dice.index(3)] } else { 10 };
            let ttl = Duration::from_secs(seconds);
            let mut times = Times::of_ttl(ttl).unwrap_or_else(|error| unreachable!("{seconds} s: {error}"));
            if mutation.is_some_and(|mutation| mutation.no_margin) {
                times = times.with_unsafe_deadline(ttl);
            }
            let (rate, offset) = world.rate();
            let clock = Clock::new(world.dice.between(1, 1000) * SECOND, rate, offset);
            world.nodes.push(Node {
                algorithm: None,
                clock,
                times,
                life: 0,
                wake: 0,
                call: None,
                paused: false,
                cut: false,
                held: Vec::new(),
                watched: 0,
                term: None,
            });
            let at = world.dice.millis(0, 500);
            world.push(at, Event::Start(usize::try_from(node).unwrap_or(0)));
        }
        let first = world.dice.millis(100, 20_000);
        world.push(first, Event::Fault);
        world.push(FAULTS, Event::Calm);
        world
    }

    fn put(&mut self, content: Content) {
        self.register.revision += 1;
        self.register.lease = Some(Stored { version: self.register.revision, content, renewed: 0 });
    }

    /// A rate within its bound, often at its ends, and what the wall clock is off by.
    fn rate(&mut self) -> (u64, u64) {
        match self.kind {
            Kind::Chaos => {
                let rate = match self.dice.between(0, 3) {
                    0 => 900,
                    1 => 1100,
                    _ => self.dice.between(900, 1100),
                };
                (rate, WALL + self.dice.between(0, 60) * SECOND - 30 * SECOND)
            }
            Kind::Gentle => (self.dice.between(980, 1020), WALL),
            Kind::Calm | Kind::OneClock => (1000, WALL),
        }
    }

    fn push(&mut self, at: u64, event: Event) {
        self.serial += 1;
        self.queue.push(Reverse((at.max(self.now), self.serial)));
        self.pending.insert(self.serial, event);
    }

    fn say(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9.3} {}", sim::dice::seconds(self.now), text()));
        }
    }

    /// Handles one event; false when there is none.
    pub fn step(&mut self) -> bool {
        let Some(Reverse((at, serial))) = self.queue.pop() else { return false };
        let Some(event) = self.pending.remove(&serial) else { return true };
        self.now = at;
        self.events += 1;
        // Terms that ended by themselves meanwhile.
        self.look();
        self.handle(event);
        self.look();
        true
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake(node, wake) => {
                if self.stopped(node) {
                    self.hold(node, Event::Wake(node, wake));
                } else if self.nodes.get(node).is_some_and(|node| node.wake == wake) {
                    self.turn(node);
                }
            }
            Event::Land(node, life, number, ask, wall) => self.land(node, life, number, &ask, wall),
            Event::Answer(node, life, number, reply) => {
                if self.stopped(node) {
                    self.hold(node, Event::Answer(node, life, number, reply));
                } else {
                    self.answered(node, life, number, &reply);
                }
            }
            Event::GiveUp(node, life, number) => {
                if self.stopped(node) {
                    self.hold(node, Event::GiveUp(node, life, number));
                } else {
                    self.answered(node, life, number, &Reply::Unknown);
                }
            }
            Event::Watch(node, life, stored) => {
                if self.stopped(node) {
                    self.hold(node, Event::Watch(node, life, stored));
                } else {
                    self.watched(node, life, stored.as_ref());
                }
            }
            Event::Fault => {
                if self.faults {
                    self.fault();
                    let next = self.now + self.dice.millis(100, 8000);
                    self.push(next, Event::Fault);
                }
            }
            Event::Resume(node) => {
                let held = self.nodes.get_mut(node).map(|node| {
                    node.paused = false;
                    std::mem::take(&mut node.held)
                });
                let mut held = held.unwrap_or_default();
                // What a thawed process does first is chance: look at the clock, or read what came.
                if self.dice.permille(500) {
                    held.reverse();
                }
                for event in held {
                    let at = self.now + self.dice.between(0, MS);
                    self.push(at, event);
                }
            }
            Event::Heal(node) => {
                if let Some(node) = self.nodes.get_mut(node) {
                    node.cut = false;
                }
                self.resync(node);
            }
            Event::Start(node) => self.start(node),
            Event::ApiUp => {
                self.api_down = false;
                for node in 0..self.nodes.len() {
                    self.resync(node);
                }
            }
            Event::Calm => {
                self.say(|| "the faults are over".to_owned());
                self.faults = false;
                for node in 0..self.nodes.len() {
                    self.push(self.now, Event::Resume(node));
                    self.push(self.now, Event::Heal(node));
                    if self.nodes.get(node).is_some_and(|node| node.algorithm.is_none()) {
                        self.push(self.now, Event::Start(node));
                    }
                }
                self.push(self.now, Event::ApiUp);
            }
        }
    }

    fn stopped(&self, node: usize) -> bool {
        self.nodes.get(node).is_some_and(|node| node.paused)
    }

    fn hold(&mut self, node: usize, event: Event) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.held.push(event);
        }
    }

    fn start(&mut self, index: usize) {
        let luck = self.dice.number();
        let wish = (self.dice.between(1, 3), self.dice.permille(100));
        let Some(node) = self.nodes.get_mut(index) else { return };
        if node.algorithm.is_some() {
            return;
        }
        node.life += 1;
        node.call = None;
        node.held.clear();
        node.watched = self.now;
        let same = self.mutation.is_some_and(|mutation| mutation.same_identity);
        let me = if same { "same".to_owned() } else { format!("n{index}.{}", node.life) };
        node.algorithm = Some(if let Some(which) = self.third_party {
            Box::new(ThirdParty::new(which, me, node.times.ttl(), luck))
        } else {
            // Some have better chances, few only watch.
            let priority = if wish.1 && index > 2 { 0 } else { u32::try_from(wish.0).unwrap_or(1) };
            let rules = self.mutation.map(|mutation| mutation.rules).unwrap_or_default();
            let candidate =
                Candidate::new(me, node.times).standing(format!("n{index}"), priority).with_rules(rules);
            let mut ours = Ours::new(candidate);
            ours.wall_clock = self.mutation.is_some_and(|mutation| mutation.wall_clock);
            ours.without_version = self.mutation.is_some_and(|mutation| mutation.without_version);
            Box::new(ours)
        });
        self.say(|| format!("n{index} starts"));
        self.resync(index);
        self.turn(index);
    }

    fn stop(&mut self, index: usize) {
        let Some(node) = self.nodes.get_mut(index) else { return };
        node.algorithm = None;
        (node.term, node.call, node.paused) = (None, None, false);
        node.held.clear();
    }

    /// Lets a candidate decide.
    fn turn(&mut self, index: usize) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(index) else { return };
        if node.call.is_some() || node.paused {
            return;
        }
        let local = node.clock.at(now);
        let Some(algorithm) = node.algorithm.as_mut() else { return };
        match algorithm.next(local) {
            Step::Ask(ask) => self.send(index, ask, local),
            Step::Wait(until) => {
                let at = node.clock.when(until, now).max(now + MS);
                node.wake += 1;
                let wake = node.wake;
                self.push(at, Event::Wake(index, wake));
            }
        }
    }

    fn send(&mut self, index: usize, ask: Ask, local: Local) {
        self.serial += 1;
        let number = self.serial;
        let gentle = matches!(self.kind, Kind::Gentle | Kind::Calm);
        // Most are quick, some slow, a few land when nobody waits for them any more, or never.
        let (delay, lost) = if gentle || !self.faults {
            (self.dice.millis(1, 5), false)
        } else {
            match self.dice.between(0, 99) {
                0..=79 => (self.dice.millis(1, 30), false),
                80..=91 => (self.dice.millis(100, 2500), false),
                92..=95 => (self.dice.millis(1000, 20_000), false),
                _ => (0, true),
            }
        };
        let Some(node) = self.nodes.get_mut(index) else { return };
        let (life, cut) = (node.life, node.cut);
        let bound = node.clock.when(local.boot.after(node.times.call()), self.now);
        node.call = Some((ask.clone(), local, number));
        self.push(bound, Event::GiveUp(index, life, number));
        self.say(|| format!("n{index} asks {ask:?}{}", if cut || lost { ", which is lost" } else { "" }));
        if !cut && !lost {
            self.push(self.now + delay, Event::Land(index, life, number, ask, local.wall));
        }
    }

    fn land(&mut self, index: usize, life: u64, number: u64, ask: &Ask, wall: u64) {
        let noisy = self.faults && self.kind != Kind::Calm;
        let cut = self.nodes.get(index).is_none_or(|node| node.cut);
        let delay = if noisy && self.kind != Kind::Gentle && self.dice.permille(100) {
            self.dice.millis(50, 4000)
        } else {
            self.dice.millis(1, 5)
        };
        if self.api_down || (noisy && self.kind != Kind::Gentle && self.dice.permille(30)) {
            // 429, 500, 503: told at once, nothing written.
            if !cut {
                self.push(self.now + delay, Event::Answer(index, life, number, Reply::Unknown));
            }
            return;
        }
        let before = self.register.revision;
        let reply = self.register.land(ask, wall);
        if self.register.revision != before {
            let lease = self.register.lease.clone();
            self.say(|| format!("n{index}'s write lands: {lease:?}"));
            self.tell_watches();
        }
        // One in a TTL where only answers get lost: more would be an outage.
        let lost = match self.kind {
            Kind::Gentle => noisy && self.now > self.lost_at + 12 * SECOND && self.dice.permille(60),
            Kind::Calm => false,
            _ => noisy && self.dice.permille(60),
        };
        if lost {
            self.lost_at = self.now;
        }
        if cut || lost {
            self.say(|| format!("n{index} does not hear {reply:?}"));
            return;
        }
        self.push(self.now + delay, Event::Answer(index, life, number, reply));
    }

    fn answered(&mut self, index: usize, life: u64, number: u64, reply: &Reply) {
        let Some(node) = self.nodes.get_mut(index) else { return };
        if node.life != life || node.call.as_ref().is_none_or(|(_, _, sent)| *sent != number) {
            return;
        }
        let Some((ask, started, _)) = node.call.take() else { return };
        let now = node.clock.at(self.now);
        if let Some(algorithm) = node.algorithm.as_mut() {
            algorithm.answered(&ask, started, reply.clone(), now);
        }
        self.say(|| format!("n{index} hears {reply:?}"));
        self.turn(index);
    }

    fn tell_watches(&mut self) {
        for index in 0..self.nodes.len() {
            self.tell_watch(index);
        }
    }

    /// Events come in order, however late.
    fn tell_watch(&mut self, index: usize) {
        let slow = self.faults && self.kind != Kind::Calm && self.dice.permille(50);
        let delay = if slow { self.dice.millis(100, 6000) } else { self.dice.millis(1, 10) };
        let stored = self.register.lease.clone();
        let Some(node) = self.nodes.get_mut(index) else { return };
        if node.cut || node.algorithm.is_none() || self.api_down {
            return;
        }
        node.watched = node.watched.max(self.now + delay);
        let (at, life) = (node.watched, node.life);
        self.push(at, Event::Watch(index, life, stored));
    }

    /// A watch that broke lists again.
    fn resync(&mut self, index: usize) {
        self.tell_watch(index);
    }

    fn watched(&mut self, index: usize, life: u64, stored: Option<&Stored>) {
        let Some(node) = self.nodes.get_mut(index) else { return };
        if node.life != life {
            return;
        }
        let now = node.clock.at(self.now);
        // As the driver: what comes while a call is under way is looked at after it, in the newest state.
        if let Some(algorithm) = node.algorithm.as_mut() {
            algorithm.observed(stored, now);
        }
        self.turn(index);
    }

    fn step_down(&mut self, index: usize) {
        let Some(node) = self.nodes.get_mut(index) else { return };
        if node.call.is_some() || node.paused {
            return;
        }
        let local = node.clock.at(self.now);
        let ask = node.algorithm.as_mut().and_then(|algorithm| algorithm.step_down(local));
        if let Some(ask) = ask {
            node.wake += 1;
            self.say(|| format!("n{index} steps down"));
            self.send(index, ask, local);
        }
    }

    /// Who may act now, by its own clock.
    pub fn leaders(&self) -> Vec<usize> {
        let leads = |node: &Node| {
            node.algorithm.as_ref().is_some_and(|algorithm| algorithm.leads(node.clock.at(self.now)))
        };
        (0..self.nodes.len()).filter(|index| self.nodes.get(*index).is_some_and(leads)).collect()
    }

    /// E1 and E2, after every event.
    fn look(&mut self) {
        let leaders = self.leaders();
        if leaders.len() > 1 {
            self.violated(&format!("E1: {leaders:?} may act at once"));
        }
        let mut begun = Vec::new();
        let (mut ended, calm) = (false, matches!(self.kind, Kind::Gentle | Kind::Calm));
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let epoch = node.algorithm.as_ref().and_then(|algorithm| algorithm.epoch());
            let term = leaders.contains(&index).then_some(epoch.unwrap_or(0));
            if term != node.term {
                ended |= node.term.is_some();
                begun.extend(term.map(|term| (index, term)));
                node.term = term;
            }
        }
        if ended && calm {
            self.violated("E4: a term ended though every request landed");
        }
        for (index, epoch) in begun {
            self.say(|| format!("n{index} leads in epoch {epoch}"));
            self.terms += 1;
            if self.third_party.is_none() && epoch <= self.highest {
                self.violated(&format!(
                    "E2: n{index} leads in epoch {epoch}, and there was {} before",
                    self.highest
                ));
            }
            self.highest = self.highest.max(epoch);
        }
    }

    /// Keeps the first.
    pub fn violated(&mut self, what: &str) {
        if self.violation.is_none() {
            self.say(|| what.to_owned());
            self.violation = Some(format!("{:.3} s: {what}", sim::dice::seconds(self.now)));
        }
    }

    /// Kills a process for good, for measurements.
    pub fn kill(&mut self, index: usize) {
        self.stop(index);
    }

    /// Lets it step down, for measurements; false while it cannot.
    pub fn hand_over(&mut self, index: usize) -> bool {
        self.step_down(index);
        !self.leaders().contains(&index)
    }
}
