//! `durability.whenShort: block`: too few followers to acknowledge, so nothing is acknowledged.

use std::time::Duration;

use anyhow::{Result, ensure};
use api::conditions::{reasons, types};
use serde_json::json;

use crate::client::{Client, Judgement, Wish, gaps, list};
use crate::cluster::{Cluster, FORM, HEAL};
use crate::faults;
use crate::judge;
use crate::scenarios::failover::changed;
use crate::wait;
use crate::world::{World, now};

/// Without an acknowledgement for so long, writes wait.
const QUIET: u64 = 3_000_000;
/// How long nothing may be acknowledged: several times `failover.shrinkAfter`, after which `continue` would go on.
const STALL: Duration = Duration::from_secs(20);

/// Both followers' pods deleted while no node takes pods, so that their successors wait.
///
/// Turned red by: a master that gives up its last followers under `block`, one that closes the door to readers while it
/// waits, a write that was let through and is lost, a condition that says all is well.
pub(crate) async fn without_followers(world: &World) -> Result<()> {
    let namespace = world.namespace("block").await?;
    let change = json!({"spec": {"durability": {"acks": 1, "whenShort": "block"}}});
    let cluster = Cluster::from_example(world, &namespace, "minimal.yaml", &change).await?;
    let before = cluster.whole(world, 3, FORM).await?;
    // Reads through pgwrite are reads on the master.
    let wish = Wish { read_host: Some(cluster.write_host()), ..Wish::default() };
    let client = Client::start(world, &cluster, &wish).await?;

    faults::cordon_all(world).await?;
    for follower in before.replicas() {
        cluster.delete_pod(world, &follower.name, Some(0)).await?;
    }
    wait::until("the followers' successors have no node, and writes wait", HEAL, async || {
        let seen = cluster.look(world).await?;
        let waiting = before
            .replicas()
            .all(|old| seen.member(&old.name).is_some_and(|new| new.uid != old.uid && new.node.is_none()));
        let logs = client.summary(world, Some(now().saturating_sub(QUIET))).await?;
        let quiet = writers(&logs).all(|log| log.ok_begun == 0);
        wait::when(waiting && quiet, || format!("{}: {seen}", list(&logs)))
    })
    .await?;

    let since = now();
    // The length of the fault, not a wait for anything.
    tokio::time::sleep(STALL).await;
    let logs = client.between(world, since, now()).await?;
    ensure!(
        writers(&logs).count() == 2 && writers(&logs).all(|log| log.ok == 0 && log.error + log.unknown > 0),
        "writes were acknowledged without a follower, or none was attempted: {}",
        list(&logs)
    );
    ensure!(
        logs.iter().any(|log| log.mode == "read" && log.from_master > 0 && log.ok_begun > 0),
        "nobody could read on the master: {}",
        list(&logs)
    );
    let during = cluster.look(world).await?;
    ensure!(during.leader() == before.leader(), "the master changed: {before} became {during}");
    let newest = during.record.as_ref().and_then(|record| record.current_electorate());
    ensure!(
        newest.is_some_and(|electorate| electorate.acks >= 1 && !electorate.members.is_empty()),
        "the master gave up its last follower: {during}"
    );
    wait::until("the user is told", HEAL, async || {
        let told = cluster.look(world).await?.condition(types::QUORUM_AVAILABLE);
        let ok = told
            .as_ref()
            .is_some_and(|(status, reason, _)| status == "False" && reason == reasons::NO_QUORUM);
        wait::when(ok, || format!("{told:?}"))
    })
    .await?;
    world.say(format!("nothing acknowledged for {STALL:?}, reads went on"));

    faults::mend(world).await?;
    client.resumed(world, now()).await?;
    let after = judge::one_master(world, &cluster, &client, 3, HEAL).await?;
    let logs = client.between(world, since, now()).await?;
    world.say(format!("gap from the stall on: {}; {}", gaps(&logs).0, changed(&before, &after)));
    client.finish(world, &cluster).await?;
    world.remove_namespace(&namespace).await
}

fn writers(logs: &[Judgement]) -> impl Iterator<Item = &Judgement> {
    logs.iter().filter(|log| log.mode != "read")
}
