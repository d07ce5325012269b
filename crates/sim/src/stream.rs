//! Streaming replication: what a walsender sends, a walreceiver writes and flushes, and a reply confirms.

use ha::Incarnation;

use crate::dice::{MS, SECOND};
use crate::event::Event;
use crate::member::{Sender, State};
use crate::misreading::Misreading;
use crate::wal::Rec;
use crate::world::World;

/// One stream, between one life of a standby and one of a master.
#[derive(Debug, Clone)]
pub struct Conn {
    /// The standby's index.
    pub standby: usize,
    /// Its Postgres' life.
    pub standby_pg: u64,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The master's index.
    pub primary: usize,
    /// Its Postgres' life.
    pub primary_pg: u64,
    /// Sent so far.
    pub sent: usize,
    /// When both ends could last talk.
    pub ok_at: u64,
    /// No message overtakes another.
    pub to_standby: u64,
    /// No message overtakes another.
    pub to_primary: u64,
}

/// `wal_sender_timeout` and `wal_receiver_timeout`.
const TIMEOUT: u64 = 5 * SECOND;

impl World {
    /// A walreceiver tries to connect to what `primary_conninfo` names.
    pub fn connect(&mut self, m: usize, pg: u64) {
        let Some(member) = self.members.get(m).filter(|member| member.pg_life() == Some(pg)) else { return };
        let Some(standby) = member.standby() else { return };
        let (Some(upstream), None) = (standby.upstream.clone(), standby.conn) else { return };
        let incarnation = member.promise.incarnation;
        let epoch = upstream.epoch;
        let retry = self.dice.millis(100, 250);
        self.later(retry, Event::Connect { m, pg });
        // The address is that very pod's, wherever its name has gone since.
        let life =
            |other: &super::member::Member| other.pod.as_ref().map(|pod| pod.boot) == Some(upstream.boot);
        let p = self.members.iter().position(life);
        let Some(p) = p.filter(|p| self.net.passes(m, *p) && self.net.passes(*p, m)) else { return };
        let (Some(standby), Some(other)) = (self.members.get(m), self.members.get(p)) else { return };
        let right_life = other.pod.as_ref().is_some_and(|pod| pod.boot == upstream.boot);
        let (Some(primary), Some(ours), Some(theirs)) = (other.primary(), &standby.data, &other.data) else {
            return;
        };
        if !right_life || other.pg_frozen > self.now || !primary.prepared.contains(&incarnation) {
            return;
        }
        let stray = ours.planted.iter().any(|id| *id > ours.wal.timeline().0 && !theirs.planted.contains(id));
        let any = self.misreading == Some(Misreading::StrangerFollows);
        if !any && (stray || !ours.wal.attaches_to(&theirs.wal)) {
            self.say(|| format!("pg-{m} cannot stream from pg-{p}: its log does not go on from there (P12)"));
            return;
        }
        let (sent, primary_pg) = (ours.wal.end(), other.pg_life().unwrap_or(0));
        let conn = self.id();
        let now = self.now;
        self.conns.insert(
            conn,
            Conn {
                standby: m,
                standby_pg: pg,
                incarnation,
                primary: p,
                primary_pg,
                sent,
                ok_at: now,
                to_standby: now,
                to_primary: now,
            },
        );
        if let Some(standby) = self.members.get_mut(m).and_then(|member| member.standby_mut()) {
            standby.conn = Some(conn);
            standby.received = Some(sent);
            standby.end = None;
        }
        if let Some(primary) = self.members.get_mut(p).and_then(|member| member.primary_mut()) {
            let old = primary.senders.insert(incarnation, Sender { conn, flushed: None }).map(|old| old.conn);
            if let Some(old) = old {
                self.conns.remove(&old);
            }
        }
        self.say(|| format!("pg-{m} streams from pg-{p} at {sent}"));
        self.truth_followed(m, &upstream, epoch);
        self.reply(conn, m, sent);
        self.pump(p);
        self.later(500 * MS, Event::Keepalive { conn });
        self.nudge(m);
        self.nudge(p);
    }

    /// The time that a message takes on this link.
    pub(crate) fn delay(&mut self, from: usize, to: usize) -> u64 {
        let most = self.net.delay.max(1) + self.net.link(from, to).delay;
        self.dice.between(MS / 5, most * MS)
    }

    /// Sends what is flushed and not sent yet.
    pub fn pump(&mut self, p: usize) {
        let Some(pg) = self.members.get(p).and_then(super::member::Member::pg_life) else { return };
        let ids: Vec<u64> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.primary == p && conn.primary_pg == pg)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            let to = self.conns.get(&id).map_or(p, |conn| conn.standby);
            let delay = self.delay(p, to);
            let now = self.now;
            let Some(data) = self.members.get(p).and_then(|member| member.data.as_ref()) else { return };
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            let Some(records) = data.wal.records.get(conn.sent..data.wal.flushed) else { continue };
            if records.is_empty() {
                continue;
            }
            let (start, records) = (conn.sent, records.to_vec());
            conn.sent = data.wal.flushed;
            conn.to_standby = conn.to_standby.max(now + delay);
            let at = conn.to_standby;
            let (incarnation, to) = (conn.incarnation, conn.sent);
            self.queue.push(at, Event::Wal { conn: id, start, records });
            if self.misreading == Some(Misreading::SentIsFlushed)
                && let Some(primary) = self.members.get_mut(p).and_then(|member| member.primary_mut())
                && let Some(sender) = primary.senders.get_mut(&incarnation)
            {
                sender.flushed = sender.flushed.max(Some(to));
            }
        }
    }

    pub(crate) fn wal_arrives(&mut self, id: u64, start: usize, records: Vec<Rec>) {
        let Some(conn) = self.conns.get(&id).cloned() else { return };
        if !self.net.passes(conn.primary, conn.standby) {
            // TCP sends it again.
            self.later(100 * MS, Event::Wal { conn: id, start, records });
            return;
        }
        let slow = self.dice.permille(5);
        let flush = if slow { self.dice.millis(50, 400) } else { self.dice.millis(0, 6) };
        let reply_first = !self.world_rules.flush_before_reply;
        let now = self.now;
        let Some(member) = self.members.get_mut(conn.standby) else { return };
        if member.pg_life() != Some(conn.standby_pg) {
            return;
        }
        let Some(data) = &mut member.data else { return };
        if data.wal.end() > start {
            // Sent again over a reordered retransmission: already here.
            return;
        }
        if data.wal.end() < start {
            self.later(10 * MS, Event::Wal { conn: id, start, records });
            return;
        }
        let strange = records
            .first()
            .is_some_and(|first| first.prev != data.wal.records.last().map_or(0, |rec| rec.id));
        let full = member.full_until > now;
        let Some(data) = &mut member.data else { return };
        if full {
            self.say(|| format!("pg-{} PANIC: no space left for WAL", conn.standby));
            self.kill_postgres(conn.standby);
            return;
        }
        if strange {
            self.violated(format!(
                "I11: pg-{} glues pg-{}'s log at {start} to another log",
                conn.standby, conn.primary
            ));
            return;
        }
        data.wal.records.extend(records);
        let to = data.wal.end();
        if to >= data.consistent_at {
            member.promise.catching_up = None;
        }
        if let Some(standby) = member.standby_mut() {
            standby.received = Some(to);
        }
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.ok_at = now;
        }
        if reply_first {
            self.reply(id, conn.standby, to);
        }
        self.later(flush, Event::StandbyFlush { m: conn.standby, pg: conn.standby_pg, conn: id, to });
    }

    pub(crate) fn standby_flushed(&mut self, m: usize, pg: u64, conn: u64, to: usize) {
        let now = self.now;
        let (conflict, until) = (self.dice.permille(4), self.dice.millis(100, 6000));
        let Some(member) = self.members.get_mut(m).filter(|member| member.pg_life() == Some(pg)) else {
            return;
        };
        let Some(data) = &mut member.data else { return };
        data.wal.flushed = data.wal.flushed.max(to.min(data.wal.end()));
        if conflict && let Some(standby) = member.standby_mut() {
            standby.stall =
                standby.stall.filter(|(ends, _)| *ends > now).or(Some((now + until, to.saturating_sub(1))));
        }
        self.reply(conn, m, to);
    }

    fn reply(&mut self, id: u64, m: usize, flushed: usize) {
        let p = self.conns.get(&id).map_or(m, |conn| conn.primary);
        let delay = self.delay(m, p);
        let now = self.now;
        let replayed = self.members.get(m).map_or(flushed, |member| member.replayed(now));
        let by_replay = self.misreading == Some(Misreading::ReplayedIsFlushed);
        let flushed = if by_replay { flushed.min(replayed) } else { flushed };
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.standby == m) else { return };
        conn.to_primary = conn.to_primary.max(now + delay);
        let at = conn.to_primary;
        self.queue.push(at, Event::Reply { conn: id, flushed });
    }

    pub(crate) fn reply_arrives(&mut self, id: u64, flushed: usize) {
        let Some(conn) = self.conns.get(&id).cloned() else { return };
        if !self.net.passes(conn.standby, conn.primary) {
            self.later(100 * MS, Event::Reply { conn: id, flushed });
            return;
        }
        let Some(member) =
            self.members.get_mut(conn.primary).filter(|member| member.pg_life() == Some(conn.primary_pg))
        else {
            return;
        };
        let Some(primary) = member.primary_mut() else { return };
        if let Some(sender) = primary.senders.get_mut(&conn.incarnation).filter(|sender| sender.conn == id) {
            sender.flushed = sender.flushed.max(Some(flushed));
        }
        self.release(conn.primary);
    }

    pub(crate) fn keepalive(&mut self, id: u64) {
        let Some(conn) = self.conns.get(&id).cloned() else { return };
        let now = self.now;
        let life = |m: usize, pg: u64| {
            self.members.get(m).is_some_and(|member| member.pg_life() == Some(pg) && member.pg_frozen <= now)
        };
        let both = life(conn.standby, conn.standby_pg) && life(conn.primary, conn.primary_pg);
        let linked =
            self.net.passes(conn.standby, conn.primary) && self.net.passes(conn.primary, conn.standby);
        if both && linked {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.ok_at = now;
            }
        } else if now.saturating_sub(conn.ok_at) > TIMEOUT {
            self.close(id);
            return;
        }
        self.later(500 * MS, Event::Keepalive { conn: id });
    }

    /// Both ends learn that a stream has ended.
    pub fn close(&mut self, id: u64) {
        let Some(conn) = self.conns.remove(&id) else { return };
        if let Some(primary) = self.members.get_mut(conn.primary).and_then(|member| member.primary_mut())
            && primary.senders.get(&conn.incarnation).is_some_and(|sender| sender.conn == id)
        {
            primary.senders.remove(&conn.incarnation);
        }
        let mut again = false;
        // A walreceiver that ends flushes what it has written.
        if let Some(member) =
            self.members.get_mut(conn.standby).filter(|member| member.pg_life() == Some(conn.standby_pg))
            && member.standby().is_some_and(|standby| standby.conn == Some(id))
            && let Some(data) = &mut member.data
        {
            data.wal.flushed = data.wal.end();
        }
        if let Some(standby) = self.members.get_mut(conn.standby).and_then(|member| member.standby_mut())
            && standby.conn == Some(id)
        {
            standby.conn = None;
            again = true;
        }
        if again {
            self.later(100 * MS, Event::Connect { m: conn.standby, pg: conn.standby_pg });
        }
        self.nudge(conn.primary);
        self.nudge(conn.standby);
    }

    /// Streams of a Postgres that ended. Without a pod nobody resets the other end.
    pub fn close_all(&mut self, m: usize) {
        let ids: Vec<u64> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.standby == m || conn.primary == m)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            let silent = self.dice.permille(300);
            let standby_side = self.conns.get(&id).is_some_and(|conn| conn.standby == m);
            if standby_side {
                // A master keeps the walsender of a vanished standby until its timeout.
                if silent {
                    if let Some(State::Standby(standby)) = self
                        .members
                        .get_mut(m)
                        .and_then(|member| member.pod.as_mut())
                        .map(|pod| &mut pod.state)
                    {
                        standby.conn = None;
                    }
                } else {
                    self.close(id);
                }
            } else if !silent {
                self.close(id);
            }
        }
    }
}
