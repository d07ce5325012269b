//! Everything there is, and what happens to it next.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash};

use ha::{Boot, Incarnation, MemberName, Promise, Record, Rules, Settings};

use crate::api_server::ApiServer;
use crate::dice::{Dice, MS, SECOND, seconds};
use crate::event::{Event, Queue};
use crate::faults::FAULTS;
use crate::faults::ambush::{Ambush, Moment};
use crate::invariants::Truth;
use crate::member::{Member, Pod, State};
use crate::misreading::Misreading;
use crate::mutation::WorldRules;
use crate::network::Network;
use crate::stream::Conn;

/// Kinds of faults whose weights come from the seed's own dice.
const FIRST_FAULTS: usize = 19;

/// What a transcript tells.
const TOLD: [&str; 11] = [
    "FAULT",
    "RECORD",
    "VIOLATION",
    "out of recovery",
    "its gate",
    "PID 1",
    "outlive",
    "ghost",
    "attests",
    "now holds",
    "stopped cleanly",
];

/// One simulated cluster.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "switches of the one who watches")]
pub struct World {
    /// Nanoseconds since the beginning.
    pub now: u64,
    /// What will happen.
    pub queue: Queue,
    /// All randomness.
    pub dice: Dice,
    /// The members.
    pub members: Vec<Member>,
    /// The API server.
    pub api: ApiServer,
    /// The network.
    pub net: Network,
    /// Streams.
    pub conns: BTreeMap<u64, Conn>,
    /// The wishes.
    pub settings: Settings,
    /// Rules of `decide`.
    pub rules: Rules,
    /// Rules of driver and PostgreSQL.
    pub world_rules: WorldRules,
    /// An error in the model of PostgreSQL, for those who ask whether it would be seen.
    pub misreading: Option<Misreading>,
    /// What must hold.
    pub truth: Truth,
    /// Print what happens.
    pub trace: bool,
    /// The first violated invariant.
    pub violation: Option<String>,
    /// Faults have ended.
    pub calm: bool,
    /// Events handled.
    pub events: u64,
    /// Commits in a thousand that ask for no standby: nothing is promised for them (P15).
    pub weak_commits: u64,
    /// The seed.
    pub seed: u64,
    /// Faults so far.
    pub fault_count: u64,
    /// Faults that are left out, by number.
    pub skip: BTreeSet<u64>,
    /// Agents keep their decision logs.
    pub logs: bool,
    /// The notes are a scenario's transcript.
    pub transcript: bool,
    /// What was said of faults, when somebody wants to know.
    pub notes: Option<RefCell<Vec<String>>>,
    /// The newest copy went with a leader whose life nobody could prove to have ended: it waits for a human.
    pub lost_leader: bool,
    /// How often each kind of fault comes in this world.
    pub weights: [u64; FAULTS.len()],
    /// Whose disks take their time when names are set next.
    pub(crate) slow_names: BTreeSet<usize>,
    /// Who sees nothing of a lease, until it seals itself.
    pub(crate) blind: Option<usize>,
    /// Whose agent was killed, and is cut off once it has read the record.
    pub(crate) forgetful: Option<usize>,
    /// What was said and what happened, as one number, when somebody wants to compare two lives of one seed.
    pub(crate) digest: Option<RefCell<DefaultHasher>>,
    /// Faults come seldom, so that each can take its course.
    pub sparse: bool,
    /// What lies in wait.
    pub(crate) ambushes: BTreeMap<Moment, Ambush>,
    ids: u64,
}

impl World {
    /// A new cluster of this seed: pods start, the record is uninitialised.
    pub fn new(seed: u64, rules: Rules, world_rules: WorldRules, trace: bool) -> Self {
        let members = usize::try_from(Dice::new(!seed).between(2, 5)).unwrap_or(3);
        Self::of(members, seed, rules, world_rules, trace)
    }

    /// A world where nothing is wrong but what somebody does to it.
    pub fn quiet(members: usize, seed: u64, rules: Rules, world_rules: WorldRules) -> Self {
        let mut world = Self::of(members, seed, rules, world_rules, false);
        world.net.heal();
        world.net.delay = 5;
        world.api.lost_answers = 0;
        world.api.refuses = 0;
        world.api.late = 0;
        world.api.repeats = 0;
        world.api.lags = 0;
        world.weak_commits = 0;
        world.calm = true;
        world.settings = Settings::new(world.settings.electable);
        for member in &mut world.members {
            member.settings = world.settings.clone();
        }
        world
    }

    fn of(n: usize, seed: u64, rules: Rules, world_rules: WorldRules, trace: bool) -> Self {
        let mut dice = Dice::new(seed);
        let names: Vec<MemberName> = (0..n).map(|i| MemberName(format!("pg-{i}"))).collect();
        let mut settings = Settings::new(names.iter().cloned());
        if n > 3 && dice.permille(400) {
            settings.acks = 2;
        }
        if n > 2 && dice.permille(150) {
            settings.when_short = ha::WhenShort::Block;
        }
        let net = Network::new(n, &mut dice);
        if dice.permille(150) {
            let name = dice.index(n);
            settings.priorities.extend(names.get(name).map(|name| (name.clone(), 10)));
        }
        let lost_answers = if dice.permille(350) { dice.between(0, 700) } else { 0 };
        let mut sometimes = |most: u64| if dice.permille(200) { dice.between(0, most) } else { 0 };
        let (refuses, late, repeats, lags) = (sometimes(500), sometimes(300), sometimes(500), sometimes(500));
        let weak_commits = sometimes(300);
        let mut weights = [0; FAULTS.len()];
        // Later kinds have dice of their own, so that a seed makes the same cluster as before there were any.
        let mut later = Dice::new(seed ^ 0x5EED);
        for (kind, (weight, (_, usual, _))) in weights.iter_mut().zip(FAULTS).enumerate() {
            // A world of its own kind: some faults often, some never.
            let dice = if kind < FIRST_FAULTS { &mut dice } else { &mut later };
            *weight = usual * dice.between(0, 3).pow(2);
        }
        let mut world = Self {
            now: 0,
            queue: Queue::default(),
            members: Vec::new(),
            api: ApiServer {
                record: Record::uninitialised("cluster"),
                version: 1,
                route: None,
                down: false,
                lost_answers,
                hidden: None,
                newest: None,
                backups: Vec::new(),
                refuses,
                late,
                repeats,
                lags,
                deaf: BTreeMap::new(),
            },
            net,
            conns: BTreeMap::new(),
            settings,
            rules,
            world_rules,
            misreading: None,
            truth: Truth::default(),
            trace,
            violation: None,
            calm: false,
            events: 0,
            weak_commits,
            seed,
            fault_count: 0,
            skip: BTreeSet::new(),
            notes: None,
            transcript: false,
            logs: false,
            lost_leader: false,
            weights,
            slow_names: BTreeSet::new(),
            blind: None,
            forgetful: None,
            digest: None,
            sparse: false,
            ambushes: BTreeMap::new(),
            ids: 0,
            dice,
        };
        for (m, name) in names.into_iter().enumerate() {
            let incarnation = Incarnation(world.dice.number());
            let rate = world.dice.between(900, 1100);
            let offset = world.dice.between(500_000, 1_000_000) * MS;
            let settings = world.settings.clone();
            world.members.push(Member {
                name,
                promise: Promise::new(incarnation, "cluster"),
                data: None,
                pod: None,
                agent_frozen: 0,
                pg_frozen: 0,
                full_until: 0,
                thawed: 0,
                settings,
                node: m as u64,
                ghost: false,
                offset,
                rate,
            });
            let at = world.dice.millis(0, 1500);
            world.queue.push(at, Event::PodStart { m });
        }
        world.queue.push(SECOND, Event::ClientWrite);
        world.queue.push(SECOND, Event::ClientRead);
        let first_fault = world.dice.millis(6_000, 14_000);
        world.queue.push(first_fault, Event::Fault);
        world
    }

    /// A number that was not given out before.
    pub fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// Whether somebody wants to know everything.
    pub(crate) fn is_watched(&self) -> bool {
        self.trace || self.digest.is_some()
    }

    /// Adds to the trace.
    pub fn say(&self, what: impl FnOnce() -> String) {
        if !self.is_watched() && self.notes.is_none() {
            return;
        }
        let what = what();
        if let Some(digest) = &self.digest {
            (self.now, &what).hash(&mut *digest.borrow_mut());
        }
        let told = self.transcript && TOLD.iter().any(|part| what.contains(part));
        if let Some(notes) = self.notes.as_ref().filter(|_| told) {
            notes.borrow_mut().push(format!("{:>9.3}  {what}", seconds(self.now)));
        } else if let Some(notes) = self.notes.as_ref().filter(|_| what.starts_with("FAULT")) {
            notes.borrow_mut().push(format!(
                "{:>9.3} s  #{:<3} {}",
                seconds(self.now),
                self.fault_count,
                &what[6..]
            ));
        }
        if self.trace {
            println!("{:>10.3} {what}", seconds(self.now));
        }
    }

    /// Notes the first violation.
    pub fn violated(&mut self, what: String) {
        self.say(|| format!("VIOLATION {what}"));
        self.violation.get_or_insert(what);
    }

    /// Schedules an event in so many nanoseconds.
    pub fn later(&mut self, delay: u64, event: Event) {
        self.queue.push(self.now + delay, event);
    }

    /// Until when the one that an event is for is frozen.
    fn frozen_until(&self, event: &Event) -> u64 {
        let agent = |m: usize| self.members.get(m).map_or(0, |member| member.agent_frozen);
        let pg = |m: usize| self.members.get(m).map_or(0, |member| member.pg_frozen);
        match event {
            Event::Tick { m, .. }
            | Event::Announce { to: m, .. }
            | Event::Refused { m, .. }
            | Event::Done { m, .. }
            | Event::SealPromise { m, .. }
            | Event::Kept { m, .. }
            | Event::PromoteStep { m, .. }
            | Event::Response { m, .. }
            | Event::Timeout { m, .. }
            | Event::Watch { m, .. }
            | Event::Stopping { m, .. } => agent(*m),
            Event::Connect { m, .. }
            | Event::StandbyFlush { m, .. }
            | Event::PrimaryFlush { m, .. }
            | Event::Started { m, .. }
            | Event::Promoted { m, .. }
            | Event::SignalRemoved { m, .. }
            | Event::Cancel { m, .. }
            | Event::Checkpointed { m, .. }
            | Event::Measured { m, .. }
            | Event::NamesInForce { m, .. } => pg(*m),
            Event::Wal { conn, .. } => self.conns.get(conn).map_or(0, |conn| pg(conn.standby)),
            Event::Reply { conn, .. } => self.conns.get(conn).map_or(0, |conn| pg(conn.primary)),
            // The supervisor is frozen with the whole pod only.
            Event::Supervise { m, .. } => agent(*m).min(pg(*m)),
            _ => 0,
        }
    }

    /// Lets the next thing happen; false when nothing is left.
    pub fn step(&mut self) -> bool {
        let Some((at, event)) = self.queue.pop() else { return false };
        self.now = self.now.max(at);
        let frozen = self.frozen_until(&event);
        if frozen > self.now {
            self.queue.push(frozen, event);
            return true;
        }
        self.events += 1;
        if let Some(digest) = &self.digest {
            (self.now, std::mem::discriminant(&event)).hash(&mut *digest.borrow_mut());
        }
        self.handle(event);
        self.check();
        true
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Tick { m, agent } => self.tick(m, agent),
            Event::Announce { to, said } => self.hear(to, &said),
            Event::Refused { m, agent, peer } => self.refused(m, agent, &peer),
            Event::Connect { m, pg } => self.connect(m, pg),
            Event::Wal { conn, start, records } => self.wal_arrives(conn, start, records),
            Event::StandbyFlush { m, pg, conn, to } => self.standby_flushed(m, pg, conn, to),
            Event::Reply { conn, flushed } => self.reply_arrives(conn, flushed),
            Event::Keepalive { conn } => self.keepalive(conn),
            Event::PrimaryFlush { m, pg, to } => self.primary_flushed(m, pg, to),
            Event::Started { m, pg } => self.started(m, pg),
            Event::Promoted { m, pg } => self.promoted(m, pg),
            Event::Checkpointed { m, pg, timeline } => self.checkpointed(m, pg, timeline),
            Event::PromoteStep { m, agent, timeline, names } => self.promote_step(m, agent, timeline, names),
            Event::SignalRemoved { m, pg } => self.signal_removed(m, pg),
            Event::Cancel { m, pg, at } => self.cancel(m, pg, at),
            Event::ClientRead => self.client_read(),
            Event::Wishes { m, settings } => {
                if let Some(member) = self.members.get_mut(m) {
                    member.settings = Settings::clone(&settings);
                }
                self.nudge(m);
            }
            Event::Kept { m, agent } => self.kept(m, agent),
            Event::Asked { m } => self.asked(m),
            Event::Cut { .. } | Event::CutApi { .. } if self.calm => {}
            Event::Cut { m } => {
                self.say(|| format!("FAULT pg-{m}: cut off"));
                self.net.isolate(m, false);
            }
            Event::CutApi { m } => self.lose_api(m),
            Event::Struck { blow } => self.struck(blow),
            Event::Thaw { m, stood } => self.thaw(m, stood),
            Event::Measured { m, pg, upstreams } => self.measured(m, pg, upstreams),
            Event::NamesInForce { m, pg, change } => self.names_in_force(m, pg, change),
            Event::Stopping { m, pg, agent, since } => self.stopping(m, pg, agent, since),
            Event::Done { m, agent, action } => self.done(m, agent, &action),
            Event::SealPromise { m, agent, below } => self.seal_promise(m, agent, below),
            Event::Request { m, agent, id, sent, request } => self.request(m, agent, id, sent, *request),
            Event::Response { m, agent, id, sent, response } => {
                self.response(m, agent, id, sent, *response);
            }
            Event::Timeout { m, agent, id } => self.timeout(m, agent, id),
            Event::Watch { m, agent, record, version } => self.watched(m, agent, &record, version),
            Event::ClientWrite => self.client_write(),
            Event::Fault => self.fault(),
            Event::Heal(heal) => self.heal(heal),
            Event::Supervise { m, pod } => self.supervise(m, pod),
            Event::PodStart { m } => self.pod_start(m),
            Event::AgentStart { m, pod } => self.agent_start(m, pod),
            Event::Calm => self.calm_down(),
        }
    }

    fn pod_start(&mut self, m: usize) {
        let (boot, pg) = (self.dice.number(), self.id());
        let now = self.now;
        let Some(member) = self.members.get_mut(m) else { return };
        if member.pod.is_some() || member.ghost {
            return;
        }
        if !self.world_rules.seal_durable {
            member.promise.sealed_below = ha::Epoch(0);
        }
        member.agent_frozen = 0;
        member.pg_frozen = 0;
        member.pod = Some(Pod {
            boot: Boot(boot),
            agent: None,
            beat: now,
            pg,
            state: State::Down,
            terminating: false,
        });
        self.say(|| format!("pg-{m} pod starts, boot {boot:016x}"));
        self.later(50 * MS, Event::AgentStart { m, pod: boot });
        self.later(500 * MS, Event::Supervise { m, pod: boot });
    }

    /// PID 1: starts the agent again, and kills Postgres when the agent is silent (§5).
    fn supervise(&mut self, m: usize, pod: u64) {
        let now = self.now;
        let Some(member) = self.members.get_mut(m) else { return };
        let frozen = member.agent_frozen > now;
        let Some(running) = member.pod.as_mut().filter(|running| running.boot.0 == pod) else { return };
        if running.agent.is_some() && !frozen {
            running.beat = now;
        }
        if running.beat == u64::MAX {
            return;
        }
        let silent = now.saturating_sub(running.beat) > 2 * SECOND;
        let runs = !matches!(running.state, State::Down);
        if silent && runs {
            self.say(|| format!("pg-{m} PID 1 kills Postgres: its agent is silent"));
            self.kill_postgres(m);
        }
        self.later(250 * MS, Event::Supervise { m, pod });
    }

    /// The pod is gone at once; with `power`, what was not flushed too.
    pub fn kill_pod(&mut self, m: usize, power: bool) {
        self.kill_postgres(m);
        let Some(member) = self.members.get_mut(m) else { return };
        if power && let Some(data) = &mut member.data {
            let keep = self.dice.between(data.wal.flushed as u64, data.wal.end() as u64);
            data.wal.records.truncate(usize::try_from(keep).unwrap_or(0));
        }
        let Some(member) = self.members.get_mut(m) else { return };
        member.pod = None;
        member.agent_frozen = 0;
        member.pg_frozen = 0;
    }
}
