//! The sidecar: leader election for an application that only speaks HTTP, or that only has to be started and stopped.
//!
//! [`options`] is what it is told, [`http`] what it tells; the duties ([`label`], [`service`], [`hooks`], [`command`]) are
//! what it does for the application while it leads. Each holds a [`crate::Lead`] until its own work has ended, so that the
//! Lease is not released before.

pub mod answer;
pub mod clients;
pub mod command;
pub mod hooks;
pub mod http;
pub mod label;
pub mod metrics;
pub mod options;
pub mod run;
pub mod service;
pub mod ward;
