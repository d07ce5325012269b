//! One fault of one whole system while clients write: broken, waited for, mended, judged.
//!
//! Until the fault is made, what goes wrong is an error: nothing was measured. From then on everything ends in the line,
//! failures included, and whatever can still be found out is found out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde_json::Value;

use super::isolated::Inside;
use super::line::Line;
use super::machine::Machine;
use super::system::System;
use super::timeline::{self, Observed};
use crate::client::{Client, Judgement, Wish};
use crate::cluster::FORM;
use crate::faults::{self, Expected, Fault, Victim};
use crate::scenarios::failover::HANG;
use crate::wait;
use crate::world::{World, now};

/// Writes before the fault, so that a gap has a beginning.
const BEFORE: Duration = Duration::from_secs(2);
/// For the picture, after writes went on.
const AFTER: u64 = 10_000_000;

/// How repetitions are made.
#[derive(Debug, Clone)]
pub(crate) struct Conditions {
    /// The change of the manifest.
    pub(crate) settings: Value,
    /// Whether an unrelated slice changes all the time.
    pub(crate) slice_changes: bool,
    /// How long a fault lasts that must change nothing.
    pub(crate) away: Duration,
    /// On what.
    pub(crate) machine: Machine,
}

/// Times, in microseconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Window {
    fault: u64,
    /// When it was known that writes went on, or that the fault had lasted long enough.
    over: u64,
    healed: u64,
}

/// One repetition, observed meanwhile.
///
/// # Errors
/// When the fault could not be made: the system was not whole, clients could not write, or the rig refused.
pub(crate) async fn once<S: System>(
    world: &World,
    system: &S,
    fault: Fault,
    conditions: &Conditions,
) -> Result<Line> {
    let observed = Observed::default();
    let line = async {
        let victim = system.whole(world, FORM).await?;
        if fault.without_controller() {
            faults::without_controller(world, &victim).await?;
            system.whole(world, FORM).await?;
        }
        let node = Some(world.node_besides(&[&victim.node]).await?);
        let client = Client::start(world, system.cluster(), &Wish { node, ..Wish::default() }).await?;
        let inside = Inside::start(world, system.cluster(), fault, &victim).await?;
        let (term, _) = wait::until("a first look", HANG, async || {
            let view = observed.last().filter(|view| view.open && view.master.as_ref() == Some(&victim.pod));
            Ok(view.map(|view| view.term).ok_or_else(|| "nothing".to_owned()))
        })
        .await?;
        // Part of what is measured, not a wait for anything.
        tokio::time::sleep(BEFORE).await;
        let mut line = Line {
            fault: fault.name().to_owned(),
            peer: S::PEER.to_owned(),
            settings: conditions.settings.clone(),
            slice_changes: conditions.slice_changes,
            at: Timestamp::now().to_string(),
            from: victim.pod.clone(),
            machine: conditions.machine.clone(),
            ..Line::default()
        };
        let at = now();
        if fault == Fault::Switchover {
            system.switch_over(world, &victim).await?;
        } else {
            fault.strike(world, &victim).await?;
        }
        line.made_ms = now().saturating_sub(at) / 1000;
        let made = Made { world, system, fault, conditions, observed: &observed, victim: &victim, term, at };
        let mut wrong = Vec::new();
        made.see_it_through(client, inside, &mut line, &mut wrong).await;
        if !wrong.is_empty() {
            line.failure = Some(wrong.join("; "));
        }
        Ok(line)
    };
    tokio::select! {
        line = line => line,
        never = observed.observe(world, system) => match never {},
    }
}

/// A fault that was made.
struct Made<'a, S> {
    world: &'a World,
    system: &'a S,
    fault: Fault,
    conditions: &'a Conditions,
    observed: &'a Observed,
    victim: &'a Victim,
    /// The term in which it was made.
    term: u64,
    /// When, in microseconds since 1970.
    at: u64,
}

impl<S: System> Made<'_, S> {
    async fn see_it_through(
        &self,
        client: Client,
        inside: Option<Inside>,
        line: &mut Line,
        wrong: &mut Vec<String>,
    ) {
        let mut note = |outcome: Result<()>| {
            if let Err(error) = outcome {
                wrong.push(format!("{error:#}"));
            }
        };
        let world = self.world;
        if self.fault.expected() == Expected::NewEpoch {
            if !self.system.keeps_master(self.fault) {
                note(self.next_term().await);
            }
            note(client.resumed(world, now()).await.map(drop));
        } else {
            // The length of the fault, not a wait for anything.
            tokio::time::sleep(self.conditions.away).await;
        }
        let over = now();
        let start = Instant::now();
        note(faults::mend(world).await.context("mend"));
        let healed = self.system.healed(world, &client).await;
        if healed.is_ok() {
            line.healed_ms = u64::try_from(start.elapsed().as_millis()).ok();
        }
        note(healed);
        note(client.resumed(world, now()).await.map(drop));
        let window = Window { fault: self.at, over, healed: now() };
        if self.fault.expected() == Expected::Nothing {
            note(self.same_term());
        }
        if let Some(at) = self.observed.opened_after(self.term) {
            line.epoch_ms = Some(at.saturating_sub(self.at) / 1000);
        }
        line.to = self.observed.last().and_then(|view| view.master).unwrap_or_default();
        line.postgres =
            client.ask(world, &self.system.cluster().write_host()).await.ok().map(|it| it.version);
        let judged = self.account(client, window, line).await;
        note(judged.map(|judged| add(line, &judged)));
        if let Some(inside) = inside {
            let cut = self.at.saturating_add(line.made_ms.saturating_mul(1000));
            let told = inside.account(world, self.system.cluster(), cut, over).await;
            note(told.map(|(told, judged)| {
                line.isolated = Some(told);
                add(line, &judged);
            }));
        }
        if line.lost > 0 {
            wrong.push(format!("{} of {} acknowledged rows lost", line.lost, line.acknowledged));
        }
    }

    async fn next_term(&self) -> Result<()> {
        wait::until("a later term that is open", HANG, async || {
            wait::when(self.observed.opened_after(self.term).is_some(), || {
                format!("{:?}", self.observed.last())
            })
        })
        .await
        .map(drop)
    }

    fn same_term(&self) -> Result<()> {
        match self.observed.last() {
            Some(view) if view.term == self.term && view.master.as_ref() == Some(&self.victim.pod) => Ok(()),
            view => {
                bail!("{} led in term {}, which should have stayed; now {view:?}", self.victim.pod, self.term)
            }
        }
    }

    /// What the clients say, by themselves and compared with the database.
    async fn account(&self, client: Client, window: Window, line: &mut Line) -> Result<Vec<Judgement>> {
        let world = self.world;
        let during = client.between(world, window.fault, window.over).await?;
        let healing = client.between(world, window.over, window.healed).await?;
        line.gap_ms = gaps(&during);
        line.healing_gap_ms = gaps(&healing);
        let from = window.fault.saturating_sub(u64::try_from(BEFORE.as_micros()).unwrap_or(0));
        let to = window.healed.min(window.over.saturating_add(AFTER));
        // A log that still grows may end within a line.
        client.stop(world).await?;
        let acks = timeline::acknowledged(&client.log(world).await?)?;
        line.timeline = Some(self.observed.timeline(&acks, from, window.fault, to));
        client.judge(world, self.system.cluster()).await
    }
}

fn add(line: &mut Line, judged: &[Judgement]) {
    for log in judged {
        line.acknowledged += log.ok;
        line.doubtful += log.unknown;
        line.lost += log.lost;
        for (text, count) in &log.failures {
            *line.failures.entry(kind_of(text)).or_insert(0) += count;
        }
    }
}

fn gaps(logs: &[Judgement]) -> BTreeMap<String, u64> {
    let writers = logs.iter().filter(|log| log.mode != "read");
    writers.map(|log| (log.mode.clone(), log.longest_gap.ms)).collect()
}

/// Outcome and SQLSTATE, without the words: they name addresses and times.
fn kind_of(failure: &str) -> String {
    let mut words = failure.split(' ');
    let (outcome, code) = (words.next().unwrap_or("-"), words.next().unwrap_or("-"));
    format!("{} {code}", outcome.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_outcome_and_state() {
        assert_eq!(kind_of("Unknown 57P01 FATAL: terminating connection"), "unknown 57P01");
        assert_eq!(kind_of("Error - connect to pg-write: no session in time"), "error -");
    }
}
