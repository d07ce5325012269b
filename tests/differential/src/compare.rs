//! One plan on both sides, compared after each operation; and the shortest plan that still differs.
//!
//! Decides when both agree: when everything that can be seen is equal at one look. Real servers have a generous bound to
//! get there. Must never accept a difference because time has passed.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use postgres::Binaries;

use crate::look::Look;
use crate::operation::Model;
use crate::plan::Plan;
use crate::real::{self, Real};
use crate::server::BOUND;

/// How long a shrinking run waits for what will never come: its verdict needs to be likely only.
const HURRY: Duration = Duration::from_secs(7);

/// Where plans run: the programs of one major, and a directory that all servers begin with.
#[derive(Debug)]
pub struct Lab {
    binaries: Binaries,
    template: PathBuf,
    // Removed at the end.
    _root: tempfile::TempDir,
}

impl Lab {
    /// A lab with these programs.
    pub async fn new(binaries: Binaries) -> Result<Self> {
        let root = tempfile::Builder::new().prefix("lab").tempdir().context("making a directory")?;
        let template = real::template(&binaries, root.path()).await?;
        Ok(Self { binaries, template, _root: root })
    }

    /// The major version.
    pub fn major(&self) -> u16 {
        self.binaries.major().0
    }

    /// Runs a plan: what differs, with everything that was done before; none when nothing does. `tell` hears of each
    /// operation.
    pub async fn run(&self, plan: &Plan, tell: &dyn Fn(&str)) -> Result<Option<String>> {
        self.run_within(plan, BOUND, tell).await
    }

    async fn run_within(&self, plan: &Plan, bound: Duration, tell: &dyn Fn(&str)) -> Result<Option<String>> {
        let root = tempfile::Builder::new().prefix("pg").tempdir().context("making a directory")?;
        let mut model = plan.model();
        let mut real = Real::new(&self.binaries, &self.template, root.path(), &model).await?;
        let mut said = format!("PostgreSQL {}, seed {}, {} servers\n", self.major(), plan.seed, plan.servers);
        let mut difference = converge(&model, &mut real, bound).await;
        for (number, operation) in plan.operations.iter().enumerate() {
            if difference.is_some() {
                break;
            }
            let line = format!("{:>3}  {operation}", number + 1);
            tell(&line);
            writeln!(said, "{line}")?;
            let done = real.apply(operation, &model).await;
            model.apply(operation);
            difference = match done {
                Ok(()) => converge(&model, &mut real, bound).await,
                Err(error) => Some(format!("it could not be done: {error:#}")),
            };
        }
        if difference.is_none() {
            // What was seen waiting must not have returned behind our back.
            difference = converge(&model, &mut real, bound).await;
        }
        Ok(difference.map(|difference| format!("{said}{difference}\n{}", real.logs())))
    }

    /// Runs a plan whose model is wrong, and waits less long for what will never come: whether it is found.
    pub async fn finds(&self, plan: &Plan) -> Result<bool> {
        Ok(self.run_within(plan, HURRY, &|_| ()).await?.is_some())
    }

    /// Leaves out operations as long as it still differs: the shortest plan that was found, and its difference.
    pub async fn shrink(&self, plan: &Plan, found: String) -> Result<(Plan, String)> {
        let (mut plan, mut found) = (plan.clone(), found);
        let until = Instant::now() + Duration::from_secs(300);
        let mut size = plan.operations.len() / 2;
        while size > 0 {
            let mut from = 0;
            while from < plan.operations.len() && Instant::now() < until {
                let mut fewer = plan.operations.clone();
                fewer.drain(from..(from + size).min(fewer.len()));
                let fewer = plan.of(&fewer);
                match self.run_within(&fewer, HURRY, &|_| ()).await? {
                    Some(again) => (plan, found) = (fewer, again),
                    None => from += size,
                }
            }
            size /= 2;
        }
        Ok((plan, found))
    }
}

/// Waits until both sides agree: what differs at the end.
async fn converge(model: &Model, real: &mut Real, bound: Duration) -> Option<String> {
    let start = Instant::now();
    loop {
        let look = real.look().await;
        let differs = differences(model, &look);
        if differs.is_empty() {
            return None;
        }
        if start.elapsed() > bound {
            return Some(differs);
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// What differs, a line each; empty when both agree.
pub(crate) fn differences(model: &Model, look: &Look) -> String {
    let mut text = String::new();
    let mut differs = |what: String, expected: &dyn std::fmt::Debug, seen: &dyn std::fmt::Debug| {
        let _ = writeln!(text, "{what}\n    model: {expected:?}\n    real:  {seen:?}");
    };
    let servers = &model.servers;
    for (m, seen) in look.servers.iter().enumerate() {
        if servers.is_frozen(m) {
            continue;
        }
        let mut seen = seen.clone();
        let nothing = BTreeSet::new();
        let mut expected = model.expects(m, seen.as_ref().map_or(&nothing, |seen| &seen.rows));
        // A frozen standby is missed after a while, and nobody says when.
        let frozen = |standby: &usize| servers.is_frozen(*standby);
        expected.flushed.retain(|standby, _| !frozen(standby));
        if let Some(seen) = &mut seen {
            seen.flushed.retain(|standby, _| !frozen(standby));
            // A standby that is ahead of the fork says for moments that it streams (P12), on a slow machine long ones.
            if expected.streams_from.is_none() && model.strays(m) {
                seen.streams_from = None;
            }
            let follows = expected.flushed.clone();
            seen.flushed.retain(|standby, _| follows.contains_key(standby) || !model.strays(*standby));
        }
        if seen.as_ref() != Some(&expected) {
            match seen {
                Some(seen) => differs(format!("server {m}"), &expected, &seen),
                None => differs(format!("server {m}"), &expected, &"cannot be seen"),
            }
        }
    }
    for standby in &look.in_flight {
        if !servers.is_frozen(*standby) && !model.strays(*standby) {
            differs(format!("what {standby} is sent"), &"has arrived", &"is on its way");
        }
    }
    for (row, outcome) in servers.outcomes() {
        let seen = look.outcomes.get(&row).copied().flatten();
        if seen != Some(outcome) {
            differs(format!("row {row}"), &outcome, &seen);
        }
    }
    text
}
