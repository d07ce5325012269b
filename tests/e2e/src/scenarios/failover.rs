//! The master fails in each way; clients judge, and everything agrees again without a human.
//!
//! Turned red by: acknowledging with an empty `synchronous_standby_names`, promoting a follower that is behind, leaving
//! the old master in `pgwrite`, a follower that needs help to come back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::client::{Client, Wish, gaps, list};
use crate::cluster::{Cluster, FORM, HEAL, tell};
use crate::faults::{self, Fault};
use crate::judge;
use crate::seen::{Member, Seen};
use crate::wait;
use crate::world::{World, now};

/// A gap beyond this is a hang, not a slow machine.
pub(crate) const HANG: Duration = Duration::from_secs(60);

impl Fault {
    /// What the gap should be.
    fn target(self) -> Duration {
        match self {
            Self::NodePower | Self::NodeNetwork => Duration::from_secs(6),
            _ => Duration::from_secs(3),
        }
    }
}

/// One fault of the shared cluster's master.
pub(crate) async fn fault(world: &World, fault: Fault) -> Result<()> {
    let cluster = world.shared().await?;
    under_load(world, &cluster, fault, 3).await
}

/// Breaks the master of so many members while clients write; mends; judges.
pub(crate) async fn under_load(
    world: &World,
    cluster: &Cluster,
    fault: Fault,
    instances: usize,
) -> Result<()> {
    let before = cluster.whole(world, instances, FORM).await?;
    let client = bystander(world, cluster, &before).await?;
    let since = now();
    fault.make(world, cluster, before.master()?).await?;
    next_epoch(world, cluster, &before).await?;
    client.resumed(world, now()).await?;
    let logs = client.between(world, since, now()).await?;
    let (text, longest) = gaps(&logs);
    world.say(format!("gap: {text}"));
    tell(world, "longest gap", longest, fault.target(), HANG)?;
    faults::mend(world).await?;
    let after = judge::one_master(world, cluster, &client, instances, HEAL).await?;
    world.say(changed(&before, &after));
    client.finish(world, cluster).await?;
    Ok(())
}

/// K8: three times in a row the master's container, whoever leads, each before the last one's traces are gone; then the
/// last one's container a second and a third time, as soon as it is back. From then on the kubelet waits 10 s and 20 s, as
/// it would for any container; the bound is only one for a hang. Each restart is one that was made here: a PID 1 that ends
/// by itself, for whatever PostgreSQL did, would be one more, and soon the kubelet would wait for minutes.
///
/// Turned red by: a supervisor that ends when PostgreSQL does, a liveness probe that kills a member in recovery, a member
/// that needs another pod to come back.
pub(crate) async fn container_three_times(world: &World) -> Result<()> {
    let cluster = world.shared().await?;
    let before = cluster.whole(world, 3, FORM).await?;
    let client = Client::start(world, &cluster, &Wish::default()).await?;
    let mut last = before.master()?.clone();
    for round in 1..=3 {
        let seen = cluster.agreed(world, HEAL).await?;
        let master = seen.master()?;
        let since = now();
        Fault::Container.make(world, &cluster, master).await?;
        next_epoch(world, &cluster, &seen).await?;
        client.resumed(world, now()).await?;
        let logs = client.between(world, since, now()).await?;
        let (text, longest) = gaps(&logs);
        world.say(format!("round {round}, {}: gap {text}", master.name));
        tell(world, "longest gap", longest, Fault::Container.target(), HANG)?;
        last = master.clone();
    }
    for kills in 2..=3 {
        let member = restarted(world, &cluster, &last, kills - 1).await?;
        Fault::Container.make(world, &cluster, &member).await?;
        let start = Instant::now();
        restarted(world, &cluster, &last, kills).await?;
        let seconds = start.elapsed().as_secs_f64();
        world.say(format!("{}, time {kills}: ready again after {seconds:.1} s", last.name));
    }
    let after = judge::one_master(world, &cluster, &client, 3, HEAL).await?;
    world.say(changed(&before, &after));
    client.finish(world, &cluster).await?;
    Ok(())
}

/// Waits until the container of this pod was restarted exactly so many times since, and the member is ready.
async fn restarted(world: &World, cluster: &Cluster, before: &Member, times: i32) -> Result<Member> {
    let what = format!("{} ready after {times} restarts", before.name);
    let (member, _) = wait::until(&what, HEAL, async || {
        let seen = cluster.look(world).await?;
        let member = seen.member(&before.name).filter(|member| {
            member.ready && member.container.is_some() && member.restarts >= before.restarts + times
        });
        Ok(member.cloned().ok_or_else(|| seen.to_string()))
    })
    .await?;
    ensure!(member.uid == before.uid, "{} is another pod: {member:?}", before.name);
    ensure!(
        member.restarts == before.restarts + times,
        "{} was killed {times} times and restarted {} times: {member:?}",
        before.name,
        member.restarts - before.restarts
    );
    Ok(member)
}

/// The master's node cut off while a session on it is kept open.
///
/// Turned red by: a master that goes on acknowledging alone, or one that shrinks its electorate without the record.
pub(crate) async fn isolated(world: &World) -> Result<()> {
    let cluster = world.shared().await?;
    let before = cluster.whole(world, 3, FORM).await?;
    let master = before.master()?.clone();
    let client = bystander(world, &cluster, &before).await?;
    let inside = Wish {
        node: master.node.clone(),
        host: Some(cluster.member_host(&master.name)),
        only_kept: true,
        ..Wish::default()
    };
    let inside = Client::start(world, &cluster, &inside).await?;

    let since = now();
    Fault::NodeNetwork.make(world, &cluster, &master).await?;
    let cut = now();
    next_epoch(world, &cluster, &before).await?;
    client.resumed(world, now()).await?;
    let logs = client.between(world, since, now()).await?;
    let (text, longest) = gaps(&logs);
    world.say(format!("gap: {text}"));
    tell(world, "longest gap", longest, Fault::NodeNetwork.target(), HANG)?;
    let during = cluster.agreed(world, HEAL).await?;
    ensure!(during.leader() != Some(&master.name), "the cut-off member still leads: {during}");
    let healing = now();
    faults::mend(world).await?;

    let after = judge::one_master(world, &cluster, &client, 3, HEAL).await?;
    world.say(changed(&before, &after));
    ensure!(after.leader() != Some(&master.name), "the cut-off member leads again: {after}");
    let alone = inside.between(world, cut, healing).await?;
    // Without a log, or without an attempt, nothing would be shown.
    ensure!(
        !alone.is_empty() && alone.iter().all(|log| log.error + log.unknown > 0),
        "the session on the cut-off node attempted nothing: {}",
        list(&alone)
    );
    let acknowledged: u64 = alone.iter().map(|log| log.ok_begun).sum();
    ensure!(acknowledged == 0, "the isolated master acknowledged {acknowledged} writes: {}", list(&alone));
    world.say("the session on the cut-off node got no acknowledgement");
    inside.finish(world, &cluster).await?;
    client.finish(world, &cluster).await?;
    Ok(())
}

/// Waits until a later epoch is committed than was seen before the fault: whatever is measured after this is about the
/// time after the fault took effect, not about the last moments before it did. Says when it was seen: what a gap is
/// longer than that was the route's part, or the clients'.
pub(crate) async fn next_epoch(world: &World, cluster: &Cluster, before: &Seen) -> Result<Duration> {
    let old = before.record.as_ref().map_or(0, |record| record.epoch.0);
    let ((), took) = wait::until("a committed epoch after the fault", HANG, async || {
        let seen = cluster.look(world).await?;
        let later =
            seen.record.as_ref().is_some_and(|record| record.epoch.0 > old && record.fence_xid.is_some());
        wait::when(later, || seen.to_string())
    })
    .await?;
    world.say(format!("the next epoch was seen {:.1} s after the fault was made", took.as_secs_f64()));
    Ok(took)
}

/// A client on a node that will not be broken, and not beside the master.
pub(crate) async fn bystander(world: &World, cluster: &Cluster, seen: &Seen) -> Result<Client> {
    let node = seen.master()?.node.as_deref().context("the master has no node")?;
    let node = world.node_besides(&[node]).await?;
    Client::start(world, cluster, &Wish { node: Some(node), ..Wish::default() }).await
}

pub(crate) fn changed(before: &Seen, after: &Seen) -> String {
    let epoch = |seen: &Seen| seen.record.as_ref().map_or(0, |record| record.epoch.0);
    let name = |seen: &Seen| seen.leader().unwrap_or("nobody").to_owned();
    format!("{} (epoch {}) → {} (epoch {})", name(before), epoch(before), name(after), epoch(after))
}

/// Makes this member the master, of so many, by deleting whoever leads, gracefully, a bounded number of times.
pub(crate) async fn lead(world: &World, cluster: &Cluster, wanted: &str, instances: usize) -> Result<Seen> {
    for _ in 0..8 {
        let seen = cluster.whole(world, instances, HEAL).await?;
        let master = seen.master()?.name.clone();
        if master == wanted {
            return Ok(seen);
        }
        cluster.delete_pod(world, &master, None).await?;
        wait::until("another master", HEAL, async || {
            let seen = cluster.look(world).await?;
            wait::when(seen.leader() != Some(&master) && seen.disagreement().is_none(), || seen.to_string())
        })
        .await?;
    }
    anyhow::bail!("{wanted} did not become the master in eight hand-overs")
}
