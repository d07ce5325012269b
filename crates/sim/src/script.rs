//! Scripted scenarios: commands in, a transcript out, so that each known trap stays a regression test.
//!
//! A scenario file holds comments (`#`), commands (`>`), and between them what the commands brought forth; the runner
//! makes the whole file again from its comments and commands. Nothing is wrong in its world but what it does itself.

use std::cell::RefCell;
use std::fmt::Write;

use anyhow::Context;
use ha::{DurabilityMode, Gate, Handover, Rules, WhenShort};

use crate::api_server::Hidden;
use crate::dice::{SECOND, seconds};
use crate::event::Event;
use crate::member::State;
use crate::mutation::{Mutation, WorldRules};
use crate::world::World;

/// A scenario under way.
struct Script {
    world: Option<World>,
    rules: Rules,
    world_rules: WorldRules,
    seed: u64,
}

/// Runs a scenario and answers the whole file as it should be.
///
/// # Errors
/// On a command that is none.
pub fn transcript(text: &str) -> anyhow::Result<String> {
    let (rules, world_rules) = (Rules::default(), WorldRules::default());
    let mut script = Script { world: None, rules, world_rules, seed: 1 };
    let mut out = String::new();
    for line in text.lines() {
        if line.starts_with('#') || (line.is_empty() && out.starts_with('#') && script.world.is_none()) {
            let _ = writeln!(out, "{line}");
        }
        let Some(command) = line.strip_prefix("> ") else { continue };
        let _ = writeln!(out, "{line}");
        let said = script.command(command).with_context(|| format!("in {command:?}"))?;
        out.push_str(&said);
    }
    Ok(out)
}

impl Script {
    fn world(&mut self) -> anyhow::Result<&mut World> {
        self.world.as_mut().context("begin with `members N`")
    }

    fn command(&mut self, command: &str) -> anyhow::Result<String> {
        let words: Vec<&str> = command.split_whitespace().collect();
        match words.as_slice() {
            ["seed", seed] => self.seed = seed.parse()?,
            ["without", rule] => {
                let rule = Mutation::named(rule).context("no such rule")?;
                rule.switch_off(&mut self.rules, &mut self.world_rules);
            }
            ["members", n] => {
                let mut world = World::quiet(n.parse()?, self.seed, self.rules, self.world_rules);
                world.transcript = true;
                world.notes = Some(RefCell::default());
                self.world = Some(world);
            }
            ["show"] => return Ok(show(self.world()?)),
            ["run", time] => {
                let until = self.world()?.now + duration(time)?;
                return self.run(|world| world.now >= until, until);
            }
            ["until", rest @ ..] => {
                let bound = self.world()?.now + 60 * SECOND;
                let rest: Vec<String> = rest.iter().map(|word| (*word).to_owned()).collect();
                let said = self.run(|world| holds(world, &rest), bound)?;
                anyhow::ensure!(
                    self.world()?.now < bound,
                    "not within a minute: {said}{}",
                    show(self.world()?)
                );
                return Ok(said);
            }
            _ => act(self.world()?, &words)?,
        }
        Ok(self.world.as_mut().map(said).unwrap_or_default())
    }

    fn run(&mut self, done: impl Fn(&World) -> bool, bound: u64) -> anyhow::Result<String> {
        let world = self.world()?;
        while world.violation.is_none() && world.now < bound && !done(world) && world.step() {}
        Ok(said(world))
    }
}

/// What was noted since.
fn said(world: &mut World) -> String {
    let notes = world.notes.replace(RefCell::default()).map(RefCell::into_inner).unwrap_or_default();
    let mut said = String::new();
    for note in notes {
        let _ = writeln!(said, "{}", note.trim_end());
    }
    said
}

fn duration(text: &str) -> anyhow::Result<u64> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, SECOND / 1000),
        None => (text.strip_suffix('s').context("a time such as 5s or 300ms")?, SECOND),
    };
    Ok(number.parse::<u64>()? * unit)
}

fn member(world: &World, name: &str) -> anyhow::Result<usize> {
    world.members.iter().position(|member| member.name.0 == name).with_context(|| format!("no member {name}"))
}

/// Conditions to wait for.
fn holds(world: &World, words: &[String]) -> bool {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let open = |name: &str| {
        world.members.iter().any(|member| {
            !member.ghost
                && member.name.0 == name
                && member.primary().is_some_and(|primary| primary.gate == Gate::Open)
        })
    };
    let streams = |name: &str| {
        world.members.iter().any(|member| {
            member.name.0 == name && member.standby().is_some_and(|standby| standby.conn.is_some())
        })
    };
    match words.as_slice() {
        ["open", name] => open(name),
        ["streams", name] => streams(name),
        ["sealed", name] => world
            .members
            .iter()
            .any(|member| member.name.0 == *name && member.promise.sealed_below > world.api.record.epoch),
        ["epoch", epoch] => world.api.record.epoch.0.to_string() == *epoch,
        ["acks", count] => {
            world.api.record.electorates.len() == 1
                && world
                    .api
                    .record
                    .current_electorate()
                    .is_some_and(|newest| newest.acks.to_string() == *count)
        }
        ["electorate", count] => {
            world.api.record.electorates.len() == 1
                && world.api.record.fence_xid.is_some()
                && world
                    .api
                    .record
                    .current_electorate()
                    .is_some_and(|newest| newest.members.len().to_string() == *count)
        }
        ["promoting", name] => world.members.iter().any(|member| {
            member.name.0 == *name && member.standby().is_some_and(|standby| standby.promoting.is_some())
        }),
        ["waiting", name] => world.members.iter().any(|member| {
            member.name.0 == *name && member.primary().is_some_and(|primary| !primary.waiting.is_empty())
        }),
        ["out-of-recovery", name] => {
            world.members.iter().any(|member| member.name.0 == *name && member.primary().is_some())
        }
        _ => false,
    }
}

#[allow(clippy::too_many_lines, reason = "one arm per command")]
fn act(world: &mut World, words: &[&str]) -> anyhow::Result<()> {
    match words {
        ["kill", "postgres", name] => world.kill_postgres(member(world, name)?),
        ["kill", "postmaster", name] => world.kill_postmaster(member(world, name)?),
        ["kill", "agent", name, "for", time] => {
            let m = member(world, name)?;
            let delay = duration(time)?;
            if let Some(pod) = world.members.get_mut(m).and_then(|member| member.pod.as_mut()) {
                pod.agent = None;
                let pod = pod.boot.0;
                world.later(delay, Event::AgentStart { m, pod });
            }
        }
        ["kill" | "power", what @ .., name, "for", time] => {
            let m = member(world, name)?;
            world.kill_pod(m, what.is_empty());
            world.later(duration(time)?, Event::PodStart { m });
        }
        ["freeze", what, name, "for", time] => {
            let (m, long) = (member(world, name)?, duration(time)?);
            let until = world.now + long;
            if let Some(member) = world.members.get_mut(m) {
                if *what != "postgres" {
                    member.agent_frozen = until;
                }
                if *what != "agent" {
                    member.pg_frozen = until;
                }
            }
            world.later(long, Event::Thaw { m, stood: if *what == "vm" { long } else { 0 } });
        }
        ["cut", name] => {
            let m = member(world, name)?;
            world.net.isolate(m, false);
        }
        ["cut", name, "from", other] => {
            let (from, to) = (member(world, name)?, member(world, other)?);
            for (from, to) in [(from, to), (to, from)] {
                if let Some(link) = world.net.link_mut(from, to) {
                    link.up = false;
                }
            }
        }
        ["cut", name, "to", other] => {
            let (from, to) = (member(world, name)?, member(world, other)?);
            if let Some(link) = world.net.link_mut(from, to) {
                link.up = false;
            }
        }
        ["cut", name, "api"] => {
            let m = member(world, name)?;
            if let Some(up) = world.net.api.get_mut(m) {
                *up = false;
            }
        }
        ["heal", name, "api"] => {
            let m = member(world, name)?;
            if let Some(up) = world.net.api.get_mut(m) {
                *up = true;
            }
        }
        ["heal"] => {
            world.net.mend();
            world.api.down = false;
        }
        ["api", "down"] => world.api.down = true,
        ["api", "up"] => world.api.down = false,
        ["api", "loses-answers", share] => world.api.lost_answers = share.parse()?,
        ["api", "refuses", share] => world.api.refuses = share.parse()?,
        ["api", "late", share] => world.api.late = share.parse()?,
        ["api", "repeats", share] => world.api.repeats = share.parse()?,
        ["record", "deleted"] => world.api.hidden = Some(Hidden::Missing),
        ["record", "edited"] => world.api.hidden = Some(Hidden::Tampered),
        ["record", "restored", "epoch", epoch] => {
            let old = world.api.backups.iter().rev().find(|old| old.epoch.0.to_string() == *epoch).cloned();
            let old = old.context("no backup of that epoch")?;
            world.api.newest = Some(std::mem::replace(&mut world.api.record, old));
            world.api.version += 1;
        }
        ["record", "restored", "write", write] => {
            let old =
                world.api.backups.iter().rev().find(|old| old.generation.to_string() == *write).cloned();
            let old = old.context("no backup of that write")?;
            world.api.newest = Some(std::mem::replace(&mut world.api.record, old));
            world.api.version += 1;
        }
        ["record", "acks", acks] => {
            // By hand, in place: neither the number of the write nor the mirrored fields tell.
            world.api.newest = Some(world.api.record.clone());
            if let Some(newest) = world.api.record.electorates.last_mut() {
                newest.acks = acks.parse()?;
            }
            world.api.version += 1;
        }
        ["promote", name, "after", "epoch", epoch] => {
            let m = member(world, name)?;
            world.wish_forced(m, ha::Epoch(epoch.parse()?));
        }
        ["record", "mended"] => world.mend_record(),
        ["handover", name] => {
            let to = member(world, name).map(|m| world.members.get(m).map(|member| member.name.clone()))?;
            world.api.record.handover = Some(Handover { to });
            world.api.record.generation += 1;
            world.api.version += 1;
        }
        ["wish", what @ ..] => wish(world, what)?,
        ["disk", "full", name, "for", time] => {
            let (m, until) = (member(world, name)?, world.now + duration(time)?);
            if let Some(member) = world.members.get_mut(m) {
                member.full_until = until;
            }
        }
        ["force-delete", name] => {
            let m = member(world, name)?;
            anyhow::ensure!(world.force_delete(m), "{name} is no master");
        }
        ["end-ghosts"] => {
            for z in world.real()..world.members.len() {
                world.end_ghost(z);
            }
        }
        ["stall", "replay", name, "for", time] => {
            let (m, until) = (member(world, name)?, world.now + duration(time)?);
            let at = world.members.get(m).map_or(0, |member| member.replayed(world.now));
            if let Some(standby) = world.members.get_mut(m).and_then(|member| member.standby_mut()) {
                standby.stall = Some((until, at));
            }
        }
        ["rewind-breaks", name] => {
            let m = member(world, name)?;
            if let Some(member) = world.members.get_mut(m) {
                member.promise.rewinding = true;
            }
        }
        ["catching-up", name] => {
            let m = member(world, name)?;
            if let Some(member) = world.members.get_mut(m)
                && let Some(data) = &mut member.data
            {
                // What its leader had not flushed when it was rewound to it, and never will have.
                data.consistent_at = data.wal.end() + 1_000_000;
                member.promise.catching_up = Some(data.wal.timeline());
            }
        }
        ["terminate", name] => {
            let m = member(world, name)?;
            world.terminate(m);
        }
        ["lose", "volume", name] => {
            let m = member(world, name)?;
            world.replace_volume(m);
        }
        _ => anyhow::bail!("no such command"),
    }
    Ok(())
}

fn wish(world: &mut World, what: &[&str]) -> anyhow::Result<()> {
    match what {
        ["acks", acks] => world.settings.acks = acks.parse()?,
        ["paused"] => world.settings.paused = true,
        ["unpaused"] => world.settings.paused = false,
        ["block"] => world.settings.when_short = WhenShort::Block,
        ["async"] => world.settings.mode = DurabilityMode::Async,
        ["leaving", name] => {
            world.settings.leaving.insert(ha::MemberName((*name).to_owned()));
        }
        ["never", name] => {
            world.settings.electable.remove(&ha::MemberName((*name).to_owned()));
        }
        ["priority", name, value] => {
            world.settings.priorities.insert(ha::MemberName((*name).to_owned()), value.parse()?);
        }
        _ => anyhow::bail!("no such wish"),
    }
    for member in &mut world.members {
        member.settings = world.settings.clone();
    }
    Ok(())
}

fn show(world: &World) -> String {
    let mut out = String::new();
    let record = &world.api.record;
    let leader = record.leader.as_ref().map_or("nobody", |leader| leader.name.0.as_str());
    let electorates: Vec<String> = record
        .electorates
        .iter()
        .map(|one| {
            let names: Vec<&str> = one.members.iter().map(|id| id.name.0.as_str()).collect();
            format!("{}: {} of [{}]", one.leader.name, one.acks, names.join(" "))
        })
        .collect();
    let _ = writeln!(
        out,
        "{:>9.3}  record: epoch {} timeline {} leader {leader}, {}",
        seconds(world.now),
        record.epoch,
        record.timeline,
        electorates.join("; ")
    );
    for member in &world.members {
        let Some(pod) = &member.pod else {
            if !member.ghost {
                let _ = writeln!(out, "           {}: no pod", member.name);
            }
            continue;
        };
        let state = match &pod.state {
            State::Down => "down".to_owned(),
            State::Starting(_) => "starting".to_owned(),
            State::Standby(standby) => match (&standby.upstream, standby.conn) {
                (Some(upstream), Some(_)) => format!("streams from {}", upstream.member.name),
                (Some(upstream), None) => format!("looks for {}", upstream.member.name),
                _ => "standby without an upstream".to_owned(),
            },
            State::Primary(primary) => format!(
                "master on timeline {}, gate {}, {} commits wait",
                primary.timeline,
                if primary.gate == Gate::Open { "open" } else { "closed" },
                if primary.waiting.is_empty() { "no" } else { "some" },
            ),
        };
        let sealed = member.promise.sealed_below;
        let seal = if sealed > record.epoch { format!(", sealed below {sealed}") } else { String::new() };
        let ghost = if member.ghost { " (ghost)" } else { "" };
        let broken = if member.promise.rewinding { ", half rewound" } else { "" };
        let _ = writeln!(out, "           {}{ghost}: {state}{seal}{broken}", member.name);
    }
    let late = world.now.saturating_sub(world.truth.acknowledged_at) > SECOND;
    let _ =
        writeln!(out, "           commits are {}", if late { "not acknowledged" } else { "acknowledged" });
    out
}
