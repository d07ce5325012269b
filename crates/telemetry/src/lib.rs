//! Logs, metrics and error reports of every binary.
//!
//! Decides how a process speaks to people: one JSON object per line when nobody sits at a terminal, a
//! compact line when somebody does. It must never decide *what* is said, never print an error chain twice
//! (`report::tests::a_message_that_prints_its_source_is_not_repeated`) and never fail a caller because a
//! log line could not be written.

pub mod log;
pub mod metrics;
mod report;

pub use log::init;
pub use report::report;
