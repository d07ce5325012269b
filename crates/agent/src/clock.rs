//! The one clock of the agent: `CLOCK_BOOTTIME`, which goes on through suspension (§5).
//!
//! Its instants are never compared between machines; every deadline counts from *before* a request was sent.

use std::time::Duration;

use ha::Instant;
use rustix::time::{ClockId, clock_gettime};

/// Now.
pub fn now() -> Instant {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Instant(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// How long from now until `then`; zero when it has passed.
pub fn until(then: Instant) -> Duration {
    then.since(now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_forward() {
        let before = now();
        assert!(before.0 > 0 && now() >= before);
        assert_eq!(until(before), Duration::ZERO);
        assert!(until(before.after(Duration::from_secs(60))) > Duration::from_secs(50));
    }
}
