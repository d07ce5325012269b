//! The times of an election, all from one TTL.
//!
//! Proved by `election::tests::times_that_do_not_fit_are_refused` and, with clocks at both ends of their bound, by the
//! simulator's seeds.

use std::time::Duration;

/// How far a candidate's boot-time clock may run from the true rate, in either direction, without harm: 10 %.
pub const CLOCK_RATE_PERMILLE: u32 = 100;

/// How long things take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Times {
    pub(super) ttl: Duration,
    pub(super) deadline: Duration,
    pub(super) renew: Duration,
    pub(super) retry: Duration,
    pub(super) call: Duration,
}

/// Times with which two could act at once, or nobody for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTimes {
    /// Below what an API server answers in.
    #[error("a TTL of {0:?} is too short: one second is the least, since the Lease counts in seconds")]
    TooShort(Duration),
    /// Nobody would wait so long for a crashed leader.
    #[error("a TTL of {0:?} is too long: one hour is the most")]
    TooLong(Duration),
    /// A silent holder would still act when another takes over.
    #[error("the deadline leaves no room for clocks that run at different rates")]
    DeadlineTooLate,
    /// One lost answer would end every term.
    #[error("the deadline must leave time for a renewal, a second one and a call of each")]
    DeadlineTooEarly,
}

impl Times {
    /// The shortest TTL.
    pub const SHORTEST: Duration = Duration::from_secs(1);
    /// The longest TTL.
    pub const LONGEST: Duration = Duration::from_secs(3600);

    /// The times that belong to a TTL: renewed each third of it, calls of at most a sixth, a deadline at four fifths, which
    /// is safe with clocks that run 10 % fast and slow: 0.8 / 0.9 < 1 / 1.1.
    ///
    /// # Errors
    /// When the TTL is out of bounds.
    pub fn of_ttl(ttl: Duration) -> Result<Self, InvalidTimes> {
        if ttl < Self::SHORTEST {
            return Err(InvalidTimes::TooShort(ttl));
        }
        if ttl > Self::LONGEST {
            return Err(InvalidTimes::TooLong(ttl));
        }
        let times =
            Self { ttl, deadline: ttl * 4 / 5, renew: ttl / 3, retry: (ttl / 20).min(SECOND), call: ttl / 6 };
        times.checked()
    }

    /// The same with another deadline.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn with_deadline(self, deadline: Duration) -> Result<Self, InvalidTimes> {
        Self { deadline, ..self }.checked()
    }

    /// The same with any deadline, for models that show what goes wrong with it.
    #[must_use]
    pub fn with_unsafe_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    fn checked(self) -> Result<Self, InvalidTimes> {
        if self.deadline * (1000 + CLOCK_RATE_PERMILLE) > self.ttl * (1000 - CLOCK_RATE_PERMILLE) {
            return Err(InvalidTimes::DeadlineTooLate);
        }
        if self.deadline <= self.renew + self.call + self.retry + self.call {
            return Err(InvalidTimes::DeadlineTooEarly);
        }
        Ok(self)
    }

    /// How long the same renewal is seen before its holder is taken for gone; written into the record.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// How long the holder acts after the start of its last request that surely succeeded.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// From the start of one renewal to the next.
    pub fn renew(&self) -> Duration {
        self.renew
    }

    /// Pause after a failure.
    pub fn retry(&self) -> Duration {
        self.retry
    }

    /// Bound of one call, which whoever makes it must keep.
    pub fn call(&self) -> Duration {
        self.call
    }

    /// How much later than the best candidate each next one tries.
    pub(super) fn stagger(&self) -> Duration {
        (self.ttl / 50).min(Duration::from_millis(100))
    }

    /// How long a released Lease is kept for the one whom it was handed to.
    pub(super) fn reservation(&self) -> Duration {
        (self.ttl / 5).min(SECOND)
    }
}

const SECOND: Duration = Duration::from_secs(1);
