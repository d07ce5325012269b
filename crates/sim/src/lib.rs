//! Seeded simulator of the protocol: the same `decide` as in the pods, with modelled PostgreSQL, API server,
//! network, disks, processes and clocks, and every invariant checked after every event.
//!
//! One seed is one world: everything random comes from one generator, so a failing seed replays exactly. It must
//! never let the model be kinder than the real thing: clients write to *any* master whose gate is open, answers get
//! lost after they took effect, frozen processes come back where they stopped.
//! The proof that it can find anything is `matriarch-sim --mutations`.

pub mod act;
pub mod agent;
pub mod api_server;
pub mod copy;
pub mod crew;
pub mod dice;
pub mod driver;
pub mod event;
pub mod faults;
pub mod ghost;
pub mod invariants;
pub mod member;
pub mod misreading;
pub mod mutation;
pub mod network;
pub mod postgres;
pub mod replay;
pub mod run;
pub mod script;
pub mod steps;
pub mod stream;
pub mod table;
pub mod wal;
pub mod world;

pub use mutation::Mutation;
pub use run::{Kind, Outcome, run};
