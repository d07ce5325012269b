//! Wires the steps together for one cluster.
//!
//! Never looks at why it was called: it reads everything, decides, writes what differs and tells what came of it. Nothing
//! is remembered between two calls that a decision rests on. Errors are told once, here.

use std::{sync::Arc, time::Duration};

use api::{
    PostgresCluster, PostgresClusterStatus,
    conditions::{reasons, types},
    names,
};
use jiff::Timestamp;
use kube::{ResourceExt as _, core::DeserializeGuard, runtime::controller::Action};
use kubernetes::{CallError, Calls, ErrorClass, FieldManager, events::Events, events::Severity};

use crate::{
    apply::{self, Applied, Applier, ApplyError, dry_run},
    build::{certificates::rotation::Told, routes},
    cluster::ValidatedCluster,
    config::Defaults,
    deletion,
    dereference::{Observed, dereference},
    facts,
    metrics::Metrics,
    plan::{Facts, Progress},
    prepared::{self, BuildError},
    status,
    validate::validate,
};

mod backoff;

pub use backoff::Backoff;

/// Bound of one reconciliation: more than twice the bound of every call that it makes in the worst order.
const BOUND: Duration = Duration::from_secs(120);
/// Pause while something is expected to happen soon that no watch may tell (the age of a pod).
const SOON: Duration = Duration::from_secs(5);
/// Pause after a refusal by Kubernetes: a webhook or a policy may change, and no watch tells that.
const AFTER_REFUSAL: Duration = Duration::from_secs(60);
/// Pause at rest: certificates are renewed and drift that no watch told is undone.
const AT_REST: Duration = Duration::from_secs(600);

/// What every reconciliation needs. Nothing in it changes but memory that only saves work.
pub struct Context {
    /// Writes objects.
    pub applier: Applier,
    /// Writes Events.
    pub events: Events,
    /// Images.
    pub defaults: Defaults,
    /// Numbers.
    pub metrics: Metrics,
    /// Pauses after errors.
    pub backoff: Backoff,
}

impl Context {
    fn calls(&self) -> &Calls {
        self.applier.calls()
    }
}

/// A reconciliation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object does not fit this operator's type: only another write can help.
    #[error("the object cannot be read: {0}")]
    Unreadable(String),
    /// What is there could not be read.
    #[error("cannot read the cluster's objects")]
    Dereference(#[source] CallError),
    /// Objects could not be made.
    #[error("cannot make the cluster's objects")]
    Build(#[source] BuildError),
    /// Objects could not be written.
    #[error("cannot write the cluster's objects")]
    Apply(#[source] ApplyError),
    /// Nobody knows whether the API server takes the new pod template.
    #[error("cannot ask about the new pod template")]
    DryRun(#[source] CallError),
    /// A slice could not be emptied.
    #[error("cannot empty a stale endpoint slice")]
    EmptySlice(#[source] CallError),
    /// The status could not be written.
    #[error("cannot write the cluster's status")]
    Status(#[source] CallError),
    /// The deletion could not go on.
    #[error("cannot delete the cluster's objects")]
    Delete(#[source] CallError),
    /// It took too long.
    #[error("not done within {BOUND:?}")]
    Timeout,
}

impl Error {
    /// A bounded word for metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "Unreadable",
            Self::Dereference(source)
            | Self::DryRun(source)
            | Self::EmptySlice(source)
            | Self::Status(source)
            | Self::Delete(source) => source.class().code(),
            Self::Build(_) => "Build",
            Self::Apply(source) => source.call().map_or("Apply", |call| call.class().code()),
            Self::Timeout => "Timeout",
        }
    }

    fn is_conflict(&self) -> bool {
        let conflict = |call: &CallError| call.class() == ErrorClass::Conflict;
        match self {
            Self::Dereference(call)
            | Self::DryRun(call)
            | Self::EmptySlice(call)
            | Self::Status(call)
            | Self::Delete(call) => conflict(call),
            Self::Apply(
                ApplyError::Leaving { .. } | ApplyError::Gone { .. } | ApplyError::RecordAppeared,
            ) => true,
            Self::Apply(source) => source.call().is_some_and(conflict),
            Self::Unreadable(_) | Self::Build(_) | Self::Timeout => false,
        }
    }
}

/// Brings one cluster nearer to its spec.
pub async fn reconcile(
    object: Arc<DeserializeGuard<PostgresCluster>>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    context.metrics.reconciled();
    let cluster = match &object.0 {
        Ok(cluster) => cluster,
        Err(invalid) => return Err(Error::Unreadable(invalid.error.clone())),
    };
    let (namespace, name) = (cluster.namespace().unwrap_or_default(), cluster.name_any());
    // The cache that called may be old: what is pinned in the status decides about images (K24).
    let fresh = context.calls().get::<PostgresCluster>(&namespace, &name);
    let Some(cluster) = fresh.await.map_err(Error::Dereference)? else {
        return Ok(Action::await_change());
    };
    let action = tokio::time::timeout(BOUND, Box::pin(one(&cluster, &context)))
        .await
        .map_err(|_| Error::Timeout)??;
    context.backoff.forget(&cluster.uid().unwrap_or_default());
    Ok(action)
}

async fn one(cluster: &PostgresCluster, context: &Context) -> Result<Action, Error> {
    let calls = context.calls();
    let (namespace, name) = (cluster.namespace().unwrap_or_default(), cluster.name_any());
    if cluster.metadata.deletion_timestamp.is_some() {
        let done = deletion::delete(calls, cluster).await.map_err(Error::Delete)?;
        return Ok(if done { Action::await_change() } else { Action::requeue(SOON) });
    }
    if deletion::add_finalizer(calls, cluster).await.map_err(Error::Delete)? {
        return Ok(Action::requeue(Duration::ZERO));
    }
    let observed = Box::pin(dereference(calls, &namespace, &name)).await.map_err(Error::Dereference)?;
    let now = Timestamp::now();
    let facts = facts::facts(cluster, &observed, now);
    let repin = wants_new_agent(cluster, &observed);
    let identity = facts::identity(&observed);
    let outcome = match validate(cluster, identity.as_deref(), &context.defaults, repin) {
        Ok(validated) => Box::pin(attempt(cluster, &validated, &observed, facts.clone(), context, now)).await,
        Err(refusal) => {
            let mut outcome = Outcome::refused(reasons::REFUSED, refusal.to_string(), &facts);
            // Members go on as they were, and so do clients (K3).
            if let Some(routes) = routes::of_refused(cluster)
                && let Err(error) = apply::empty_stale_slices(calls, &routes, &observed).await
            {
                outcome.error = Some(Error::EmptySlice(error));
            }
            outcome
        }
    };
    tell(cluster, &observed, &outcome, context, now).await?;
    if let Some(error) = outcome.error {
        return Err(error);
    }
    let waiting = outcome.progress != Progress::Settled
        || outcome.rotation != Told::default()
        || !outcome.applied.selectors_taken_away.is_empty()
        || !facts::missing(&facts).is_empty();
    let by_kubernetes = outcome.refused.is_some_and(|(reason, _)| reason != reasons::REFUSED);
    Ok(Action::requeue(match (waiting, by_kubernetes) {
        (true, _) => SOON,
        (false, true) => AFTER_REFUSAL,
        (false, false) => AT_REST,
    }))
}

/// What became of one attempt; `error` asks for another soon.
struct Outcome {
    facts: Facts,
    pinned: Option<api::Pinned>,
    write_service: Option<String>,
    progress: Progress,
    halted: Option<String>,
    held: Option<(String, String)>,
    refused: Option<(&'static str, String)>,
    rotation: Told,
    applied: Applied,
    error: Option<Error>,
}

impl Outcome {
    fn refused(reason: &'static str, message: String, facts: &Facts) -> Self {
        Self {
            facts: facts.clone(),
            pinned: None,
            write_service: None,
            progress: Progress::Settled,
            halted: None,
            held: None,
            refused: Some((reason, message)),
            rotation: Told::default(),
            applied: Applied::default(),
            error: None,
        }
    }

    /// Something was not written; what the API server refuses is the user's to correct.
    fn failed(&mut self, error: ApplyError) {
        if error.is_refused() {
            let reason = match error {
                ApplyError::NameTaken { .. } => reasons::NAME_TAKEN,
                _ => reasons::OBJECT_REFUSED,
            };
            let told =
                error.call().map_or_else(|| error.to_string(), |call| format!("{error}: {}", call.told()));
            self.refused = Some((reason, told));
        }
        self.error = Some(Error::Apply(error));
    }
}

async fn attempt(
    cluster: &PostgresCluster,
    validated: &ValidatedCluster,
    observed: &Observed,
    facts: Facts,
    context: &Context,
    now: Timestamp,
) -> Outcome {
    let mut decision = prepared::decide(validated, observed, facts);
    let mut outcome = Outcome {
        facts: decision.facts.clone(),
        pinned: Some(validated.pinned.clone()),
        write_service: Some(validated.write_service()),
        progress: decision.plan.progress.clone(),
        halted: decision.in_force.halted.clone(),
        held: decision.plan.held.clone(),
        refused: None,
        rotation: Told::default(),
        applied: Applied::default(),
        error: None,
    };
    if let Err(error) = apply::empty_stale_slices(context.calls(), &routes::routes(validated), observed).await
    {
        outcome.error = Some(Error::EmptySlice(error));
        return outcome;
    }
    if cluster.spec.paused {
        // Members alone are told, or one that was asked to hand over before would still do so.
        if let Err(error) = apply::tell_of_pause(&context.applier, validated).await {
            outcome.error = Some(Error::Apply(error));
        }
        return outcome;
    }
    match dry_run::refusal(context.calls(), validated, observed, &decision).await {
        Ok(None) => {}
        Ok(Some(why)) => {
            if let Some(unchanged) = prepared::decide_without_change(observed, decision.facts.clone()) {
                decision = unchanged;
                outcome.progress = decision.plan.progress.clone();
            }
            let told = format!(
                "Kubernetes refuses the pods that the spec asks for, the running ones stay as they are: {why}; correct the spec"
            );
            outcome.refused = Some((reasons::POD_TEMPLATE_REFUSED, told));
        }
        Err(error) => {
            outcome.error = Some(Error::DryRun(error));
            return outcome;
        }
    }
    let prepared = match prepared::prepare(validated, observed, &decision, now) {
        Ok(prepared) => prepared,
        Err(error) => {
            outcome.refused = Some((reasons::OBJECT_REFUSED, telemetry::report(&error)));
            outcome.error = Some(Error::Build(error));
            return outcome;
        }
    };
    outcome.rotation = prepared.certificates.rotation.clone();
    let written = Box::pin(apply::apply(&context.applier, validated, observed, &decision, prepared));
    match written.await {
        Ok(mut applied) => {
            let not_grown = applied.not_grown.take();
            outcome.applied = applied;
            if let Some(error) = not_grown {
                outcome.failed(error);
            }
        }
        Err(error) => {
            outcome.rotation.done = None;
            outcome.failed(error);
        }
    }
    outcome
}

/// The agent's image follows the operator's only when the user asks for a restart of all members (K12).
fn wants_new_agent(cluster: &PostgresCluster, observed: &Observed) -> bool {
    let asked = cluster.annotations().get(names::labels::RESTARTED_AT);
    let of_pods = observed.stateful_set.as_ref().and_then(|set| {
        let template = set.spec.as_ref()?.template.metadata.as_ref()?;
        template.annotations.as_ref()?.get(names::labels::RESTARTED_AT)
    });
    asked.is_some() && observed.stateful_set.is_some() && asked != of_pods
}

/// Writes the status when it says something new, and Events for what changed.
async fn tell(
    cluster: &PostgresCluster,
    observed: &Observed,
    outcome: &Outcome,
    context: &Context,
    now: Timestamp,
) -> Result<(), Error> {
    let write_service = outcome.write_service.clone().unwrap_or_else(|| {
        let own = cluster.spec.services.write.name.clone();
        own.unwrap_or_else(|| names::write_service(&cluster.name_any()))
    });
    let wanted = status::compute(&status::Inputs {
        cluster,
        observed,
        facts: &outcome.facts,
        pinned: outcome.pinned.as_ref(),
        write_service,
        progress: outcome.progress.clone(),
        halted: outcome.halted.clone(),
        held: outcome.held.clone(),
        refused: outcome.refused.clone(),
        rotation: outcome.rotation.waits.clone(),
        now,
    });
    let there = cluster.status.as_ref();
    if status::differs(there, &wanted) {
        let calls = context.calls();
        calls.apply_status(FieldManager::OPERATOR_STATUS, cluster, &wanted).await.map_err(Error::Status)?;
    }
    if let Some(done) = &outcome.rotation.done {
        tracing::info!(cluster = %cluster.name_any(), done, "certificate authority");
        context.events.tell(cluster, Severity::Normal, reasons::ROTATING, "RotateAuthority", done).await;
    }
    announce(cluster, there, &wanted, &outcome.applied, &context.events).await;
    Ok(())
}

async fn announce(
    cluster: &PostgresCluster,
    there: Option<&PostgresClusterStatus>,
    wanted: &PostgresClusterStatus,
    applied: &Applied,
    events: &Events,
) {
    if applied.record_made {
        let note = "the record was made; the first master is being initialised";
        events.tell(cluster, Severity::Normal, reasons::INITIALISING, "Create", note).await;
    }
    for service in &applied.selectors_taken_away {
        tracing::warn!(cluster = %cluster.name_any(), service, "selector taken away");
        let note = format!(
            "the Service {service} had a selector, which leads clients to any pod that it matches; it was taken away, since the master says where {service} leads"
        );
        events.tell(cluster, Severity::Warning, reasons::SELECTOR, "PutRight", &note).await;
    }
    if let Some((pod, why)) = &applied.deleted {
        tracing::info!(cluster = %cluster.name_any(), pod, why, "pod deleted");
        let note = format!("{pod} is replaced: {why}");
        events.tell(cluster, Severity::Normal, "MemberReplaced", "RollOut", &note).await;
    }
    for (type_, bad) in
        [(types::SPEC_VALID, "False"), (types::ROLL_OUT_HALTED, "True"), (types::READY, "False")]
    {
        let of = |status: &PostgresClusterStatus| {
            status.conditions.iter().find(|condition| condition.type_ == type_).cloned()
        };
        let Some(now) = of(wanted).filter(|condition| condition.status == bad) else { continue };
        let before = there.and_then(of);
        let known = before.is_some_and(|before| before.status == now.status && before.reason == now.reason);
        // A new cluster is not ready yet; that is nothing to warn of.
        if known || now.reason == reasons::INITIALISING {
            continue;
        }
        tracing::warn!(cluster = %cluster.name_any(), condition = type_, reason = now.reason, message = now.message, "condition");
        events.tell(cluster, Severity::Warning, &now.reason, "Reconcile", &now.message).await;
    }
}

/// What to do after an error: told once here, then tried again, ever more slowly.
#[expect(clippy::needless_pass_by_value, reason = "the controller's signature")]
pub fn on_error(
    object: Arc<DeserializeGuard<PostgresCluster>>,
    error: &Error,
    context: Arc<Context>,
) -> Action {
    let metadata = object.0.as_ref().map_or_else(|invalid| &invalid.metadata, |cluster| &cluster.metadata);
    let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
    context.metrics.failed(error.code());
    if let Error::Unreadable(why) = error {
        tracing::warn!(namespace, cluster = name, error = why, "cluster not readable");
        return Action::await_change();
    }
    if error.is_conflict() {
        tracing::debug!(namespace, cluster = name, error = telemetry::report(error), "trying again");
        return Action::requeue(Duration::from_secs(1));
    }
    let pause = context.backoff.next(metadata.uid.as_deref().unwrap_or_default());
    tracing::warn!(
        namespace,
        cluster = name,
        error = telemetry::report(error),
        ?pause,
        "reconciliation failed"
    );
    Action::requeue(pause)
}
