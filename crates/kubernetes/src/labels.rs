//! The role label of a pod (K18): for people, never for routing.

use crate::{
    apply::FieldManager,
    call::{CallError, Calls, ErrorClass},
};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

/// The label that `kubectl get pods -L role` shows, and the one thing that a member may change on a pod.
pub const ROLE_LABEL: &str = "role";

/// What a pod's label says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The one that writes.
    Master,
    /// One that follows.
    Replica,
}

impl Role {
    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Replica => "replica",
        }
    }

    /// Reads a label's value.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "master" => Some(Self::Master),
            "replica" => Some(Self::Replica),
            _ => None,
        }
    }
}

/// What became of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labelled {
    /// The pod carries it.
    Set,
    /// The pod of that name is another one now, or none.
    OtherPod,
}

/// Labels the pod `name` with `role`, or takes the label away, if it still is the pod with this UID.
pub async fn set_role(
    calls: &Calls,
    namespace: &str,
    name: &str,
    uid: &str,
    role: Option<Role>,
) -> Result<Labelled, CallError> {
    let labels = json!({ROLE_LABEL: role.map(Role::as_str)});
    label(calls, FieldManager::AGENT, (namespace, name, uid), &labels).await
}

/// Merges `labels` into those of the pod that is called so, if it still has this UID; `null` takes one away.
pub(crate) async fn label(
    calls: &Calls,
    manager: FieldManager,
    (namespace, name, uid): (&str, &str, &str),
    labels: &Value,
) -> Result<Labelled, CallError> {
    let patch = json!({"metadata": {"uid": uid, "labels": labels}});
    let params = PatchParams { field_manager: Some(manager.as_str().to_owned()), ..PatchParams::default() };
    let api = calls.api::<Pod>(namespace);
    match calls.run("label pod", api.patch_metadata(name, &params, &Patch::Merge(&patch))).await {
        Ok(_) => Ok(Labelled::Set),
        Err(error) => match error.class() {
            // Another UID is told as 422 on that field, which is immutable, or as 409; other 422 are refusals.
            ErrorClass::NotFound | ErrorClass::Conflict => Ok(Labelled::OtherPod),
            ErrorClass::Invalid if error.about("metadata.uid") => Ok(Labelled::OtherPod),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{Labelled, Role, set_role};
    use crate::{
        Calls,
        mock::{Answer, api_server},
    };
    use serde_json::json;
    use std::time::Duration;

    /// The UID goes with every label.
    #[tokio::test]
    async fn k18_a_label_is_for_one_pod_only() {
        let (client, log) = api_server(|asked| {
            if asked.body["metadata"]["uid"] == "new" {
                Answer::Json(
                    200,
                    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                    "metadata": {"name": "pg-0"}}),
                )
            } else {
                Answer::Json(
                    422,
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 422,
                    "reason": "Invalid", "message": "field is immutable",
                    "details": {"causes": [{"reason": "FieldValueInvalid", "message": "", "field": "metadata.uid"}]}}),
                )
            }
        });
        let calls = Calls::new(client, Duration::from_secs(1));
        let old = set_role(&calls, "shop", "pg-0", "old", Some(Role::Master)).await.unwrap();
        assert_eq!(old, Labelled::OtherPod);
        assert_eq!(set_role(&calls, "shop", "pg-0", "new", None).await.unwrap(), Labelled::Set);
        let asked = log.lock().unwrap().pop().unwrap();
        assert_eq!(asked.body, json!({"metadata": {"uid": "new", "labels": {"role": null}}}));
    }

    #[tokio::test]
    async fn a_refusal_is_not_another_pod() {
        let (client, _) = api_server(|_| Answer::status(422, "denied by policy"));
        let calls = Calls::new(client, Duration::from_secs(1));
        assert!(set_role(&calls, "shop", "pg-0", "u", Some(Role::Master)).await.is_err());
    }
}
