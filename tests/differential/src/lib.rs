//! The simulator's model of PostgreSQL against real servers.
//!
//! The same random operations are done to both (`plan`, `operation`), and after each of them everything that can be
//! seen must become equal: what every server is doing, its timeline, history and control file's timeline, the rows that
//! a new session reads, who streams from whom, how many rows each standby has confirmed as flushed, and what became of
//! every transaction (`look`, `compare`). The model says what is seen when everything has settled; the real servers
//! have a generous bound to get there, so that no machine is too slow.
//!
//! A difference is shrunk to the operations that it needs. `cargo xtask differential --seed N` shows one sequence,
//! `--sequences 500` is the long form. What differed, and which side was mended, is in
//! `docs/decisions/0009-where-the-model-differed.md`.

mod client;
pub mod compare;
pub mod directed;
pub mod look;
pub mod operation;
pub mod plan;
pub mod real;
mod relay;
mod server;
