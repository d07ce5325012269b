//! Takes a selector off `pgwrite` and `pgread` (K1), with everything that Kubernetes made of it.
//!
//! Server-side apply leaves a field to whoever added it, so somebody's selector would stay, and Kubernetes would lead
//! clients to every pod that it matches, a standby or another application. Its controllers leave what they made behind
//! when a selector goes: the Endpoints first, since they are mirrored into slices, then the slices. Must never delete
//! what the leading agent wrote. Proved by `drift::a_selector_on_a_route_is_taken_away` of the controller's tests.

use api::names::labels;
use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use kubernetes::{CallError, Calls, FieldManager, bounded, delete::Deletion};
use serde_json::json;

/// Undoes a selector on the Service of a route, as it was applied just now. True when there was something to undo: then
/// look again soon, for Kubernetes may have been about to write.
pub(super) async fn take_away(calls: &Calls, namespace: &str, service: &Service) -> Result<bool, CallError> {
    let name = service.name_any();
    let spec = service.spec.as_ref();
    let selects = spec.and_then(|spec| spec.selector.as_ref()).is_some_and(|selector| !selector.is_empty());
    if selects {
        let metadata = &service.metadata;
        let patch = json!({
            "metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version},
            "spec": {"selector": null},
        });
        let params = PatchParams {
            field_manager: Some(FieldManager::OPERATOR.as_str().to_owned()),
            ..PatchParams::default()
        };
        let api = Api::<Service>::namespaced(calls.client().clone(), namespace);
        bounded("take selector away", calls.bound(), api.patch(&name, &params, &Patch::Merge(&patch)))
            .await?;
    }
    let of_service = format!("{}={name}", labels::SLICE_SERVICE);
    let mut strange = calls.list::<EndpointSlice>(namespace, &of_service).await?;
    strange
        .retain(|slice| slice.labels().get(labels::SLICE_MANAGED_BY).is_none_or(|by| by != api::MANAGED_BY));
    if !selects && strange.is_empty() {
        return Ok(false);
    }
    if let Some(endpoints) = calls.get::<Endpoints>(namespace, &name).await? {
        calls.delete(&endpoints, Deletion::SAME).await?;
    }
    for slice in &strange {
        calls.delete(slice, Deletion::SAME).await?;
    }
    Ok(true)
}
