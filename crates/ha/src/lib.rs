//! The high-availability protocol of one PostgreSQL cluster, as pure decisions.
//!
//! `decide` takes what one agent knows at one instant ([`View`]) and what it remembers
//! (`Memory`), and answers what to do now, why, and when to look again. It has no clock, no randomness
//! and no input or output: the same code runs in the agent and in the simulator.
//!
//! It decides who leads, when a member seals itself, who may promote, and when a leader must stop.
//! It must never invent knowledge: what was not observed is `Unknown`, a value of its own.
//! Rules carry their numbers from `docs/architecture.md` (I, S, L: protocol; P: PostgreSQL facts; K: Kubernetes).

pub mod announcement;
pub mod decide;
pub mod decision;
pub mod election;
pub mod electorate;
pub mod log;
pub mod memory;
pub mod promise;
pub mod record;
pub mod rules;
pub mod settings;
pub mod types;
pub mod view;

pub use announcement::{Announcement, Condition, Echo, SealReport, seal_report};
pub use decide::decide;
pub use decision::{Action, Decision, FenceToken, Purpose, Reason, Refusal, StopMode, Swap};
pub use electorate::{Electorate, satisfied};
pub use memory::Memory;
pub use promise::{Bootstrap, Promise};
pub use record::{DataLoss, Handover, HistoryEntry, LeaderId, Phase, Record};
pub use rules::Rules;
pub use settings::{DurabilityMode, Forced, Settings, WhenShort};
pub use types::{Boot, Epoch, Incarnation, Instant, Lsn, MemberId, MemberName, Position, Timeline, Version};
pub use view::{
    Gate, Names, Peer, Postgres, Primary, RecordView, Route, Standby, Stopped, Upstream, View, Walsender,
};
