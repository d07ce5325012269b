//! The last view and the last decisions, as the driver published them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ha::{Decision, Instant, View};
use serde::Serialize;
use serde_json::{Value, json};

use super::{AgentMetrics, Findings, Readiness, readiness};
use crate::clock;

/// Decisions that `/status` shows.
const KEPT: usize = 20;

/// A view older than this says nothing of readiness: the driver stands still.
const STALE: Duration = Duration::from_secs(10);

/// A decision as shown: what and why, and how often in a row.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Noted {
    /// When it was made first, wall clock, for people.
    pub first: jiff::Timestamp,
    /// When it was made last.
    pub last: jiff::Timestamp,
    /// How often in a row.
    pub times: u64,
    /// What to do.
    pub actions: Value,
    /// Why.
    pub because: Value,
}

#[derive(Debug, Default)]
struct Shown {
    view: Option<(Instant, Arc<View>)>,
    decisions: VecDeque<Noted>,
    findings: Findings,
    identity_refused: bool,
}

/// Where the driver puts what it knows, for people. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StatusHandle {
    shown: Arc<Mutex<Shown>>,
    metrics: AgentMetrics,
}

impl Default for StatusHandle {
    fn default() -> Self {
        Self::new()
    }
}

impl StatusHandle {
    /// Nothing known yet: not ready.
    pub fn new() -> Self {
        Self { shown: Arc::default(), metrics: AgentMetrics::new() }
    }

    /// To be called at every turn of the driver's loop with the view it decided on and what it decided.
    pub fn publish(&self, view: &View, decision: &Decision) {
        self.metrics.observe(view);
        self.metrics.decided(!decision.actions.is_empty());
        let view = Arc::new(view.clone());
        let actions = serde_json::to_value(&decision.actions).unwrap_or_default();
        let because = serde_json::to_value(&decision.because).unwrap_or_default();
        let now = jiff::Timestamp::now();
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.view = Some((clock::now(), view));
        match shown.decisions.back_mut() {
            Some(last) if last.actions == actions && reasons(&last.because) == reasons(&because) => {
                last.last = now;
                last.times += 1;
                last.because = because;
            }
            _ => {
                shown.decisions.push_back(Noted { first: now, last: now, times: 1, actions, because });
                let surplus = shown.decisions.len().saturating_sub(KEPT);
                shown.decisions.drain(..surplus);
            }
        }
    }

    /// What a user should know, as of the last look.
    pub fn found(&self, findings: &Findings) {
        self.metrics.found(findings);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.findings.clone_from(findings);
    }

    /// The API server goes on refusing this pod's identity, or does so no more (K11).
    pub fn identity_refused(&self, refused: bool) {
        self.metrics.identity_refused(refused);
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).identity_refused = refused;
    }

    /// Counters that the driver and its adapters feed.
    pub fn metrics(&self) -> &AgentMetrics {
        &self.metrics
    }

    /// Whether the kubelet may send clients here (K7).
    pub fn readiness(&self) -> Readiness {
        let view = {
            let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
            shown.view.clone()
        };
        match view {
            None => Readiness::NotReady { why: "the agent is starting".to_owned() },
            Some((at, _)) if clock::now().since(at) > STALE => {
                Readiness::NotReady { why: "the agent's driver stands still".to_owned() }
            }
            Some((_, view)) => readiness(&view),
        }
    }

    /// Everything, for `/status`.
    pub fn document(&self) -> Value {
        let readiness = self.readiness();
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let mut document = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "ready": readiness.is_ready(),
            "decisions": shown.decisions,
            "findings": shown.findings,
            "podMayBeGone": shown.identity_refused,
        });
        if let Readiness::NotReady { why } = &readiness {
            document["notReadyBecause"] = json!(why);
        }
        if let Some((at, view)) = &shown.view {
            let now = clock::now();
            document["viewAgeMillis"] = json!(millis(now.since(*at)));
            document["view"] = serde_json::to_value(view.as_ref()).unwrap_or_default();
            document["peerSilenceMillis"] = view
                .peers
                .iter()
                .map(|(name, peer)| (name.0.clone(), json!(millis(now.since(peer.heard_at)))))
                .collect::<serde_json::Map<_, _>>()
                .into();
        }
        document
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The kinds of reasons without their numbers, which change all the time.
fn reasons(because: &Value) -> Vec<&str> {
    let list = because.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|reason| reason.get("reason").and_then(Value::as_str)).collect()
}
