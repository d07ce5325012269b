//! Names, labels and owners of objects.

use api::names::labels;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::cluster::ValidatedCluster;

/// Metadata of an object that goes when its cluster goes.
pub fn owned(cluster: &ValidatedCluster, name: String) -> ObjectMeta {
    ObjectMeta { owner_references: Some(vec![cluster.owner.clone()]), ..kept(cluster, name) }
}

/// Metadata of an object that stays when its cluster is deleted with `Retain` (K15): nobody owns it.
pub fn kept(cluster: &ValidatedCluster, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(cluster.namespace.clone()),
        labels: Some(labels::of_cluster(&cluster.name)),
        ..ObjectMeta::default()
    }
}
