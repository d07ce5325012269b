//! The sidecar as a process, against an API server that is a few lines and can be broken at will.
//!
//! Waits are bounded generously and nothing depends on the machine being fast: what must never happen is asserted whenever
//! it is looked at, what must happen is waited for.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that fails says so by panicking, in its helpers too"
)]

mod api;
mod process;

mod credentials;
mod defects;
mod input;
mod run;
