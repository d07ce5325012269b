//! Clusters whose members are played: pods that report, a master in the record, routes, and a Lease that is renewed.
//!
//! While a cluster forms, the play of the operator's own tests is played; once it is whole nothing is left of it but what
//! agents of a quiet cluster do: the master renews the record, by compare-and-swap, every ten seconds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use api::{Phase, PostgresClusterStatus};
use controller::agents;
use controller::world::World;
use futures::StreamExt as _;
use futures::stream;
use kubernetes::record::{RecordRead, Swapped};
use serde_json::json;
use tokio::task::JoinSet;

/// How often a master renews its record.
const RENEW: Duration = Duration::from_secs(10);
/// How many clusters are brought into being at once.
const AT_ONCE: usize = 8;
/// Between two turns of one cluster.
const PACE: Duration = Duration::from_millis(300);
/// How long one cluster may take to form. The controller manager makes twenty objects a second for all of them.
const FORM: Duration = Duration::from_secs(600);

/// The clusters so far; dropping them ends the play.
pub(super) struct StandIns {
    world: World,
    instances: u32,
    names: Vec<String>,
    renewing: JoinSet<()>,
}

impl StandIns {
    /// None yet.
    pub(super) fn new(world: &World, instances: u32) -> Self {
        Self { world: world.clone(), instances, names: Vec::new(), renewing: JoinSet::new() }
    }

    /// Their names.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Members of each.
    pub(super) fn instances(&self) -> u32 {
        self.instances
    }

    /// Makes new ones until there are so many, all of them whole.
    pub(super) async fn grow_to(&mut self, count: u32) -> Result<()> {
        let there = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let new: Vec<String> = (there..count).map(|number| format!("pg-{number:04}")).collect();
        let (world, instances) = (&self.world, self.instances);
        let mut forming =
            stream::iter(new.clone()).map(|name| form(world, name, instances)).buffer_unordered(AT_ONCE);
        let start = Instant::now();
        let mut done: u32 = 0;
        while let Some(formed) = forming.next().await {
            formed?;
            done += 1;
            if done.is_multiple_of(20) {
                println!("{} clusters are whole after {:.0} s", there + done, start.elapsed().as_secs_f64());
            }
        }
        drop(forming);
        for (number, name) in new.iter().enumerate() {
            let (world, name) = (self.world.clone(), name.clone());
            // Not all at the same moment: neither were they made then.
            let first = RENEW.mul_f64((number % 97) as f64 / 97.0);
            self.renewing.spawn(async move { renew(&world, &name, first).await });
        }
        self.names.extend(new);
        Ok(())
    }
}

async fn form(world: &World, name: String, instances: u32) -> Result<()> {
    world.create(&name, json!({"storage": {"size": "1Gi"}, "instances": instances})).await;
    let start = Instant::now();
    loop {
        // An object that changed meanwhile is looked at again.
        let _ = Box::pin(agents::turn(world, &name)).await;
        let status = world.status(&name).await;
        if is_whole(&status, instances) {
            return Ok(());
        }
        ensure!(start.elapsed() < FORM, "{name} does not form: {status:?}");
        tokio::time::sleep(PACE).await;
    }
}

fn is_whole(status: &PostgresClusterStatus, instances: u32) -> bool {
    let followers = status.electorates.last().map(|electorate| electorate.members.len());
    let complete = followers.and_then(|count| u32::try_from(count + 1).ok()) == Some(instances);
    let ready = status.ready_instances.and_then(|count| u32::try_from(count).ok()) == Some(instances);
    complete && ready && status.master.is_some() && status.phase == Some(Phase::Healthy)
}

/// Until dropped.
async fn renew(world: &World, name: &str, first: Duration) {
    let records = world.records(name);
    let mut pace = tokio::time::interval_at(tokio::time::Instant::now() + first, RENEW);
    let mut known: Option<Arc<kubernetes::record::Snapshot>> = None;
    loop {
        pace.tick().await;
        if known.is_none()
            && let RecordRead::Known(there) = records.read().await
        {
            known = Some(Arc::new(there));
        }
        let Some(there) = known.take() else { continue };
        if let Swapped::Won(next) = records.renew(&there).await {
            known = Some(Arc::new(next));
        }
    }
}
