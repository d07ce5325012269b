//! One member: a volume that survives, and a pod with supervisor, agent and Postgres that does not.

use std::collections::{BTreeMap, BTreeSet};

use ha::{
    Boot, Decision, Epoch, Gate, Incarnation, Instant, MemberId, MemberName, Memory, Names, Peer, Position,
    Promise, Record, Settings, Swap, Upstream,
};

use crate::api_server::Hidden;
use crate::wal::Wal;

/// What a data directory holds.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a file or a state of its own")]
pub struct Data {
    /// The log.
    pub wal: Wal,
    /// The control file's timeline.
    pub control: u32,
    /// Stopped cleanly.
    pub clean: bool,
    /// Ran in recovery last.
    pub was_standby: bool,
    /// Consistent only from this end of log on (a clone, a rewind).
    pub consistent_at: usize,
    /// Roles and the first database exist.
    pub provisioned: bool,
    /// A rewind has begun to change it and did not end: whatever starts from it serves torn pages (P22).
    pub torn: bool,
    /// `standby.signal` is there.
    pub signal: bool,
    /// The `hba_file` admits clients.
    pub gate_open: bool,
    /// The timeline of the last common checkpoint: where the start after a rewind begins, which the control file shows
    /// from then on.
    pub backup_label: Option<u32>,
    /// Timeline history files without a timeline behind them (P11).
    pub planted: BTreeSet<u32>,
}

/// A hot standby.
#[derive(Debug, Clone, Default)]
pub struct StandbyState {
    /// `primary_conninfo`.
    pub upstream: Option<Upstream>,
    /// Counts changes of it.
    pub upstreams: u64,
    /// The stream.
    pub conn: Option<u64>,
    /// Received in this boot of Postgres.
    pub received: Option<usize>,
    /// When its end was last looked for.
    pub measured_at: u64,
    /// The established end.
    pub end: Option<Position>,
    /// A promotion runs: to which timeline, with which names.
    pub promoting: Option<(u32, Names)>,
    /// Replay stands still until then, at this end: a conflict, a restart, a slow disk (P8).
    pub stall: Option<(u64, usize)>,
}

/// A walsender as its master sees it.
#[derive(Debug, Clone)]
pub struct Sender {
    /// Its connection.
    pub conn: u64,
    /// The last flush position that arrived.
    pub flushed: Option<usize>,
}

/// A server out of recovery.
#[derive(Debug, Clone)]
pub struct PrimaryState {
    /// Its timeline.
    pub timeline: u32,
    /// The end of this start's first record.
    pub first: usize,
    /// Names in force with every process, or on the way out.
    pub names: Names,
    /// Names on the way in: some processes use them already.
    pub next_names: Option<Names>,
    /// Counts changes.
    pub changes: u64,
    /// The gate.
    pub gate: Gate,
    /// The next transaction id was read.
    pub fence_xid: Option<u64>,
    /// Streams by incarnation.
    pub senders: BTreeMap<Incarnation, Sender>,
    /// Slots made.
    pub prepared: BTreeSet<Incarnation>,
    /// Commits that wait: end of record.
    pub waiting: BTreeSet<usize>,
    /// What a client can see without a cancelled wait: everything up to here.
    pub visible: usize,
    /// A fast stop is under way.
    pub stopping: bool,
    /// The epoch that the agent knew when it last allowed it to lead: for the trace and I15.
    pub epoch: Epoch,
}

/// What Postgres does.
#[derive(Debug, Clone)]
pub enum State {
    /// Not running.
    Down,
    /// Starting; with the names when as master.
    Starting(Option<Names>),
    /// In recovery.
    Standby(StandbyState),
    /// Out of recovery.
    Primary(Box<PrimaryState>),
}

/// A swap whose outcome is awaited.
#[derive(Debug, Clone)]
pub struct Pending {
    /// Its request.
    pub id: u64,
    /// What was asked.
    pub swap: Swap,
}

/// The record as an agent knows it.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its content.
    pub record: Record,
    /// Its version.
    pub version: u64,
    /// By the member's clock.
    pub confirmed_at: Instant,
    /// By the member's clock.
    pub changed_at: Instant,
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// Unique.
    pub life: u64,
    /// What `decide` remembers.
    pub memory: Memory,
    /// The record.
    pub known: Option<Known>,
    /// The newest record is being kept beside the promise by a slow disk.
    pub keeping: bool,
    /// Why it cannot be read.
    pub hidden: Option<Hidden>,
    /// Its decision log, when somebody wants it.
    pub log: Option<String>,
    /// A look is planned for now.
    pub nudged: u64,
    /// The others.
    pub peers: BTreeMap<MemberName, Peer>,
    /// The route as read last.
    pub route: Option<Option<(Epoch, Boot)>>,
    /// A swap under way.
    pub pending: Option<Pending>,
    /// A long act.
    pub busy: Option<&'static str>,
    /// Short acts under way, not to be begun again.
    pub doing: BTreeSet<&'static str>,
    /// The newest names that were ordered: what an order before them still does never lands after theirs.
    pub names_ordered: Option<Names>,
    /// The last decision.
    pub decision: Decision,
    /// When the others were last told, by the world's clock.
    pub announced: u64,
    /// When the record was last asked for, by the world's clock.
    pub asked: u64,
    /// When it has first looked at a Postgres that it found running, by the world's clock.
    pub looked: u64,
    /// The next planned look, so that only one is planned.
    pub next_tick: u64,
}

/// A running pod.
#[derive(Debug)]
pub struct Pod {
    /// Unique: life of the supervisor.
    pub boot: Boot,
    /// Its agent, when it runs.
    pub agent: Option<Agent>,
    /// When the agent was last alive.
    pub beat: u64,
    /// The life of Postgres.
    pub pg: u64,
    /// What Postgres does.
    pub state: State,
    /// Being terminated.
    pub terminating: bool,
}

/// A member.
#[derive(Debug)]
pub struct Member {
    /// Its name.
    pub name: MemberName,
    /// Its promise, on disk.
    pub promise: Promise,
    /// Its data directory.
    pub data: Option<Data>,
    /// Its pod, when it runs.
    pub pod: Option<Pod>,
    /// The agent is frozen until then.
    pub agent_frozen: u64,
    /// Postgres is frozen until then.
    pub pg_frozen: u64,
    /// Nothing can be written to its disk until then.
    pub full_until: u64,
    /// When it last thawed.
    pub thawed: u64,
    /// The wishes as it knows them.
    pub settings: Settings,
    /// Where its pod runs, or ran last.
    pub node: u64,
    /// An old process of another member's incarnation that nobody has ended yet (§2).
    pub ghost: bool,
    /// The clock's offset in nanoseconds.
    pub offset: u64,
    /// The clock's rate in thousandths.
    pub rate: u64,
}

impl Member {
    /// Its identity now.
    pub fn id(&self) -> MemberId {
        MemberId { name: self.name.clone(), incarnation: self.promise.incarnation }
    }

    /// The member's own clock at a time of the world.
    pub fn clock(&self, now: u64) -> Instant {
        Instant(self.offset + now / 1000 * self.rate)
    }

    /// The time of the world at which the member's clock shows this.
    pub fn world_time(&self, at: Instant) -> u64 {
        at.0.saturating_sub(self.offset) / self.rate.max(1) * 1000 + 1000
    }

    /// What its Postgres has replayed, when it recovers.
    pub fn replayed(&self, now: u64) -> usize {
        let flushed = self.data.as_ref().map_or(0, |data| data.wal.flushed);
        match self.standby().and_then(|standby| standby.stall) {
            Some((until, at)) if now < until => at.min(flushed),
            _ => flushed,
        }
    }

    /// Its Postgres as a master.
    pub fn primary(&self) -> Option<&PrimaryState> {
        match &self.pod.as_ref()?.state {
            State::Primary(primary) => Some(primary),
            _ => None,
        }
    }

    /// The same, to change.
    pub fn primary_mut(&mut self) -> Option<&mut PrimaryState> {
        match &mut self.pod.as_mut()?.state {
            State::Primary(primary) => Some(primary),
            _ => None,
        }
    }

    /// Its Postgres as a standby.
    pub fn standby(&self) -> Option<&StandbyState> {
        match &self.pod.as_ref()?.state {
            State::Standby(standby) => Some(standby),
            _ => None,
        }
    }

    /// The same, to change.
    pub fn standby_mut(&mut self) -> Option<&mut StandbyState> {
        match &mut self.pod.as_mut()?.state {
            State::Standby(standby) => Some(standby),
            _ => None,
        }
    }

    /// Its agent, when it is this life of it.
    pub fn agent_mut(&mut self, life: u64) -> Option<&mut Agent> {
        self.pod.as_mut()?.agent.as_mut().filter(|agent| agent.life == life)
    }

    /// The life of its agent.
    pub fn agent_life(&self) -> Option<u64> {
        Some(self.pod.as_ref()?.agent.as_ref()?.life)
    }

    /// The life of its Postgres.
    pub fn pg_life(&self) -> Option<u64> {
        self.pod.as_ref().map(|pod| pod.pg)
    }
}
