//! Bounded waiting for a condition: every wait has an end.

use std::time::Duration;

use tokio::time::Instant;

/// The end of a wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    end: Instant,
    bound: Duration,
}

impl Deadline {
    /// `bound` from now.
    pub(crate) fn after(bound: Duration) -> Self {
        Self { end: Instant::now() + bound, bound }
    }

    /// The whole bound, for messages.
    pub(crate) fn bound(self) -> Duration {
        self.bound
    }

    /// What is left; zero when it has passed.
    pub(crate) fn left(self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// True when it has passed.
    pub(crate) fn passed(self) -> bool {
        self.left().is_zero()
    }

    /// Sleeps for `step`, but not beyond the end.
    pub(crate) async fn sleep(self, step: Duration) {
        tokio::time::sleep(step.min(self.left())).await;
    }
}
