//! Volumes.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::{Size, size::cel_at_least};

/// The volume of each member.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Size of each volume. Can grow where the storage class allows it, never shrink.
    #[x_kube(validation = Rule::new(cel_at_least("256Mi"))
        .message("storage.size: write a size of 256Mi or more, such as 10Gi"))]
    pub size: Size,

    /// Storage class of the volumes. When left out, the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub storage_class: Option<String>,
}
