//! How soon an agent that ended is started again.
//!
//! Decides between two harms. An agent that was merely killed must be back long before its silence costs Postgres its
//! life (§5); one that fails again and again is not in charge of anything, however often it says hello, and must not keep
//! a Postgres alive that nobody would fence (I15). So the pause grows only over lives too short to have fenced in, and
//! grows past the bound of silence. Must never wait longer than [`LONGEST`]. Proved by the tests below.

use std::time::Duration;

use ha::Instant;

/// The second pause; the first is none.
const FIRST: Duration = Duration::from_millis(200);
/// The longest pause.
pub(super) const LONGEST: Duration = Duration::from_secs(5);
/// An agent that lived this long did not fail at its start, and had the default `fence` to fence in if it had to.
const SETTLED: Duration = Duration::from_secs(3);

/// When the next life may begin.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Lives in a row that ended before they had settled, or never began.
    failures: u32,
    due: Instant,
}

impl Pace {
    /// A life that lasted so long ended now; one that could not begin lasted no time.
    pub(super) fn ended(&mut self, lasted: Duration, now: Instant) {
        if lasted >= SETTLED {
            self.failures = 0;
        }
        let pause = match self.failures {
            0 => Duration::ZERO,
            n => FIRST.saturating_mul(1 << (n - 1).min(10)).min(LONGEST),
        };
        self.failures = self.failures.saturating_add(1);
        self.due = now.after(pause);
    }

    /// Not before then.
    pub(super) fn due(&self) -> Instant {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::SILENCE;

    /// The pauses after lives that lasted so long each.
    fn pauses(lasted: Duration, lives: usize) -> Vec<Duration> {
        let mut pace = Pace::default();
        let now = Instant(7);
        (0..lives)
            .map(|_| {
                pace.ended(lasted, now);
                pace.due().since(now)
            })
            .collect()
    }

    #[test]
    fn who_is_killed_every_few_seconds_is_back_at_once_and_postgres_lives() {
        assert!(pauses(SETTLED, 20).iter().all(Duration::is_zero));
    }

    #[test]
    fn who_fails_again_and_again_does_not_keep_postgres_alive() {
        let pauses = pauses(Duration::from_millis(2999), 12);
        assert_eq!(pauses[0], Duration::ZERO, "once is no habit");
        assert!(pauses[..4].iter().all(|pause| *pause < SILENCE), "{pauses:?}");
        assert!(pauses[5] > SILENCE, "{pauses:?}");
        assert_eq!(pauses[11], LONGEST);
    }
}
