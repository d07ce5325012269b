//! Edits that only the cluster can refuse: they stop at the first member, are taken back, and told in a condition (K12).
//!
//! Turned red by: rolling on to the second member, leaving the bad template in the StatefulSet, a heal that needs a pod
//! deleted by hand.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use api::conditions::{reasons, types};
use serde_json::{Value, json};

use crate::client::{gaps, list};
use crate::cluster::{Cluster, FORM, HEAL};
use crate::judge;
use crate::scenarios::control::starts;
use crate::scenarios::failover::{HANG, bystander};
use crate::scenarios::parameters::show;
use crate::seen::Seen;
use crate::wait;
use crate::world::{World, now};

/// A parameter value that the schema cannot know to be wrong and that needs a restart.
///
/// Turned red by: a restart with the new value before anybody checked it, the refusal told by another condition or as a
/// success, the last good value given up.
pub(crate) async fn bad_parameter(world: &World) -> Result<()> {
    let cluster = world.shared().await?;
    let before = cluster.whole(world, 3, FORM).await?;
    let client = bystander(world, &cluster, &before).await?;
    let began = starts(world, &cluster, &client).await?;
    let good = in_force(world, &cluster).await?;
    let since = now();
    cluster.patch(world, &parameter(&json!("a lot"))).await?;
    let told = refusal(world, &cluster).await?;
    world.say(format!("told: {told}"));
    let meanwhile = in_force(world, &cluster).await?;
    ensure!(meanwhile == good, "shared_buffers was {good:?} and is {meanwhile:?}");
    ensure!(
        starts(world, &cluster, &client).await? == began,
        "PostgreSQL was restarted for a value that it refuses"
    );
    cluster.patch(world, &parameter(&Value::Null)).await?;
    let after = judge::one_master(world, &cluster, &client, 3, HEAL).await?;
    untold(world, &cluster, "shared_buffers").await?;
    ensure!(
        starts(world, &cluster, &client).await? == began,
        "PostgreSQL was restarted when the edit was undone"
    );
    unharmed(world, &before, &after, &client.summary(world, Some(since)).await?)?;
    client.finish(world, &cluster).await?;
    Ok(())
}

/// An image that does not exist; meanwhile a second pod is deleted and must get the good template.
pub(crate) async fn missing_image(world: &World) -> Result<()> {
    let cluster = world.shared().await?;
    let before = cluster.whole(world, 3, FORM).await?;
    let image = before.master()?.image.clone().context("the master has no image")?;
    let missing = "rig.test/there-is-no-such-image:1";
    let client = bystander(world, &cluster, &before).await?;
    let since = now();
    cluster.patch(world, &json!({"spec": {"image": missing}})).await?;
    wait::until("the roll-out is halted", HEAL, async || {
        let seen = cluster.look(world).await?;
        let halted = seen.condition(types::ROLL_OUT_HALTED);
        let ok =
            halted.as_ref().is_some_and(|(status, _, message)| status == "True" && message.contains(missing));
        wait::when(ok, || format!("{halted:?} {seen}"))
    })
    .await?;
    let seen = cluster.look(world).await?;
    let bad = seen.members.iter().filter(|member| member.image.as_deref() == Some(missing)).count();
    ensure!(bad <= 1, "{bad} members got the bad image: {seen}");
    ensure!(seen.master()?.image.as_deref() == Some(&image), "the master got the bad image: {seen}");

    // Whoever is re-created now must get the last good template.
    let replica = seen.replicas().find(|member| member.image.as_deref() == Some(&image));
    let replica = replica.context("no good replica is left")?.clone();
    cluster.delete_pod(world, &replica.name, None).await?;
    wait::until("a pod deleted meanwhile gets the good template", HEAL, async || {
        let seen = cluster.look(world).await?;
        let good = seen.member(&replica.name).is_some_and(|member| {
            member.uid != replica.uid && member.ready && member.image.as_deref() == Some(&image)
        });
        wait::when(good, || seen.to_string())
    })
    .await?;
    // Halted means healed but for the edit: every member is there, with the good image.
    let halted = cluster.whole(world, 3, HEAL).await?;
    ensure!(halted.members.iter().all(|member| member.image.as_deref() == Some(&image)), "{halted}");

    cluster.patch(world, &json!({"spec": {"image": null}})).await?;
    wait::until("the condition is cleared", HEAL, async || {
        let seen = cluster.look(world).await?;
        let halted = seen.condition(types::ROLL_OUT_HALTED);
        wait::when(halted.as_ref().is_none_or(|(status, ..)| status != "True"), || format!("{halted:?}"))
    })
    .await?;
    let after = judge::one_master(world, &cluster, &client, 3, HEAL).await?;
    ensure!(after.leader() == before.leader(), "the master changed: {before} became {after}");
    unharmed(world, &before, &after, &client.summary(world, Some(since)).await?)?;
    client.finish(world, &cluster).await?;
    Ok(())
}

fn parameter(value: &Value) -> Value {
    json!({"spec": {"postgres": {"parameters": {"shared_buffers": value}}}})
}

/// Waits until `SpecValid` says that PostgreSQL refuses the parameter, and what holds meanwhile; returns its message.
async fn refusal(world: &World, cluster: &Cluster) -> Result<String> {
    let (text, _) = wait::until("the user is told", HEAL, async || {
        let seen = cluster.look(world).await?;
        Ok(match seen.condition(types::SPEC_VALID) {
            Some((status, reason, message)) if is_refusal(&status, &reason, &message) => Ok(message),
            _ => Err(conditions(&seen).join("; ")),
        })
    })
    .await?;
    Ok(text)
}

fn is_refusal(status: &str, reason: &str, message: &str) -> bool {
    let words = ["shared_buffers", "last good ones stay in force", "correct spec.postgres.parameters"];
    status == "False"
        && reason == reasons::PARAMETERS_REFUSED
        && words.iter().all(|word| message.contains(word))
}

/// The value that each member's PostgreSQL has.
async fn in_force(world: &World, cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    for member in cluster.look(world).await?.members {
        let value = show(world, cluster, &member.name, "shared_buffers").await?;
        values.insert(member.name, value);
    }
    ensure!(values.len() == 3, "only {values:?}");
    Ok(values)
}

/// Waits until no condition says this word any more.
async fn untold(world: &World, cluster: &Cluster, parameter: &str) -> Result<()> {
    wait::until("the condition is cleared", HEAL, async || {
        let all = conditions(&cluster.look(world).await?);
        wait::when(!all.iter().any(|text| text.contains(parameter)), || all.join("; "))
    })
    .await?;
    Ok(())
}

fn conditions(seen: &Seen) -> Vec<String> {
    let status = seen.cluster.as_ref().and_then(|cluster| cluster.status.as_ref());
    status
        .map(|status| {
            status
                .conditions
                .iter()
                .map(|one| format!("{}={} {}: {}", one.type_, one.status, one.reason, one.message))
                .collect()
        })
        .unwrap_or_default()
}

fn unharmed(world: &World, before: &Seen, after: &Seen, logs: &[crate::client::Judgement]) -> Result<()> {
    let (text, longest) = gaps(logs);
    world.say(format!("gap all the while: {text}"));
    ensure!(longest < HANG, "writes stopped for {longest:?}: {}", list(logs));
    ensure!(before.members.len() == after.members.len(), "members were lost: {before} became {after}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_of_this_parameter_is_one() {
        let good = "pg-1 refuses parameters, the last good ones stay in force: invalid value for parameter \
                    \"shared_buffers\": \"a lot\"; correct spec.postgres.parameters";
        assert!(is_refusal("False", "ParametersRefused", good));
        assert!(!is_refusal("True", "ParametersRefused", good));
        assert!(!is_refusal("False", "Refused", good));
        assert!(!is_refusal("False", "ParametersRefused", "shared_buffers"));
        assert!(!is_refusal("False", "ParametersRefused", &good.replace("shared_buffers", "work_mem")));
    }
}
