//! One server: start, crash, stop, promotion in steps, commits and their wait.

use ha::{Gate, Incarnation, Names};

use crate::dice::{MS, SECOND};
use crate::event::Event;
use crate::member::{PrimaryState, StandbyState, State};
use crate::misreading::Misreading;
use crate::world::World;

impl World {
    /// Every process of this Postgres is gone; what was written stays, waiting commits are unknown.
    pub fn kill_postgres(&mut self, m: usize) {
        let life = self.id();
        self.close_all(m);
        let Some(member) = self.members.get_mut(m) else { return };
        let Some(pod) = &mut member.pod else { return };
        let was = std::mem::replace(&mut pod.state, State::Down);
        pod.pg = life;
        if let (State::Primary(primary), Some(data), Some(Misreading::CrashLosesWaiting)) =
            (&was, &mut member.data, self.misreading)
            && let Some(first) = primary.waiting.first()
        {
            data.wal.records.truncate(first.saturating_sub(1));
            data.wal.flushed = data.wal.end();
        }
        if let Some(agent) = &mut pod.agent {
            if matches!(agent.busy, Some("promotion" | "stop")) {
                agent.busy = None;
            }
            agent.doing.clear();
        }
        if let (Some(data), false) = (&mut member.data, matches!(was, State::Down)) {
            data.clean = false;
            match was {
                State::Standby(_) | State::Starting(None) => data.was_standby = true,
                _ => data.was_standby = false,
            }
        }
        member.pg_frozen = 0;
        if member.ghost {
            member.pod = None;
        }
        self.nudge(m);
    }

    /// Begins a start, as a standby or with these names as master.
    pub fn start_postgres(&mut self, m: usize, primary: Option<Names>) {
        let delay =
            if self.dice.permille(100) { self.dice.millis(500, 4000) } else { self.dice.millis(50, 400) };
        let pg = self.id();
        let Some(pod) = self.members.get_mut(m).and_then(|member| member.pod.as_mut()) else { return };
        if !matches!(pod.state, State::Down) {
            return;
        }
        let upstream = self.catch_up_from(m);
        let Some(member) = self.members.get_mut(m) else { return };
        if member.promise.catching_up.is_some() {
            let Some(upstream) = upstream else { return };
            member.promise.last_epoch = upstream.epoch;
        }
        let Some(pod) = &mut member.pod else { return };
        pod.pg = pg;
        let (rules, full) =
            (self.world_rules, self.members.get(m).is_some_and(|member| member.full_until > self.now));
        if full {
            self.say(|| format!("pg-{m} Postgres cannot start: no space left"));
            return;
        }
        self.clear_planted(m);
        if rules.end_every_process {
            self.end_ghosts_beside(m);
        } else {
            self.start_over_ghosts(m);
        }
        let Some(member) = self.members.get_mut(m) else { return };
        if let Some(data) = &mut member.data {
            if primary.is_some() {
                data.signal = false;
            } else if rules.signal_before_start {
                data.signal = true;
            }
            if rules.close_gate {
                data.gate_open = false;
            }
        }
        self.say(|| format!("pg-{m} Postgres starts{}", if primary.is_some() { " as master" } else { "" }));
        let Some(pod) = self.members.get_mut(m).and_then(|member| member.pod.as_mut()) else { return };
        pod.state = State::Starting(primary);
        self.later(delay, Event::Started { m, pg });
    }

    pub(crate) fn started(&mut self, m: usize, pg: u64) {
        let record = self.id();
        let now = self.now;
        let (slow, until) = (self.dice.permille(300), self.dice.millis(50, 1500));
        let behind = self.dice.between(0, 40);
        let Some(member) = self.members.get_mut(m).filter(|member| member.pg_life() == Some(pg)) else {
            return;
        };
        let (Some(data), Some(pod)) = (&mut member.data, &mut member.pod) else { return };
        if data.torn {
            self.violated(format!("S2: pg-{m} starts from a half-rewound directory"));
            return;
        }
        // A start syncs the data directory.
        data.wal.flushed = data.wal.end();
        data.clean = false;
        data.control = data.backup_label.take().unwrap_or(data.control);
        match std::mem::replace(&mut pod.state, State::Down) {
            State::Starting(None) if data.signal => {
                data.was_standby = true;
                // It answers once it is consistent, with more to replay.
                let at = data.wal.end().saturating_sub(usize::try_from(behind).unwrap_or(0));
                let stall = slow.then_some((now + until, at.max(data.consistent_at)));
                pod.state = State::Standby(StandbyState { stall, ..StandbyState::default() });
                let promised = member.promise.last_epoch;
                if let Some(upstream) = self.catch_up_from(m).filter(|upstream| upstream.epoch == promised) {
                    self.attach(m, &upstream);
                }
                self.measure(m);
            }
            State::Starting(None) => {
                // P24: a crash recovery on the control file's timeline, and writable after it.
                let control = data.control;
                data.wal.records.retain(|rec| rec.timeline <= control);
                data.wal.flushed = data.wal.end();
                let timeline = data.wal.timeline().0;
                // Recovery ends with a checkpoint.
                data.control = timeline;
                data.was_standby = false;
                self.become_primary(m, record, timeline, Names::Placeholder);
            }
            State::Starting(Some(names)) => {
                let timeline = data.wal.timeline().0;
                // Recovery ends with a checkpoint.
                data.control = timeline;
                data.was_standby = false;
                self.become_primary(m, record, timeline, names);
            }
            other => pod.state = other,
        }
        self.nudge(m);
    }

    /// Out of recovery: the first record of this start is written and flushed locally.
    fn become_primary(&mut self, m: usize, record: u64, timeline: u32, names: Names) {
        let Some(member) = self.members.get_mut(m) else { return };
        let (epoch, id) = (member.promise.last_epoch, member.id());
        self.truth_timeline(timeline, &id);
        let Some(member) = self.members.get_mut(m) else { return };
        let (Some(data), Some(pod)) = (&mut member.data, &mut member.pod) else { return };
        data.wal.append(record, timeline);
        data.wal.flushed = data.wal.end();
        let end = data.wal.end();
        let open = data.gate_open;
        pod.state = State::Primary(Box::new(PrimaryState {
            timeline,
            first: end,
            names,
            next_names: None,
            changes: 0,
            visible: 0,
            gate: if open { Gate::Open } else { Gate::Closed },
            fence_xid: None,
            senders: std::collections::BTreeMap::new(),
            prepared: std::collections::BTreeSet::new(),
            waiting: std::collections::BTreeSet::new(),
            stopping: false,
            epoch,
        }));
        self.say(|| format!("pg-{m} is out of recovery on timeline {timeline} at {end}"));
        if open {
            self.truth_opened(m);
        }
        self.nudge(m);
    }

    /// Plans the measurement of the end of the log.
    pub fn measure(&mut self, m: usize) {
        let delay =
            if self.dice.permille(50) { self.dice.millis(200, 1500) } else { self.dice.millis(5, 80) };
        let Some(member) = self.members.get(m) else { return };
        let (Some(standby), Some(pg)) = (member.standby(), member.pg_life()) else { return };
        let upstreams = standby.upstreams;
        let now = self.now;
        if let Some(standby) = self.members.get_mut(m).and_then(|member| member.standby_mut()) {
            standby.measured_at = now;
        }
        self.later(delay, Event::Measured { m, pg, upstreams });
    }

    pub(crate) fn measured(&mut self, m: usize, pg: u64, upstreams: u64) {
        let (now, rules) = (self.now, self.world_rules);
        let (again, hurried) = (self.dice.millis(20, 200), self.dice.permille(500));
        let Some(member) = self.members.get_mut(m).filter(|member| member.pg_life() == Some(pg)) else {
            return;
        };
        let Some(data) = &mut member.data else { return };
        data.wal.flushed = data.wal.end();
        let replayed = member.replayed(now);
        let Some(data) = &mut member.data else { return };
        let consistent = data.wal.end() >= data.consistent_at;
        let (mut end, read) = (data.wal.position(), replayed >= data.wal.end());
        if !rules.measure_end {
            // The startup process sleeps: taken for the end of the log (P8).
            end = data.wal.position_of(replayed);
        } else if !read {
            // Sessions that hold replay up are ended, a paused replay is resumed; then it goes on.
            if let Some(standby) = member.standby_mut().filter(|_| hurried) {
                standby.stall = None;
            }
            if let Some(standby) = member.standby_mut() {
                standby.measured_at = now;
            }
            self.later(again, Event::Measured { m, pg, upstreams });
            return;
        }
        if let Some(standby) = member.standby_mut()
            && standby.upstreams == upstreams
            && standby.upstream.is_none()
            && consistent
        {
            standby.end = Some(end);
        }
        self.nudge(m);
    }

    /// A promotion: names first, then the end of recovery.
    pub fn promote(&mut self, m: usize, timeline: u32, names: Names) {
        let delay = self.dice.millis(20, 150);
        let Some(member) = self.members.get_mut(m) else { return };
        let Some(pg) = member.pg_life() else { return };
        let Some(standby) = member.standby_mut() else { return };
        standby.promoting = Some((timeline, names));
        if self.misreading == Some(Misreading::PromotionStreams) {
            self.later(delay, Event::SignalRemoved { m, pg });
            return;
        }
        // The startup process ends the walreceiver before anything else, and asks for no other.
        standby.upstream = None;
        if let Some(conn) = standby.conn {
            self.close(conn);
        }
        self.later(delay, Event::SignalRemoved { m, pg });
        self.at_a_step(m);
    }

    /// Recovery has ended, the end-of-recovery record is not written yet: a crash now restarts writable on the old
    /// timeline, unless somebody makes the signal file again (P24).
    pub(crate) fn signal_removed(&mut self, m: usize, pg: u64) {
        let delay = if self.dice.permille(100) { self.dice.millis(50, 800) } else { self.dice.millis(1, 40) };
        let Some(member) = self.members.get_mut(m).filter(|member| member.pg_life() == Some(pg)) else {
            return;
        };
        if let Some(data) = &mut member.data {
            data.signal = false;
        }
        self.later(delay, Event::Promoted { m, pg });
        self.at_a_step(m);
    }

    /// History files of a promotion that did not complete go before any start and any follow (P11).
    pub fn clear_planted(&mut self, m: usize) {
        let remove = self.world_rules.remove_planted;
        let Some(member) = self.members.get_mut(m) else { return };
        let Some(data) = &mut member.data else { return };
        let reached = data.wal.timeline();
        let listed = std::mem::take(&mut member.promise.planted);
        for timeline in listed {
            if remove && timeline > reached {
                data.planted.remove(&timeline.0);
            }
        }
    }

    pub(crate) fn promoted(&mut self, m: usize, pg: u64) {
        let record = self.id();
        let Some(member) = self.members.get_mut(m).filter(|member| member.pg_life() == Some(pg)) else {
            return;
        };
        let Some((timeline, names)) = member.standby().and_then(|standby| standby.promoting.clone()) else {
            return;
        };
        if let Some(agent) = member.pod.as_mut().and_then(|pod| pod.agent.as_mut())
            && agent.busy == Some("promotion")
        {
            agent.busy = None;
        }
        let names = if self.world_rules.names_before_promotion { names } else { Names::Alone };
        self.recover_from_archive(m);
        self.truth_promoted(m);
        let Some(member) = self.members.get_mut(m) else { return };
        // PostgreSQL takes the first id above its own that has no history file.
        let any = self.misreading == Some(Misreading::NextTimeline);
        let chosen = member.data.as_ref().map_or(timeline, |data| {
            let free = |id: &u32| any || !data.planted.contains(id);
            (data.wal.timeline().0 + 1..u32::MAX).find(free).unwrap_or(timeline)
        });
        if chosen != timeline {
            self.say(|| format!("pg-{m} promotes to timeline {chosen}, not {timeline}"));
        }
        let timeline = chosen;
        let hidden = self.hidden_by_a_promotion(m);
        self.become_primary(m, record, timeline, names);
        if let Some(primary) = self.members.get_mut(m).and_then(|member| member.primary_mut()) {
            primary.waiting.extend(hidden);
        }
        let delay = self.dice.millis(10, 800);
        self.later(delay, Event::Checkpointed { m, pg, timeline });
        self.at_a_step(m);
    }

    /// What a `restore_command` that was not cleared would still find: whole segments that a former leader archived.
    fn recover_from_archive(&mut self, m: usize) {
        if self.world_rules.strip_restore {
            return;
        }
        let Some(ours) = self.members.get(m).and_then(|member| member.data.as_ref()) else { return };
        let end = ours.wal.end();
        let more = self.members.iter().filter_map(|other| {
            let wal = &other.data.as_ref()?.wal;
            let archived = wal.flushed / 16 * 16;
            let further = wal.records.get(end..archived)?;
            let same = wal.at(end).map(|rec| rec.id) == ours.wal.at(end).map(|rec| rec.id);
            (same && !further.is_empty()).then(|| further.to_vec())
        });
        let Some(more) = more.max_by_key(Vec::len) else { return };
        if let Some(data) = self.members.get_mut(m).and_then(|member| member.data.as_mut()) {
            data.wal.records.extend(more);
            data.wal.flushed = data.wal.end();
        }
    }

    pub(crate) fn checkpointed(&mut self, m: usize, pg: u64, timeline: u32) {
        let Some(member) = self.members.get_mut(m).filter(|member| member.pg_life() == Some(pg)) else {
            return;
        };
        if let Some(data) = &mut member.data {
            data.control = timeline;
        }
        if member.agent_life().is_some() {
            member.promise.planted.clear();
        }
        self.nudge(m);
    }

    /// New names: some processes use them at once, all of them only later.
    pub fn set_names(&mut self, m: usize, names: Names) {
        let stalled = self.dice.permille(150);
        let delay = if stalled { self.dice.millis(400, 4_000) } else { self.dice.millis(5, 300) };
        let Some(member) = self.members.get_mut(m) else { return };
        let Some(pg) = member.pg_life() else { return };
        let Some(primary) = member.primary_mut() else { return };
        // An act that is repeated after it succeeded changes nothing.
        if *primary.next_names.as_ref().unwrap_or(&primary.names) == names {
            return;
        }
        primary.changes += 1;
        let change = primary.changes;
        primary.next_names = Some(names);
        self.later(delay, Event::NamesInForce { m, pg, change });
        self.release(m);
    }

    pub(crate) fn names_in_force(&mut self, m: usize, pg: u64, change: u64) {
        let Some(member) = self.members.get_mut(m).filter(|member| member.pg_life() == Some(pg)) else {
            return;
        };
        let Some(primary) = member.primary_mut() else { return };
        if primary.changes == change
            && let Some(names) = primary.next_names.take()
        {
            primary.names = names;
        }
        self.release(m);
        self.nudge(m);
    }

    /// A client writes to any master whose gate is open, cut off or not.
    pub(crate) fn client_write(&mut self) {
        let next = self.dice.millis(5, 60);
        self.later(next, Event::ClientWrite);
        let open: Vec<usize> = (0..self.members.len())
            .filter(|m| {
                self.members.get(*m).is_some_and(|member| {
                    member.pg_frozen <= self.now
                        && member
                            .primary()
                            .is_some_and(|primary| primary.gate == Gate::Open && !primary.stopping)
                })
            })
            .collect();
        let Some(m) = open.get(self.dice.index(open.len())).copied() else { return };
        let record = self.id();
        let flush = self.dice.millis(0, 4);
        let weak = self.dice.permille(self.weak_commits);
        let cancel = self.dice.permille(20);
        let patience = self.dice.millis(1, 2000);
        let pg = self.members.get(m).and_then(crate::member::Member::pg_life);
        let (Some(at), Some(pg)) = (self.commit_on(m, record, weak, flush), pg) else { return };
        if cancel {
            self.later(patience, Event::Cancel { m, pg, at });
        }
    }

    pub(crate) fn primary_flushed(&mut self, m: usize, pg: u64, to: usize) {
        let Some(member) = self.members.get_mut(m).filter(|member| member.pg_life() == Some(pg)) else {
            return;
        };
        let Some(data) = &mut member.data else { return };
        data.wal.flushed = data.wal.flushed.max(to.min(data.wal.end()));
        if member.ghost {
            self.inherit(m);
        }
        self.pump(m);
        self.release(m);
    }

    /// A cancelled wait is answered with a warning: neither acknowledged nor undone (P2).
    pub(crate) fn cancel(&mut self, m: usize, pg: u64, at: usize) {
        let Some(member) = self.members.get_mut(m).filter(|member| member.pg_life() == Some(pg)) else {
            return;
        };
        if let Some(primary) = member.primary_mut()
            && primary.waiting.remove(&at)
        {
            self.say(|| format!("a client cancels its wait for {at} on pg-{m}"));
        }
    }

    /// A client reads from any master whose gate is open, deposed or not (S8).
    pub(crate) fn client_read(&mut self) {
        let next = self.dice.millis(50, 800);
        self.later(next, Event::ClientRead);
        for m in 0..self.members.len() {
            let Some(member) = self.members.get(m).filter(|member| member.pg_frozen <= self.now) else {
                continue;
            };
            if let Some(visible) = member.primary().filter(|p| p.gate == Gate::Open).map(|p| p.visible) {
                self.truth_read(m, visible);
            }
        }
    }

    /// Releases commits that wait no longer.
    pub fn release(&mut self, m: usize) {
        let Some(member) = self.members.get(m) else { return };
        let (Some(primary), Some(data)) = (member.primary(), &member.data) else { return };
        if primary.waiting.is_empty() {
            return;
        }
        let lets = |names: &Names, at: usize| match names {
            Names::Alone => true,
            Names::Quorum { members, acks } => {
                let flushed = |incarnation: &&Incarnation| {
                    primary.senders.get(incarnation).is_some_and(|sender| sender.flushed >= Some(at))
                };
                let acks = if self.misreading == Some(Misreading::OneIsEnough) { 1 } else { *acks };
                let counted = if self.misreading == Some(Misreading::AnybodyCounts) {
                    primary.senders.keys().filter(flushed).count()
                } else {
                    members.iter().filter(flushed).count()
                };
                counted >= acks as usize
            }
            Names::Unknown | Names::Placeholder => false,
        };
        let mut released = Vec::new();
        for at in &primary.waiting {
            if *at > data.wal.flushed {
                break;
            }
            let by_old = lets(&primary.names, *at);
            // While names change, some processes let through by the old ones and some by the new ones.
            let by_new = primary.next_names.as_ref().is_some_and(|names| lets(names, *at));
            if by_old || by_new {
                released.push((
                    *at,
                    if by_old {
                        primary.names.clone()
                    } else {
                        primary.next_names.clone().unwrap_or(Names::Unknown)
                    },
                ));
            }
        }
        for (at, names) in released {
            if let Some(primary) = self.members.get_mut(m).and_then(|member| member.primary_mut()) {
                primary.waiting.remove(&at);
                primary.visible = primary.visible.max(at);
            }
            self.truth_acknowledged(m, at, &names);
        }
    }

    /// A fast stop begins: no new writes, a shutdown checkpoint, its flush to the standbys.
    pub fn stop_fast(&mut self, m: usize) {
        let record = self.id();
        let now = self.now;
        let Some(member) = self.members.get_mut(m) else { return };
        let (Some(pg), agent) = (member.pg_life(), member.agent_life().unwrap_or(0)) else { return };
        let timeline = member.primary().map(|primary| primary.timeline);
        if let (Some(timeline), Some(data)) = (timeline, &mut member.data) {
            data.wal.append(record, timeline);
            data.wal.flushed = data.wal.end();
        }
        if let Some(primary) = member.primary_mut() {
            primary.stopping = true;
        }
        if self.misreading != Some(Misreading::StopSendsNothing) {
            self.pump(m);
        }
        self.later(20 * MS, Event::Stopping { m, pg, agent, since: now });
    }

    pub(crate) fn stopping(&mut self, m: usize, pg: u64, agent: u64, since: u64) {
        let now = self.now;
        let Some(member) = self.members.get(m).filter(|member| member.pg_life() == Some(pg)) else { return };
        let end = member.data.as_ref().map_or(0, |data| data.wal.end());
        let flushed = member
            .primary()
            .is_none_or(|primary| primary.senders.values().all(|sender| sender.flushed >= Some(end)));
        if !flushed && now.saturating_sub(since) < SECOND {
            self.later(20 * MS, Event::Stopping { m, pg, agent, since });
            return;
        }
        let was_standby = member.primary().is_none();
        let replayed = if was_standby { member.replayed(now) } else { end };
        self.kill_postgres(m);
        let restartpoint = !was_standby || self.misreading != Some(Misreading::StopIsNoRestartpoint);
        let Some(member) = self.members.get_mut(m) else { return };
        if let Some(data) = &mut member.data {
            data.clean = true;
            data.was_standby = was_standby;
            data.wal.flushed = data.wal.end();
            // A master's shutdown checkpoint, or a standby's restartpoint at the last one that it has replayed.
            if restartpoint {
                data.control = data.wal.position_of(replayed).timeline.0;
            }
        }
        self.say(|| format!("pg-{m} has stopped cleanly at {end}"));
        if let Some(agent) = self.members.get_mut(m).and_then(|member| member.agent_mut(agent)) {
            agent.busy = None;
        }
        self.nudge(m);
    }
}
