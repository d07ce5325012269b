//! The one source of randomness of a world.

use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// One millisecond in nanoseconds, the simulator's unit of time.
pub const MS: u64 = 1_000_000;
/// One second in nanoseconds.
pub const SECOND: u64 = 1_000 * MS;

/// Seeded and nothing else: the same seed throws the same numbers.
#[derive(Debug)]
pub struct Dice(Pcg64Mcg);

impl Dice {
    /// The dice of this seed.
    pub fn new(seed: u64) -> Self {
        Self(Pcg64Mcg::seed_from_u64(seed))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number from `low` to `high`, both possible.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high.max(low))
    }

    /// True so many times in a thousand.
    pub fn permille(&mut self, times: u64) -> bool {
        self.between(0, 999) < times
    }

    /// Milliseconds between these, in nanoseconds.
    pub fn millis(&mut self, low: u64, high: u64) -> u64 {
        self.between(low * MS, high * MS)
    }

    /// An index below `len`; 0 for an empty range.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.between(0, (len as u64).saturating_sub(1))).unwrap_or(0)
    }
}

/// Nanoseconds as seconds, for people.
#[allow(clippy::cast_precision_loss, reason = "only shown")]
pub fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}
