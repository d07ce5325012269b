//! What a pod says that the protocol needs: an identity, an address, and whether it is leaving.

use crate::labels::{ROLE_LABEL, Role};
use k8s_openapi::api::core::v1::Pod;
use std::net::IpAddr;

/// The facts of one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    /// Its name.
    pub name: String,
    /// Its UID: the identity.
    pub uid: String,
    /// Its addresses; empty before the network is there.
    pub addresses: Vec<IpAddr>,
    /// Its node; `None` before it is scheduled.
    pub node: Option<String>,
    /// It has a deletionTimestamp: no target of a hand-over (K16).
    pub terminating: bool,
    /// It ran to its end (Succeeded, Failed): its address may already be another's.
    pub finished: bool,
    /// Its Ready condition; `None` when it has none.
    pub ready: Option<bool>,
    /// Its role label, when it is one of ours.
    pub role: Option<Role>,
}

impl PodFacts {
    /// Reads a pod; `None` for one without name or UID, which no API server sends.
    pub fn of(pod: &Pod) -> Option<Self> {
        let status = pod.status.as_ref();
        let mut addresses: Vec<IpAddr> = status
            .and_then(|status| status.pod_ips.as_ref())
            .into_iter()
            .flatten()
            .filter_map(|ip| ip.ip.parse().ok())
            .collect();
        if addresses.is_empty() {
            addresses.extend(status.and_then(|status| status.pod_ip.as_ref()?.parse::<IpAddr>().ok()));
        }
        let ready = status
            .and_then(|status| status.conditions.as_ref())
            .and_then(|conditions| conditions.iter().find(|condition| condition.type_ == "Ready"))
            .map(|condition| condition.status == "True");
        let phase = status.and_then(|status| status.phase.as_deref());
        Some(Self {
            name: pod.metadata.name.clone()?,
            uid: pod.metadata.uid.clone()?,
            addresses,
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            finished: matches!(phase, Some("Succeeded" | "Failed")),
            ready,
            role: pod
                .metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(ROLE_LABEL))
                .and_then(|role| Role::parse(role)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::PodFacts;
    use crate::labels::Role;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    #[test]
    fn facts_come_from_metadata_spec_and_status() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "pg-0", "uid": "u", "labels": {"role": "master"}},
            "spec": {"nodeName": "node-a", "containers": []},
            "status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
                       "conditions": [{"type": "Ready", "status": "True"}]},
        }))
        .unwrap();
        let facts = PodFacts::of(&pod).unwrap();
        assert_eq!((facts.role, facts.ready, facts.addresses.len()), (Some(Role::Master), Some(true), 2));
        assert!(!facts.terminating && !facts.finished);
    }
}
