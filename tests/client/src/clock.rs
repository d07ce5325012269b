//! Two clocks for every line of the log.
//!
//! `now` is steady: wall time is read once, later instants are that plus what the monotonic clock says, so a step of the
//! wall clock cannot make a gap appear or vanish. `wall` is what the wall clock says at that moment. The anchor tells
//! where a log's steady time began on the machine's monotonic clock: logs of several processes of one boot are put on
//! one axis exactly, whatever the wall clock did between their starts (`clock::tests`).

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

static START: OnceLock<Anchor> = OnceLock::new();

/// Where a process's steady time began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Anchor {
    /// The machine's boot; empty when it cannot be told.
    pub(crate) boot: String,
    /// The monotonic clock, in microseconds.
    pub(crate) monotonic: u64,
    /// The wall clock at that moment, in microseconds since 1970.
    pub(crate) wall: u64,
}

impl Anchor {
    /// Microseconds to add to times of `self` to have them on the axis of `other`; none when their clocks cannot be
    /// compared but by wall time.
    pub(crate) fn shift_to(&self, other: &Self) -> Option<i64> {
        if self.boot.is_empty() || self.boot != other.boot {
            return None;
        }
        let zero = |anchor: &Self| anchor.wall.cast_signed().wrapping_sub(anchor.monotonic.cast_signed());
        Some(zero(other).wrapping_sub(zero(self)))
    }
}

/// This process's anchor.
pub(crate) fn anchor() -> &'static Anchor {
    START.get_or_init(|| Anchor {
        boot: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_or_else(|_| String::new(), |text| text.trim().to_owned()),
        monotonic: monotonic(),
        wall: wall(),
    })
}

/// Microseconds since 1970, never going back within a process.
pub(crate) fn now() -> u64 {
    let anchor = anchor();
    anchor.wall + monotonic().saturating_sub(anchor.monotonic)
}

/// What the wall clock says, in microseconds since 1970.
pub(crate) fn wall() -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    u64::try_from(wall).unwrap_or(0)
}

fn monotonic() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_between_two_starts_is_taken_out() {
        let anchor = |boot: &str, monotonic, wall| Anchor { boot: boot.to_owned(), monotonic, wall };
        let first = anchor("b", 1_000_000, 9_000_000);
        // Two seconds later, after the wall clock went back by five.
        let second = anchor("b", 3_000_000, 6_000_000);
        assert_eq!(first.shift_to(&first), Some(0));
        assert_eq!(second.shift_to(&first), Some(5_000_000));
        assert_eq!(anchor("other", 0, 0).shift_to(&first), None, "another machine");
        assert_eq!(anchor("", 0, 0).shift_to(&anchor("", 0, 0)), None, "nobody knows which machine");
    }

    #[test]
    fn both_clocks_agree_at_first() {
        assert!(now().abs_diff(wall()) < 60_000_000);
    }
}
