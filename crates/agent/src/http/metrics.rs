//! What can be counted and measured, under `matriarch_agent_…`.
//!
//! Labels are bounded sets: a verb, a kind, an outcome; never a name of an object, other than the few members'.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ha::{Gate, Lsn, Postgres, RecordView, View};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use telemetry::metrics::Metrics;

use super::Findings;

/// What was asked of the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(missing_docs, reason = "Kubernetes' own verbs")]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// 2xx.
    Ok,
    /// 409.
    Conflict,
    /// Any other answer.
    Refused,
    /// No answer: a timeout, a broken connection.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    verb: Verb,
    kind: &'static str,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Acted {
    acted: &'static str,
}

/// The agent's counters and gauges. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AgentMetrics {
    registry: Arc<Metrics>,
    epoch: Gauge,
    timeline: Gauge,
    leader: Gauge,
    sealed: Gauge,
    streaming: Gauge,
    lag: Gauge,
    peers: Gauge,
    lowered: Gauge,
    foreign: Gauge,
    diverged: Gauge,
    refused: Gauge,
    decisions: Family<Acted, Counter>,
    requests: Family<Request, Counter>,
    starts: Counter<u64, AtomicU64>,
    elections: Counter<u64, AtomicU64>,
}

impl Default for AgentMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl AgentMetrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut metrics = Metrics::new("agent", env!("CARGO_PKG_VERSION"));
        let agent = metrics.registry_mut().sub_registry_with_prefix("agent");
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            agent.register(name, help, gauge.clone());
            gauge
        };
        let epoch = gauge("epoch", "the record's epoch as last seen");
        let timeline = gauge("timeline", "PostgreSQL's timeline; 0 when unknown");
        let leader = gauge("is_leader", "1 while out of recovery with an open gate");
        let sealed = gauge("sealed", "1 while sealed above the record's epoch");
        let streaming =
            gauge("streaming", "a standby: 1 while its walreceiver streams; a leader: standbys streaming");
        let lag = gauge(
            "lag_bytes",
            "a standby: received and not replayed; a leader: its slowest streaming standby",
        );
        let peers = gauge("peers_heard", "members heard on the peer channel within the detection time");
        let lowered =
            gauge("durability_lowered", "the leader: roles and databases with a lower synchronous_commit");
        let foreign = gauge("settings_foreign", "settings of the protocol that somebody else had changed");
        let diverged =
            gauge("diverged_wal_bytes", "diverged WAL that is kept aside until its directory is deleted");
        let refused = gauge("identity_refused", "1 while the API server refuses this pod's identity");
        let (decisions, requests) = (Family::default(), Family::default());
        let (starts, elections) = (Counter::default(), Counter::default());
        agent.register(
            "decisions",
            "turns of the driver, by whether there was something to do",
            decisions.clone(),
        );
        agent.register("api_requests", "requests to the API server", requests.clone());
        agent.register("postgres_starts", "starts of PostgreSQL", starts.clone());
        agent.register("elections_won", "elections won by this member", elections.clone());
        let registry = Arc::new(metrics);
        Self {
            registry,
            epoch,
            timeline,
            leader,
            sealed,
            streaming,
            lag,
            peers,
            lowered,
            foreign,
            diverged,
            refused,
            decisions,
            requests,
            starts,
            elections,
        }
    }

    /// A request to the API server ended; `kind` is the object's kind.
    pub fn requested(&self, verb: Verb, kind: &'static str, outcome: Outcome) {
        self.requests.get_or_create(&Request { verb, kind, outcome }).inc();
    }

    pub(super) fn identity_refused(&self, refused: bool) {
        self.refused.set(i64::from(refused));
    }

    /// Postgres was started.
    pub fn postgres_started(&self) {
        self.starts.inc();
    }

    /// This member won an election.
    pub fn election_won(&self) {
        self.elections.inc();
    }

    /// The text of `/metrics`.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        self.registry.text()
    }

    pub(super) fn found(&self, findings: &Findings) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.lowered.set(count(findings.lowered_durability.len()));
        self.foreign.set(count(findings.foreign_settings.len()));
        self.diverged.set(signed(findings.diverged_wal.iter().map(|kept| kept.bytes).sum()));
    }

    pub(super) fn decided(&self, acted: bool) {
        let acted = if acted { "true" } else { "false" };
        self.decisions.get_or_create(&Acted { acted }).inc();
    }

    pub(super) fn observe(&self, view: &View) {
        let recorded = match &view.record {
            RecordView::Known { record, .. } => Some(record.epoch),
            _ => None,
        };
        if let Some(epoch) = recorded {
            self.epoch.set(signed(epoch.0));
            self.sealed.set(i64::from(view.promise.sealed_below > epoch));
        }
        let (timeline, leads, streaming, lag) = match &view.postgres {
            Postgres::Primary(primary) => {
                let streaming = primary.walsenders.values().filter(|walsender| walsender.streaming);
                let slowest = streaming.clone().filter_map(|walsender| walsender.flushed).min();
                let lag = slowest.map_or(0, |slowest| behind(primary.flushed, slowest));
                let count = i64::try_from(streaming.count()).unwrap_or(i64::MAX);
                (primary.timeline.0, primary.gate == Gate::Open, count, lag)
            }
            Postgres::Standby(standby) => {
                let lag = standby.received.zip(standby.replayed).map_or(0, |(to, from)| behind(to, from));
                (standby.timeline.0, false, i64::from(standby.streaming), lag)
            }
            Postgres::Stopped(stopped) => (stopped.timeline.0, false, 0, 0),
            _ => (0, false, 0, 0),
        };
        self.timeline.set(i64::from(timeline));
        self.leader.set(i64::from(leads));
        self.streaming.set(streaming);
        self.lag.set(lag);
        let now = crate::clock::now();
        let heard = view.peers.values().filter(|peer| now.since(peer.heard_at) < view.settings.detection);
        self.peers.set(i64::try_from(heard.count()).unwrap_or(i64::MAX));
    }
}

fn behind(ahead: Lsn, behind: Lsn) -> i64 {
    signed(ahead.0.saturating_sub(behind.0))
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
