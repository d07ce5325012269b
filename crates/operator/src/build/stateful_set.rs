//! The StatefulSet of the default pool.
//!
//! Parallel, so that a broken member blocks nobody; OnDelete, because roles decide the order of a roll-out, not
//! ordinals; claims are always retained, since only the operator deletes them, by UID (K13).

use api::names::{self, DEFAULT_POOL, labels};
use k8s_openapi::{
    api::{
        apps::v1::{
            StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
            StatefulSetUpdateStrategy,
        },
        core::v1::{
            PersistentVolumeClaim, PersistentVolumeClaimSpec, PodTemplateSpec, VolumeResourceRequirements,
        },
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};

use super::metadata;
use crate::cluster::ValidatedCluster;

/// The StatefulSet with so many members of this template.
pub fn build(cluster: &ValidatedCluster, replicas: u32, template: PodTemplateSpec) -> StatefulSet {
    StatefulSet {
        metadata: metadata::owned(cluster, names::stateful_set(&cluster.name)),
        spec: Some(StatefulSetSpec {
            replicas: i32::try_from(replicas).ok(),
            service_name: Some(names::headless_service(&cluster.name)),
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                ..StatefulSetUpdateStrategy::default()
            }),
            selector: LabelSelector {
                match_labels: Some(labels::pool_selector(&cluster.name, DEFAULT_POOL)),
                ..LabelSelector::default()
            },
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some("Retain".to_owned()),
                when_scaled: Some("Retain".to_owned()),
            }),
            volume_claim_templates: Some(vec![claim(cluster)]),
            template,
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

fn claim(cluster: &ValidatedCluster) -> PersistentVolumeClaim {
    let storage = &cluster.spec.storage;
    let mut claim_labels = labels::of_cluster(&cluster.name);
    claim_labels.extend(labels::pool_selector(&cluster.name, DEFAULT_POOL));
    claim_labels.insert(labels::CLUSTER_UID.to_owned(), cluster.identity.clone());
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(names::DATA_CLAIM.to_owned()),
            labels: Some(claim_labels),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: storage.storage_class.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), storage.size.to_quantity())].into()),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}
