//! The stories, in the order in which a world lives through them, and what it is to end one as it should.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use api::names::ports;
use ha::Record;
use postgres::Session;
use postgres::command::rewind::is_dirty;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::objects::PATIENT;
use crate::state;
use crate::steps::Step;
use crate::world::World;

/// A story that takes longer hangs. Generous: on a machine that stands still agents are silent for so long that their
/// supervisors kill all of PostgreSQL, and all of it comes back.
const BOUND: Duration = Duration::from_secs(300);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(150);
/// For how long nothing may change before the end of the undisturbed story is taken for its end.
const SETTLED: Duration = Duration::from_millis(2500);
/// How long a step is waited for that comes after the end, such as an upkeep.
const LATE: Duration = Duration::from_secs(6);
/// Silence of a master that is gone, before the other elects.
const IMPATIENT: Duration = Duration::from_secs(2);
/// For how long the end must last after the agent was ended.
const LASTS: Duration = Duration::from_millis(1500);

/// One story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Story {
    Bootstrap,
    Clone,
    Failover,
    Rewind,
    SwitchoverOld,
    SwitchoverNew,
    Shrink,
    ReAdd,
    Return,
    Anew,
}

/// How a story went.
#[derive(Debug)]
pub(crate) struct Told {
    /// The steps of the member that it is about.
    pub(crate) steps: Vec<Step>,
    /// How it ended.
    pub(crate) end: Value,
    /// The agent was ended; false when the step never came.
    pub(crate) ended: bool,
}

impl Story {
    pub(crate) const ALL: [Self; 10] = [
        Self::Bootstrap,
        Self::Clone,
        Self::Failover,
        Self::Rewind,
        Self::SwitchoverOld,
        Self::SwitchoverNew,
        Self::Shrink,
        Self::ReAdd,
        Self::Return,
        Self::Anew,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bootstrap => "bootstrap",
            Self::Clone => "clone",
            Self::Failover => "failover",
            Self::Rewind => "rewind",
            Self::SwitchoverOld => "switchover, the old master",
            Self::SwitchoverNew => "switchover, the new master",
            Self::Shrink => "shrink",
            Self::ReAdd => "re-add",
            Self::Return => "re-add, who returns",
            Self::Anew => "failover, anew after the record was won",
        }
    }

    /// Whose steps are counted, who leads at the end, and who follows then.
    fn roles(self) -> (&'static str, &'static str, Option<&'static str>) {
        match self {
            Self::Bootstrap | Self::Anew => ("pg-0", "pg-0", None),
            Self::Clone | Self::SwitchoverOld => ("pg-1", "pg-0", Some("pg-1")),
            Self::Failover | Self::Shrink => ("pg-1", "pg-1", None),
            Self::Rewind | Self::Return => ("pg-0", "pg-1", Some("pg-0")),
            Self::SwitchoverNew | Self::ReAdd => ("pg-1", "pg-1", Some("pg-0")),
        }
    }

    /// Lives through it. `end_after`: ends the agent there; `wanted`: how it must end.
    pub(crate) async fn tell(
        self,
        world: &World,
        end_after: Option<Step>,
        wanted: Option<&Value>,
    ) -> anyhow::Result<Told> {
        let (about, ..) = self.roles();
        if self == Self::Failover {
            // An agent that was started again has not heard the master whom it cannot reach: it waits its time.
            world.settings(&[], IMPATIENT);
            diverge(world).await?;
        }
        if self == Self::Rewind {
            world.settings(&[], PATIENT);
        }
        if self == Self::Return {
            world.member("pg-0").kill();
            self.until(world, "the shrink before", |record| is(record, "pg-1", None)).await?;
        }
        if self == Self::Anew {
            world.settings(&[], IMPATIENT);
        }
        let prelude: Option<fn(&str) -> bool> = (self == Self::Anew).then_some(is_win);
        world.steps.arm(about, prelude, end_after.clone());
        match self {
            Self::Bootstrap | Self::Rewind | Self::ReAdd | Self::Return => world.member("pg-0").start(),
            Self::Clone => world.member("pg-1").start(),
            Self::Failover | Self::Shrink => world.member("pg-0").kill(),
            Self::Anew => world.member("pg-1").kill(),
            Self::SwitchoverOld => self.switch_over(world, "pg-1", "pg-0").await?,
            Self::SwitchoverNew => self.switch_over(world, "pg-0", "pg-1").await?,
        }
        let (end, ended) = match wanted {
            None => (self.settle(world).await?, false),
            Some(wanted) => self.ends_like(world, wanted, end_after.is_some()).await?,
        };
        anyhow::ensure!(world.steps.begun(), "it was never begun anew");
        let steps = world.steps.taken();
        self.goes_on(world).await?;
        let (_, leader, follower) = self.roles();
        world.rows.judge(&world.member(leader).layout, None).await?;
        if let Some(follower) = follower {
            // What the master waited for was flushed there, and is replayed some time.
            world.rows.judge(&world.member(follower).layout, Some(BOUND)).await?;
        }
        Ok(Told { steps, end, ended })
    }

    async fn switch_over(self, world: &World, from: &str, to: &str) -> anyhow::Result<()> {
        world.settings(&[from], PATIENT);
        self.until(world, "the hand-over", |record| {
            record.leader.as_ref().is_some_and(|it| it.name.0 == to) && record.fence_xid.is_some()
        })
        .await?;
        world.settings(&[], PATIENT);
        Ok(())
    }

    async fn until(self, world: &World, what: &str, done: impl Fn(&Record) -> bool) -> anyhow::Result<()> {
        let start = Instant::now();
        while !world.record().is_some_and(|record| done(&record)) {
            anyhow::ensure!(start.elapsed() < BOUND, "{what} does not come: {:?}", world.record());
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// The first world: reached, and nothing has changed for a while.
    async fn settle(self, world: &World) -> anyhow::Result<Value> {
        let (_, leader, follower) = self.roles();
        let start = Instant::now();
        let mut last = (Value::Null, Instant::now());
        loop {
            let now = state::read(world).await;
            if now != last.0 {
                last = (now, Instant::now());
            }
            if reached(&last.0, leader, follower) && last.1.elapsed() >= SETTLED {
                return Ok(last.0);
            }
            anyhow::ensure!(start.elapsed() < BOUND, "it does not settle:\n{:#}", last.0);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Every other world: the end, and whether the agent was ended on the way.
    async fn ends_like(self, world: &World, wanted: &Value, end: bool) -> anyhow::Result<(Value, bool)> {
        let start = Instant::now();
        let mut since: Option<Instant> = None;
        loop {
            let now = state::read(world).await;
            let (ended, back) = world.steps.ended();
            if self == Self::Rewind {
                let (layout, address) = (&world.member("pg-0").layout, world.member("pg-0").address);
                // The mark is there before and after the look: such a directory is replaced, never started.
                let started = is_dirty(layout) && listens(address) && is_dirty(layout);
                anyhow::ensure!(!started, "a directory that is half rewound was started");
            }
            if now == *wanted {
                let since = *since.get_or_insert_with(Instant::now);
                let lasts = if end && !ended { LATE } else { LASTS };
                let enough = since.elapsed() >= lasts && (ended == back);
                if enough {
                    return Ok((now, ended));
                }
            } else {
                since = None;
            }
            anyhow::ensure!(
                start.elapsed() < BOUND,
                "it does not end as undisturbed:\n{}",
                state::difference(wanted, &now)
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Clients are served.
    async fn goes_on(self, world: &World) -> anyhow::Result<()> {
        let (start, before) = (Instant::now(), world.rows.acknowledged());
        while world.rows.acknowledged() < before + 3 {
            anyhow::ensure!(start.elapsed() < BOUND, "nothing is acknowledged any more");
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

/// The whole of it is as it should be, whatever the details are: an end that is none must not be compared with.
fn reached(state: &Value, leader: &str, follower: Option<&str>) -> bool {
    let followers: Vec<&str> = follower.into_iter().collect();
    let acks = followers.len();
    let route = |slice: &str, to: &[&str]| {
        let uids: Vec<Value> = to.iter().map(|it| format!("uid-of-{it}").into()).collect();
        let there = state[slice]["endpoints"].as_array().into_iter().flatten();
        there.map(|it| it[0].clone()).eq(uids)
            && state[slice]["of the record's epoch"] == true
            && state[slice]["by the leader's life"] == true
    };
    let serves = |member: &str, recovers: bool| {
        let member = &state["members"][member];
        member["server"]["recovers"] == recovers
            && member["server"]["on the record's timeline"] == true
            && member["promise"]["record"] == true
            && member["promise"]["epoch"] == true
            && member["files"]["pg_hba.conf"].as_str().is_some_and(|it| it.contains("trust"))
    };
    state["record"]["electorates"] == json!([{"leader": leader, "members": followers, "acks": acks}])
        && state["record"]["leader"]["name"] == leader
        && state["record"]["committed"] == true
        && state["labels"][leader] == "master"
        && state["status"]["master"] == leader
        && state["status"]["of the record's epoch"] == true
        && route("pgwrite", &[leader])
        && route("pgread", &followers)
        && serves(leader, false)
        && followers.iter().all(|it| serves(it, true) && state["labels"][*it] == "replica")
}

/// This member leads an electorate of this one, and nothing is under way.
fn is(record: &Record, leader: &str, follower: Option<&str>) -> bool {
    let leads = record.leader.as_ref().is_some_and(|it| it.name.0 == leader);
    let [electorate] = record.electorates.as_slice() else { return false };
    let members: BTreeSet<&str> = electorate.members.iter().map(|it| it.name.0.as_str()).collect();
    leads && members == follower.into_iter().collect() && record.fence_xid.is_some()
}

/// A record was won: what follows is never done under the same record by another life (P24), so that the next timeline is
/// not the next number and history has to be planted.
fn is_win(step: &str) -> bool {
    step.starts_with("api: update leases pg (") && step.contains(" epoch ")
}

/// Whether a server runs there.
fn listens(address: Ipv4Addr) -> bool {
    TcpStream::connect_timeout(&(address, ports::POSTGRES).into(), LOOK).is_ok()
}

/// The master writes what no standby will ever have: the walsender is stopped meanwhile, and then dies with it.
async fn diverge(world: &World) -> anyhow::Result<()> {
    let bound = Duration::from_secs(10);
    let session = Session::open(&world.member("pg-0").layout, bound).await?;
    let rows = session.rows("find the walsender", "SELECT pid FROM pg_stat_replication", &[]).await?;
    for pid in rows.iter().filter_map(|row| Pid::from_raw(row.get(0))) {
        kill_process(pid, Signal::STOP)?;
    }
    let lost = "SELECT pg_logical_emit_message(true, 'lost', repeat('x', 3000000))::text";
    session.rows("diverge", lost, &[]).await?;
    Ok(())
}
