//! One look at everything that names a master, at one time, for judging and for telling people.

use std::fmt;

use anyhow::{Context, Result};
use api::names::{self, labels};
use ha::Record;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::world::World;

/// A member's pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Name of the pod.
    pub(crate) name: String,
    /// UID of the pod.
    pub(crate) uid: String,
    /// Its address, once it has one.
    pub(crate) ip: Option<String>,
    /// Its node.
    pub(crate) node: Option<String>,
    /// The label `role`.
    pub(crate) role: Option<String>,
    /// Whether it is ready.
    pub(crate) ready: bool,
    /// Whether it is being deleted.
    pub(crate) terminating: bool,
    /// How often its container was restarted.
    pub(crate) restarts: i32,
    /// The container's identifier with the runtime.
    pub(crate) container: Option<String>,
    /// Image of PostgreSQL in the pod's spec.
    pub(crate) image: Option<String>,
    /// What keeps the container from running.
    pub(crate) waiting: Option<String>,
}

/// The endpoints of one Service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Route {
    /// Address and UID of the pod it belongs to.
    pub(crate) endpoints: Vec<(String, Option<String>)>,
    /// The epoch that wrote it.
    pub(crate) epoch: Option<u64>,
}

/// Everything that names a master.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// The members' pods by name.
    pub(crate) members: Vec<Member>,
    /// The record.
    pub(crate) record: Option<Record>,
    /// Where `pgwrite` leads.
    pub(crate) write: Route,
    /// Where `pgread` leads.
    pub(crate) read: Route,
    /// The PostgresCluster.
    pub(crate) cluster: Option<api::PostgresCluster>,
}

impl Seen {
    /// Looks.
    pub(crate) async fn look(world: &World, namespace: &str, name: &str) -> Result<Self> {
        let clusters: Api<api::PostgresCluster> = world.api(namespace);
        let pods: Api<Pod> = world.api(namespace);
        let leases: Api<Lease> = world.api(namespace);
        let selector = format!("{}={name},{}={}", labels::CLUSTER, labels::POOL, names::DEFAULT_POOL);
        let of_members = ListParams::default().labels(&selector);
        let lease = names::lease(name);
        let (cluster, pods, lease) =
            tokio::try_join!(clusters.get_opt(name), pods.list(&of_members), leases.get_opt(&lease))?;
        let services = cluster.as_ref().map(|cluster| &cluster.spec.services);
        let write = services.and_then(|services| services.write.name.clone());
        let read = services.and_then(|services| services.read.name.clone());
        let record = lease
            .and_then(|lease| lease.annotations().get(labels::RECORD).cloned())
            .map(|text| serde_json::from_str(&text).context("read the record"))
            .transpose()?;
        Ok(Self {
            members: pods.items.iter().map(Member::from).collect(),
            record,
            write: route(world, namespace, &write.unwrap_or_else(|| names::write_service(name))).await?,
            read: route(world, namespace, &read.unwrap_or_else(|| names::read_service(name))).await?,
            cluster,
        })
    }

    /// The recorded leader's name.
    pub(crate) fn leader(&self) -> Option<&str> {
        self.record.as_ref()?.leader.as_ref().map(|leader| leader.name.0.as_str())
    }

    /// The member of this name.
    pub(crate) fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// The recorded leader's pod.
    pub(crate) fn master(&self) -> Result<&Member> {
        let leader = self.leader().context("the record names no leader")?;
        self.member(leader).with_context(|| format!("the record names {leader}, which has no pod: {self}"))
    }

    /// Members that are not the leader.
    pub(crate) fn replicas(&self) -> impl Iterator<Item = &Member> {
        let leader = self.leader().map(str::to_owned);
        self.members.iter().filter(move |member| Some(&member.name) != leader.as_ref())
    }

    /// A condition: status, reason and message.
    pub(crate) fn condition(&self, kind: &str) -> Option<(String, String, String)> {
        let status = self.cluster.as_ref()?.status.as_ref()?;
        let condition = status.conditions.iter().find(|condition| condition.type_ == kind)?;
        Some((condition.status.clone(), condition.reason.clone(), condition.message.clone()))
    }

    /// Why record, label, `pgwrite` and status do not name one and the same running master; none when they do.
    pub(crate) fn disagreement(&self) -> Option<String> {
        let Some(record) = &self.record else { return Some("there is no record".to_owned()) };
        let Some(leader) = &record.leader else { return Some("the record names no leader".to_owned()) };
        let Some(master) = self.member(&leader.name.0) else {
            return Some(format!("the leader {} has no pod", leader.name));
        };
        if master.uid != leader.pod_uid {
            return Some(format!("the record's leader is an earlier pod of {}", leader.name));
        }
        if record.fence_xid.is_none() {
            return Some(format!("epoch {} is not open yet", record.epoch));
        }
        let labelled: Vec<&str> = self
            .members
            .iter()
            .filter(|member| member.role.as_deref() == Some(labels::ROLE_MASTER))
            .map(|member| member.name.as_str())
            .collect();
        if labelled != [master.name.as_str()] {
            return Some(format!("role=master is on {labelled:?}, the leader is {}", master.name));
        }
        let expected = master.ip.clone().map(|ip| (ip, Some(master.uid.clone())));
        if self.write.endpoints.iter().cloned().map(Some).collect::<Vec<_>>() != [expected] {
            return Some(format!(
                "pgwrite leads to {:?}, the leader is {:?}",
                self.write.endpoints, master.ip
            ));
        }
        if self.write.epoch != Some(record.epoch.0) {
            return Some(format!(
                "pgwrite was written in epoch {:?}, now is {}",
                self.write.epoch, record.epoch
            ));
        }
        let status = self.cluster.as_ref().and_then(|cluster| cluster.status.clone()).unwrap_or_default();
        if status.master.as_deref() != Some(&master.name) {
            return Some(format!("status.master is {:?}, the leader is {}", status.master, master.name));
        }
        if status.epoch.and_then(|epoch| u64::try_from(epoch).ok()) != Some(record.epoch.0) {
            return Some(format!("status.epoch is {:?}, the record's {}", status.epoch, record.epoch));
        }
        None
    }

    /// Why the cluster is not whole: everybody ready, labelled, in the one electorate and, but for the master, in pgread.
    pub(crate) fn deficiency(&self, instances: usize) -> Option<String> {
        if let Some(text) = self.disagreement() {
            return Some(text);
        }
        if self.members.len() != instances {
            return Some(format!("{} pods, wanted {instances}", self.members.len()));
        }
        if let Some(member) = self.members.iter().find(|member| !member.ready || member.terminating) {
            return Some(format!("{} is not ready or terminating", member.name));
        }
        if let Some(member) =
            self.replicas().find(|member| member.role.as_deref() != Some(labels::ROLE_REPLICA))
        {
            return Some(format!("{} is not labelled as a replica", member.name));
        }
        let record = self.record.as_ref()?;
        if record.electorates.len() != 1 {
            return Some(format!("{} electorates in the record", record.electorates.len()));
        }
        let electors = record.electorates.iter().flat_map(|electorate| &electorate.members).count();
        // Without a quorum nobody's acknowledgement is counted: the lease in the record decides.
        let wanted = if record.lease_millis.is_some() { 0 } else { instances.saturating_sub(1) };
        if electors != wanted {
            return Some(format!("{electors} members in the electorate, wanted {wanted}"));
        }
        let mut reading: Vec<&str> = self.read.endpoints.iter().map(|(ip, _)| ip.as_str()).collect();
        let mut wanted: Vec<&str> = self.replicas().filter_map(|member| member.ip.as_deref()).collect();
        reading.sort_unstable();
        wanted.sort_unstable();
        if reading != wanted {
            return Some(format!("pgread leads to {reading:?}, the replicas are {wanted:?}"));
        }
        None
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for member in &self.members {
            write!(
                f,
                "{}[{} {} {}{}{} restarts {}] ",
                member.name,
                member.role.as_deref().unwrap_or("-"),
                member.node.as_deref().unwrap_or("-"),
                if member.ready { "ready" } else { "not ready" },
                if member.terminating { " terminating" } else { "" },
                member.waiting.as_deref().map(|text| format!(" {text}")).unwrap_or_default(),
                member.restarts
            )?;
        }
        match &self.record {
            Some(record) => {
                write!(f, "record[{:?} epoch {} timeline {}", record.phase, record.epoch, record.timeline)?;
                write!(f, " leader {} electorates", self.leader().unwrap_or("-"))?;
                for electorate in &record.electorates {
                    let members: Vec<&str> =
                        electorate.members.iter().map(|member| member.name.0.as_str()).collect();
                    write!(f, " {members:?}")?;
                }
                let open = if record.fence_xid.is_some() { " open] " } else { "] " };
                f.write_str(open)?;
            }
            None => f.write_str("no record ")?,
        }
        let addresses = |route: &Route| route.endpoints.iter().map(|(ip, _)| ip.clone()).collect::<Vec<_>>();
        write!(f, "pgwrite{:?} pgread{:?}", addresses(&self.write), addresses(&self.read))?;
        if let Some(status) = self.cluster.as_ref().and_then(|cluster| cluster.status.as_ref()) {
            write!(f, " status[{:?} master {:?} epoch {:?}]", status.phase, status.master, status.epoch)?;
        }
        Ok(())
    }
}

impl From<&Pod> for Member {
    fn from(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let containers = status.and_then(|status| status.container_statuses.as_ref());
        let container = containers.and_then(|all| all.iter().find(|one| one.name == names::CONTAINER));
        let waiting = container
            .and_then(|container| container.state.as_ref()?.waiting.as_ref()?.reason.clone())
            .or_else(|| status.and_then(|status| status.reason.clone()));
        let spec = pod.spec.as_ref();
        Self {
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            ip: status.and_then(|status| status.pod_ip.clone()),
            node: spec.and_then(|spec| spec.node_name.clone()),
            role: pod.labels().get(labels::ROLE).cloned(),
            ready: status
                .and_then(|status| status.conditions.as_ref())
                .is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True")),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            restarts: container.map_or(0, |container| container.restart_count),
            container: container.and_then(|container| container.container_id.clone()),
            image: spec.and_then(|spec| {
                spec.containers.iter().find(|one| one.name == names::CONTAINER)?.image.clone()
            }),
            waiting,
        }
    }
}

async fn route(world: &World, namespace: &str, service: &str) -> Result<Route> {
    let slices: Api<EndpointSlice> = world.api(namespace);
    let selector = format!("{}={service}", labels::SLICE_SERVICE);
    let slices = slices.list(&ListParams::default().labels(&selector)).await?;
    let mut route = Route::default();
    for slice in slices {
        let epoch = slice.annotations().get(labels::SLICE_EPOCH).and_then(|text| text.parse().ok());
        route.epoch = route.epoch.max(epoch);
        for endpoint in slice.endpoints {
            let uid = endpoint.target_ref.and_then(|target| target.uid);
            route.endpoints.extend(endpoint.addresses.into_iter().map(|address| (address, uid.clone())));
        }
    }
    Ok(route)
}
