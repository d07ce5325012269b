//! What Patroni says: the lock with the address that writers are sent to, the synchronous standbys, and each member of
//! itself. All of it is in annotations of Endpoints and pods.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::Result;
use api::names::labels;
use k8s_openapi::api::core::v1::{Endpoints, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::Value;

use crate::seen::Member;
use crate::world::World;

/// The value of the label `role` on the primary.
const PRIMARY: &str = "primary";

/// A pod and what Patroni in it says.
#[derive(Debug, Clone)]
pub(super) struct Account {
    /// The pod.
    pub(super) pod: Member,
    /// As it was written.
    pub(super) text: String,
    said: Value,
}

/// Who serves writers, precisely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Serving {
    /// Its name.
    pub(super) leader: String,
    /// UID of its pod.
    pub(super) uid: String,
    /// Its container.
    pub(super) container: String,
    /// How often the lock has gone from one name to another.
    pub(super) transitions: String,
}

/// One look.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// Who holds the lock.
    pub(super) leader: Option<String>,
    transitions: String,
    /// The only address in the lock's Endpoints.
    pub(super) routed: Option<String>,
    /// Who may become primary.
    standbys: BTreeSet<String>,
    /// All pods.
    pub(super) members: Vec<Account>,
}

impl State {
    /// Looks.
    pub(super) async fn look(world: &World, namespace: &str, name: &str) -> Result<Self> {
        let (pods, endpoints): (Api<Pod>, Api<Endpoints>) = (world.api(namespace), world.api(namespace));
        let of_members = ListParams::default().labels(&format!("application=patroni,cluster-name={name}"));
        let sync = format!("{name}-sync");
        let (pods, lock, sync) =
            tokio::try_join!(pods.list(&of_members), endpoints.get_opt(name), endpoints.get_opt(&sync))?;
        Ok(Self::of(&pods.items, lock.as_ref(), sync.as_ref()))
    }

    fn of(pods: &[Pod], lock: Option<&Endpoints>, sync: Option<&Endpoints>) -> Self {
        let said = |object: Option<&Endpoints>, key: &str| {
            object.and_then(|object| object.annotations().get(key).cloned()).filter(|text| !text.is_empty())
        };
        let subsets = lock.and_then(|lock| lock.subsets.clone()).unwrap_or_default();
        let mut addresses = subsets.into_iter().flat_map(|subset| subset.addresses.unwrap_or_default());
        let (first, second) = (addresses.next(), addresses.next());
        let standbys = said(sync, "sync_standby").unwrap_or_default();
        Self {
            leader: said(lock, "leader"),
            transitions: said(lock, "transitions").unwrap_or_default(),
            routed: first.filter(|_| second.is_none()).map(|address| address.ip),
            standbys: standbys.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            members: pods.iter().map(Account::from).collect(),
        }
    }

    /// The pod of who holds the lock.
    pub(super) fn primary(&self) -> Option<&Account> {
        let leader = self.leader.as_ref()?;
        self.members.iter().find(|member| member.pod.name == *leader)
    }

    /// Who serves; none while nobody holds the lock, or who does is gone.
    pub(super) fn serving(&self) -> Option<Serving> {
        let primary = self.primary()?;
        Some(Serving {
            leader: primary.pod.name.clone(),
            uid: primary.pod.uid.clone(),
            container: primary.pod.container.clone()?,
            transitions: self.transitions.clone(),
        })
    }

    /// The pods' labels, in our words.
    pub(super) fn roles(&self) -> BTreeMap<String, String> {
        let role = |member: &Account| match member.pod.role.as_deref() {
            Some(PRIMARY) => labels::ROLE_MASTER.to_owned(),
            other => other.unwrap_or("-").to_owned(),
        };
        self.members.iter().map(|member| (member.pod.name.clone(), role(member))).collect()
    }

    /// Why it is not whole: one primary to which the Service leads, everybody ready, and all others stream on its timeline
    /// and count for its commits.
    pub(super) fn deficiency(&self, instances: usize, route: &[String]) -> Option<String> {
        let Some(primary) = self.primary() else { return Some("nobody holds the lock".to_owned()) };
        if !primary.is_primary() {
            return Some(format!("{} holds the lock and is no primary", primary.pod.name));
        }
        if self.routed.is_none() || self.routed != primary.pod.ip {
            return Some(format!("the lock leads to {:?}", self.routed));
        }
        if route.iter().map(Some).collect::<Vec<_>>() != [primary.pod.ip.as_ref()] {
            return Some(format!("the Service leads to {route:?}"));
        }
        if self.members.len() != instances {
            return Some(format!("{} pods, wanted {instances}", self.members.len()));
        }
        if let Some(member) = self.members.iter().find(|member| !member.pod.ready || member.pod.terminating) {
            return Some(format!("{} is not ready or terminating", member.pod.name));
        }
        let others = || self.members.iter().filter(|member| member.pod.name != primary.pod.name);
        if let Some(member) = others().find(|member| !member.streams(primary)) {
            return Some(format!("{} does not stream", member.pod.name));
        }
        if let Some(member) = others().find(|member| !self.standbys.contains(&member.pod.name)) {
            return Some(format!("{} does not count for commits", member.pod.name));
        }
        None
    }
}

impl Account {
    fn says(&self, key: &str) -> Option<&str> {
        self.said.get(key)?.as_str()
    }

    /// Whether it says that it is a running primary, and is labelled so.
    pub(super) fn is_primary(&self) -> bool {
        self.says("state") == Some("running")
            && self.says("role") == Some(PRIMARY)
            && self.pod.role.as_deref() == Some(PRIMARY)
    }

    fn streams(&self, primary: &Self) -> bool {
        self.says("state") == Some("running")
            && self.says("replication_state") == Some("streaming")
            && self.said.get("timeline").is_some()
            && self.said.get("timeline") == primary.said.get("timeline")
            && self.pod.role.as_deref() == Some(labels::ROLE_REPLICA)
    }
}

impl From<&Pod> for Account {
    fn from(pod: &Pod) -> Self {
        let text = pod.annotations().get("status").cloned().unwrap_or_default();
        Self { pod: Member::from(pod), said: serde_json::from_str(&text).unwrap_or_default(), text }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for member in &self.members {
            let pod = &member.pod;
            write!(
                f,
                "{}[{} {} {}{} restarts {} says {} {} timeline {} {}] ",
                pod.name,
                pod.role.as_deref().unwrap_or("-"),
                pod.node.as_deref().unwrap_or("-"),
                if pod.ready { "ready" } else { "not ready" },
                pod.waiting.as_deref().map(|text| format!(" {text}")).unwrap_or_default(),
                pod.restarts,
                member.says("state").unwrap_or("-"),
                member.says("role").unwrap_or("-"),
                member.said.get("timeline").unwrap_or(&Value::Null),
                member.says("replication_state").unwrap_or("-"),
            )?;
        }
        let leader = self.leader.as_deref().unwrap_or("-");
        write!(f, "lock[{leader} {:?}] synchronous{:?}", self.routed, self.standbys)
    }
}

/// Where the nodes send connections to a Service: its slices, which Kubernetes makes from the lock's Endpoints.
pub(super) async fn route(world: &World, namespace: &str, service: &str) -> Result<Vec<String>> {
    let slices: Api<EndpointSlice> = world.api(namespace);
    let selector = format!("{}={service}", labels::SLICE_SERVICE);
    let slices = slices.list(&ListParams::default().labels(&selector)).await?;
    Ok(slices.into_iter().flat_map(|slice| slice.endpoints).flat_map(|endpoint| endpoint.addresses).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, ip: &str, role: &str, said: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "uid": name, "labels": {"role": role}, "annotations": {"status": said.to_string()}},
            "spec": {"containers": [{"name": "postgres"}], "nodeName": "node1"},
            "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": "True"}],
                       "containerStatuses": [{"name": "postgres", "containerID": "containerd://1", "image": "", "imageID": "",
                                              "ready": true, "restartCount": 0}]},
        }))
        .unwrap()
    }

    fn endpoints(annotations: &Value, ip: &str) -> Endpoints {
        serde_json::from_value(json!({
            "metadata": {"annotations": annotations}, "subsets": [{"addresses": [{"ip": ip}]}],
        }))
        .unwrap()
    }

    fn three(second: &Value) -> Vec<Pod> {
        let streaming =
            json!({"state": "running", "role": "replica", "replication_state": "streaming", "timeline": 2});
        vec![
            pod(
                "pg-0",
                "10.0.0.1",
                "primary",
                &json!({"state": "running", "role": "primary", "timeline": 2}),
            ),
            pod("pg-1", "10.0.0.2", "replica", second),
            pod("pg-2", "10.0.0.3", "replica", &streaming),
        ]
    }

    #[test]
    fn whole_needs_the_lock_the_route_and_every_standby() {
        let streaming =
            json!({"state": "running", "role": "replica", "replication_state": "streaming", "timeline": 2});
        let lock = endpoints(&json!({"leader": "pg-0", "transitions": "3"}), "10.0.0.1");
        let sync = endpoints(&json!({"leader": "pg-0", "sync_standby": "pg-1,pg-2", "quorum": "1"}), "");
        let route = ["10.0.0.1".to_owned()];
        let whole = State::of(&three(&streaming), Some(&lock), Some(&sync));
        assert_eq!(whole.deficiency(3, &route), None);
        assert_eq!(whole.roles()["pg-0"], "master");
        assert!(whole.deficiency(4, &route).is_some());
        assert!(whole.deficiency(3, &["10.0.0.9".to_owned()]).is_some());
        assert!(State::of(&three(&streaming), None, Some(&sync)).deficiency(3, &route).is_some());
        assert!(State::of(&three(&streaming), Some(&lock), None).deficiency(3, &route).is_some());
        let behind =
            json!({"state": "running", "role": "replica", "replication_state": "streaming", "timeline": 1});
        assert!(State::of(&three(&behind), Some(&lock), Some(&sync)).deficiency(3, &route).is_some());
        let away = endpoints(&json!({"leader": "pg-9"}), "10.0.0.1");
        assert_eq!(State::of(&three(&streaming), Some(&away), Some(&sync)).serving(), None);
    }
}
