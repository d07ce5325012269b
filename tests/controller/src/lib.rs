//! What tests and measurements of the operator share: an API server without nodes, a namespace in it, and a play of the
//! kubelets and agents that are not there.
//!
//! It asserts nothing about the operator; the tests in `tests/controller` do, and `matriarch-bench` measures.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on says so by panicking"
)]

pub mod agents;
pub mod wait;
pub mod world;
