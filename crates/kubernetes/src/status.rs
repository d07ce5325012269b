//! Status, each writer its own part by server-side apply (K19).

use crate::{
    apply::FieldManager,
    call::{CallError, Calls, Object},
};
use kube::api::{Patch, PatchParams};
use serde::Serialize;
use serde_json::json;

impl Calls {
    /// Applies `status` to the status subresource of `object`, as `manager`. `status` holds the fields that
    /// this manager owns and no others: those it leaves out, it gives up. The object's UID is a
    /// precondition when `object` carries one: for another object of that name the error is
    /// [`CallError::about`] `metadata.uid`.
    pub async fn apply_status<K: Object>(
        &self,
        manager: FieldManager,
        object: &K,
        status: &impl Serialize,
    ) -> Result<K, CallError> {
        const CALL: &str = "apply status";
        let (namespace, name) = crate::call::place(CALL, object)?;
        let mut metadata = json!({"name": name, "namespace": namespace});
        if let (Some(uid), Some(fields)) = (&object.meta().uid, metadata.as_object_mut()) {
            fields.insert("uid".to_owned(), uid.clone().into());
        }
        let body = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": metadata,
            "status": status,
        });
        let params = PatchParams::apply(manager.as_str()).force();
        let api = self.api::<K>(&namespace);
        self.run(CALL, api.patch_status(&name, &params, &Patch::Apply(&body))).await
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Calls, FieldManager,
        mock::{Answer, api_server},
    };
    use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
    use serde_json::json;
    use std::time::Duration;

    #[tokio::test]
    async fn a_status_goes_to_its_subresource_with_its_owner_and_uid() {
        let (client, log) = api_server(|asked| Answer::Json(200, asked.body.clone()));
        let calls = Calls::new(client, Duration::from_secs(1));
        let metadata = ObjectMeta {
            name: Some("pg".into()),
            namespace: Some("shop".into()),
            uid: Some("u".into()),
            ..ObjectMeta::default()
        };
        let pod = Pod { metadata, ..Pod::default() };
        calls.apply_status(FieldManager::AGENT_STATUS, &pod, &json!({"phase": "Running"})).await.unwrap();
        let asked = log.lock().unwrap().pop().unwrap();
        assert_eq!(asked.path, "/api/v1/namespaces/shop/pods/pg/status");
        assert!(asked.query.contains("fieldManager=matriarch.dev%2Fagent-status"), "{}", asked.query);
        assert_eq!(asked.body["metadata"], json!({"name": "pg", "namespace": "shop", "uid": "u"}));
    }
}
