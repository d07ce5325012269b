//! Adapter over one PostgreSQL (majors 15 to 18).
//!
//! Knows files, processes, SQL and the facts P1–P26 of the protocol; decides nothing about who leads and knows
//! nothing of Kubernetes. Every wait takes a bound, every file that a promise rests on is fsynced with its
//! directory, and what could not be observed is a value of its own, never a default.
//!
//! Where to look: [`layout`] and [`binaries`] say where things are, [`settings`] renders configuration,
//! [`command`] wraps PostgreSQL's programs, [`history`] and [`wal`] hold the arithmetic of timelines and positions,
//! [`session`] and [`server`] talk to a running server, and [`seal`], [`follow`], [`promote`], [`gate`],
//! [`replication`] and [`roles`] are the steps that the protocol asks for; [`archiver`] and [`diverged`] are what a
//! hand-over and a rewind do on the side.

pub mod archiver;
pub mod binaries;
pub mod command;
pub mod conninfo;
pub mod diverged;
pub mod durable;
pub mod facts;
pub mod follow;
pub mod gate;
pub mod history;
pub mod identifier;
pub mod layout;
pub mod log;
pub mod parameters;
pub mod process;
mod procfs;
pub mod promise;
pub mod promote;
pub mod reload;
pub mod replication;
pub mod roles;
pub mod scram;
pub mod seal;
pub mod server;
pub mod session;
pub mod settings;
pub mod steps;
mod wait;
pub mod wal;
pub mod walsender;

pub use binaries::{Binaries, Major};
pub use layout::Layout;
pub use session::Session;
