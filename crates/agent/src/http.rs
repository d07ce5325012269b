//! What the agent shows: `/readyz` (K7), `/status` and `/metrics`.
//!
//! It decides only readiness, and that from the view the driver last published; nothing of the protocol ever reads
//! it back. It must never block the driver: publishing replaces a pointer. Liveness is not here but with PID 1
//! (`supervisor::livez`).

mod findings;
mod metrics;
mod readiness;
mod server;
mod status;

pub use findings::{DivergedWal, Findings};
pub use metrics::{AgentMetrics, Outcome, Verb};
pub use readiness::{Readiness, readiness};
pub use server::serve;
pub use status::{Noted, StatusHandle};
