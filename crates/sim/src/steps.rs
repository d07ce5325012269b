//! Single steps of the model of PostgreSQL, shared by the worlds of the simulator and by the driver of a few servers.
//!
//! What a step does to a server is decided here once: the differential tests (`tests/differential`) compare it with real
//! servers, the simulator builds on it. Must never look at agents or records.

use ha::Upstream;

use crate::dice::MS;
use crate::event::Event;
use crate::member::Data;
use crate::misreading::Misreading;
use crate::world::World;

impl World {
    /// A client commits on this master: the record is written, its flush begins, and unless the commit is weak it waits
    /// for whom the names say. The end of its record; none when nobody could write it.
    pub(crate) fn commit_on(&mut self, m: usize, record: u64, weak: bool, flush: u64) -> Option<usize> {
        let now = self.now;
        let weak = weak && self.misreading != Some(Misreading::WeakCommitsWait);
        let member = self.members.get_mut(m)?;
        let pg = member.pg_life()?;
        let timeline = member.primary().map(|primary| primary.timeline)?;
        if member.full_until > now {
            self.say(|| format!("pg-{m} PANIC: no space left for WAL"));
            self.kill_postgres(m);
            return None;
        }
        let data = member.data.as_mut()?;
        data.wal.append(record, timeline);
        let to = data.wal.end();
        if let Some(primary) = member.primary_mut().filter(|_| !weak) {
            primary.waiting.insert(to);
        }
        self.later(flush, Event::PrimaryFlush { m, pg, to });
        Some(to)
    }

    /// Whom a rewound directory is started with, which is not consistent without: the leader that the record names, on
    /// the timeline that it was rewound to.
    pub(crate) fn catch_up_from(&self, m: usize) -> Option<Upstream> {
        let member = self.members.get(m)?;
        let timeline = member.promise.catching_up?;
        let record = &member.pod.as_ref()?.agent.as_ref()?.known.as_ref()?.record;
        let leader = record.leader.as_ref().filter(|_| record.timeline == timeline)?;
        let allowed =
            member.promise.sealed_below <= record.epoch && member.promise.last_epoch <= record.epoch;
        allowed.then(|| Upstream {
            member: leader.member(),
            boot: leader.boot,
            address: String::new(),
            epoch: record.epoch,
        })
    }

    /// `primary_conninfo` names this upstream, and a reload makes the running standby use it.
    pub(crate) fn attach(&mut self, m: usize, upstream: &Upstream) {
        let Some(member) = self.members.get_mut(m) else { return };
        let Some(pg) = member.pg_life() else { return };
        let mut close = None;
        if let Some(standby) = member.standby_mut() {
            let same = standby
                .upstream
                .as_ref()
                .is_some_and(|old| old.member == upstream.member && old.boot == upstream.boot);
            close = standby.conn.filter(|_| !same);
            standby.upstream = Some(upstream.clone());
            standby.upstreams += 1;
            standby.end = None;
        }
        if let Some(conn) = close {
            self.close(conn);
        }
        self.later(5 * MS, Event::Connect { m, pg });
    }

    /// `primary_conninfo` is emptied, a reload makes the running standby notice, and its walreceiver is ended.
    pub(crate) fn detach(&mut self, m: usize) {
        let Some(member) = self.members.get_mut(m) else { return };
        let standby = member.standby_mut().map(|standby| {
            standby.upstream = None;
            standby.upstreams += 1;
            standby.end = None;
            standby.conn
        });
        if let (Some(Some(conn)), true) = (standby, self.world_rules.seal_stops_stream) {
            self.close(conn);
        }
    }
}

impl Data {
    /// `pg_rewind` of this stopped directory to a running master's: it does nothing while the control files show the
    /// same timeline (P22), whatever the logs hold.
    pub(crate) fn rewind_to(&mut self, source: &Self) {
        if self.control == source.control {
            return;
        }
        let common = self.wal.common(&source.wal);
        self.backup_label = self.wal.at(common).map(|rec| rec.timeline);
        self.wal.records.truncate(common);
        let further = source.wal.flushed - common.min(source.wal.flushed);
        self.wal.records.extend(source.wal.records.iter().skip(common).take(further));
        self.wal.flushed = self.wal.end();
        // The source's insert position: what it has not flushed yet comes by the stream only.
        self.consistent_at = source.wal.end();
        self.control = source.control;
        // It makes the directory of the log equal, file by file.
        self.planted.clone_from(&source.planted);
    }

    /// What `pg_basebackup` makes of this running master's directory.
    pub(crate) fn cloned(mut self) -> Self {
        self.wal.records.truncate(self.wal.flushed);
        self.consistent_at = self.wal.end();
        self.clean = false;
        self.was_standby = true;
        self.signal = true;
        self.torn = false;
        self.gate_open = false;
        self.backup_label = None;
        self
    }
}
