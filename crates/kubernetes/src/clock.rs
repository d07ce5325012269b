//! The observer's own clock.

use ha::Instant;
use rustix::time::{ClockId, clock_gettime};

/// Now by `CLOCK_BOOTTIME`, which goes on while a machine is suspended. Deadlines count from *before* a
/// request is sent.
pub fn boottime() -> Instant {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    Instant(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

#[cfg(test)]
mod tests {
    #[test]
    fn time_does_not_run_backwards() {
        let first = super::boottime();
        assert!(super::boottime() >= first);
    }
}
