//! The two Services that clients know.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Size, schema, size::cel_at_least};

/// The Services of a cluster.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.write.name) || !has(self.read.name) || self.write.name != self.read.name")
        .message("services: write.name and read.name must differ")
)]
pub struct Services {
    /// The Service that leads to the master.
    #[serde(default)]
    pub write: WriteService,

    /// The Service that leads to the followers.
    #[serde(default)]
    pub read: ReadService,
}

/// The Service that leads to the master.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WriteService {
    /// Name of the Service, `<cluster>-pgwrite` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 58))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("services.write.name: write a DNS label that begins with a letter, such as pgwrite"))]
    pub name: Option<String>,

    /// How the Service is published.
    #[serde(default, rename = "type")]
    pub type_: ServiceType,

    /// Annotations of the Service, such as those of load balancers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::string_map")]
    pub annotations: BTreeMap<String, String>,
}

/// The Service that leads to the followers.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadService {
    /// Name of the Service, `<cluster>-pgread` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 58))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("services.read.name: write a DNS label that begins with a letter, such as pgread"))]
    pub name: Option<String>,

    /// How far behind the master a follower may be to be listed.
    #[serde(default = "default_max_lag")]
    #[x_kube(validation = Rule::new(cel_at_least("0")).message("services.read.maxLag: write a size such as 16Mi"))]
    pub max_lag: Size,

    /// Whether the master is listed too.
    #[serde(default)]
    pub include_master: bool,

    /// How the Service is published.
    #[serde(default, rename = "type")]
    pub type_: ServiceType,

    /// Annotations of the Service, such as those of load balancers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::string_map")]
    pub annotations: BTreeMap<String, String>,
}

impl Default for ReadService {
    fn default() -> Self {
        Self {
            name: None,
            max_lag: default_max_lag(),
            include_master: false,
            type_: ServiceType::default(),
            annotations: BTreeMap::new(),
        }
    }
}

/// One segment of WAL.
fn default_max_lag() -> Size {
    Size::from_mebibytes(16)
}

/// How a Service is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// Within the Kubernetes cluster.
    #[default]
    ClusterIP,
    /// On a port of every node.
    NodePort,
    /// By a load balancer.
    LoadBalancer,
}

impl ServiceType {
    /// Kubernetes' word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIP => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}
