//! Every change of the members' pods, of the record and of `pgwrite`, in the order in which they happened.
//!
//! Decides whether `pgwrite` ever led to an address that no living pod of that UID has (K3), and who led when a pod began
//! to leave. It watches instead of looking, so nothing between two looks is missed; and it never compares what two looks
//! at different times said: the API server numbers all changes in one order, whichever object they are of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use api::names::{self, labels};
use ha::Record;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::world::World;

/// Address and UID of the pod that it should belong to.
pub(crate) type Endpoint = (String, Option<String>);

/// Something that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    /// A pod as it is now; none when it is gone.
    Pod { uid: String, name: String, state: Option<PodState> },
    /// What a slice of `pgwrite` holds now.
    Slice { name: String, endpoints: Vec<Endpoint> },
    /// Who leads, as the record says now.
    Leader { name: Option<String> },
}

/// A pod that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PodState {
    ip: Option<String>,
    /// Whether it is being deleted.
    leaving: bool,
    /// Whether its containers have ended for good: its address may be another's.
    ended: bool,
}

/// A change, numbered by the API server.
#[derive(Debug, Clone)]
struct Event {
    version: u64,
    heard: Instant,
    change: Change,
}

/// An endpoint that led to nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stale {
    /// Which.
    pub(crate) endpoint: Endpoint,
    /// For how long, as it was heard.
    pub(crate) lasted: Duration,
}

#[derive(Debug, Default)]
struct Heard {
    events: Vec<Event>,
    /// Why a watch ended, which it must not.
    ended: Option<String>,
}

/// Watches until it is dropped.
pub(crate) struct Changes {
    heard: Arc<Mutex<Heard>>,
    /// Ends the watches with this.
    _watches: JoinSet<()>,
}

impl Changes {
    /// From now on; for less than the 290 s for which a watch lasts.
    pub(crate) async fn watch(world: &World, cluster: &Cluster) -> Result<Self> {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let mut watches = JoinSet::new();
        let service = cluster.write_host();
        let service = service.split('.').next().unwrap_or_default();
        let lease = names::lease(&cluster.name);
        // Pods first: what a slice holds at the start is judged by them.
        let members = format!("{}={}", labels::CLUSTER, cluster.name);
        start::<Pod>(world, cluster, &mut watches, &heard, WatchParams::default().labels(&members), of_pod)
            .await?;
        let named = format!("metadata.name={lease}");
        start::<Lease>(world, cluster, &mut watches, &heard, WatchParams::default().fields(&named), of_lease)
            .await?;
        let of_route = format!("{}={service}", labels::SLICE_SERVICE);
        start::<EndpointSlice>(
            world,
            cluster,
            &mut watches,
            &heard,
            WatchParams::default().labels(&of_route),
            of_slice,
        )
        .await?;
        let changes = Self { heard, _watches: watches };
        ensure!(
            changes.lock()?.events.iter().any(|event| matches!(event.change, Change::Slice { .. })),
            "no slice belongs to {service}"
        );
        Ok(changes)
    }

    fn lock(&self) -> Result<MutexGuard<'_, Heard>> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &heard.ended {
            bail!("a watch ended, so something may have been missed: {why}");
        }
        Ok(heard)
    }

    /// What happened so far, in order.
    fn in_order(&self) -> Result<Vec<Event>> {
        let mut events = self.lock()?.events.clone();
        // Stable: of what was there at the start, pods come first.
        events.sort_by_key(|event| event.version);
        Ok(events)
    }

    /// Where `pgwrite` leads now, as far as was heard.
    pub(crate) fn write(&self) -> Result<BTreeSet<Endpoint>> {
        let mut slices: BTreeMap<String, Vec<Endpoint>> = BTreeMap::new();
        for event in self.in_order()? {
            if let Change::Slice { name, endpoints } = event.change {
                slices.insert(name, endpoints);
            }
        }
        Ok(slices.into_values().flatten().collect())
    }

    /// Every endpoint that led to no living pod of its UID and address, and for how long.
    pub(crate) fn stale(&self) -> Result<Vec<Stale>> {
        Ok(stale(&self.in_order()?, Instant::now()))
    }

    /// Who led when this pod began to leave, empty when nobody did; none while it has not begun.
    pub(crate) fn leader_when_leaving(&self, pod: &str) -> Result<Option<String>> {
        leader_when_leaving(&self.in_order()?, pod)
    }
}

/// Lists, then follows from there.
async fn start<K>(
    world: &World,
    cluster: &Cluster,
    watches: &mut JoinSet<()>,
    heard: &Arc<Mutex<Heard>>,
    what: WatchParams,
    change: fn(&K, bool) -> Result<Change>,
) -> Result<()>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Send
        + 'static,
    K::DynamicType: Default,
{
    let objects: Api<K> = world.api(&cluster.namespace);
    let list = ListParams {
        label_selector: what.label_selector.clone(),
        field_selector: what.field_selector.clone(),
        ..ListParams::default()
    };
    let list = objects.list(&list).await.context("list what is watched")?;
    let version = list.metadata.resource_version.context("a list without a version")?;
    for object in &list.items {
        let change = change(object, false)?;
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        // Before everything that is heard later, whatever its own number is.
        heard.events.push(Event { version: 0, heard: Instant::now(), change });
    }
    let heard = Arc::clone(heard);
    watches.spawn(async move {
        let why = follow(&objects, &what, &version, change, &heard).await;
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.ended = Some(why.map_or_else(|error| format!("{error:#}"), |()| "closed".to_owned()));
    });
    Ok(())
}

async fn follow<K>(
    objects: &Api<K>,
    what: &WatchParams,
    version: &str,
    change: fn(&K, bool) -> Result<Change>,
    heard: &Mutex<Heard>,
) -> Result<()>
where
    K: kube::Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    use futures::TryStreamExt as _;
    let stream = objects.watch(what, version).await.context("watch")?;
    futures::pin_mut!(stream);
    while let Some(event) = stream.try_next().await.context("watch")? {
        let (object, gone) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
            WatchEvent::Deleted(object) => (object, true),
            WatchEvent::Bookmark(_) => continue,
            WatchEvent::Error(status) => bail!("{status:?}"),
        };
        let version = object.resource_version().and_then(|version| version.parse().ok());
        let event = Event {
            version: version.context("an object's version is no number")?,
            heard: Instant::now(),
            change: change(&object, gone)?,
        };
        heard.lock().unwrap_or_else(PoisonError::into_inner).events.push(event);
    }
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "as the others")]
fn of_pod(pod: &Pod, gone: bool) -> Result<Change> {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    let state = PodState {
        ip: status.and_then(|status| status.pod_ip.clone()),
        leaving: pod.metadata.deletion_timestamp.is_some(),
        ended: matches!(phase, Some("Succeeded" | "Failed")),
    };
    Ok(Change::Pod {
        uid: pod.uid().unwrap_or_default(),
        name: pod.name_any(),
        state: (!gone).then_some(state),
    })
}

#[expect(clippy::unnecessary_wraps, reason = "as the others")]
fn of_slice(slice: &EndpointSlice, gone: bool) -> Result<Change> {
    let mut endpoints = Vec::new();
    for endpoint in slice.endpoints.iter().filter(|_| !gone) {
        let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
        endpoints.extend(endpoint.addresses.iter().map(|address| (address.clone(), uid.clone())));
    }
    Ok(Change::Slice { name: slice.name_any(), endpoints })
}

fn of_lease(lease: &Lease, gone: bool) -> Result<Change> {
    let text = lease.annotations().get(labels::RECORD).filter(|_| !gone);
    let record: Option<Record> =
        text.map(|text| serde_json::from_str(text).context("read the record")).transpose()?;
    Ok(Change::Leader { name: record.and_then(|record| Some(record.leader?.name.0)) })
}

fn stale(events: &[Event], until: Instant) -> Vec<Stale> {
    // The agent learns its address before the kubelet has told the API server: until then the first one told counts.
    let mut first: BTreeMap<&str, &str> = BTreeMap::new();
    for event in events {
        if let Change::Pod { uid, state: Some(PodState { ip: Some(ip), .. }), .. } = &event.change {
            first.entry(uid).or_insert(ip);
        }
    }
    let mut pods: BTreeMap<&str, &PodState> = BTreeMap::new();
    let mut slices: BTreeMap<&str, &Vec<Endpoint>> = BTreeMap::new();
    let mut since: BTreeMap<Endpoint, Instant> = BTreeMap::new();
    let mut found = Vec::new();
    for (index, event) in events.iter().enumerate() {
        match &event.change {
            Change::Pod { uid, state: Some(state), .. } => {
                pods.insert(uid, state);
            }
            Change::Pod { uid, state: None, .. } => {
                pods.remove(uid.as_str());
            }
            Change::Slice { name, endpoints } => {
                slices.insert(name, endpoints);
            }
            Change::Leader { .. } => continue,
        }
        // What was there at the start is one state, however many events it took to tell.
        if events.get(index + 1).is_some_and(|next| next.version == 0) {
            continue;
        }
        let leads_somewhere = |(ip, uid): &Endpoint| {
            let Some(uid) = uid.as_deref() else { return false };
            let Some(pod) = pods.get(uid).filter(|pod| !pod.ended) else { return false };
            pod.ip.as_deref().or_else(|| first.get(uid).copied()) == Some(ip.as_str())
        };
        let wrong: BTreeSet<&Endpoint> =
            slices.values().copied().flatten().filter(|one| !leads_somewhere(one)).collect();
        since.retain(|endpoint, begun| {
            let lasts = wrong.contains(endpoint);
            if !lasts {
                let lasted = event.heard.saturating_duration_since(*begun);
                found.push(Stale { endpoint: endpoint.clone(), lasted });
            }
            lasts
        });
        for endpoint in wrong {
            since.entry(endpoint.clone()).or_insert(event.heard);
        }
    }
    let lasting = since.into_iter().map(|(endpoint, begun)| {
        let lasted = until.saturating_duration_since(begun);
        Stale { endpoint, lasted }
    });
    found.extend(lasting);
    found
}

fn leader_when_leaving(events: &[Event], pod: &str) -> Result<Option<String>> {
    let mut leader = None;
    for event in events {
        match &event.change {
            Change::Leader { name } => leader = Some(name.clone().unwrap_or_default()),
            Change::Pod { name, state, .. } if name == pod => {
                if state.as_ref().is_none_or(|state| state.leaving) {
                    return Ok(Some(leader.context("a pod left before a record was seen")?));
                }
            }
            Change::Pod { .. } | Change::Slice { .. } => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(changes: &[(u64, Change)]) -> Vec<Event> {
        let start = Instant::now();
        let event = |(version, change): &(u64, Change)| Event {
            version: *version,
            heard: start + Duration::from_secs(*version),
            change: change.clone(),
        };
        changes.iter().map(event).collect()
    }

    fn pod(uid: &str, ip: Option<&str>) -> Change {
        let state = PodState { ip: ip.map(str::to_owned), leaving: false, ended: false };
        Change::Pod { uid: uid.into(), name: "pg-0".into(), state: Some(state) }
    }

    fn leaving(uid: &str, ip: &str, ended: bool) -> Change {
        let state = PodState { ip: Some(ip.into()), leaving: true, ended };
        Change::Pod { uid: uid.into(), name: "pg-0".into(), state: Some(state) }
    }

    fn gone(uid: &str) -> Change {
        Change::Pod { uid: uid.into(), name: "pg-0".into(), state: None }
    }

    fn slice(endpoints: &[(&str, &str)]) -> Change {
        let endpoints = endpoints.iter().map(|(ip, uid)| ((*ip).into(), Some((*uid).into()))).collect();
        Change::Slice { name: "pgwrite".into(), endpoints }
    }

    fn leader(name: &str) -> Change {
        Change::Leader { name: Some(name.into()) }
    }

    fn judged(changes: &[(u64, Change)]) -> Vec<(String, u64)> {
        let events = events(changes);
        let until = events.first().unwrap().heard + Duration::from_secs(100);
        stale(&events, until).into_iter().map(|one| (one.endpoint.0, one.lasted.as_secs())).collect()
    }

    #[test]
    fn a_route_that_is_emptied_before_the_pod_ends_is_never_stale() {
        let good = [
            (0, pod("a", Some("10.0.0.1"))),
            (0, slice(&[("10.0.0.1", "a")])),
            (1, leaving("a", "10.0.0.1", false)),
            (2, slice(&[])),
            (3, leaving("a", "10.0.0.1", true)),
            (4, gone("a")),
            (5, pod("b", None)),
            (6, slice(&[("10.0.0.2", "b")])),
            (7, pod("b", Some("10.0.0.2"))),
        ];
        assert_eq!(judged(&good), []);
    }

    #[test]
    fn k3_a_recycled_address_and_a_gone_uid_are_stale_for_as_long_as_they_are_there() {
        let start = [(0, pod("a", Some("10.0.0.1"))), (0, slice(&[("10.0.0.1", "a")]))];
        let with = |more: &[(u64, Change)]| judged(&[&start[..], more].concat());
        assert_eq!(with(&[(2, gone("a")), (5, slice(&[]))]), [("10.0.0.1".to_owned(), 3)]);
        // The address lives on in another pod: comparing addresses alone would not see it.
        assert_eq!(with(&[(2, gone("a")), (3, pod("b", Some("10.0.0.1")))]).len(), 1);
        assert_eq!(with(&[(2, leaving("a", "10.0.0.1", true)), (3, slice(&[]))]).len(), 1);
        assert_eq!(with(&[(2, pod("a", Some("10.0.0.9")))]), [("10.0.0.1".to_owned(), 98)]);
    }

    #[test]
    fn the_leader_when_a_pod_begins_to_leave_is_the_one_of_that_moment() {
        let begun = [(0, pod("a", Some("10.0.0.1"))), (0, leader("pg-0"))];
        assert_eq!(leader_when_leaving(&events(&begun), "pg-0").unwrap(), None);
        let handed = [&begun[..], &[(1, leader("pg-1")), (2, leaving("a", "10.0.0.1", false))]].concat();
        assert_eq!(leader_when_leaving(&events(&handed), "pg-0").unwrap().as_deref(), Some("pg-1"));
        let taken = [&begun[..], &[(1, gone("a")), (2, leader("pg-1"))]].concat();
        assert_eq!(leader_when_leaving(&events(&taken), "pg-0").unwrap().as_deref(), Some("pg-0"));
    }
}
