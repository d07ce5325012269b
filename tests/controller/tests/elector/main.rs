//! The elector against a real API server (etcd, kube-apiserver, kube-controller-manager; no node): part of the layer
//! "controller" of the tests.
//!
//! Run by `cargo xtask test controller`, which starts the API server and names its kubeconfig in
//! `MATRIARCH_CONTROLLER_KUBECONFIG`; without it every test fails and says so. Each test has a namespace of its own. Nothing
//! depends on the machine being fast: what must never happen is asserted whenever it is looked at, what must happen is
//! waited for.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that fails says so by panicking, in its helpers too"
)]

mod sidecar;
mod world;

mod elections;
mod examples;
mod input;
mod rights;
mod service;
