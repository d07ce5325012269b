//! The custom resources, and everything that the operator and the agents must spell alike.
//!
//! Decides the schema of `PostgresCluster` (bounds, defaults, CEL rules and the messages that users see), the name
//! of every derived object, label, annotation, port and path, and [`MemberSettings`], the contract by which the
//! operator tells members what to do.
//!
//! Never talks to Kubernetes: there is no client in here. `tests/crd.rs` proves that the checked-in YAML is the one
//! that this code generates and that it stays small.

#![expect(
    unreachable_pub,
    reason = "kube's derive repeats every struct, with its visibility, inside a function"
)]

pub mod cluster;
pub mod conditions;
mod crd;
mod duration;
pub mod names;
pub mod parameters;
mod scalar;
mod schema;
pub mod settings;
mod size;

pub use cluster::{
    Bootstrap, DeletionPolicy, Durability, DurabilityMode, Failover, ImagePullPolicy, Init, Pinned, Postgres,
    PostgresCluster, PostgresClusterSpec, PostgresClusterStatus, ReadService, Resources, Scheduling,
    SecurityContext, ServiceType, Services, Storage, WhenShort, WriteService,
    status::{ElectorateStatus, KeptWal, LastDataLoss, LastFailover, MemberRole, MemberStatus, Phase},
};
pub use crd::crds;
pub use duration::{Duration, DurationError};
pub use scalar::Scalar;
pub use settings::MemberSettings;
pub use size::{Size, SizeError};

/// The API group of every resource of this project.
pub const GROUP: &str = "matriarch.dev";
/// The version of the resources, as in `matriarch.dev/v1alpha1`.
pub const VERSION: &str = "v1alpha1";
/// The name that marks our objects in `app.kubernetes.io/managed-by` and in slices (K2).
pub const MANAGED_BY: &str = "matriarch.dev";
