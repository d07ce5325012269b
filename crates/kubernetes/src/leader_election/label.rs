//! A label of one's own choice on one's own pod: for people and selectors, never for the election.

use crate::{
    apply::FieldManager,
    call::{CallError, Calls},
    labels::{self, Labelled},
};
use serde_json::json;

/// Gives the pod `name` the label `key` = `value`, if it still is the pod with this UID (K18).
pub async fn label_pod(
    calls: &Calls,
    namespace: &str,
    name: &str,
    uid: &str,
    (key, value): (&str, &str),
) -> Result<Labelled, CallError> {
    labels::label(calls, FieldManager::ELECTION, (namespace, name, uid), &json!({key: value})).await
}
