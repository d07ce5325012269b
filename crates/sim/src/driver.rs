//! A few modelled servers and nothing around them: no agents, no record, no faults but those that somebody orders.
//!
//! It drives the simulator's own model of PostgreSQL one operation at a time and says what can be seen when everything
//! has settled. Must never model anything by itself: whatever it shows is read from the state that the simulator's
//! worlds run on. Proved faithful by `tests/differential`, which does the same to real servers.

use std::collections::{BTreeMap, BTreeSet};

use ha::{Epoch, Incarnation, Names, Rules, Timeline, Upstream};

use crate::dice::SECOND;
use crate::event::{Event, Queue};
use crate::member::{Data, Member, Pod, State};
use crate::misreading::Misreading;
use crate::mutation::WorldRules;
use crate::world::World;

/// How long the model runs after each operation: above every delay and timeout that it knows.
const SETTLES: u64 = 20 * SECOND;
/// How long a frozen server stays frozen at most: above every sequence of operations.
const FROZEN: u64 = 2_000 * SECOND;

/// What a server is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Nothing: it does not run.
    Down,
    /// It runs and answers nobody, since it is not consistent yet.
    Recovering,
    /// It answers, in recovery.
    Standby,
    /// It is out of recovery.
    Primary,
}

/// What became of a client's transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was not asked to commit yet.
    Open,
    /// The commit has not returned.
    Waits,
    /// It returned.
    Committed,
    /// It returned with a warning: the wait was cancelled (P2).
    Warned,
    /// The connection ended before an answer.
    Lost,
}

/// What can be seen of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What it is doing.
    pub doing: Doing,
    /// The timeline that it writes or replays; none when it does not answer.
    pub timeline: Option<u32>,
    /// The control file's timeline.
    pub control: u32,
    /// Rows that a new session reads.
    pub rows: BTreeSet<u32>,
    /// Each former timeline, and how many of the rows were written before its end.
    pub history: Vec<(u32, usize)>,
    /// Whom it streams from.
    pub streams_from: Option<usize>,
    /// Who streams from it, and how many of the rows in its log each has flushed.
    pub flushed: BTreeMap<usize, usize>,
}

#[derive(Debug, Clone, Copy)]
struct Transaction {
    server: usize,
    life: u64,
    /// The end of its commit record.
    at: Option<usize>,
    ended: Option<Outcome>,
}

/// The servers.
#[derive(Debug)]
pub struct Servers {
    world: World,
    /// Rows by the record that committed them.
    rows: BTreeMap<u64, u32>,
    transactions: BTreeMap<u32, Transaction>,
    /// Masters whose checkpointer stands still.
    held: BTreeSet<usize>,
}

impl Servers {
    /// The first is a master that waits for nobody, the others stream from it. `misreading`: an error in the model, for
    /// those who ask whether it would be seen.
    pub fn new(servers: usize, seed: u64, misreading: Option<Misreading>) -> Self {
        let rules = WorldRules {
            signal_before_start: false,
            close_gate: false,
            remove_planted: false,
            ..WorldRules::default()
        };
        let mut world = World::quiet(servers, seed, Rules::default(), rules);
        world.queue = Queue::default();
        world.misreading = misreading;
        let first = world.id();
        let mut data =
            Data { control: 1, clean: true, provisioned: true, gate_open: true, ..Data::default() };
        data.wal.append(first, 1);
        data.wal.flushed = 1;
        for m in 0..servers {
            let pod = Pod {
                boot: ha::Boot(m as u64 + 1),
                agent: None,
                beat: 0,
                pg: world.id(),
                state: State::Down,
                terminating: false,
            };
            if let Some(member) = world.members.get_mut(m) {
                member.data = Some(Data { signal: m > 0, was_standby: m > 0, ..data.clone() });
                member.pod = Some(pod);
            }
        }
        let mut servers =
            Self { world, rows: BTreeMap::new(), transactions: BTreeMap::new(), held: BTreeSet::new() };
        servers.start_primary(0, Names::Alone);
        for m in 1..servers.count() {
            servers.start_standby(m, Some(0));
        }
        servers
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.world.members.len()
    }

    /// The incarnation that stands in names.
    pub fn incarnation(&self, m: usize) -> Incarnation {
        self.world.members.get(m).map_or(Incarnation(0), |member| member.promise.incarnation)
    }

    /// Opens a transaction that writes this row and does not end.
    pub fn begin(&mut self, row: u32, m: usize) {
        let Some(member) = self.world.members.get(m).filter(|member| member.primary().is_some()) else {
            return;
        };
        let life = member.pg_life().unwrap_or(0);
        // Its record's flush comes with the next commit's.
        self.write_other(m);
        // Nothing follows from it, and no time passes: what a frozen standby is still sent, its commit is, too.
        self.transactions.insert(row, Transaction { server: m, life, at: None, ended: None });
    }

    /// Commits an open transaction; a weak commit waits for no standby (P15).
    pub fn commit(&mut self, row: u32, weak: bool) {
        let Some(m) = self.open_on(row) else { return };
        let record = self.world.id();
        let at = self.world.commit_on(m, record, weak, crate::dice::MS);
        self.rows.insert(record, row);
        if let Some(transaction) = self.transactions.get_mut(&row) {
            transaction.at = at;
        }
        self.settle();
    }

    /// Cancels the wait of a commit, or ends its session (P2, P4).
    pub fn cancel(&mut self, row: u32, ends_session: bool) {
        if self.outcome(row) != Some(Outcome::Waits) {
            return;
        }
        let Some(transaction) = self.transactions.get_mut(&row) else { return };
        transaction.ended = Some(if ends_session { Outcome::Lost } else { Outcome::Warned });
        let (m, life, at) = (transaction.server, transaction.life, transaction.at.unwrap_or(0));
        if self.misreads(Misreading::CancelRollsBack)
            && let Some(rec) = self.data(m).and_then(|data| data.wal.at(at))
        {
            self.rows.remove(&rec.id);
        }
        self.world.cancel(m, life, at);
        self.settle();
    }

    /// The server on which this transaction is open.
    pub fn open_on(&self, row: u32) -> Option<usize> {
        let transaction = self.transactions.get(&row)?;
        (self.outcome(row) == Some(Outcome::Open)).then_some(transaction.server)
    }

    /// What became of a transaction.
    pub fn outcome(&self, row: u32) -> Option<Outcome> {
        let transaction = self.transactions.get(&row)?;
        if transaction.ended.is_some() {
            return transaction.ended;
        }
        let member = self.world.members.get(transaction.server)?;
        let alive = member.pg_life() == Some(transaction.life);
        Some(match (alive.then(|| member.primary()).flatten(), transaction.at) {
            (None, _) => Outcome::Lost,
            (Some(_), None) => Outcome::Open,
            (Some(primary), Some(at)) if primary.waiting.contains(&at) => Outcome::Waits,
            (Some(_), Some(_)) => Outcome::Committed,
        })
    }

    /// All transactions and what became of them.
    pub fn outcomes(&self) -> BTreeMap<u32, Outcome> {
        self.transactions.keys().filter_map(|row| Some((*row, self.outcome(*row)?))).collect()
    }

    /// Notes what became of transactions whose server may go.
    fn note_outcomes(&mut self) {
        for (row, outcome) in self.outcomes() {
            if let Some(transaction) = self.transactions.get_mut(&row)
                && !matches!(outcome, Outcome::Open | Outcome::Waits)
            {
                transaction.ended = Some(outcome);
            }
        }
    }

    /// A record that commits nothing: a checkpoint's, or that of a transaction that has not ended.
    fn write_other(&mut self, m: usize) {
        let record = self.world.id();
        let Some(member) = self.world.members.get_mut(m) else { return };
        let Some(timeline) = member.primary().map(|primary| primary.timeline) else { return };
        if let Some(data) = &mut member.data {
            data.wal.append(record, timeline);
        }
    }

    /// The same, flushed and sent.
    fn checkpoint(&mut self, m: usize) {
        self.write_other(m);
        let end = self.data(m).map_or(0, |data| data.wal.end());
        if let Some(life) = self.world.members.get(m).and_then(Member::pg_life) {
            self.world.primary_flushed(m, life, end);
        }
    }

    /// Sets the names of a running master, reloads and checkpoints, unless its checkpointer stands still.
    pub fn set_names(&mut self, m: usize, names: Names) {
        self.world.set_names(m, names);
        if self.held.contains(&m) {
            // Not in force before the checkpointer has read them (P5).
            if let Some(primary) = self.world.members.get_mut(m).and_then(Member::primary_mut) {
                primary.changes += 1;
            }
        } else {
            self.checkpoint(m);
        }
        self.settle();
    }

    /// The checkpointer of a master stops where it is, or goes on.
    pub fn hold_checkpointer(&mut self, m: usize, hold: bool) {
        if hold && !self.misreads(Misreading::NamesAtOnce) {
            self.held.insert(m);
        } else if self.held.remove(&m) {
            let member = self.world.members.get(m);
            let change = member.and_then(|member| Some((member.pg_life()?, member.primary()?.changes)));
            if let Some((pg, change)) = change {
                self.world.queue.push(self.world.now, Event::NamesInForce { m, pg, change });
            }
            self.settle();
        }
    }

    /// Stops a server fast: sessions end, a shutdown checkpoint, its walsenders catch up.
    pub fn stop(&mut self, m: usize) {
        self.note_outcomes();
        self.world.stop_fast(m);
        self.settle();
    }

    /// Every process of a server is gone at once.
    pub fn kill(&mut self, m: usize) {
        self.note_outcomes();
        self.held.remove(&m);
        self.world.kill_postgres(m);
        self.settle();
    }

    /// Starts a stopped directory without `standby.signal`, with these names.
    pub fn start_primary(&mut self, m: usize, names: Names) {
        let newest = self.misreads(Misreading::NewestTimeline);
        let control = newest || self.data(m).is_some_and(|data| data.control == data.wal.timeline().0);
        if let Some(data) = self.world.members.get_mut(m).and_then(|member| member.data.as_mut()) {
            data.signal = false;
        }
        if control {
            self.world.start_postgres(m, Some(names));
        } else {
            // P24: nobody started it as a master on purpose.
            self.world.start_postgres(m, None);
            self.settle();
            self.world.set_names(m, names);
        }
        self.settle();
    }

    /// Starts a stopped directory as a standby.
    pub fn start_standby(&mut self, m: usize, upstream: Option<usize>) {
        if let Some(data) = self.world.members.get_mut(m).and_then(|member| member.data.as_mut()) {
            data.signal = true;
        }
        self.world.start_postgres(m, None);
        while self.world.members.get(m).is_some_and(|member| member.standby().is_none()) && self.world.step()
        {
        }
        match upstream {
            Some(p) => self.follow(m, p),
            None => self.settle(),
        }
    }

    /// Lets a running standby stream from another server, and reloads.
    pub fn follow(&mut self, m: usize, p: usize) {
        let Some(upstream) = self.world.members.get(p) else { return };
        let boot = ha::Boot(p as u64 + 1);
        let upstream = Upstream { member: upstream.id(), boot, address: String::new(), epoch: Epoch(1) };
        self.world.attach(m, &upstream);
        self.settle();
    }

    /// Lets a running standby stream from nobody.
    pub fn detach(&mut self, m: usize) {
        self.world.detach(m);
        self.settle();
    }

    /// Cuts or mends the way between two servers.
    pub fn link(&mut self, a: usize, b: usize, up: bool) {
        for (from, to) in [(a, b), (b, a)] {
            if let Some(link) = self.world.net.link_mut(from, to) {
                link.up = up;
            }
        }
        self.settle();
    }

    /// Whether anything passes between two servers.
    pub fn linked(&self, a: usize, b: usize) -> bool {
        self.world.net.passes(a, b)
    }

    /// Promotes a standby; so many ids above the next one are planted first (P11).
    pub fn promote(&mut self, m: usize, above: u32, names: Names) {
        let Some(timeline) = self.data(m).map(|data| data.wal.timeline().0 + 1 + above) else { return };
        self.world.plant(m, Timeline(timeline));
        self.world.promote(m, timeline, names);
        self.settle();
    }

    /// Rewinds a stopped directory to a running master's.
    pub fn rewind(&mut self, m: usize, from: usize) {
        let Some(source) = self.data(from).cloned() else { return };
        let (copies, keeps) =
            (self.misreads(Misreading::RewindCopies), self.misreads(Misreading::RewindKeepsHistory));
        if let Some(data) = self.world.members.get_mut(m).and_then(|member| member.data.as_mut()) {
            let planted = data.planted.clone();
            if copies {
                data.control = 0;
            }
            data.rewind_to(&source);
            if keeps {
                data.planted = planted;
            }
        }
    }

    /// Replaces a stopped directory by a base backup of a running master.
    pub fn clone_from(&mut self, m: usize, from: usize) {
        self.checkpoint(from);
        self.settle();
        let Some(source) = self.data(from).cloned() else { return };
        if let Some(member) = self.world.members.get_mut(m) {
            member.data = Some(source.cloned());
        }
    }

    /// Pauses the replay of a standby, or lets it go on.
    pub fn pause(&mut self, m: usize, pause: bool) {
        let now = self.world.now;
        let Some(member) = self.world.members.get_mut(m) else { return };
        let replayed = member.replayed(now);
        let takes = self.world.misreading != Some(Misreading::ReceivedIsReplayed);
        if let Some(standby) = member.standby_mut() {
            standby.stall = (pause && takes).then_some((u64::MAX, replayed));
        }
        self.settle();
    }

    /// Whether replay is paused.
    pub fn is_paused(&self, m: usize) -> bool {
        let standby = self.world.members.get(m).and_then(Member::standby);
        standby.and_then(|standby| standby.stall).is_some_and(|(until, _)| until == u64::MAX)
    }

    /// Stops every process of a server with a signal, or lets them go on.
    pub fn freeze(&mut self, m: usize, freeze: bool) {
        let now = self.world.now;
        let Some(member) = self.world.members.get_mut(m) else { return };
        if freeze {
            member.pg_frozen = now + FROZEN;
            // Nobody has missed it yet: what comes next is still sent to it.
            self.run_until(now + SECOND);
        } else {
            let end = member.pg_frozen;
            self.run_until(end);
            self.settle();
        }
    }

    /// Whether its processes are stopped.
    pub fn is_frozen(&self, m: usize) -> bool {
        self.world.members.get(m).is_some_and(|member| member.pg_frozen > self.world.now)
    }

    /// Its data directory.
    pub fn data(&self, m: usize) -> Option<&Data> {
        self.world.members.get(m).and_then(|member| member.data.as_ref())
    }

    /// What it is doing.
    pub fn doing(&self, m: usize) -> Doing {
        let Some(member) = self.world.members.get(m) else { return Doing::Down };
        match member.pod.as_ref().map(|pod| &pod.state) {
            Some(State::Primary(_)) => Doing::Primary,
            Some(State::Standby(_)) => {
                let consistent =
                    member.data.as_ref().is_some_and(|data| data.wal.end() >= data.consistent_at);
                if consistent { Doing::Standby } else { Doing::Recovering }
            }
            Some(State::Starting(_)) => Doing::Recovering,
            Some(State::Down) | None => Doing::Down,
        }
    }

    /// Whom `primary_conninfo` of a running standby names.
    pub fn upstream(&self, m: usize) -> Option<usize> {
        let upstream = self.world.members.get(m)?.standby()?.upstream.as_ref()?;
        usize::try_from(upstream.boot.0).ok()?.checked_sub(1)
    }

    /// Whether this log holds a record that the other's lacks.
    pub fn diverges(&self, m: usize, from: usize) -> bool {
        let (Some(ours), Some(theirs)) = (self.data(m), self.data(from)) else { return false };
        ours.wal.common(&theirs.wal) < ours.wal.end()
    }

    /// Whether the two logs differ where PostgreSQL cannot see it: other content on the same timeline (P11, P24).
    pub fn conflicts(&self, a: usize, b: usize) -> bool {
        let (Some(a), Some(b)) = (self.data(a), self.data(b)) else { return false };
        let common = a.wal.common(&b.wal);
        match (a.wal.at(common + 1), b.wal.at(common + 1)) {
            (Some(a), Some(b)) => a.timeline == b.timeline,
            _ => false,
        }
    }

    /// What can be seen of one server.
    pub fn seen(&self, m: usize) -> Seen {
        self.seen_without(m, &BTreeSet::new())
    }

    /// The same when these rows are hidden from its readers.
    pub fn seen_without(&self, m: usize, hidden: &BTreeSet<u32>) -> Seen {
        let doing = self.doing(m);
        let (now, nothing) = (self.world.now, Data::default());
        let data = self.data(m).unwrap_or(&nothing);
        let mut seen = Seen {
            doing,
            timeline: None,
            control: data.control,
            rows: BTreeSet::new(),
            history: Vec::new(),
            streams_from: None,
            flushed: BTreeMap::new(),
        };
        let Some(member) = self.world.members.get(m) else { return seen };
        let end = match doing {
            Doing::Down | Doing::Recovering => return seen,
            Doing::Standby => member.replayed(now),
            Doing::Primary => data.wal.flushed,
        };
        let hides = doing == Doing::Standby && self.misreads(Misreading::WaitingIsHidden);
        let waits = |at: usize| {
            let anywhere = self.world.members.iter().filter_map(Member::primary);
            member.primary().is_some_and(|primary| primary.waiting.contains(&at))
                || (hides && anywhere.flat_map(|primary| &primary.waiting).any(|waiting| *waiting == at))
        };
        let mut last = data.wal.records.first().map_or(1, |rec| rec.timeline);
        for (index, rec) in data.wal.records.iter().enumerate().take(end) {
            if rec.timeline != last {
                seen.history.push((last, seen.rows.len()));
                last = rec.timeline;
            }
            if let Some(row) = self.rows.get(&rec.id).filter(|row| !waits(index + 1) && !hidden.contains(row))
            {
                seen.rows.insert(*row);
            }
        }
        seen.timeline = Some(member.primary().map_or(last, |primary| primary.timeline));
        if let Some(standby) = member.standby() {
            let conn = standby.conn.and_then(|conn| self.world.conns.get(&conn));
            seen.streams_from = conn.map(|conn| conn.primary);
        }
        for (incarnation, sender) in member.primary().iter().flat_map(|primary| &primary.senders) {
            let standby = self.world.members.iter().position(|s| s.promise.incarnation == *incarnation);
            let reached = data.wal.records.iter().take(sender.flushed.unwrap_or(0));
            let rows = reached.filter(|rec| self.rows.contains_key(&rec.id)).count();
            seen.flushed.extend(standby.map(|standby| (standby, rows)));
        }
        seen
    }

    fn misreads(&self, misreading: Misreading) -> bool {
        self.world.misreading == Some(misreading)
    }

    /// Lets everything happen that is going to.
    fn settle(&mut self) {
        self.run_until(self.world.now + SETTLES);
    }

    fn run_until(&mut self, end: u64) {
        // Time passes although nothing else is left to happen: a look at a stream that never was.
        self.world.queue.push(end, Event::Keepalive { conn: u64::MAX });
        let everybody: Vec<Incarnation> = (0..self.count()).map(|m| self.incarnation(m)).collect();
        while self.world.now < end && self.world.step() {
            for member in &mut self.world.members {
                if let Some(primary) = member.primary_mut().filter(|p| p.prepared.len() < everybody.len()) {
                    primary.prepared.extend(&everybody);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quorum(servers: &Servers, of: &[usize]) -> Names {
        Names::Quorum { members: of.iter().map(|m| servers.incarnation(*m)).collect(), acks: 1 }
    }

    fn write(servers: &mut Servers, row: u32, m: usize) -> Outcome {
        servers.begin(row, m);
        servers.commit(row, false);
        servers.outcome(row).unwrap()
    }

    #[test]
    fn p1_a_waiting_commit_is_seen_by_the_standby_only() {
        let mut servers = Servers::new(3, 1, None);
        servers.set_names(0, quorum(&servers, &[2]));
        assert_eq!(write(&mut servers, 1, 0), Outcome::Committed);
        servers.link(2, 0, false);
        assert_eq!(write(&mut servers, 2, 0), Outcome::Waits);
        assert_eq!(servers.seen(0).rows, BTreeSet::from([1]));
        assert_eq!(servers.seen(1).rows, BTreeSet::from([1, 2]));
        assert_eq!(servers.seen(2).rows, BTreeSet::from([1]));
        servers.link(2, 0, true);
        assert_eq!(servers.outcome(2), Some(Outcome::Committed));
    }

    #[test]
    fn a_promotion_forks_and_the_former_master_rewinds() {
        let mut servers = Servers::new(2, 2, None);
        servers.link(1, 0, false);
        assert_eq!(write(&mut servers, 1, 0), Outcome::Committed);
        servers.promote(1, 1, Names::Alone);
        assert_eq!(servers.seen(1).timeline, Some(3));
        assert_eq!(servers.seen(1).history, [(1, 0)]);
        servers.link(1, 0, true);
        servers.kill(0);
        assert!(servers.diverges(0, 1) && !servers.conflicts(0, 1));
        servers.rewind(0, 1);
        servers.start_standby(0, Some(1));
        assert_eq!(write(&mut servers, 2, 1), Outcome::Committed);
        assert_eq!(servers.seen(0).rows, BTreeSet::from([2]));
        assert_eq!(servers.seen(1).flushed, BTreeMap::from([(0, 1)]));
    }
}
