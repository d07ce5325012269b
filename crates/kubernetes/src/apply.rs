//! Typed server-side apply, the one way to write what a writer owns alone.
//!
//! Only objects that were *built* are applied, never one that came from the API: defaults, status and
//! managedFields would come along and be owned. A builder leaves what is not its business `None`.

use crate::call::{CallError, Calls, Object, place};
use kube::api::{Patch, PatchParams};

/// Who writes. One per writer, not per kind; ownership of fields is counted by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldManager(&'static str);

impl FieldManager {
    /// The operator's objects.
    pub const OPERATOR: Self = Self("matriarch.dev/operator");
    /// The operator's part of a status.
    pub const OPERATOR_STATUS: Self = Self("matriarch.dev/operator-status");
    /// The leading agent's part of a status (K19).
    pub const AGENT_STATUS: Self = Self("matriarch.dev/agent-status");
    /// What agents write by compare-and-swap or patch: record, slices, labels.
    pub const AGENT: Self = Self("matriarch.dev/agent");

    /// Whoever takes part in a leader election.
    pub const ELECTION: Self = Self("matriarch.dev/election");

    /// The name as the API server sees it.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl Calls {
    /// Applies `object`, taking over its fields from whoever had them.
    pub async fn apply<K: Object>(&self, manager: FieldManager, object: &K) -> Result<K, CallError> {
        self.apply_with("apply", &PatchParams::apply(manager.0).force(), object).await
    }

    /// Asks what [`Calls::apply`] would do, admission and validation included, and writes nothing (K22).
    /// Unknown fields are refused.
    pub async fn apply_dry_run<K: Object>(&self, manager: FieldManager, object: &K) -> Result<K, CallError> {
        let params = PatchParams::apply(manager.0).force().dry_run().validation_strict();
        self.apply_with("dry-run apply", &params, object).await
    }

    async fn apply_with<K: Object>(
        &self,
        call: &'static str,
        params: &PatchParams,
        object: &K,
    ) -> Result<K, CallError> {
        let (namespace, name) = place(call, object)?;
        if object.meta().managed_fields.is_some() {
            return Err(CallError::Incomplete { call, field: "origin in a builder: it came from the API" });
        }
        let api = self.api::<K>(&namespace);
        self.run(call, api.patch(&name, params, &Patch::Apply(object))).await
    }
}

#[cfg(test)]
mod tests {
    use super::FieldManager;
    use crate::{
        Calls,
        mock::{Answer, api_server},
    };
    use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
    use std::time::Duration;

    #[tokio::test]
    async fn apply_names_its_writer_and_kind() {
        let (client, log) = api_server(|asked| Answer::Json(200, asked.body.clone()));
        let calls = Calls::new(client, Duration::from_secs(1));
        let metadata =
            ObjectMeta { name: Some("pg".into()), namespace: Some("shop".into()), ..ObjectMeta::default() };
        let mut secret = Secret { metadata, ..Secret::default() };
        calls.apply(FieldManager::OPERATOR, &secret).await.unwrap();
        let asked = log.lock().unwrap().pop().unwrap();
        assert_eq!(
            (asked.method.as_str(), asked.path.as_str()),
            ("PATCH", "/api/v1/namespaces/shop/secrets/pg")
        );
        assert!(asked.query.contains("fieldManager=matriarch.dev%2Foperator"), "{}", asked.query);
        assert_eq!(asked.body["kind"], "Secret");

        secret.metadata.managed_fields = Some(vec![]);
        assert!(calls.apply(FieldManager::OPERATOR, &secret).await.is_err());
        assert!(log.lock().unwrap().is_empty(), "what came from the API is not applied");
    }
}
