//! Seeded simulator of the generic leader election: the same [`ha::election::Candidate`] as in the sidecar, three to five of
//! them, over a modelled API server, network, watch, processes and clocks.
//!
//! One seed is one world. Asserted after every event, by number:
//!
//! - **E1** never two candidates who may act at one instant, while boot-time clocks run within 10 % of the true rate; wall
//!   clocks may step by any amount.
//! - **E2** each term has an epoch of its own, above that of every earlier term, over deletions of the Lease, too.
//! - **E3** once the faults are over somebody leads, and it stays.
//! - **E4** while every request lands and only answers get lost, no term ends.
//! - **E5** at rest the Lease is written once per renewal and hardly read.
//!
//! Bound of E1: when the Lease is deleted (or made anew) while nobody remembers its TTL, the candidates' own counts. Worlds in
//! which the TTLs differ therefore have no deletions.
//!
//! It must never let the model be kinder than the real thing: requests land long after their sender gave up, answers get lost
//! after they took effect, watches lag, frozen processes come back where they stopped. The proof that it can find anything
//! is `matriarch-elector-sim --mutations`; what other algorithms do in the same worlds tells `--third-party`.

pub mod algorithm;
pub mod clock;
pub mod mutation;
pub mod register;
pub mod run;
pub mod third_party;
pub mod world;

pub use mutation::Mutation;
pub use run::{Outcome, run};
pub use world::Kind;
