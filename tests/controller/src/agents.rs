//! Plays the kubelets and the agents of one cluster: pods get addresses and become ready, one member leads, the record
//! and the slices say so, and wishes of the operator come true.
//!
//! It is a model, not a copy: whoever leads goes on leading while its pod may come back, and changes only when it is
//! asked to leave. So the same acts of an operator always end in the same state.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use api::settings::MemberSettings;
use api::{PostgresCluster, names};
use ha::{
    Boot, Electorate, Epoch, HistoryEntry, Incarnation, LeaderId, MemberId, MemberName, Phase, Record,
    Timeline,
};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use kubernetes::FieldManager;
use kubernetes::pods::PodFacts;
use kubernetes::record::{RecordRead, Snapshot};
use kubernetes::slices::{Family, Route, Slices, Target};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::world::World;

const PACE: Duration = Duration::from_millis(150);
/// An image with this in its name cannot be pulled.
pub const BAD: &str = "no-such";

/// The play; dropping it ends it.
pub struct Agents(JoinHandle<()>);

impl Drop for Agents {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Agents {
    /// Plays for the cluster `name` from now on.
    pub fn play(world: &World, name: &str) -> Self {
        let (world, name) = (world.clone(), name.to_owned());
        Self(tokio::spawn(async move {
            loop {
                // An object that changed meanwhile is looked at again.
                let _ = Box::pin(turn(&world, &name)).await;
                tokio::time::sleep(PACE).await;
            }
        }))
    }
}

/// One turn; none when there is nothing to do yet.
pub async fn turn(world: &World, name: &str) -> Option<()> {
    let set = world.calls.get::<StatefulSet>(&world.namespace, &names::stateful_set(name)).await.ok()??;
    let cluster = world.calls.get::<PostgresCluster>(&world.namespace, name).await.ok()??;
    if set.metadata.deletion_timestamp.is_some() || cluster.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let pods = world.pods(name).await;
    for pod in &pods {
        run(world, pod).await;
    }
    let settings = world.calls.get::<ConfigMap>(&world.namespace, &names::settings(name)).await.ok()??;
    let settings = MemberSettings::from_json(settings.data.as_ref()?.get(names::SETTINGS_KEY)?).ok()?;
    let ready: Vec<PodFacts> = pods
        .iter()
        .filter_map(PodFacts::of)
        .filter(|pod| pod.ready == Some(true) && !pod.terminating && settings.members.contains_key(&pod.name))
        .collect();
    let RecordRead::Known(there) = world.record(name).await else { return None };
    let record = next(name, there.record(), &ready, &settings)?;
    if record != *there.record() {
        world.records(name).swap(&there, &record).await;
        return None;
    }
    publish(world, &cluster, &settings, &there, &ready).await;
    let leader = record.leader.as_ref()?.name.0.clone();
    let status = cluster.status.unwrap_or_default();
    let epoch = i64::try_from(record.epoch.0).ok();
    if (status.master.as_ref(), status.epoch) != (Some(&leader), epoch) {
        let own = json!({"master": leader, "epoch": epoch, "timeline": record.timeline.0});
        let of = world.cluster(name).await;
        world.calls.apply_status(FieldManager::AGENT_STATUS, &of, &own).await.ok()?;
    }
    Some(())
}

/// The kubelet's part: an address of its own for each pod, and what became of its image.
async fn run(world: &World, pod: &Pod) {
    let facts = PodFacts::of(pod).unwrap();
    let container = &pod.spec.as_ref().unwrap().containers[0];
    let image = container.image.clone().unwrap_or_default();
    let bad = image.contains(BAD);
    if pod.metadata.deletion_timestamp.is_some() || facts.ready == Some(!bad) {
        return;
    }
    let address = address(&facts.uid);
    let waiting = json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}});
    let running = json!({"running": {}});
    let status = json!({"status": {
        "phase": if bad { "Pending" } else { "Running" },
        "podIP": address, "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": if bad { "False" } else { "True" }}],
        "containerStatuses": [{"name": container.name, "image": image, "imageID": "", "ready": !bad,
            "restartCount": 0, "state": if bad { waiting } else { running }}],
    }});
    let api = world.api::<Pod>();
    let _ = api.patch_status(&facts.name, &PatchParams::default(), &Patch::Merge(&status)).await;
}

/// An address that no other pod has.
pub fn address(uid: &str) -> Ipv4Addr {
    let bits =
        uid.bytes().fold(0xcbf2_9ce4_u32, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    Ipv4Addr::from(0x0a00_0000 | (bits & 0x00ff_ffff))
}

fn member(name: &str) -> MemberId {
    let incarnation = Incarnation(u64::from(MemberName(name.to_owned()).ordinal()) + 1);
    MemberId { name: MemberName(name.to_owned()), incarnation }
}

/// What the record should say.
fn next(cluster: &str, record: &Record, ready: &[PodFacts], settings: &MemberSettings) -> Option<Record> {
    let away = &settings.handover_away;
    let pod_of = |name: &str| ready.iter().find(|pod| pod.name == name);
    let leads = record.leader.as_ref().map_or_else(|| names::pod(cluster, 0), |leader| leader.name.0.clone());
    let successor = || ready.iter().find(|pod| !away.contains(&pod.name) && pod.name != leads);
    let leader = match pod_of(&leads) {
        Some(_) if away.contains(&leads) => successor().or(pod_of(&leads)),
        Some(pod) => Some(pod),
        // It comes back, unless it may not.
        None if away.contains(&leads) => successor(),
        None => None,
    }?;
    let mut next = record.clone();
    if record.leader.as_ref().map(|leader| &leader.pod_uid) != Some(&leader.uid) {
        next.epoch = Epoch(record.epoch.0 + 1);
        next.timeline = Timeline(record.timeline.0 + 1);
        next.phase = Phase::Running;
        next.system_identifier = Some(7_000_000_000_000_000_001);
        next.fence_xid = Some(1000);
        next.history.push(HistoryEntry {
            epoch: next.epoch,
            timeline: next.timeline,
            fork_lsn: None,
            parent: None,
        });
        next.history_count += 1;
        next.leader = Some(LeaderId {
            name: MemberName(leader.name.clone()),
            pod_uid: leader.uid.clone(),
            boot: Boot(1),
            incarnation: member(&leader.name).incarnation,
            node: "node-a".to_owned(),
            stopped: false,
        });
    }
    let followers: BTreeSet<MemberId> =
        ready.iter().filter(|pod| !away.contains(&pod.name)).map(|pod| member(&pod.name)).collect();
    next.electorates = vec![Electorate::new(member(&leader.name), followers, settings.durability.acks)];
    Some(next)
}

/// Points the slices at the leader and its followers.
async fn publish(
    world: &World,
    cluster: &PostgresCluster,
    settings: &MemberSettings,
    there: &Snapshot,
    ready: &[PodFacts],
) {
    let Some(leader) = &there.record().leader else { return };
    let slices = Slices::new(world.calls.clone(), FieldManager::AGENT);
    for (service, leads) in [(&settings.services.write, true), (&settings.services.read, false)] {
        let chosen = ready.iter().filter(|pod| (pod.uid == leader.pod_uid) == leads);
        let targets: Vec<Target> = chosen.map(target).collect();
        let route = route(cluster, service);
        let _ = slices.publish(&route, Family::V4, there.record().epoch, Boot(1), &targets).await;
    }
}

/// A pod as a target of a route.
pub fn target(pod: &PodFacts) -> Target {
    Target {
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        addresses: pod.addresses.clone(),
        node: "node-a".to_owned(),
        zone: None,
    }
}

/// The route of a Service of a cluster, as its agents write it.
pub fn route(cluster: &PostgresCluster, service: &str) -> Route {
    Route {
        namespace: cluster.namespace().unwrap(),
        service: service.to_owned(),
        port_name: names::ports::POSTGRES_NAME.to_owned(),
        port: names::ports::POSTGRES,
        owner: OwnerReference {
            api_version: "matriarch.dev/v1alpha1".to_owned(),
            kind: "PostgresCluster".to_owned(),
            name: cluster.name_any(),
            uid: cluster.uid().unwrap(),
            controller: Some(true),
            block_owner_deletion: None,
        },
        labels: names::labels::of_cluster(&cluster.name_any()),
    }
}
