//! The own Postgres as it is: asked over one kept session while it runs, read from its control file while it does not.
//!
//! Must never turn a failed look into a fact, nor take "nobody listens" for "nothing runs": only the supervisor knows
//! what processes are left (P7). What no query shows comes from [`super::tracked`].

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use ha::{Bootstrap, Gate, Incarnation, Instant, Lsn, Postgres, Stopped, Walsender};
use postgres::command::controldata::{self, ClusterState};
use postgres::command::waldump::WalReader;
use postgres::promote::{fence_xid, write_first_record};
use postgres::server::{self, Observation, Prober};
use tokio::sync::watch;

use crate::clock;
use crate::driver::act::promote;
use crate::driver::context::Context;
use crate::supervised::PostmasterState;

/// Time between two looks without any reason for one.
const PERIOD: Duration = Duration::from_millis(200);
/// The same while a master waits behind its gate for standbys to flush: nobody is served meanwhile.
const PERIOD_CLOSED: Duration = Duration::from_millis(20);
/// Bound of one look.
const BOUND: Duration = Duration::from_secs(1);
/// A running server that does not answer in time is what it was at the last look, for so long and no longer: a busy
/// moment is no fact about its role. Below the default of `fence`.
const HOLD: Duration = Duration::from_millis(2500);
/// Bound of reading the files of a stopped server.
const FILES: Duration = Duration::from_secs(10);

/// One look.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Look {
    /// What was seen.
    pub(crate) postgres: Postgres,
    /// When it began.
    pub(crate) looked_at: Instant,
}

/// The running probe.
pub(crate) struct Probe(watch::Receiver<Look>);

impl Probe {
    /// Looks for as long as the runtime lives.
    pub(crate) fn start(context: Arc<Context>) -> Self {
        let why = "not looked at yet".to_owned();
        let (looks, seen) =
            watch::channel(Look { postgres: Postgres::Unknown { why }, looked_at: Instant::default() });
        tokio::spawn(run(context, looks));
        Self(seen)
    }

    /// The last look.
    pub(crate) fn get(&self) -> Look {
        self.0.borrow().clone()
    }

    /// Reports every look that differs, and the first one after each act.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Look> {
        self.0.clone()
    }
}

async fn run(context: Arc<Context>, looks: watch::Sender<Look>) {
    let mut prober = Prober::new(context.layout.clone());
    let mut processes = context.postmaster.state();
    let mut stopped: Option<(AtRest, Postgres)> = None;
    while !looks.is_closed() {
        let looked_at = clock::now();
        let state = *processes.borrow_and_update();
        let postgres = match state {
            PostmasterState::Running { .. } => {
                stopped = None;
                running(&context, &mut prober).await
            }
            PostmasterState::Ending { .. } => {
                Postgres::Unknown { why: "processes of PostgreSQL are still ending".to_owned() }
            }
            PostmasterState::Gone { .. } => {
                let now = AtRest::of(&context);
                match &stopped {
                    Some((known, postgres)) if *known == now => postgres.clone(),
                    _ => {
                        let seen = at_rest(&context).await;
                        stopped = (!matches!(seen, Postgres::Unknown { .. })).then(|| (now, seen.clone()));
                        seen
                    }
                }
            }
        };
        if let Postgres::Unknown { why } = &postgres
            && matches!(state, PostmasterState::Running { .. })
            && held(&looks.borrow(), looked_at)
        {
            tracing::debug!(why, "a look failed");
            tokio::time::sleep(PERIOD / 4).await;
            continue;
        }
        let waits = matches!(&postgres, Postgres::Primary(primary) if primary.gate == Gate::Closed);
        looks.send_if_modified(|look| {
            let news = look.postgres != postgres;
            let asked = context.acted_at() > look.looked_at;
            *look = Look { postgres, looked_at };
            news || asked
        });
        tokio::select! {
            () = tokio::time::sleep(if waits { PERIOD_CLOSED } else { PERIOD }) => {}
            () = context.look.notified() => {}
            _ = processes.changed() => {}
        }
    }
}

fn held(last: &Look, now: Instant) -> bool {
    matches!(last.postgres, Postgres::Standby(_) | Postgres::Primary(_)) && now.since(last.looked_at) < HOLD
}

/// By what the files of a stopped server are known again: reading them costs two programs' runs, and whatever changes
/// them (a start, a rewind, a clone) writes its control file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct AtRest {
    bootstrap: Bootstrap,
    /// Device, inode, size and time of the last change, to the nanosecond; none without one.
    control: Option<(u64, u64, u64, i64, i64)>,
    /// A control file of a server that is not known by now may be written under our eyes: acts that ended.
    acts: Option<u64>,
}

impl AtRest {
    fn of(context: &Context) -> Self {
        let control = std::fs::metadata(context.layout.data().join("global").join("pg_control")).ok();
        let control = control.map(|it| (it.dev(), it.ino(), it.size(), it.mtime(), it.mtime_nsec()));
        let acts = control.is_none().then(|| context.acts_ended());
        Self { bootstrap: context.promise.get().bootstrap, control, acts }
    }
}

async fn running(context: &Context, prober: &mut Prober) -> Postgres {
    match prober.observe(BOUND).await {
        Observation::NotListening | Observation::Starting { .. } => Postgres::Starting,
        Observation::Unknown { why } => Postgres::Unknown { why },
        Observation::Standby(seen) => Postgres::Standby(standby(context, &seen)),
        Observation::Primary(seen) => {
            if context.tracked.get().first_record.is_none() && !context.is_acting() {
                // The act that made it a master was pushed aside before it had noted this, or its agent was ended.
                if let Err(error) = take_over(context, prober, &seen).await {
                    return Postgres::Unknown { why: format!("{error:#}") };
                }
            }
            Postgres::Primary(Box::new(primary(context, &seen)))
        }
    }
}

async fn take_over(context: &Context, prober: &mut Prober, seen: &server::Primary) -> anyhow::Result<()> {
    let session = prober.session(BOUND).await?;
    let first = write_first_record(session).await?;
    let fence = fence_xid(session).await?;
    // The last that may fail: a look that fails is repeated at once, and each would ask for another checkpoint.
    promote::complete(context, seen.timeline, seen.control_timeline).await?;
    context.tracked.set(|facts| {
        facts.first_record.get_or_insert(first);
        facts.fence_xid.get_or_insert(fence);
    });
    Ok(())
}

fn standby(context: &Context, seen: &server::Standby) -> ha::Standby {
    let facts = context.tracked.get();
    let quiet = !seen.has_upstream && !seen.streaming && facts.upstream.is_none();
    ha::Standby {
        timeline: seen.timeline,
        upstream: facts.upstream,
        streaming: seen.streaming,
        received: seen.received,
        replayed: seen.replayed,
        end: facts.end.filter(|_| quiet),
    }
}

fn primary(context: &Context, seen: &server::Primary) -> ha::Primary {
    let facts = context.tracked.get();
    let mut walsenders: BTreeMap<Incarnation, Walsender> = BTreeMap::new();
    for sender in &seen.walsenders {
        let Some(member) = sender.member() else { continue };
        // Two connections of one member are one member (I10): what it has flushed, it has flushed.
        let entry = walsenders.entry(member).or_insert(Walsender { streaming: false, flushed: None });
        if sender.is_streaming() {
            entry.streaming = true;
            entry.flushed = entry.flushed.max(sender.flushed);
        }
    }
    ha::Primary {
        timeline: seen.timeline,
        control_timeline: seen.control_timeline,
        gate: facts.gate,
        names: facts.names,
        flushed: seen.flushed,
        // Not known yet: a position that nobody has flushed.
        first_record: facts.first_record.unwrap_or(Lsn(u64::MAX)),
        fence_xid: facts.fence_xid,
        walsenders,
        prepared: facts.prepared,
        provisioned: facts.provisioned,
    }
}

/// What the files of a server say that does not run.
async fn at_rest(context: &Context) -> Postgres {
    if !context.layout.has_data() || context.promise.get().bootstrap == Bootstrap::Empty {
        return Postgres::Absent;
    }
    match read_files(context).await {
        Ok(stopped) => Postgres::Stopped(stopped),
        Err(error) => Postgres::Unknown { why: format!("{error:#}") },
    }
}

async fn read_files(context: &Context) -> anyhow::Result<Stopped> {
    let binaries = context.binaries()?;
    let data = context.layout.data();
    let control = controldata::read(&binaries, &data, FILES).await?;
    let was_standby = control.state.is_standby();
    let mut timeline = control.timeline;
    if let (true, Some(minimum)) = (was_standby, control.minimum_recovery_end) {
        timeline = timeline.max(minimum.timeline);
    }
    let end = if control.state == ClusterState::ShutDown {
        let reader = WalReader::new(&binaries, &data, control.segment);
        Some(reader.shutdown_end(&control, FILES).await?)
    } else {
        None
    };
    Ok(Stopped { timeline, was_standby, clean: control.state.is_clean(), end })
}
