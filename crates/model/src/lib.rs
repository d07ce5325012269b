//! Exhaustive check of the protocol within small bounds: every order of decisions, losses, delays and crashes.
//!
//! The decisions are those of `ha::decide`, the very code of the agent and of the simulator. The world around it is
//! as small as can be, and where it is not exact it allows more than reality does:
//!
//! - No time. A decision is made an hour after everything that is remembered, on announcements that were just heard
//!   or lost. So every suspicion is possible at any moment, and no wait protects anybody (`local`).
//! - No memory in the state. It is rebuilt for each decision; what it holds besides observations is part of the state:
//!   proofs, reports that members gave once, where names came in force.
//! - Announcements are current or lost. Of older ones only seal reports matter, and the newest report that a member no
//!   longer stands by may be remembered by anybody (`state`, `outlived`).
//! - A swap takes effect at once or never; its answer comes at any later time or never. Snapshots of the record may be
//!   old for as long as they like.
//! - Each act of a decision is a step of its own; a seal and its report, a rewind and a start are one step each.
//!   Promotions, changes of names and streams are several (`step`).
//! - Equal states are made equal: records that nobody knows any more are dropped, log records are renumbered.
//!
//! It must never be kinder than the real thing in what it does model. That it can find anything is shown by
//! `matriarch-model --mutations`; that it means something, by the states that it must reach (`check`).

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
