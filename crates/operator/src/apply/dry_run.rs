//! Asks the API server what it thinks of a new pod template before the first pod gets it (K22).
//!
//! Decides whether a template may go out at all. A refusal leaves the template in force, so the running members and those
//! that are made anew stay as they are; what is wrong is told in the API server's own words. Writes nothing. Proved by
//! `tests/dry_run.rs`.

use k8s_openapi::api::apps::v1::StatefulSet;
use kubernetes::{CallError, Calls, ErrorClass, FieldManager};

use crate::{
    build::{pod::hash_of, stateful_set},
    cluster::ValidatedCluster,
    dereference::Observed,
    prepared::Decision,
};

/// Why the template that was decided on is refused; `None` when it is not, or when it is in force already.
///
/// # Errors
/// The API server did not answer the question.
pub async fn refusal(
    calls: &Calls,
    cluster: &ValidatedCluster,
    observed: &Observed,
    decision: &Decision,
) -> Result<Option<String>, CallError> {
    let Some(there) = observed.stateful_set.as_ref().filter(|there| is_new(there, decision)) else {
        return Ok(None);
    };
    let template = decision.in_force.template.clone();
    let mut asked = stateful_set::build(cluster, decision.plan.replicas, template);
    keep_claims(&mut asked, there);
    match calls.apply_dry_run(FieldManager::OPERATOR, &asked).await {
        Ok(_) => Ok(None),
        Err(error) if is_about_the_object(&error) => Ok(Some(error.told())),
        Err(error) => Err(error),
    }
}

/// An admission webhook denies with 403 like a missing right does, which says nothing of the template: only the words of
/// admission tell them apart (`admission webhook "…" denied the request: …`).
fn is_about_the_object(error: &CallError) -> bool {
    match error.class() {
        ErrorClass::Invalid => true,
        ErrorClass::Denied => error.told().contains("denied"),
        ErrorClass::Conflict | ErrorClass::AlreadyExists | ErrorClass::NotFound | ErrorClass::Unknown => {
            false
        }
    }
}

fn is_new(there: &StatefulSet, decision: &Decision) -> bool {
    let template = there.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref());
    hash_of(template) != Some(decision.in_force.hash.as_str())
}

/// Another size of the claims needs another StatefulSet (K13) and is none of the template's business.
fn keep_claims(asked: &mut StatefulSet, there: &StatefulSet) {
    let size = there.spec.as_ref().and_then(|spec| {
        let claim = spec.volume_claim_templates.as_ref()?.first()?;
        claim.spec.as_ref()?.resources.clone()
    });
    let claim = asked.spec.as_mut().and_then(|spec| spec.volume_claim_templates.as_mut()?.first_mut());
    if let Some(spec) = claim.and_then(|claim| claim.spec.as_mut()) {
        spec.resources = size;
    }
}
