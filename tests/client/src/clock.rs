//! One clock for every line of the log: wall time for comparison with what a test did, steady all the same.
//!
//! Wall time is read once; later instants are that plus what the monotonic clock says, so a step of the wall clock
//! cannot make a gap appear or vanish.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

static START: OnceLock<(Instant, u64)> = OnceLock::new();

/// Microseconds since 1970, never going back within a process.
pub(crate) fn now() -> u64 {
    let (instant, wall) = START.get_or_init(|| {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
        (Instant::now(), u64::try_from(wall).unwrap_or(0))
    });
    wall + u64::try_from(instant.elapsed().as_micros()).unwrap_or(u64::MAX - wall)
}
