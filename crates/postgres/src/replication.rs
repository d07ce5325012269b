//! The master's side of replication: slots, names in force, who streams how far.

pub mod lagging;
pub mod names;
pub mod slots;
pub mod standbys;
