//! A label of one's own choice on one's own pod: for people and selectors, never for the election.

use crate::{
    apply::FieldManager,
    call::{CallError, Calls, ErrorClass},
    labels::Labelled,
};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::json;

/// Gives the pod `name` the label `key` = `value`, if it still is the pod with this UID (K18).
pub async fn label_pod(
    calls: &Calls,
    namespace: &str,
    name: &str,
    uid: &str,
    (key, value): (&str, &str),
) -> Result<Labelled, CallError> {
    let patch = json!({"metadata": {"uid": uid, "labels": {key: value}}});
    let params = PatchParams {
        field_manager: Some(FieldManager::ELECTION.as_str().to_owned()),
        ..PatchParams::default()
    };
    let api = calls.api::<Pod>(namespace);
    match calls.run("label pod", api.patch_metadata(name, &params, &Patch::Merge(&patch))).await {
        Ok(_) => Ok(Labelled::Set),
        Err(error) => match error.class() {
            ErrorClass::NotFound | ErrorClass::Conflict => Ok(Labelled::OtherPod),
            ErrorClass::Invalid if error.about("metadata.uid") => Ok(Labelled::OtherPod),
            _ => Err(error),
        },
    }
}
