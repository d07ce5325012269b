//! Parameters that PostgreSQL takes: by a reload where that is enough, else by restarts in the order that standbys need.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::client::gaps;
use crate::cluster::{Cluster, FORM, HEAL, tell};
use crate::faults::exec;
use crate::judge;
use crate::scenarios::control::starts;
use crate::scenarios::failover::{HANG, bystander};
use crate::wait;
use crate::world::{World, now};

/// P19. Turned red by: a restart for what a reload changes, a master with more connections than its standbys, a member
/// that keeps `pending_restart`.
pub(crate) async fn changed(world: &World) -> Result<()> {
    let cluster = world.shared().await?;
    let before = cluster.whole(world, 3, FORM).await?;
    let client = bystander(world, &cluster, &before).await?;
    let began = starts(world, &cluster, &client).await?;

    set(world, &cluster, "work_mem", &json!("7MB")).await?;
    everywhere(world, &cluster, "work_mem", "7MB").await?;
    ensure!(starts(world, &cluster, &client).await? == began, "a reload would have been enough");
    world.say("work_mem: reloaded everywhere, nobody restarted");

    for (value, order) in [("130", "standbys first"), ("90", "the master first")] {
        let since = now();
        set(world, &cluster, "max_connections", &json!(value)).await?;
        let highest_on_standby = in_order(world, &cluster, value).await?;
        world.say(format!("max_connections {value}: restarted {order}; {highest_on_standby}"));
        judge::one_master(world, &cluster, &client, 3, HEAL).await?;
        not_pending(world, &cluster).await?;
        let (text, longest) = gaps(&client.between(world, since, now()).await?);
        world.say(format!("gap: {text}"));
        tell(world, "longest gap", longest, std::time::Duration::from_secs(3), HANG)?;
    }
    ensure!(starts(world, &cluster, &client).await? != began, "nobody was restarted");

    for parameter in ["work_mem", "max_connections"] {
        set(world, &cluster, parameter, &Value::Null).await?;
    }
    everywhere(world, &cluster, "max_connections", "100").await?;
    judge::one_master(world, &cluster, &client, 3, HEAL).await?;
    client.finish(world, &cluster).await?;
    Ok(())
}

/// Waits until everybody has the value; fails as soon as a standby has less than the master of its time (P19).
async fn in_order(world: &World, cluster: &Cluster, value: &str) -> Result<String> {
    let mut steps: Vec<String> = Vec::new();
    let mut violations: Vec<String> = Vec::new();
    wait::until("the value everywhere, never less on a standby than on the master", HEAL, async || {
        let seen = cluster.look(world).await?;
        let mut values: BTreeMap<String, u32> = BTreeMap::new();
        for member in &seen.members {
            // A member that restarts just now has no value.
            let Ok(text) = show(world, cluster, &member.name, "max_connections").await else { continue };
            values.insert(member.name.clone(), text.parse().context("a number of connections")?);
        }
        let master = seen.leader().and_then(|leader| values.get(leader)).copied();
        // Only a look during which nobody else became the master compares the two.
        let still = cluster.look(world).await?.leader() == seen.leader();
        if let (Some(master), true) = (master, still) {
            violations.extend(lower_than_master(&values, master));
        }
        let step = values.values().map(ToString::to_string).collect::<Vec<_>>().join("/");
        if steps.last() != Some(&step) {
            steps.push(step);
        }
        let everybody = values.len() == 3 && values.values().all(|one| one.to_string() == value);
        wait::when(everybody, || format!("{values:?}"))
    })
    .await?;
    ensure!(violations.is_empty(), "P19: a standby had fewer connections than the master: {violations:?}");
    Ok(format!("seen {}", steps.join(" → ")))
}

fn lower_than_master(values: &BTreeMap<String, u32>, master: u32) -> Option<String> {
    values.values().any(|value| *value < master).then(|| format!("master {master}, all {values:?}"))
}

async fn set(world: &World, cluster: &Cluster, parameter: &str, value: &Value) -> Result<()> {
    cluster.patch(world, &json!({"spec": {"postgres": {"parameters": {parameter: value}}}})).await
}

async fn everywhere(world: &World, cluster: &Cluster, parameter: &str, value: &str) -> Result<()> {
    wait::until("the value on every member", HEAL, async || {
        let seen = cluster.look(world).await?;
        let mut values = Vec::new();
        for member in &seen.members {
            values.push(show(world, cluster, &member.name, parameter).await?);
        }
        wait::when(values.len() == 3 && values.iter().all(|one| one == value), || format!("{values:?}"))
    })
    .await
    .map(drop)
}

/// A parameter as a member's PostgreSQL has it.
pub(crate) async fn show(world: &World, cluster: &Cluster, pod: &str, parameter: &str) -> Result<String> {
    let query = format!("show {parameter}");
    let command =
        ["psql", "--username=postgres", "--no-psqlrc", "--tuples-only", "--no-align", "--command", &query];
    Ok(exec(world, &cluster.namespace, pod, &command).await?.trim().to_owned())
}

async fn not_pending(world: &World, cluster: &Cluster) -> Result<()> {
    wait::until("nothing waits for a restart, as the condition says", HEAL, async || {
        let pending = cluster.look(world).await?.condition(api::conditions::types::PENDING_RESTART);
        wait::when(pending.as_ref().is_none_or(|(status, ..)| status != "True"), || format!("{pending:?}"))
    })
    .await
    .map(drop)
}
