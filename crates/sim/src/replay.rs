//! Feeds the decision log of an agent to the same `decide`: the same views must give the same decisions.

use anyhow::Context;
use ha::Rules;
use ha::log::{Line, ReadLine, Replay};
use serde_json::Value;

use crate::mutation::WorldRules;
use crate::world::World;

/// One line of a log, as an agent writes it.
pub fn line(line: &Line<'_>) -> String {
    let mut text = serde_json::to_string(line).unwrap_or_default();
    text.push('\n');
    text
}

/// Replays a log of JSON lines ([`ha::log::Line`]); says for people what was compared.
///
/// # Errors
/// On a line that does not parse, when the log does not begin with a start, and at the first decision that differs.
pub fn replay(text: &str) -> anyhow::Result<String> {
    let mut replay = Replay::default();
    let (mut decisions, mut starts, mut wins) = (0_u64, 0_u64, 0_u64);
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let number = number + 1;
        let read: ReadLine<Value> = serde_json::from_str(line).with_context(|| format!("line {number}"))?;
        match &read {
            ReadLine::Started => starts += 1,
            ReadLine::Won { .. } => wins += 1,
            ReadLine::Decided { .. } => decisions += 1,
        }
        anyhow::ensure!(starts > 0, "line {number}: the log does not begin with the start of an agent");
        if let Some((ours, theirs)) = replay.take(read) {
            let ours = serde_json::to_value(&ours)?;
            anyhow::ensure!(
                ours == theirs,
                "line {number} differs:\n  the agent decided {theirs}\n  here it is       {ours}"
            );
        }
    }
    Ok(format!("{decisions} decisions of {starts} lives with {wins} won swaps: all the same"))
}

/// The decision log of one agent in a quiet world whose first leader loses its power.
pub fn sample(seed: u64) -> String {
    let mut world = World::quiet(3, seed, Rules::default(), WorldRules::default());
    world.logs = true;
    while world.now < 12 * crate::dice::SECOND && world.step() {}
    world.kill_pod(0, true);
    while world.now < 25 * crate::dice::SECOND && world.step() {}
    let agent = world.members.get(1).and_then(|member| member.pod.as_ref()?.agent.as_ref());
    agent.and_then(|agent| agent.log.clone()).unwrap_or_default()
}
