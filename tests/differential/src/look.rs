//! What can be seen of real servers, in the model's words.
//!
//! Must never guess: what cannot be read now is none, which equals nothing.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use sim::driver::{Doing, Outcome, Seen};
use tokio_postgres::Row;

use crate::real::Real;
use crate::server::{BOUND, Server};

const QUERY: &str = "\
SELECT pg_is_in_recovery(),
       ARRAY(SELECT id FROM t ORDER BY id),
       (pg_control_checkpoint()).timeline_id::bigint,
       (SELECT sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'),
       ARRAY(SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'),
       ARRAY(SELECT application_name FROM pg_stat_replication WHERE state = 'streaming' ORDER BY pid),
       ARRAY(SELECT coalesce(flush_lsn - '0/0', 0)::bigint FROM pg_stat_replication
              WHERE state = 'streaming' ORDER BY pid),
       CASE WHEN NOT pg_is_in_recovery() THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END,
       (SELECT received_tli::bigint FROM pg_stat_wal_receiver WHERE status = 'streaming'),
       CASE WHEN NOT pg_is_in_recovery() THEN (pg_current_wal_flush_lsn() - '0/0')::bigint END";

/// Why a timeline forked, in a history file that an agent planted; PostgreSQL's own reasons are others.
const PLANTED: &str = "forked off";

/// One look at everything.
#[derive(Debug)]
pub struct Look {
    /// Each server; none when it is frozen, or what it says makes no sense at the moment.
    pub servers: Vec<Option<Seen>>,
    /// Standbys that have not flushed yet what their master has.
    pub in_flight: BTreeSet<usize>,
    /// Each transaction; none while nobody can tell.
    pub outcomes: BTreeMap<u32, Option<Outcome>>,
}

impl Real {
    /// Looks at every server and every client.
    pub async fn look(&mut self) -> Look {
        let (mut waiting, mut in_flight) = (BTreeSet::new(), BTreeSet::new());
        let mut servers = Vec::new();
        for m in 0..self.servers.len() {
            let seen = tokio::time::timeout(BOUND, self.look_at(m, &mut waiting, &mut in_flight)).await;
            servers.push(seen.ok().and_then(Result::ok));
        }
        let outcome = |(row, client): (&u32, &crate::client::Client)| {
            (*row, client.outcome(waiting.contains(&(client.on, client.pid))))
        };
        Look { servers, in_flight, outcomes: self.clients.iter().map(outcome).collect() }
    }

    async fn look_at(
        &mut self,
        m: usize,
        waiting: &mut BTreeSet<(usize, i32)>,
        in_flight: &mut BTreeSet<usize>,
    ) -> Result<Seen> {
        let server = self.servers.get_mut(m).context("no such server")?;
        anyhow::ensure!(!server.frozen, "it is frozen");
        let mut seen = Seen {
            doing: Doing::Recovering,
            timeline: None,
            control: 0,
            rows: BTreeSet::new(),
            history: Vec::new(),
            streams_from: None,
            flushed: BTreeMap::new(),
        };
        if !server.is_running() {
            seen.doing = Doing::Down;
            seen.control = control(server).await?;
            return Ok(seen);
        }
        let row = match server.session().await {
            Ok(session) => session.query_one(QUERY, &[]).await?,
            Err(_) => return Ok(seen),
        };
        seen.doing = if row.try_get(0)? { Doing::Standby } else { Doing::Primary };
        let ids: Vec<i32> = row.try_get(1)?;
        seen.rows = ids.into_iter().filter_map(|id| u32::try_from(id).ok()).collect();
        seen.control = u32::try_from(row.try_get::<_, i64>(2)?)?;
        let (writes, receives): (Option<String>, Option<i64>) = (row.try_get(7)?, row.try_get(8)?);
        let timeline = match (writes, receives) {
            (Some(hex), _) => u32::from_str_radix(&hex, 16)?,
            (None, Some(timeline)) => u32::try_from(timeline)?,
            (None, None) => postgres::walsender::identify_system(&server.layout, BOUND).await?.timeline.0,
        };
        seen.timeline = Some(timeline);
        let wal = server.layout.wal();
        server.hold_writer().await?;
        let port: Option<i32> = row.try_get(3)?;
        seen.streams_from = match port {
            Some(port) => self.behind(m, u16::try_from(port)?),
            None => None,
        };
        let pids: Vec<i32> = row.try_get(4)?;
        waiting.extend(pids.iter().map(|pid| (m, *pid)));
        let written = |row: &u32| self.clients.get(row).and_then(|client| client.lsn);
        if timeline > 1 {
            let text = std::fs::read_to_string(wal.join(format!("{timeline:08X}.history")))?;
            let mut planted = None;
            for line in text.lines().filter(|line| !line.is_empty()) {
                let mut words = line.split('\t');
                let parent = words.next().context("no timeline")?.parse()?;
                let end = lsn(words.next().context("no position")?).context("no position")?;
                // A planted timeline has no record; whether a startup process has noticed it is a matter of time.
                let parent = planted.take().unwrap_or(parent);
                if words.next() == Some(PLANTED) {
                    planted = Some(parent);
                    continue;
                }
                let before = seen.rows.iter().filter(|row| written(row).is_some_and(|at| at < end));
                seen.history.push((parent, before.count()));
            }
        }
        self.confirmed(m, &row, &pids, &mut seen, in_flight)?;
        Ok(seen)
    }

    /// How many of the rows in this master's log each standby has flushed.
    fn confirmed(
        &self,
        m: usize,
        row: &Row,
        waiting: &[i32],
        seen: &mut Seen,
        in_flight: &mut BTreeSet<usize>,
    ) -> Result<()> {
        let mut log: BTreeSet<u32> = seen.rows.clone();
        let waits = self.clients.iter().filter(|(_, client)| client.on == m && waiting.contains(&client.pid));
        log.extend(waits.map(|(row, _)| *row));
        let (names, positions): (Vec<String>, Vec<i64>) = (row.try_get(5)?, row.try_get(6)?);
        let flushed: Option<i64> = row.try_get(9)?;
        for (name, position) in names.iter().zip(positions) {
            let same = |i: &ha::Incarnation| ha::types::application_name(*i) == *name;
            let Some(standby) = self.incarnations.iter().position(same) else { continue };
            // What is on its way would be cut off, or not, by the next operation: nobody could say.
            if Some(position) < flushed {
                in_flight.insert(standby);
            }
            let position = u64::try_from(position)?;
            let written = |row: &u32| self.clients.get(row).and_then(|client| client.lsn);
            let rows = log.iter().filter(|row| written(row).is_some_and(|at| at < position)).count();
            seen.flushed.insert(standby, rows);
        }
        Ok(())
    }
}

/// The control file's timeline of a server that does not run.
async fn control(server: &Server) -> Result<u32> {
    let said = server.program("pg_controldata", &[server.layout.data().display().to_string()]).await?;
    let line = said.lines().find_map(|line| line.strip_prefix("Latest checkpoint's TimeLineID:"));
    Ok(line.context("pg_controldata says no timeline")?.trim().parse()?)
}

fn lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    Some(u64::from_str_radix(high, 16).ok()? << 32 | u64::from_str_radix(low, 16).ok()?)
}
