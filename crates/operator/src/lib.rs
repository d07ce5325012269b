//! Turns a PostgresCluster into Kubernetes objects.
//!
//! Steps, each a file: [`dereference`] reads what is there (client), [`validate`] accepts or refuses the spec (no client),
//! [`build`] and [`plan`] decide what should be (no client), [`apply`] writes it (client), [`status`] tells what came of
//! it. It never decides a failover and is never needed for one.

pub mod apply;
pub mod build;
pub mod cluster;
pub mod config;
pub mod controller;
pub mod deletion;
pub mod dereference;
pub mod digest;
pub mod facts;
pub mod http;
pub mod memory;
pub mod metrics;
pub mod plan;
pub mod prepared;
pub mod run;
pub mod stale;
pub mod status;
pub mod validate;
pub mod watches;
