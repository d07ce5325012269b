//! The exhaustive crash test of the driver: the agent is ended after each step that anybody else can see.
//!
//! Real supervisors, real agents and real PostgreSQL, two members on addresses of the loopback, beside an API server of
//! our own that speaks as much of Kubernetes as an agent asks for. A world lives through every story once; in the first
//! one nothing is disturbed, which says how many steps each story has and how it ends; in every other one the agent that
//! the story is about is killed right after one of them, and started again by its supervisor. The end must be the same:
//! record, slices, labels, status, roles, timelines, settings, files, and every acknowledged row exactly once.
//!
//! Started inside a root file system with servers, as `cargo xtask test driver` does. This program is the agent and the
//! supervisor too, with a watcher of its steps ([`postgres::steps`]) that the product has not.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails says so by panicking"
)]

mod rows;
mod state;
mod stories;
mod suite;
mod world;

use std::process::ExitCode;

use driver::{api_server, member, objects, scratch, steps, under_test};

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("supervise" | "run") => under_test::main(),
        _ => suite::main(),
    }
}
