//! The driver: turns what this member knows into what it does, over and over.
//!
//! One turn gathers the view, decides ([`ha::decide`]), says so to the peers and to people, and starts what was
//! decided. It is level-triggered: nothing is remembered as "to do", the next turn decides again. It must never wait
//! for anything longer than a turn: acts on Postgres, swaps of the record and calls about routes run as tasks beside
//! it, one of each kind at a time, and a stop pushes aside whatever runs. Nothing here decides anything of the protocol;
//! what an act must check again just before its irreversible step is in that act.

mod act;
mod care;
mod context;
mod decision_log;
mod failover;
mod files;
#[cfg(test)]
mod fixtures;
mod gone;
mod inspect;
mod lane;
mod leave;
mod led_to;
mod members;
mod news;
mod parameters;
mod postgres_probe;
mod promise;
mod record;
mod routes;
mod start;
mod tell;
mod told;
mod tracked;
mod upkeep;
mod view;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ha::{Action, Announcement, Condition, FenceToken, Gate, Instant, Memory, Postgres, RecordView, View};
use k8s_openapi::api::coordination::v1::Lease;
use kubernetes::client::Origin;
use kubernetes::watch::Watch;
use tokio::task::JoinHandle;

use crate::clock;
use crate::config::Config;
use crate::http::StatusHandle;
use crate::peers::Channel;
use crate::supervised::Postmaster;
use care::Care;
use context::Context;
use decision_log::DecisionLog;
use lane::{Ended, Lane};
use leave::Leave;
use members::Members;
use news::News;
use postgres_probe::Probe;
use record::Outcome;
use routes::Routes;
use tell::Tell;
use told::Told;
use upkeep::Begun;
use view::Surroundings;

/// The longest time between two turns.
const TURN: Duration = Duration::from_millis(200);

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
    begun: Begun,
    told: Told,
    care: Care,
    leave: Leave,
    news: News,
    /// Dropping it would end the watch.
    _lease: Watch<Lease>,
}

impl Driver {
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
        let _ = tokio::time::timeout(TURN, self.news.looked_since(acted_at)).await;
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
        self.leave.observe(&view, now);
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
        let cluster_uid = &wanted.cluster.uid;
        let found = self.context.findings.borrow().clone();
        self.status.found(&found);
        let notes = found.notes();
        self.context.channel.note(notes.clone());
        self.routes.noted(&view.member.name, notes, self.context.channel.notes());
        self.told.refused(&self.tell, cluster_uid, said.parameters_refused.as_ref());
        self.told.findings(&self.tell, cluster_uid, found);
        self.told.decided(&decision);
        self.routes.observe(&view, &decision, now);
        self.routes.turn(&view, &said, &decision.actions, &wanted, &self.members.facts(), now);
        self.act(decision.actions.clone(), now);
        self.keep_up(&view, now);
        self.care.take(&self.context, &view, &decision, self.swap.is_some(), now);
        let busy = self.swap.is_some() || self.lane.current().is_some() || self.routes.busy();
        let finished = terminating && self.leave.may_go(&view, busy, now);
        Some(Turned { wake_at: decision.wake_at, finished })
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
