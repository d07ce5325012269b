//! A cluster whose spec was accepted: the only type that reaches `build`.

use std::collections::BTreeMap;

use api::{Pinned, PostgresCluster, PostgresClusterSpec, names};
use k8s_openapi::{api::core::v1::PodTemplateSpec, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{Resource as _, ResourceExt as _};

/// A cluster whose spec was accepted, with everything chosen that the user left out.
#[derive(Clone, Debug)]
pub struct ValidatedCluster {
    /// `metadata.name`, a DNS label of at most 40 characters.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.uid` of the object that exists now.
    pub uid: String,
    /// The identity of the data: the UID in the record, else this object's own.
    pub identity: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// The spec.
    pub spec: PostgresClusterSpec,
    /// What was chosen for fields that the user left out (K24).
    pub pinned: Pinned,
    /// Image of PostgreSQL in force: the user's, else the pinned one.
    pub image: String,
    /// Parameters of PostgreSQL, checked, as text.
    pub parameters: BTreeMap<String, String>,
    /// The user's pod template, typed.
    pub pod_template: Option<PodTemplateSpec>,
    /// The value of the annotation that asks for an ordered restart.
    pub restarted_at: Option<String>,
    /// The value of the annotation that asks for another certificate authority.
    pub rotate_ca: Option<String>,
    /// A promotion that a human forces.
    pub promote: Option<api::settings::ForcedPromotion>,
    /// The reference that owned objects carry.
    pub owner: OwnerReference,
}

impl ValidatedCluster {
    /// How many members there should be.
    pub fn instances(&self) -> u32 {
        u32::try_from(self.spec.instances).unwrap_or(1).max(1)
    }

    /// The Service that leads to the master.
    pub fn write_service(&self) -> String {
        self.spec.services.write.name.clone().unwrap_or_else(|| names::write_service(&self.name))
    }

    /// The Service that leads to the followers.
    pub fn read_service(&self) -> String {
        self.spec.services.read.name.clone().unwrap_or_else(|| names::read_service(&self.name))
    }

    /// Names of the pods with ordinals below `replicas`.
    pub fn pods(&self, replicas: u32) -> Vec<String> {
        (0..replicas).map(|ordinal| names::pod(&self.name, ordinal)).collect()
    }
}

/// The reference by which an object belongs to a cluster; `None` for one that no API server has seen.
pub fn owner_reference(cluster: &PostgresCluster) -> Option<OwnerReference> {
    Some(OwnerReference {
        api_version: PostgresCluster::api_version(&()).into_owned(),
        kind: PostgresCluster::kind(&()).into_owned(),
        name: cluster.name_any(),
        uid: cluster.uid()?,
        controller: Some(true),
        // Deletion is ordered by a finalizer; blocking would need a right on the subresource `finalizers`.
        block_owner_deletion: None,
    })
}
