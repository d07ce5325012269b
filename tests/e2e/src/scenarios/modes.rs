//! The other shapes of a cluster: each example, two members, no quorum, the other major versions.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::client::{Client, Wish, gaps};
use crate::cluster::{Cluster, FORM, HEAL, tell};
use crate::faults::{self, Fault, exec};
use crate::judge;
use crate::scenarios::failover::{self, HANG, bystander, changed, next_epoch};
use crate::seen::Member;
use crate::wait;
use crate::world::{World, now};

/// `maxLag` of the asynchronous example, in bytes.
const MAX_LAG: i64 = 16 << 20;

/// Turned red by: an example that the schema refuses, a Service name of the spec that is not used.
pub(crate) async fn examples(world: &World) -> Result<()> {
    let mut files: Vec<String> = std::fs::read_dir(world.tree.join("examples"))
        .context("list the examples")?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    files.sort();
    files.retain(|file| Path::new(file).extension().is_some_and(|extension| extension == "yaml"));
    ensure!(files.len() >= 5, "only {files:?}");
    for file in files {
        let namespace = world.namespace("example").await?;
        let cluster = Cluster::from_example(world, &namespace, &file, &json!({})).await?;
        let instances = cluster.look(world).await?.cluster.map_or(3, |cluster| cluster.spec.instances);
        let instances = usize::try_from(instances).context("a number of instances")?;
        cluster.whole(world, instances, FORM).await?;
        let ready = cluster.applied.elapsed();
        let wish = Wish { read_host: (instances > 1).then(|| cluster.read_host()), ..Wish::default() };
        let client = Client::start(world, &cluster, &wish).await?;
        judge::one_master(world, &cluster, &client, instances, HEAL).await?;
        client.finish(world, &cluster).await?;
        world.say(format!("{file}: {instances} members after {:.1} s", ready.as_secs_f64()));
        world.remove_namespace(&namespace).await?;
    }
    Ok(())
}

/// Turned red by: a master that waits for ever for the only follower, a follower that takes over though it was shrunk
/// away.
pub(crate) async fn two_instances(world: &World) -> Result<()> {
    let namespace = world.namespace("two").await?;
    let cluster = Cluster::from_example(world, &namespace, "two-instances.yaml", &json!({})).await?;
    let before = cluster.whole(world, 2, FORM).await?;
    let client = bystander(world, &cluster, &before).await?;
    let replica = before.replicas().next().context("there is no replica")?;
    let since = now();
    cluster.delete_pod(world, &replica.name, Some(0)).await?;
    client.resumed(world, now()).await?;
    let after = judge::one_master(world, &cluster, &client, 2, HEAL).await?;
    ensure!(after.leader() == before.leader(), "the master changed: {before} became {after}");
    let (text, longest) = gaps(&client.between(world, since, now()).await?);
    world.say(format!("the follower lost: gap {text}"));
    // shrinkAfter of the example, and the time to write the record.
    tell(world, "longest gap", longest, Duration::from_secs(7), HANG)?;
    client.finish(world, &cluster).await?;

    world.say("the master lost:");
    failover::under_load(world, &cluster, Fault::DeleteByForce, 2).await?;
    world.remove_namespace(&namespace).await
}

/// Turned red by: a failover before the old lease has run out, a loss that is not told, a planned hand-over that loses or that
/// waits for an electorate, of which there is none here.
pub(crate) async fn asynchronous(world: &World) -> Result<()> {
    let namespace = world.namespace("async").await?;
    let cluster = Cluster::from_example(world, &namespace, "asynchronous.yaml", &json!({})).await?;
    world.say("the master deleted gracefully: nothing may be lost");
    failover::under_load(world, &cluster, Fault::Delete, 3).await?;
    world.say("another pod template: the master hands over before its pod is replaced");
    rolled(world, &cluster).await?;

    world.say("the master's node without power: the last commits may be lost");
    let before = cluster.whole(world, 3, FORM).await?;
    let client = bystander(world, &cluster, &before).await?;
    let since = now();
    Fault::NodePower.make(world, &cluster, before.master()?).await?;
    next_epoch(world, &cluster, &before).await?;
    client.resumed(world, now()).await?;
    let (text, longest) = gaps(&client.between(world, since, now()).await?);
    world.say(format!("gap: {text}"));
    faults::mend(world).await?;
    // Here safety needs time: the lease of at least 15 s must run out.
    tell(world, "longest gap", longest, Duration::from_secs(25), HANG)?;
    let after = judge::one_master(world, &cluster, &client, 3, HEAL).await?;
    world.say(changed(&before, &after));
    let (found, lost) = client.finish_counting(world, &cluster).await?;
    let (failover, _) = wait::until("the loss is told in status.lastFailover", HEAL, async || {
        let seen = cluster.look(world).await?;
        let told = seen.cluster.and_then(|cluster| cluster.status?.last_failover);
        Ok(match told {
            Some(told) if Some(told.to.as_str()) == after.leader() && told.lost_bytes.is_some() => Ok(told),
            other => Err(format!("{other:?}")),
        })
    })
    .await?;
    let bytes = failover.lost_bytes.unwrap_or(i64::MAX);
    world.say(format!("{found} acknowledged rows found, {lost} lost; told: {bytes} bytes"));
    ensure!(bytes <= MAX_LAG, "{bytes} bytes are more than maxLag");
    ensure!(lost == 0 || bytes > 0, "{lost} rows were lost, and status says none: {failover:?}");
    world.remove_namespace(&namespace).await
}

async fn rolled(world: &World, cluster: &Cluster) -> Result<()> {
    let before = cluster.whole(world, 3, FORM).await?;
    let client = bystander(world, cluster, &before).await?;
    let since = now();
    let template = json!({"metadata": {"annotations": {"example.org/rolled": "yes"}}});
    cluster.patch(world, &json!({"spec": {"podTemplate": template}})).await?;
    wait::until("every member has a new pod", HEAL, async || {
        let seen = cluster.look(world).await?;
        let new = |member: &Member| before.members.iter().all(|old| old.uid != member.uid);
        let replaced = seen.members.iter().filter(|member| new(member) && member.ready).count();
        wait::when(replaced == 3, || seen.to_string())
    })
    .await?;
    let after = judge::one_master(world, cluster, &client, 3, HEAL).await?;
    let (text, longest) = gaps(&client.between(world, since, now()).await?);
    world.say(format!("gap: {text}"));
    tell(world, "longest gap", longest, Duration::from_secs(3), HANG)?;
    world.say(changed(&before, &after));
    client.finish(world, cluster).await.map(drop)
}

/// As platforms do it that choose a user without an entry in any passwd. Turned red by: initdb, psql or a clone without
/// the generated passwd file (P26), a file of the volume that only one user may read.
pub(crate) async fn arbitrary_user(world: &World) -> Result<()> {
    let namespace = world.namespace("user").await?;
    let user = 1_000_650_000;
    let change = json!({"spec": {
        "instances": 2,
        "securityContext": {"runAsUser": user, "runAsGroup": user, "fsGroup": user},
    }});
    let cluster = Cluster::from_example(world, &namespace, "minimal.yaml", &change).await?;
    let seen = cluster.whole(world, 2, FORM).await?;
    for member in &seen.members {
        let id = exec(world, &namespace, &member.name, &["id", "-u"]).await?;
        ensure!(id.trim() == user.to_string(), "{} runs as {id}", member.name);
    }
    failover::under_load(world, &cluster, Fault::Postmaster, 2).await?;
    world.remove_namespace(&namespace).await
}

/// Turned red by: a setting that only one major knows, a tool of another major, a rewind that believes 15's control file.
pub(crate) async fn majors(world: &World) -> Result<()> {
    for major in [15, 18] {
        let namespace = world.namespace(&format!("pg{major}")).await?;
        let change = json!({"spec": {"version": major}});
        let cluster = Cluster::from_example(world, &namespace, "minimal.yaml", &change).await?;
        let seen = cluster.whole(world, 3, FORM).await?;
        let formed = cluster.applied.elapsed();
        let client = bystander(world, &cluster, &seen).await?;
        let answer = client.ask(world, &cluster.write_host()).await?;
        ensure!(answer.version.contains(&format!("{major}.")), "asked for {major}, got {}", answer.version);
        client.finish(world, &cluster).await?;
        world.say(format!("PostgreSQL {major}: three members after {:.1} s", formed.as_secs_f64()));
        for fault in [Fault::Postmaster, Fault::DeleteByForce] {
            world.say(format!("PostgreSQL {major}: {fault:?}"));
            failover::under_load(world, &cluster, fault, 3).await?;
        }
        world.remove_namespace(&namespace).await?;
    }
    Ok(())
}
