//! Proof that the driver's loop still turns.
//!
//! A process whose runtime lives and whose driver stands still must not keep Postgres alive: the heartbeat is
//! sent only while the last touch is younger than the bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ha::Instant;

use crate::clock;

/// How long the driver may take from one touch to the next. With the supervisor's two seconds it stays within
/// the bound of I15 at the default `fence` of three.
pub const STALL: Duration = Duration::from_secs(3);

/// Touched by the driver at every turn of its loop; cheap to clone.
#[derive(Debug, Clone)]
pub struct Progress {
    last: Arc<AtomicU64>,
    bound: Arc<AtomicU64>,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new(STALL)
    }
}

impl Progress {
    /// Progress made just now.
    pub fn new(bound: Duration) -> Self {
        let this = Self { last: Arc::default(), bound: Arc::default() };
        this.set_bound(bound);
        this.touch();
        this
    }

    /// The driver's loop turned.
    pub fn touch(&self) {
        self.last.store(clock::now().0, Ordering::Relaxed);
    }

    /// Another bound, such as the user's `fence`.
    pub fn set_bound(&self, bound: Duration) {
        self.bound.store(u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether the driver stands still.
    pub fn stalled(&self) -> bool {
        let since = clock::now().since(Instant(self.last.load(Ordering::Relaxed)));
        since > Duration::from_nanos(self.bound.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_is_not_touched_stalls_and_recovers() {
        let progress = Progress::new(Duration::from_millis(20));
        assert!(!progress.stalled());
        std::thread::sleep(Duration::from_millis(40));
        assert!(progress.stalled());
        progress.touch();
        assert!(!progress.stalled());
    }
}
