//! Adapters over the Kubernetes API.
//!
//! Decides how the project talks to an API server: every call has a bound, nothing is retried behind a
//! caller's back, every answer that proves nothing is *unknown* (401, 403, 429, 5xx and timeouts included),
//! and every object has one way of being written: typed server-side apply for what a writer owns alone,
//! compare-and-swap on `resourceVersion` for what arbitrates ([`record`], [`slices`],
//! [`leader_election`]). It must never decide anything about PostgreSQL, and no other crate builds a patch.

pub mod apply;
pub mod call;
pub mod client;
pub mod clock;
pub mod conditions;
pub mod delete;
pub mod events;
pub mod labels;
pub mod leader_election;
pub mod nodes;
pub mod pods;
pub mod record;
pub mod slices;
pub mod status;
pub mod watch;

#[cfg(test)]
mod mock;

pub use apply::FieldManager;
pub use call::{CallError, Calls, ErrorClass, Object, bounded};
