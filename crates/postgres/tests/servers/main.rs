//! The PostgreSQL facts P1–P26 and every step of this crate, on real servers of each installed major.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that fails says so by panicking, in its helpers too"
)]

mod common;

mod crash;
mod diverged;
mod facts;
mod gate;
mod handover;
mod life;
mod members;
mod names;
mod roles;
mod seal;
mod settings;
