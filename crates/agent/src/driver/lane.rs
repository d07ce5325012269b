//! One act at a time on the data directory, tracked, replaceable by a more urgent one.
//!
//! Decides which offered act starts, which waits and which one pushes a running one aside. It must never run two acts
//! at once, never let a slow act delay a stop or a seal, and never hammer at something that fails: a failed act
//! waits longer each time, a stop never. Proved by the tests below.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use ha::{Action, Instant, StopMode};
use tokio::task::JoinHandle;

/// First pause after a failed act; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between attempts at the same act.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The acts of one lane.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    running: Option<Running>,
    failures: BTreeMap<&'static str, Failure>,
}

#[derive(Debug)]
struct Running {
    name: &'static str,
    actions: Vec<Action>,
    task: JoinHandle<anyhow::Result<()>>,
    since: Instant,
}

#[derive(Debug)]
struct Failure {
    pause: Duration,
    not_before: Instant,
}

/// How an act ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// What was tried.
    pub(crate) name: &'static str,
    /// How it went.
    pub(crate) outcome: anyhow::Result<()>,
    /// How long it took.
    pub(crate) took: Duration,
}

impl Lane {
    /// Starts these actions in order as one act, when nothing runs, when they are more urgent than what runs, or
    /// when they replace it. Returns whether they were started.
    pub(crate) fn offer<F>(
        &mut self,
        actions: Vec<Action>,
        now: Instant,
        run: impl FnOnce(Vec<Action>) -> F,
    ) -> bool
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let Some(first) = actions.first() else { return false };
        let name = name(first);
        let act = run(actions.clone());
        self.begin(name, actions, now, act)
    }

    /// Starts an upkeep of our own, when nothing runs; every act of the protocol pushes it aside.
    pub(crate) fn upkeep<F>(
        &mut self,
        name: &'static str,
        as_urgent_as: Vec<Action>,
        now: Instant,
        act: F,
    ) -> bool
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.begin(name, as_urgent_as, now, act)
    }

    fn begin<F>(&mut self, name: &'static str, actions: Vec<Action>, now: Instant, act: F) -> bool
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        if let Some(running) = &self.running {
            let replaces = actions.first().is_some_and(|first| replaces(first, &running.actions));
            if urgency(&actions) <= urgency(&running.actions) && !replaces {
                return false;
            }
            tracing::info!(act = name, instead_of = running.name, "a more urgent act");
        } else if self.failures.get(name).is_some_and(|failure| now < failure.not_before) {
            return false;
        }
        let aside = self.running.take();
        let task = tokio::spawn(async move {
            if let Some(aside) = aside {
                // Aborting drops the act at its next await; the processes that it started die with it, and a promise
                // that is being written is written to the end by its own thread. Only then does the next one begin.
                aside.task.abort();
                let _ = aside.task.await;
            }
            act.await
        });
        self.running = Some(Running { name, actions, task, since: now });
        true
    }

    /// Whether an act that owns the data directory runs, and which: for `Postgres::Busy`.
    pub(crate) fn busy(&self) -> Option<&'static str> {
        let running = self.running.as_ref()?;
        running.actions.iter().find_map(|action| match action {
            Action::Initialise
            | Action::WipeUnrecorded
            | Action::Clone { .. }
            | Action::Rewind { .. }
            | Action::Reclone { .. } => Some(name(action)),
            _ => None,
        })
    }

    /// Whether a start of Postgres is under way.
    pub(crate) fn starting(&self) -> bool {
        self.running.as_ref().is_some_and(|running| {
            running
                .actions
                .iter()
                .any(|action| matches!(action, Action::StartStandby | Action::StartPrimary { .. }))
        })
    }

    /// The running act, for status.
    pub(crate) fn current(&self) -> Option<&'static str> {
        self.running.as_ref().map(|running| running.name)
    }

    /// Waits for the running act to end; for ever when there is none. May be dropped and called again.
    pub(crate) async fn ended(&mut self, clock: impl Fn() -> Instant) -> Ended {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let outcome = match (&mut running.task).await {
            Ok(outcome) => outcome,
            Err(error) => Err(error.into()),
        };
        let now = clock();
        let name = running.name;
        let took = now.since(running.since);
        self.running = None;
        if outcome.is_ok() {
            self.failures.remove(name);
        } else {
            let pause =
                self.failures.get(name).map_or(FIRST_PAUSE, |last| (last.pause * 2).min(LONGEST_PAUSE));
            let pause = if name == "stop" { Duration::ZERO } else { pause };
            self.failures.insert(name, Failure { pause, not_before: now.after(pause) });
        }
        Ended { name, outcome, took }
    }
}

/// Whether an action belongs to this lane; the others do not touch Postgres.
pub(crate) fn touches_postgres(action: &Action) -> bool {
    !matches!(action, Action::Swap(_) | Action::Publish { .. } | Action::Retract)
}

/// 0 for an upkeep of our own, which has no actions.
fn urgency(actions: &[Action]) -> u8 {
    actions
        .iter()
        .map(|action| match action {
            Action::Stop { mode: StopMode::Immediate } => 5,
            Action::Stop { mode: StopMode::Fast } => 4,
            Action::Seal { .. } => 3,
            Action::CloseGate => 2,
            _ => 1,
        })
        .max()
        .unwrap_or(0)
}

/// An act of the same kind with other content replaces the running one: its goal is out of date.
fn replaces(first: &Action, running: &[Action]) -> bool {
    running.iter().any(|old| {
        old != first
            && match (old, first) {
                (Action::Follow { .. }, Action::Follow { .. })
                | (Action::SetNames { .. }, Action::SetNames { .. })
                | (Action::Promote { .. }, Action::Promote { .. })
                | (Action::StartPrimary { .. }, Action::StartPrimary { .. } | Action::StartStandby) => true,
                (Action::Seal { below: old }, Action::Seal { below: new }) => new > old,
                _ => false,
            }
    })
}

/// The act's name in logs and status.
pub(crate) fn name(action: &Action) -> &'static str {
    match action {
        Action::Initialise => "initialise",
        Action::WipeUnrecorded => "wipe-unrecorded",
        Action::Clone { .. } => "clone",
        Action::Rewind { .. } => "rewind",
        Action::Reclone { .. } => "reclone",
        Action::StartStandby => "start-standby",
        Action::StartPrimary { .. } => "start-primary",
        Action::Follow { .. } => "follow",
        Action::Stop { .. } => "stop",
        Action::Seal { .. } => "seal",
        Action::Swap(_) => "swap",
        Action::Promote { .. } => "promote",
        Action::SetNames { .. } => "set-names",
        Action::Prepare { .. } => "prepare",
        Action::Provision => "provision",
        Action::CloseGate => "close-gate",
        Action::OpenGate => "open-gate",
        Action::Publish { .. } => "publish",
        Action::Retract => "retract",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ha::Epoch;

    fn at(millis: u64) -> Instant {
        Instant(millis * 1_000_000)
    }

    #[tokio::test]
    async fn a_stop_pushes_everything_aside_and_nothing_pushes_a_stop() {
        let mut lane = Lane::default();
        assert!(lane.offer(vec![Action::Initialise], at(0), |_| std::future::pending()));
        assert_eq!(lane.busy(), Some("initialise"));
        assert!(!lane.offer(vec![Action::StartStandby], at(0), |_| std::future::pending()));
        let stop = vec![Action::Stop { mode: StopMode::Immediate }];
        assert!(lane.offer(stop.clone(), at(1), |_| std::future::pending()));
        assert!(!lane.offer(vec![Action::Seal { below: Epoch(9) }], at(1), |_| std::future::pending()));
        assert!(!lane.offer(stop, at(1), |_| std::future::pending()), "the same act is not started twice");
        assert_eq!(lane.current(), Some("stop"));
    }

    #[tokio::test]
    async fn a_failing_act_is_paced() {
        let mut lane = Lane::default();
        assert!(lane.offer(vec![Action::StartStandby], at(0), |_| async { anyhow::bail!("no") }));
        assert!(lane.ended(|| at(10)).await.outcome.is_err());
        assert!(!lane.offer(vec![Action::StartStandby], at(20), |_| async { Ok(()) }));
        assert!(lane.offer(vec![Action::StartStandby], at(300), |_| async { Ok(()) }));
        assert!(lane.ended(|| at(310)).await.outcome.is_ok());
    }
}
