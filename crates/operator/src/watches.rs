//! What wakes the controller: the clusters, and every kind of object of theirs, as metadata only.
//!
//! Objects are told by the label `matriarch.dev/cluster`, not by owner: kept ones have none (K15). The Lease is renewed
//! every few seconds, so it wakes only when the record in its annotation changes, or when it is gone: a lost record must be
//! told (K15). The slices likewise change with it.

use std::{
    collections::HashMap,
    fmt::Debug,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Mutex, PoisonError},
};

use api::{PostgresCluster, names::labels};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    coordination::v1::Lease,
    core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
    policy::v1::PodDisruptionBudget,
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    core::{DeserializeGuard, NamespaceResourceScope, PartialObjectMeta},
    runtime::{Controller, controller, reflector::ObjectRef, watcher},
};

/// The root of the controller: a broken cluster must not stop the others.
pub type Root = DeserializeGuard<PostgresCluster>;

/// A controller for one namespace, or for all.
pub fn controller(client: &Client, namespace: Option<&str>, concurrency: u16) -> Controller<Root> {
    let config = watcher::Config::default();
    let owned = watcher::Config::default().labels(labels::CLUSTER);
    let root = scoped::<Root>(client, namespace);
    let seen = Mutex::<HashMap<String, (u64, u64)>>::default();
    let watch = Watches { client, namespace, config: owned };
    let root =
        Controller::new(root, config).with_config(controller::Config::default().concurrency(concurrency));
    let root = watch.add::<StatefulSet>(root);
    let root = watch.add::<Pod>(root);
    let root = watch.add::<Service>(root);
    let root = watch.add::<EndpointSlice>(root);
    let root = watch.add::<ConfigMap>(root);
    let root = watch.add::<Secret>(root);
    let root = watch.add::<PersistentVolumeClaim>(root);
    let root = watch.add::<ServiceAccount>(root);
    let root = watch.add::<Role>(root);
    let root = watch.add::<RoleBinding>(root);
    let root = watch.add::<PodDisruptionBudget>(root);
    root.watches(
        scoped::<PartialObjectMeta<Lease>>(client, namespace),
        watch.config.clone(),
        move |lease: PartialObjectMeta<Lease>| {
            let mut hasher = DefaultHasher::new();
            lease.annotations().get(labels::RECORD).hash(&mut hasher);
            lease.metadata.deletion_timestamp.is_some().hash(&mut hasher);
            let now = hasher.finish();
            // Every write is noted here with its time, a deletion is not: a Lease that comes a second time just as it was
            // is gone, or was only listed again.
            let mut hasher = DefaultHasher::new();
            serde_json::to_string(&lease.metadata.managed_fields).unwrap_or_default().hash(&mut hasher);
            let written = hasher.finish();
            let key = lease.uid().unwrap_or_default();
            let before = seen.lock().unwrap_or_else(PoisonError::into_inner).insert(key, (now, written));
            let renewed = before.is_some_and(|before| before.0 == now && before.1 != written);
            (!renewed).then(|| cluster_of(&lease)).flatten()
        },
    )
}

struct Watches<'a> {
    client: &'a Client,
    namespace: Option<&'a str>,
    config: watcher::Config,
}

impl Watches<'_> {
    fn add<K>(&self, root: Controller<Root>) -> Controller<Root>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Send + 'static,
    {
        let api = scoped::<PartialObjectMeta<K>>(self.client, self.namespace);
        root.watches(api, self.config.clone(), |object: PartialObjectMeta<K>| cluster_of(&object))
    }
}

fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn cluster_of<K: Resource<DynamicType = ()>>(object: &K) -> Option<ObjectRef<Root>> {
    let namespace = object.namespace()?;
    object.labels().get(labels::CLUSTER).map(|name| ObjectRef::new(name).within(&namespace))
}
