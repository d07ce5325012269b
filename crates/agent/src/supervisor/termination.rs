//! From SIGTERM to the end: the agent's hand-over, past its bound a fast stop, past that the immediate one.

use std::time::Duration;

use ha::Instant;

use crate::clock;
use crate::config::SupervisorConfig;

/// For an agent that said it has finished, to end by itself.
const FAREWELL: Duration = Duration::from_millis(100);

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Wait,
    /// Fast stop.
    Fast,
    /// SIGKILL to everything.
    Kill,
    /// End.
    End,
}

/// A pod's end, under way.
#[derive(Debug)]
pub(super) struct Termination {
    fast_at: Instant,
    kill_at: Instant,
    fast: bool,
    killed: bool,
    finished: Option<Instant>,
}

impl Termination {
    pub(super) fn new(config: &SupervisorConfig) -> Self {
        let (fast, kill) = config.termination_bounds();
        let fast_at = clock::now().after(fast);
        Self { fast_at, kill_at: fast_at.after(kill), fast: false, killed: false, finished: None }
    }

    /// The agent said so.
    pub(super) fn finish(&mut self) {
        self.finished.get_or_insert_with(clock::now);
    }

    pub(super) fn finished(&self) -> bool {
        self.finished.is_some()
    }

    /// When to look again.
    pub(super) fn due(&self) -> Instant {
        let bound = if self.fast { self.kill_at } else { self.fast_at };
        self.finished.map_or(bound, |at| at.after(FAREWELL).min(bound))
    }

    /// `gone`: no process of Postgres is left. `agent`: the agent lives.
    pub(super) fn step(&mut self, gone: bool, agent: bool) -> Step {
        let now = clock::now();
        if gone {
            let farewell = self.finished.is_some_and(|at| now >= at.after(FAREWELL));
            // Without Postgres there is nothing left that a new agent could hand over.
            return if !agent || farewell || self.fast { Step::End } else { self.late(now) };
        }
        self.late(now)
    }

    fn late(&mut self, now: Instant) -> Step {
        if now >= self.kill_at && !self.killed {
            (self.fast, self.killed) = (true, true);
            return Step::Kill;
        }
        if now >= self.fast_at && !self.fast {
            self.fast = true;
            return Step::Fast;
        }
        Step::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn termination(fast: Duration, kill: Duration) -> Termination {
        let now = clock::now();
        Termination {
            fast_at: now.after(fast),
            kill_at: now.after(kill),
            fast: false,
            killed: false,
            finished: None,
        }
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn an_agent_at_work_is_waited_for_and_a_dead_one_without_postgres_is_not() {
        let mut ending = termination(LONG, LONG);
        assert_eq!(ending.step(false, true), Step::Wait);
        assert_eq!(ending.step(true, true), Step::Wait, "it may still have to give up its place");
        assert_eq!(ending.step(false, false), Step::Wait, "a new agent hands over");
        assert_eq!(ending.step(true, false), Step::End);
    }

    #[test]
    fn past_the_bounds_it_is_fast_once_and_then_immediate_once() {
        let mut ending = termination(Duration::ZERO, LONG);
        assert_eq!(ending.step(false, true), Step::Fast);
        assert_eq!(ending.step(false, true), Step::Wait);
        assert_eq!(ending.step(true, true), Step::End);
        let mut ending = termination(Duration::ZERO, Duration::ZERO);
        assert_eq!(ending.step(false, true), Step::Kill);
        assert_eq!(ending.step(false, true), Step::Wait);
    }
}
