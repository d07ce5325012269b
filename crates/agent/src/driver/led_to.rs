//! Whether `pgwrite` may still lead clients to this member although it leads no more (§4 step 8, K3).
//!
//! A former master that comes back as a standby would take writers' connections and answer each write with 25006; with
//! a closed gate they see 28000 and try again (P25). Decides until when the gate of a standby stays closed: until the
//! record names another leader and the slice has not pointed here for as long as a node's proxy takes, or, when the
//! slice does not move, a bound has passed since. Must never keep a standby from readers for good, nor any that was not
//! led to: reads go on without an API server. Proved by the tests below.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ha::Instant;

/// A node's proxy takes up to a second to follow a slice (K4).
const PROXIES: Duration = Duration::from_secs(1);
/// How long after the record names another leader the slice may go on pointing here, or be unknown.
const BOUND: Duration = Duration::from_secs(5);
/// How long readers are kept away while nobody else leads: this may be the only copy that anybody can read.
const NOBODY: Duration = Duration::from_secs(30);

/// What is known of the way here.
#[derive(Debug, Default)]
pub(crate) struct LedTo(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The slice points at this pod, as far as it was ever read; none before.
    here: Option<bool>,
    /// When it was last seen to.
    here_at: Option<Instant>,
    /// This member is the last leader that it knows of.
    led: bool,
    /// Since when the record names another leader.
    other_since: Option<Instant>,
    /// Since when a standby here was kept from readers while nobody else leads, and when that was last asked.
    closed: Option<(Instant, Instant)>,
}

impl LedTo {
    /// To be called at every turn. `here`: what the slice says, when it was read. `leads`: the newest record known names
    /// this member; none without one.
    pub(crate) fn observe(&self, here: Option<bool>, leads: Option<bool>, now: Instant) {
        let mut state = self.lock();
        if let Some(here) = here {
            state.here = Some(here);
            if here {
                state.here_at = Some(now);
            }
        }
        match leads {
            Some(true) => (state.led, state.other_since) = (true, None),
            Some(false) => {
                state.other_since.get_or_insert(now);
            }
            None => {}
        }
    }

    /// Whether a standby here keeps its gate closed.
    pub(crate) fn keeps_closed(&self, now: Instant) -> bool {
        let mut state = self.lock();
        let may_be_here = state.here.unwrap_or(state.led);
        let Some(since) = state.other_since else {
            let (since, _) =
                state.closed.filter(|(_, asked)| now.since(*asked) < NOBODY).unwrap_or((now, now));
            state.closed = Some((since, now));
            return may_be_here && now.since(since) < NOBODY;
        };
        if may_be_here {
            return now.since(since) < BOUND;
        }
        state.here_at.is_some_and(|at| now.since(at) < PROXIES)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant(millis * 1_000_000)
    }

    #[test]
    fn k3_a_former_master_is_closed_until_the_route_has_moved_and_proxies_know() {
        let led = LedTo::default();
        led.observe(Some(true), Some(true), at(0));
        assert!(led.keeps_closed(at(59_000)), "nobody else leads yet");
        led.observe(Some(true), Some(false), at(60_000));
        assert!(led.keeps_closed(at(60_500)), "the slice still points here");
        led.observe(Some(false), Some(false), at(60_600));
        assert!(led.keeps_closed(at(60_900)), "proxies may not have followed yet");
        assert!(!led.keeps_closed(at(61_000)));
    }

    #[test]
    fn a_slice_that_does_not_move_keeps_readers_away_for_a_bounded_time_only() {
        let led = LedTo::default();
        led.observe(Some(true), Some(true), at(0));
        led.observe(Some(true), Some(false), at(1000));
        led.observe(Some(true), Some(false), at(5000));
        assert!(led.keeps_closed(at(5999)));
        assert!(!led.keeps_closed(at(6000)));
    }

    #[test]
    fn while_nobody_else_leads_readers_are_kept_away_for_a_bounded_time_only() {
        let led = LedTo::default();
        led.observe(Some(true), Some(true), at(0));
        assert!(led.keeps_closed(at(1000)));
        assert!(led.keeps_closed(at(16_000)));
        assert!(led.keeps_closed(at(30_999)));
        assert!(!led.keeps_closed(at(31_000)));
    }

    #[test]
    fn whoever_was_not_led_to_serves_readers_at_once_and_without_an_api_server() {
        let led = LedTo::default();
        assert!(!led.keeps_closed(at(0)), "nothing is known: a standby since ever");
        led.observe(None, Some(false), at(1));
        assert!(!led.keeps_closed(at(2)));
        led.observe(Some(false), Some(false), at(3));
        assert!(!led.keeps_closed(at(3)));
        let restarted = LedTo::default();
        restarted.observe(None, Some(true), at(1));
        assert!(restarted.keeps_closed(at(2)), "it led, and nobody knows where the slice points");
    }
}
