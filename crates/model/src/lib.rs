//! Exhaustive check of the protocol within small bounds: every order of decisions, losses, delays and crashes.
//!
//! The decisions are those of `ha::decide`, the very code of the agent and of the simulator. The world around it is
//! as small as can be.

pub mod bound;
pub mod check;
pub mod decider;
pub mod local;
pub mod log;
pub mod mutation;
pub mod phase;
pub mod record;
pub mod state;
pub mod step;
pub mod truth;
pub mod who;

pub use bound::Bound;
pub use check::{Verdict, check, transitions};
pub use mutation::Mutation;
pub use phase::{Phase, Transitions};
