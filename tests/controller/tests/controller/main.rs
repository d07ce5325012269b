//! The operator against a real API server (etcd, kube-apiserver, kube-controller-manager; no node): the layer
//! "controller" of the tests.
//!
//! Run by `cargo xtask test controller`, which starts the API server and names its kubeconfig in
//! `MATRIARCH_CONTROLLER_KUBECONFIG`; without it every test fails and says so. Each test has a namespace and an operator
//! of its own; pods never run: [`agents`] plays kubelet and agents.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that fails says so by panicking, in its helpers too"
)]

mod dump;
mod operator_process;
mod traffic;

mod adapters;
mod crash;
mod deletion;
mod drift;
mod election;
mod objects;
mod paused;
mod quiet;
mod record;
mod roll_out;
mod slices;
mod specs;
mod stale;
mod storage;

use controller::{agents, wait, world};
