//! Volumes that grow (K13): the claims are patched, the StatefulSet is made again around pods that never stop; a class that
//! does not allow it is told.
//!
//! Turned red by: a deletion of the StatefulSet that takes its pods along, a claim template that stays as it was, a
//! refusal of the API server that is only logged.

use std::time::Duration;

use kube::ResourceExt as _;
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use serde_json::{Value, json};

use crate::agents::Agents;
use crate::operator_process::Operator;
use crate::wait;
use crate::world::{self, World};

/// Makes a class of this namespace's own, which nobody provisions for.
pub(crate) async fn class(world: &World, expands: bool) -> String {
    let name = format!("{}-{}", world.namespace, if expands { "grows" } else { "stays" });
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": "test.invalid/none", "allowVolumeExpansion": expands});
    let class: DynamicObject = serde_json::from_value(class).unwrap();
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("storage.k8s.io", "v1", "StorageClass"));
    let api: Api<DynamicObject> = Api::all_with(world.calls.client().clone(), &kind);
    api.create(&PostParams::default(), &class).await.unwrap();
    name
}

/// Plays the provisioner: the API server lets only bound claims grow.
pub(crate) async fn bind(world: &World) {
    let api = world.dynamic(&world::CLAIM);
    for claim in world.all(&world::CLAIM).await {
        let name = claim["metadata"]["name"].as_str().unwrap();
        let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
        let params = kube::api::PatchParams::default();
        api.patch_status(name, &params, &kube::api::Patch::Merge(&bound)).await.unwrap();
    }
}

fn requested(object: &Value) -> &Value {
    &object["spec"]["resources"]["requests"]["storage"]
}

async fn pods(world: &World) -> Vec<Option<String>> {
    world.pods("pg").await.iter().map(kube::ResourceExt::uid).collect()
}

#[tokio::test]
async fn k13_growing_volumes_replaces_the_stateful_set_and_no_pod() {
    let world = World::new("grows").await;
    let operator = Operator::start(&world).await;
    let _agents = Agents::play(&world, "pg");
    let class = class(&world, true).await;
    let storage = json!({"size": "1Gi", "storageClass": class});
    world.create("pg", json!({"storage": storage, "instances": 2})).await;
    world.healthy("pg").await;
    operator.quiet(Duration::from_millis(500)).await;
    bind(&world).await;
    let before = pods(&world).await;
    let set = world.get(&world::STATEFUL_SET, "pg").await.unwrap();

    world.edit("pg", json!({"storage": {"size": "2Gi"}})).await;
    wait::until("claims and a claim template of the new size", || async {
        let claims = world.all(&world::CLAIM).await;
        let set = world.get(&world::STATEFUL_SET, "pg").await.unwrap_or_default();
        let template = requested(&set["spec"]["volumeClaimTemplates"][0]).clone();
        let sizes: Vec<Value> = claims.iter().map(requested).cloned().chain([template]).collect();
        if sizes.len() == 3 && sizes.iter().all(|size| size == "2Gi") { Ok(()) } else { Err(sizes) }
    })
    .await;
    world.healthy("pg").await;
    operator.quiet(Duration::from_millis(500)).await;
    let now = world.get(&world::STATEFUL_SET, "pg").await.unwrap();
    assert_ne!(now["metadata"]["uid"], set["metadata"]["uid"], "a claim template cannot change in place");
    assert_eq!(pods(&world).await, before, "no pod was replaced");
    for pod in world.pods("pg").await {
        let owner = pod.owner_references().first().map(|owner| owner.uid.clone());
        assert_eq!(owner.as_deref(), now["metadata"]["uid"].as_str(), "and the new one has taken them over");
    }
}

#[tokio::test]
async fn a_class_that_does_not_allow_growth_is_told() {
    let world = World::new("stays").await;
    let _operator = Operator::start(&world).await;
    let _agents = Agents::play(&world, "pg");
    let class = class(&world, false).await;
    let storage = json!({"size": "1Gi", "storageClass": class});
    world.create("pg", json!({"storage": storage, "instances": 1})).await;
    world.healthy("pg").await;
    bind(&world).await;
    let before = pods(&world).await;
    world.edit("pg", json!({"storage": {"size": "2Gi"}})).await;
    world.told("pg", "SpecValid", "False", &["ObjectRefused", "storage.size", "allowVolumeExpansion"]).await;
    assert_eq!(world.condition("pg", "Ready").await.0, "True", "the cluster goes on");
    assert_eq!(pods(&world).await, before);
    // What cannot grow is cared for all the same: a StatefulSet that goes comes back, and so would a pod of it.
    // It is replaced once first, since new members get the new size.
    let set = wait::until("a claim template of the new size", || async {
        let set = world.get(&world::STATEFUL_SET, "pg").await.unwrap_or_default();
        let size = requested(&set["spec"]["volumeClaimTemplates"][0]).clone();
        if size == "2Gi" { Ok(set) } else { Err(size) }
    })
    .await;
    world.delete(&world::STATEFUL_SET, "pg").await;
    wait::until("another StatefulSet", || async {
        let now = world.get(&world::STATEFUL_SET, "pg").await.unwrap_or_default();
        let uid = &now["metadata"]["uid"];
        if uid.is_string() && *uid != set["metadata"]["uid"] { Ok(()) } else { Err(now) }
    })
    .await;
    world.told("pg", "SpecValid", "False", &["ObjectRefused", "storage.size", "allowVolumeExpansion"]).await;
}
