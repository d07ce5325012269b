//! The driver: turns what this member knows into what it does, over and over.
//!
//! One turn gathers the view, decides ([`ha::decide`]), says so to the peers and to people, and starts what was
//! decided. It is level-triggered: nothing is remembered as "to do", the next turn decides again. It must never wait
//! for anything longer than a turn: acts on Postgres, swaps of the record and calls about routes run as tasks beside
//! it, one of each kind at a time, and a stop pushes aside whatever runs. Nothing here decides anything of the protocol;
//! what an act must check again just before its irreversible step is in that act.

mod act;
mod context;
mod decision_log;
mod failover;
mod files;
#[cfg(test)]
mod fixtures;
mod gone;
mod inspect;
mod lane;
mod led_to;
mod members;
mod parameters;
mod postgres_probe;
mod promise;
mod record;
mod routes;
mod tell;
mod tracked;
mod upkeep;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use ha::{
    Action, Announcement, Condition, Decision, FenceToken, Gate, Instant, Memory, Phase, Postgres, Record,
    RecordView, View,
};
use k8s_openapi::api::coordination::v1::Lease;
use kubernetes::Calls;
use kubernetes::client::{Clients, Origin};
use kubernetes::pods::PodFacts;
use kubernetes::record::RecordStore;
use kubernetes::watch::{Seen, Watch};
use postgres::Layout;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::clock;
use crate::config::Config;
use crate::http::{Findings, StatusHandle};
use crate::peers::Channel;
use crate::supervised::{Postmaster, PostmasterState};
use context::Context;
use decision_log::DecisionLog;
use lane::{Ended, Lane};
use members::Members;
use parameters::Parameters;
use postgres_probe::{Look, Probe};
use record::{Keeper, Outcome};
use routes::Routes;
use tell::Tell;
use upkeep::Begun;
use view::Surroundings;

/// The longest time between two turns.
const TURN: Duration = Duration::from_millis(200);
/// Bound of one call to the API server.
const CALL: Duration = Duration::from_secs(2);
/// How often the leader renews the Lease in quorum mode: a sign of life for people, not an authority.
const RENEW: Duration = Duration::from_secs(10);
/// How old the record may get: while this member leads or does not simply follow, and while all is well.
const READ_OFTEN: Duration = Duration::from_millis(900);
const READ_SELDOM: Duration = Duration::from_secs(10);
/// How long a member that was led to stays after the route has moved: a node's proxy takes up to a second, and an
/// address that refuses is tried again at once, one that is gone after a second or more (K4).
const PROXIES: Duration = Duration::from_secs(2);
/// How long a member that is being terminated stays to report how far its log reaches, once Postgres is stopped.
const LINGER: Duration = Duration::from_secs(15);

/// Drives until the supervisor has been told that all is finished, or a part that cannot be mended fails.
pub async fn run(
    config: Config,
    api_server: Origin,
    postmaster: Postmaster,
    channel: Channel,
    status: StatusHandle,
) -> anyhow::Result<()> {
    Driver::start(config, api_server, postmaster, channel, status).await?.turns().await
}

struct Driver {
    context: Arc<Context>,
    status: StatusHandle,
    memory: Memory,
    log: DecisionLog,
    lane: Lane,
    members: Members,
    routes: Routes,
    probe: Probe,
    swap: Option<JoinHandle<Outcome>>,
    tell: Tell,
    told_refused: Option<String>,
    renewed_at: Instant,
    begun: Begun,
    told: Findings,
    keeping: Option<JoinHandle<()>>,
    stopped_since: Option<Instant>,
    routed_at: Option<Instant>,
    said: Option<(Vec<&'static str>, String)>,
    news: News,
    /// Dropping it would end the watch.
    _lease: Watch<Lease>,
}

impl Driver {
    async fn start(
        config: Config,
        api_server: Origin,
        postmaster: Postmaster,
        channel: Channel,
        status: StatusHandle,
    ) -> anyhow::Result<Self> {
        let clients = Clients::build(api_server, CALL).await.context("reaching the API server")?;
        let clients = clients.observed(api_server, CALL, Arc::new(status.clone()));
        let calls = Calls::new(clients.calls.clone(), CALL);
        let lease = api::names::lease(&config.cluster);
        let layout = Layout::new(&config.places.volume)
            .with_socket(&config.places.socket, api::names::ports::POSTGRES);
        let promise = promise::Store::open(&layout, &config.cluster_uid).await?;
        let record = Keeper::new(RecordStore::new(calls.clone(), &config.namespace, &lease));
        let lease_watch = Watch::named(clients.watches.clone(), &config.namespace, &lease);
        let files = files::Files::start(&config, clients.watches.clone(), channel.clone()).await?;
        let members = Members::new(clients.watches.clone(), &config.namespace, channel.clone());
        let tell = Tell::new(&config, calls.clone());
        let routes = Routes::new(&config, postmaster.boot(), calls, clients.watches);
        let log = DecisionLog::begin(config.decision_log.as_deref());
        let parameters = Parameters::load(config.places.state().join("kept").join("parameters.json"));
        let context = Arc::new(Context {
            config,
            layout,
            promise,
            tracked: tracked::Tracked::default(),
            record,
            files,
            postmaster,
            channel,
            look: Notify::new(),
            parameters,
            passwords: std::sync::Mutex::default(),
            catch_up: std::sync::Mutex::default(),
            programs: std::sync::Mutex::default(),
            segment: std::sync::OnceLock::new(),
            led_to: led_to::LedTo::default(),
            findings: watch::Sender::new(Findings::default()),
            acts: context::Acts::default(),
        });
        if context.postmaster.now().pid().is_some() {
            let hba = tokio::fs::read_to_string(context.layout.data().join("pg_hba.conf")).await;
            context.tracked.found_running(&hba.unwrap_or_default());
        }
        tokio::spawn(context.record.clone().run());
        let probe = Probe::start(Arc::clone(&context));
        let news = News {
            probe: probe.subscribe(),
            record: context.record.subscribe(),
            files: context.files.subscribe(),
            pods: members.subscribe(),
            promise: context.promise.subscribe(),
            processes: context.postmaster.state(),
            terminating: context.postmaster.terminating(),
            lease: lease_watch.subscribe(),
            keeper: context.record.clone(),
        };
        Ok(Self {
            context,
            status,
            memory: Memory::default(),
            log,
            lane: Lane::default(),
            members,
            routes,
            probe,
            swap: None,
            tell,
            told_refused: None,
            renewed_at: Instant::default(),
            begun: Begun::default(),
            told: Findings::default(),
            keeping: None,
            stopped_since: None,
            routed_at: None,
            said: None,
            news,
            _lease: lease_watch,
        })
    }

    async fn turns(mut self) -> anyhow::Result<()> {
        loop {
            self.context.postmaster.progress().touch();
            self.look_again().await;
            let now = clock::now();
            let wake_at = match self.turn(now) {
                Some(turned) if turned.finished => {
                    tracing::info!("all is handed over and stopped");
                    self.context.postmaster.finished()?;
                    self.context.postmaster.supervisor_gone().await;
                    return Ok(());
                }
                Some(turned) => turned.wake_at,
                None => None,
            };
            let pause = wake_at.map_or(TURN, |at| clock::until(at).min(TURN));
            self.wait(pause).await;
        }
    }

    /// After an act, what the probe saw before is what the act has just changed: nothing is decided on that. The
    /// channel repeats our last words meanwhile.
    async fn look_again(&mut self) {
        let acted_at = self.context.acted_at();
        let fresh = self.news.probe.wait_for(|look| look.looked_at >= acted_at);
        let _ = tokio::time::timeout(TURN, fresh).await;
    }

    /// One turn. None while nothing can be decided because the cluster's settings were never seen.
    fn turn(&mut self, now: Instant) -> Option<Turned> {
        let wanted = self.context.files.get().settings?;
        let pods: BTreeSet<String> = wanted.members.keys().cloned().collect();
        self.members.watch_exactly(&pods);
        self.members.dial();
        self.routes.watch(&wanted.services.write);
        let terminating = *self.context.postmaster.terminating().borrow();
        let around = Surroundings {
            postgres: self.postgres(),
            route: self.routes.route(),
            swapping: self.swap.is_some(),
            terminating,
        };
        let view = view::view(&self.context, around)?;
        if matches!(view.route, ha::Route::Here { .. }) {
            self.routed_at = Some(now);
        }
        self.context.led_to.observe(self.routes.points_here(), leads(&view), now);
        let decision = ha::decide(&mut self.memory, &view, now);
        self.log.decided(now, &view, &decision);
        self.status.publish(&view, &decision);
        let address = self.context.config.pod_ip.to_string();
        let mut said = Announcement::compose(&view, &decision, &address, now);
        self.context.parameters.tell(&wanted.postgres, &self.context.files.get(), &mut said);
        if said.condition == Condition::Standby && self.context.tracked.get().gate == Gate::Closed {
            // It answers nobody yet: not for readers.
            said.condition = Condition::Starting;
        }
        self.context.channel.announce(said.clone());
        if self.told_refused != said.parameters_refused {
            if let Some(why) = &said.parameters_refused {
                self.tell.parameters_refused(&wanted.cluster.uid, why);
            }
            self.told_refused.clone_from(&said.parameters_refused);
        }
        self.tell_findings(&wanted.cluster.uid);
        self.log_once(&decision);
        self.pace_reads(&view, &decision);
        self.routes.observe(&view, &decision, now);
        self.routes.turn(&view, &said, &decision.actions, &wanted, &self.members.facts(), now);
        let wake_at = decision.wake_at;
        self.act(decision.actions, now);
        self.keep_up(&view, now);
        self.keep_record(&view);
        self.renew(&view, now);
        let finished = terminating && self.is_finished(&view, now);
        Some(Turned { wake_at, finished })
    }

    /// What the probe said, corrected by what we know better: the acts under way and the supervisor's word.
    fn postgres(&self) -> Postgres {
        if let Some(with) = self.lane.busy() {
            return Postgres::Busy { with: with.to_owned() };
        }
        let gone = self.context.postmaster.now().pid().is_none();
        let stopping = matches!(self.lane.current(), Some("stop" | "restart"));
        match self.probe.get().postgres {
            // What comes next could not begin yet, and would be lost.
            Postgres::Stopped(_) if stopping => Postgres::Unknown { why: "it is being stopped".to_owned() },
            Postgres::Standby(_) | Postgres::Primary(_) | Postgres::Starting if gone => {
                Postgres::Unknown { why: "its processes have just ended".to_owned() }
            }
            Postgres::Stopped(_) if self.lane.starting() => Postgres::Starting,
            seen => seen,
        }
    }

    fn act(&mut self, actions: Vec<Action>, now: Instant) {
        let mut on_postgres = Vec::new();
        for action in actions {
            match action {
                Action::Swap(swap) if self.swap.is_none() => {
                    tracing::info!(purpose = ?swap.purpose, epoch = %swap.record.epoch, "swapping the record");
                    let keeper = self.context.record.clone();
                    self.swap = Some(tokio::spawn(async move { keeper.swap(swap).await }));
                }
                action if lane::touches_postgres(&action) => on_postgres.push(action),
                _ => {}
            }
        }
        let proofs: Vec<FenceToken> = on_postgres
            .iter()
            .filter_map(|action| match action {
                Action::Promote { fence, .. } | Action::StartPrimary { fence, .. } => Some(fence.clone()),
                _ => None,
            })
            .collect();
        let context = Arc::clone(&self.context);
        let run = move |actions| async move { act::run(&context, actions).await };
        if !on_postgres.is_empty() && !self.lane.offer(on_postgres, now, run) {
            // What was not even begun has not used up its proof.
            for fence in proofs {
                self.won(fence);
            }
        }
    }

    /// What is due besides the protocol, when nothing of the protocol runs.
    fn keep_up(&mut self, view: &View, now: Instant) {
        if self.lane.current().is_some() {
            return;
        }
        let Some(due) = upkeep::due(&self.context, view, self.begun, now) else { return };
        let context = Arc::clone(&self.context);
        let run = async move { upkeep::run(&context, due).await };
        let started = self.lane.upkeep(due.name(), due.as_urgent_as(), now, run);
        if started {
            self.begun.note(due, now);
        }
    }

    /// The last record that was seen is kept beside the promise: a lost one is rebuilt from these (§2).
    fn keep_record(&mut self, view: &View) {
        let RecordView::Known { record, .. } = &view.record else { return };
        let kept = view.promise.last_record.as_ref();
        let newer = kept.is_none_or(|kept| kept.epoch <= record.epoch && kept != record.as_ref());
        let idle = self.keeping.as_ref().is_none_or(JoinHandle::is_finished);
        if newer && idle && record.phase == Phase::Running {
            let (promise, record) = (self.context.promise.clone(), Record::clone(record));
            self.keeping = Some(tokio::spawn(async move {
                let kept = promise.update(move |promise| {
                    // A winner's own record may have been kept meanwhile.
                    if promise.last_record.as_ref().is_none_or(|kept| kept.epoch <= record.epoch) {
                        promise.last_record = Some(record);
                    }
                });
                if let Err(error) = kept.await {
                    tracing::warn!(error = format!("{error:#}"), "the record could not be kept");
                }
            }));
        }
    }

    /// The record is read seldom while all is well, and often when this member leads or something is uncertain.
    fn pace_reads(&self, view: &View, decision: &Decision) {
        let follows = match (&view.record, &view.postgres) {
            (RecordView::Known { record, .. }, Postgres::Standby(standby)) => {
                standby.streaming
                    && standby.upstream.as_ref().is_some_and(|upstream| record.names(&upstream.member))
                    && decision.suspects.is_none()
            }
            _ => false,
        };
        let fence = view.settings.fence / 3;
        self.context.record.read_every(if follows { READ_SELDOM } else { READ_OFTEN.min(fence) });
        let RecordView::Known { record, .. } = &view.record else { return };
        if view.peers.values().any(|peer| peer.announcement.record_epoch > record.epoch) {
            self.context.record.look();
        }
    }

    /// The leader's sign of life in the Lease; never while a swap is decided or under way.
    fn renew(&mut self, view: &View, now: Instant) {
        let RecordView::Known { record, .. } = &view.record else { return };
        let due = now.since(self.renewed_at) >= RENEW && record.lease_millis.is_none();
        let leads = matches!(view.route, ha::Route::Here { epoch } if epoch == record.epoch)
            && matches!(view.postgres, Postgres::Primary(_));
        if due && leads && self.swap.is_none() {
            self.renewed_at = now;
            let keeper = self.context.record.clone();
            tokio::spawn(async move { keeper.renew().await });
        }
    }

    /// A terminated member may go when Postgres is stopped, nothing leads here any more, and the others have had time
    /// to hear how far its log reaches: they cannot elect without it when it held the only copy.
    fn is_finished(&mut self, view: &View, now: Instant) -> bool {
        let down = matches!(view.postgres, Postgres::Absent | Postgres::Stopped(_));
        if !down || self.swap.is_some() || self.lane.current().is_some() || self.routes.busy() {
            self.stopped_since = None;
            return false;
        }
        let since = *self.stopped_since.get_or_insert(now);
        let lingered = now.since(since) >= LINGER;
        let leader = match &view.record {
            RecordView::Known { record, .. } => record.leader.as_ref(),
            _ => None,
        };
        let leads = leader.is_some_and(|leader| {
            leader.member() == view.member && leader.boot == view.boot && !leader.stopped
        });
        let another = leader.is_some_and(|leader| leader.member() != view.member);
        let left = |at: Instant| another && now.since(at) < PROXIES;
        let routed = matches!(view.route, ha::Route::Here { .. }) || self.routed_at.is_some_and(left);
        lingered || !(routed || leads)
    }

    /// Each kind of finding is an Event when it comes or changes.
    fn tell_findings(&mut self, cluster_uid: &str) {
        let found = self.context.findings.borrow().clone();
        self.status.found(&found);
        let lowered = found.lowered_durability.join("; ");
        if found.lowered_durability != self.told.lowered_durability && !lowered.is_empty() {
            self.tell.found(cluster_uid, "DurabilityLowered", &lowered);
        }
        let foreign = found.foreign_settings.join("; ");
        if found.foreign_settings != self.told.foreign_settings && !foreign.is_empty() {
            self.tell.found(cluster_uid, "SettingsChanged", &foreign);
        }
        for kept in found.diverged_wal.iter().filter(|kept| !self.told.diverged_wal.contains(kept)) {
            let what = format!("{} bytes of diverged WAL are kept in {}", kept.bytes, kept.path);
            self.tell.found(cluster_uid, "DivergedWalKept", &what);
        }
        self.told = found;
    }

    fn log_once(&mut self, decision: &Decision) {
        let actions: Vec<_> = decision.actions.iter().map(lane::name).collect();
        let kinds: Vec<String> = decision
            .because
            .iter()
            .filter_map(|reason| {
                serde_json::to_value(reason).ok()?.get("reason")?.as_str().map(str::to_owned)
            })
            .collect();
        let said = (actions, kinds.join(" "));
        if self.said.as_ref() != Some(&said) {
            let because = serde_json::to_string(&decision.because).unwrap_or_default();
            tracing::info!(actions = ?said.0, because, "decided");
            self.said = Some(said);
        }
    }

    /// Waits for news, for at most `pause`, and takes what has ended meanwhile.
    async fn wait(&mut self, pause: Duration) {
        let Self { context, lane, routes, swap, news, .. } = self;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = news.any(&context.channel) => {}
            () = routes.ended(clock::now) => {}
            ended = lane.ended(clock::now) => self.take_act(&ended),
            outcome = joined(swap) => self.take_swap(outcome),
        }
    }

    fn take_act(&self, ended: &Ended) {
        let millis = u64::try_from(ended.took.as_millis()).unwrap_or(u64::MAX);
        match &ended.outcome {
            Ok(()) => {
                tracing::info!(act = ended.name, millis, "done");
                if let Some(wanted) = self.context.files.get().settings {
                    self.tell.done(ended.name, &wanted.cluster.uid);
                }
            }
            Err(error) => tracing::warn!(act = ended.name, millis, error = format!("{error:#}"), "failed"),
        }
    }

    fn take_swap(&mut self, outcome: Result<Outcome, tokio::task::JoinError>) {
        self.swap = None;
        match outcome {
            Ok(Outcome::Won { token, read, asked_at }) => {
                self.context.record.adopt(*read, asked_at);
                tracing::info!(epoch = %token.epoch(), timeline = %token.timeline(), "won the record");
                self.won(token);
            }
            Ok(Outcome::NotWon { why }) => tracing::info!(why, "did not win the record"),
            Err(error) => tracing::error!(%error, "a swap did not end"),
        }
    }

    fn won(&mut self, fence: FenceToken) {
        self.log.won(&fence);
        self.memory.won(fence);
    }
}

/// Whether the newest record that is known names this member.
fn leads(view: &View) -> Option<bool> {
    let record = match &view.record {
        RecordView::Known { record, .. } => Some(record.as_ref()),
        _ => view.promise.last_record.as_ref(),
    };
    Some(record?.names(&view.member)).filter(|_| record.is_some_and(|record| record.leader.is_some()))
}

/// What a turn came to.
struct Turned {
    wake_at: Option<Instant>,
    finished: bool,
}

async fn joined(swap: &mut Option<JoinHandle<Outcome>>) -> Result<Outcome, tokio::task::JoinError> {
    match swap {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

/// Everything that can change between two turns.
struct News {
    probe: watch::Receiver<Look>,
    record: watch::Receiver<record::State>,
    files: watch::Receiver<files::Known>,
    pods: watch::Receiver<BTreeMap<String, PodFacts>>,
    promise: watch::Receiver<ha::Promise>,
    processes: watch::Receiver<PostmasterState>,
    terminating: watch::Receiver<bool>,
    lease: watch::Receiver<Seen<Lease>>,
    keeper: Keeper,
}

impl News {
    async fn any(&mut self, channel: &Channel) {
        tokio::select! {
            Ok(()) = self.probe.changed() => {}
            Ok(()) = self.record.changed() => {}
            Ok(()) = self.files.changed() => {}
            Ok(()) = self.pods.changed() => {}
            Ok(()) = self.promise.changed() => {}
            Ok(()) = self.processes.changed() => {}
            Ok(()) = self.terminating.changed() => {}
            Ok(()) = self.lease.changed() => self.keeper.look(),
            () = channel.changed() => {}
            else => std::future::pending().await,
        }
    }
}
