//! `PostgresCluster`: what a user asks for and what has become of it.
//!
//! Decides the schema. A value that the schema can refuse is refused at admission with a message that says what to
//! write instead; what it cannot, `operator` refuses in a condition. Only fields that work are here.
//! `tests/crd.rs` proves bounds and size; the end-to-end tests prove the CEL rules on a real API server (K23).

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

mod bootstrap;
mod durability;
mod postgres;
mod scheduling;
mod services;
pub mod status;
mod storage;

pub use bootstrap::{Bootstrap, Init};
pub use durability::{Durability, DurabilityMode, Failover, WhenShort};
pub use postgres::Postgres;
pub use scheduling::{Resources, Scheduling, SecurityContext};
pub use services::{ReadService, ServiceType, Services, WriteService};
pub use status::{Pinned, PostgresClusterStatus};
pub use storage::Storage;

/// The desired state of one PostgreSQL cluster: a master, its followers, and how they fail over.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "matriarch.dev",
    version = "v1alpha1",
    kind = "PostgresCluster",
    plural = "postgresclusters",
    shortname = "pgc",
    category = "matriarch",
    namespaced,
    status = "PostgresClusterStatus",
    derive = "PartialEq",
    doc = "A PostgreSQL cluster that elects its own master and loses no acknowledged write.",
    scale(
        spec_replicas_path = ".spec.instances",
        status_replicas_path = ".status.instances",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Master", type_ = "string", json_path = ".status.master", description = "The member that accepts writes"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether writes succeed"
    ),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch", description = "The term of the master"),
    printcolumn(name = "Timeline", type_ = "integer", json_path = ".status.timeline", description = "The timeline of PostgreSQL"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Version", type_ = "integer", json_path = ".status.pinned.version", description = "The major version of PostgreSQL"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 40").message(
        "metadata.name: must have at most 40 characters, because names of pods and Services are made from it"
    ),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message(
        "metadata.name: must be a DNS label that begins with a letter, such as orders-db (no dots, no upper case)"
    ),
    validation = Rule::new("!has(self.spec.services.write.name) || self.spec.services.write.name != self.metadata.name + '-pods'").message(
        "spec.services.write.name: <name>-pods is the headless Service of the members; choose another name"
    ),
    validation = Rule::new("!has(self.spec.services.read.name) || self.spec.services.read.name != self.metadata.name + '-pods'").message(
        "spec.services.read.name: <name>-pods is the headless Service of the members; choose another name"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.durability.mode != 'quorum' || self.instances == 1 || self.durability.acks < self.instances")
        .message("durability.acks: must be smaller than instances, since each acknowledgement comes from another follower; write instances - 1 or less, such as acks: 2 with instances: 3"),
    validation = Rule::new("!has(oldSelf.version) || !has(self.version) || self.version == oldSelf.version")
        .message("version: the major version of an existing cluster cannot be changed; create a new cluster of the other version"),
    validation = Rule::new("has(self.storage.storageClass) == has(oldSelf.storage.storageClass) && (!has(self.storage.storageClass) || self.storage.storageClass == oldSelf.storage.storageClass)")
        .message("storage.storageClass: cannot be changed; create a new cluster in the other class"),
    validation = Rule::new("!isQuantity(self.storage.size) || quantity(self.storage.size).compareTo(quantity(oldSelf.storage.size)) >= 0")
        .message(Message::Expression("'storage.size: volumes cannot shrink; write ' + oldSelf.storage.size + ' or more'".into())),
    validation = Rule::new("has(self.bootstrap) == has(oldSelf.bootstrap) && (!has(self.bootstrap) || self.bootstrap == oldSelf.bootstrap)")
        .message("bootstrap: is used once, when the cluster is made, and cannot be changed; use SQL instead")
)]
pub struct PostgresClusterSpec {
    /// Major version of PostgreSQL. When left out, the operator's default is chosen once and pinned in status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 15, max = 18))]
    pub version: Option<i32>,

    /// Image of PostgreSQL; stock images work. When left out, the operator's image for the version is chosen once and
    /// pinned in status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9][A-Za-z0-9._/:@-]*$')")
        .message("image: write an image reference such as registry.example/postgres:17.6"))]
    pub image: Option<String>,

    /// When the kubelet pulls the image.
    #[serde(default)]
    pub image_pull_policy: ImagePullPolicy,

    /// Number of members, the master included.
    #[serde(default = "default_instances")]
    #[schemars(range(min = 1, max = 16))]
    pub instances: i32,

    /// Volumes of the members.
    pub storage: Storage,

    /// What an acknowledged write means.
    #[serde(default)]
    pub durability: Durability,

    /// When and to whom the cluster fails over.
    #[serde(default)]
    pub failover: Failover,

    /// Settings of PostgreSQL.
    #[serde(default)]
    pub postgres: Postgres,

    /// Resources of PostgreSQL's container. Without any, 100m of CPU are requested and as much memory as the
    /// parameters need, at least 512Mi; nothing is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// Where members may run. Without any constraint they are spread over nodes and zones as far as these exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<Scheduling>,

    /// User and group of the members' processes. Write `{}` where the platform assigns them.
    #[serde(default)]
    pub security_context: SecurityContext,

    /// The Services that lead to the master and to the followers.
    #[serde(default)]
    pub services: Services,

    /// How the first master is made. Used once.
    #[serde(default)]
    pub bootstrap: Bootstrap,

    /// A pod template that is merged over the generated one: adds and replaces, removes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::preserved")]
    pub pod_template: Option<serde_json::Value>,

    /// The operator leaves the cluster alone; elections go on.
    #[serde(default)]
    pub paused: bool,

    /// What happens to the volumes when this object is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// Three members: one may fail while the others still acknowledge and elect.
fn default_instances() -> i32 {
    3
}

/// When the kubelet pulls an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum ImagePullPolicy {
    /// At every start of a container.
    Always,
    /// When the node lacks it.
    #[default]
    IfNotPresent,
    /// Not at all: the image must be on the node.
    Never,
}

impl ImagePullPolicy {
    /// Kubernetes' word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// What happens to volumes at deletion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum DeletionPolicy {
    /// Claims, record, authority, superuser's and application's Secrets stay; a cluster of the same name adopts them.
    #[default]
    Retain,
    /// Everything goes.
    Delete,
}
