//! A machine's two clocks: boot time, whose rate is bounded, and wall time, which may step.

use ha::Instant;

/// What a candidate's machine shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Local {
    /// `CLOCK_BOOTTIME`.
    pub boot: Instant,
    /// Wall time, in nanoseconds.
    pub wall: u64,
}

/// Both clocks of one machine.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    real: u64,
    boot: u64,
    permille: u64,
    wall_offset: u64,
}

impl Clock {
    /// A clock that shows `boot` at the true time 0.
    pub fn new(boot: u64, permille: u64, wall_offset: u64) -> Self {
        Self { real: 0, boot, permille, wall_offset }
    }

    /// What it shows at the true time `real`.
    pub fn at(&self, real: u64) -> Local {
        let boot = self.boot + (real - self.real) * self.permille / 1000;
        // Wall clocks are set from one source and run on at the machine's own rate.
        let drift = boot.wrapping_sub(self.boot).wrapping_sub(real - self.real);
        let wall = real.wrapping_add(self.wall_offset).wrapping_add(drift);
        Local { boot: Instant(boot), wall }
    }

    /// The true time at which it shows `boot`, rounded up; `real` when it shows that already.
    pub fn when(&self, boot: Instant, real: u64) -> u64 {
        let left = boot.0.saturating_sub(self.boot);
        (self.real + (left * 1000).div_ceil(self.permille)).max(real)
    }

    /// From now on it runs at another rate.
    pub fn set_rate(&mut self, permille: u64, real: u64) {
        let now = self.at(real);
        (self.real, self.boot, self.permille) = (real, now.boot.0, permille);
        self.wall_offset = now.wall.wrapping_sub(real);
    }

    /// The wall clock is set.
    pub fn step_wall(&mut self, offset: u64) {
        self.wall_offset = offset;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_clock_reaches_an_instant_earlier() {
        let mut clock = Clock::new(100, 1100, 0);
        assert_eq!(clock.at(1000).boot, Instant(1200));
        assert_eq!(clock.when(Instant(1200), 0), 1000);
        clock.set_rate(900, 1000);
        assert_eq!((clock.at(1000).boot, clock.at(2000).boot), (Instant(1200), Instant(2100)));
        assert_eq!(clock.when(Instant(2100), 1000), 2000);
    }
}
