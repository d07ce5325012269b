//! Keys and values of labels and annotations.

use std::collections::BTreeMap;

use crate::MANAGED_BY;

/// The role of a pod, for people: `kubectl get pods -L role`. Written by the new leader after the fact.
pub const ROLE: &str = "role";
/// Value of [`ROLE`] on the master.
pub const ROLE_MASTER: &str = "master";
/// Value of [`ROLE`] on a follower.
pub const ROLE_REPLICA: &str = "replica";
/// The cluster that an object belongs to.
pub const CLUSTER: &str = "matriarch.dev/cluster";
/// The pool that a pod belongs to.
pub const POOL: &str = "matriarch.dev/pool";
/// The resource's UID whose data a claim or a kept object holds: a name alone is never an identity.
pub const CLUSTER_UID: &str = "matriarch.dev/cluster-uid";
/// Who manages an object.
pub const MANAGED_BY_KEY: &str = "app.kubernetes.io/managed-by";
/// What an object is part of.
pub const NAME_KEY: &str = "app.kubernetes.io/name";
/// Which instance of it.
pub const INSTANCE_KEY: &str = "app.kubernetes.io/instance";

/// On slices: which Service it belongs to.
pub const SLICE_SERVICE: &str = "kubernetes.io/service-name";
/// On slices: who writes it.
pub const SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// On slices, an annotation: the epoch that wrote it (K2).
pub const SLICE_EPOCH: &str = "matriarch.dev/epoch";
/// On the Lease, an annotation: the record as JSON (K20).
pub const RECORD: &str = "matriarch.dev/record";
/// On the pod template, an annotation: the hash of everything that needs a new pod.
pub const TEMPLATE_HASH: &str = "matriarch.dev/template-hash";
/// On a PostgresCluster, an annotation: any new value starts an ordered restart of all members.
pub const RESTARTED_AT: &str = "matriarch.dev/restarted-at";
/// On a PostgresCluster, an annotation: any new value replaces the certificate authority (K10).
pub const ROTATE_CA: &str = "matriarch.dev/rotate-ca";

/// On a PostgresCluster, an annotation: a promotion that a human forces,
/// `{"member": "pg-1", "epoch": 7, "allowDataLoss": true}`. The epoch is the one in the status; void in every other.
pub const PROMOTE: &str = "matriarch.dev/promote";

/// The labels of every object of a cluster.
pub fn of_cluster(cluster: &str) -> BTreeMap<String, String> {
    [(NAME_KEY, "postgresql"), (INSTANCE_KEY, cluster), (MANAGED_BY_KEY, MANAGED_BY), (CLUSTER, cluster)]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// What selects the pods of one pool; a StatefulSet's selector can never change.
pub fn pool_selector(cluster: &str, pool: &str) -> BTreeMap<String, String> {
    [(CLUSTER, cluster), (POOL, pool)]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The selector of [`pool_selector`] as text, for the scale subresource.
pub fn pool_selector_text(cluster: &str, pool: &str) -> String {
    format!("{CLUSTER}={cluster},{POOL}={pool}")
}
