//! Real supervisors, real agents and real PostgreSQL on addresses of the loopback, beside an API server of our own that
//! speaks as much of Kubernetes as an agent asks for: what the driver's test and the measurement of overhead share.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on says so by panicking"
)]

pub mod api_server;
pub mod member;
pub mod objects;
pub mod scratch;
pub mod steps;
pub mod under_test;
