//! From a validated cluster to objects, without any client: one file per kind.
//!
//! Decides what every object says. Builders leave `None` what is not their business, because server-side apply owns
//! whatever is sent; they never see an object that came from the API. `tests/build.rs` holds the objects of the minimal
//! manifest as snapshots.

pub mod certificates;
pub mod config_map;
pub mod disruption_budget;
pub mod metadata;
pub mod pod;
pub mod rbac;
pub mod routes;
pub mod secrets;
pub mod services;
pub mod stateful_set;
