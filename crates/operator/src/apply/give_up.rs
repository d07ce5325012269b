//! The one deletion that destroys a copy of the data (K14, S6).
//!
//! Reads everything that the decision rested on once more, right before. Must never delete a claim when anything is another
//! than it was: the next look decides anew. Proved by `tests`.

use api::names;
use k8s_openapi::api::core::v1::Pod;
use kubernetes::{
    CallError, Calls,
    delete::{Deleted, Deletion},
    record::{RecordRead, RecordStore},
};

use crate::{
    cluster::ValidatedCluster,
    dereference::{Observed, is_unscheduled},
    facts,
    plan::{self, replace::Home},
};

/// K14: deletes the claim of a member that is cloned anew, in the very version that was looked at. Just before, everything
/// that the decision rested on is read once more (S6): the record must say the same, no node may have taken the pod, and
/// a node that was gone must still be. False when anything is another, or the claim changed.
pub(super) async fn give_up(
    calls: &Calls,
    cluster: &ValidatedCluster,
    observed: &Observed,
    (name, uid): &(String, String),
    pod: Option<&plan::Deletion>,
) -> Result<bool, CallError> {
    let Some(pod) = pod else { return Ok(false) };
    let claim = observed.claims.iter().find(|claim| claim.metadata.name.as_ref() == Some(name));
    let Some(claim) = claim.filter(|claim| claim.metadata.uid.as_ref() == Some(uid)) else {
        return Ok(false);
    };
    let store = RecordStore::new(calls.clone(), &cluster.namespace, names::lease(&cluster.name));
    let (RecordRead::Known(now), RecordRead::Known(then)) = (store.read().await, &observed.record) else {
        return Ok(false);
    };
    if now.record() != then.record() {
        return Ok(false);
    }
    if let Some((host, seen)) = observed.hosts.get(name)
        && is_lost(&facts::home(host, seen))
        && !is_lost(&facts::home(host, &calls.node_of_host(host).await))
    {
        return Ok(false);
    }
    let still_waits = |now: &Pod| {
        let phase = now.status.as_ref().and_then(|status| status.phase.as_deref());
        now.metadata.uid.as_ref() == Some(&pod.uid)
            && now.metadata.deletion_timestamp.is_none()
            && phase == Some("Pending")
            && is_unscheduled(now)
    };
    if !calls.get::<Pod>(&cluster.namespace, &pod.pod).await?.as_ref().is_some_and(still_waits) {
        return Ok(false);
    }
    tracing::warn!(cluster = cluster.name, claim = name, uid, "the claim is given up");
    Ok(calls.delete(claim, Deletion::UNCHANGED).await? == Deleted::Accepted)
}

fn is_lost(home: &Home) -> bool {
    match home {
        Home::Gone(_) | Home::OutOfService(_) => true,
        Home::Anywhere | Home::On(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
        time::Duration,
    };

    use http::{Request, Response};
    use kube::{Client, client::Body};
    use kubernetes::nodes::NodeSeen;
    use serde_json::{Value, json};

    use super::*;
    use crate::{build::certificates::Existing, config::Defaults, validate::validate};

    fn lease(epoch: u64) -> Value {
        let content = json!({
            "phase": "running", "clusterUid": "c", "systemIdentifier": 7_u64, "epoch": epoch, "timeline": 3,
            "history": [], "historyCount": 3,
            "leader": {"name": "pg-0", "podUid": "uid-0", "boot": "00000000000000aa",
                "incarnation": "0000000000000000", "node": "node1"},
            "electorates": [],
        });
        json!({
            "metadata": {"name": "pg", "uid": "lease", "resourceVersion": "1",
                "annotations": {"matriarch.dev/record": content.to_string()}},
            "spec": {"holderIdentity": "pg-0", "leaseTransitions": epoch},
        })
    }

    fn pod(uid: &str, node: Option<&str>) -> Value {
        let scheduled = if node.is_some() { "True" } else { "False" };
        json!({"metadata": {"name": "pg-2", "uid": uid}, "spec": {"nodeName": node, "containers": []},
            "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": scheduled}]}})
    }

    /// What is read right before, and how the deletion is answered.
    struct Now {
        epoch: u64,
        pod: Option<Value>,
        nodes: Vec<Value>,
        deletion: u16,
    }

    impl Default for Now {
        fn default() -> Self {
            Self { epoch: 3, pod: Some(pod("uid-2", None)), nodes: Vec::new(), deletion: 200 }
        }
    }

    /// Whether it was done, and what was demanded of the claim that was deleted.
    async fn given_up(home: NodeSeen, now: Now) -> (bool, Option<Value>) {
        let asked = Arc::new(Mutex::new(None));
        let (now, log) = (Arc::new(now), asked.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (now, log) = (now.clone(), log.clone());
            async move {
                let path = request.uri().path().to_owned();
                let delete = request.method() == http::Method::DELETE;
                let body = request.into_body().collect_bytes().await.unwrap();
                let missing =
                    (404, json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}));
                let (code, answer) = if delete && path.ends_with("/persistentvolumeclaims/pgdata-pg-2") {
                    let demanded: Value = serde_json::from_slice(&body).unwrap();
                    *log.lock().unwrap() = Some(demanded["preconditions"].clone());
                    let reason = if now.deletion == 200 { "" } else { "Conflict" };
                    let status = if now.deletion == 200 { "Success" } else { "Failure" };
                    (
                        now.deletion,
                        json!({"kind": "Status", "status": status, "reason": reason, "code": now.deletion}),
                    )
                } else if path.ends_with("/leases/pg") {
                    (200, lease(now.epoch))
                } else if path.ends_with("/pods/pg-2") {
                    now.pod.clone().map_or(missing, |pod| (200, pod))
                } else if path == "/api/v1/nodes" {
                    (200, json!({"metadata": {}, "items": now.nodes}))
                } else {
                    missing
                };
                let body = Body::from(answer.to_string().into_bytes());
                Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
            }
        });
        let calls = Calls::new(Client::new(service, "shop"), Duration::from_secs(1));
        let cluster = serde_yaml::from_str(
            "{apiVersion: matriarch.dev/v1alpha1, kind: PostgresCluster, metadata: {name: pg, namespace: shop, uid: u},
              spec: {storage: {size: 1Gi}}}",
        )
        .unwrap();
        let defaults = Defaults {
            images: [(17, "pg:17".to_owned())].into(),
            major: 17,
            agent_image: "agent".to_owned(),
        };
        let cluster = validate(&cluster, None, &defaults, false).unwrap();
        let claim = json!({"metadata": {"name": "pgdata-pg-2", "namespace": "shop", "uid": "claim-2",
            "resourceVersion": "9"}});
        let observed = Observed {
            record: RecordRead::of(serde_json::from_value(lease(3)).unwrap()),
            stateful_set: None,
            pods: Vec::new(),
            claims: vec![serde_json::from_value(claim).unwrap()],
            certificates: Existing::default(),
            superuser: None,
            app: None,
            templates: None,
            nodes: std::collections::BTreeMap::new(),
            hosts: [("pgdata-pg-2".to_owned(), ("n3".to_owned(), home))].into(),
            slices: Vec::new(),
            slice_names: Vec::new(),
        };
        let wanted = ("pgdata-pg-2".to_owned(), "claim-2".to_owned());
        let deletion = plan::Deletion { pod: "pg-2".to_owned(), uid: "uid-2".to_owned(), why: String::new() };
        let done = give_up(&calls, &cluster, &observed, &wanted, Some(&deletion)).await.unwrap();
        let demanded = asked.lock().unwrap().take();
        (done, demanded)
    }

    fn there() -> Value {
        json!({"metadata": {"name": "other", "labels": {"kubernetes.io/hostname": "n3"}}})
    }

    #[tokio::test]
    async fn k14_the_claim_that_was_looked_at_goes_and_no_other() {
        let (done, demanded) = Box::pin(given_up(NodeSeen::Gone, Now::default())).await;
        assert!(done);
        assert_eq!(demanded.unwrap(), json!({"uid": "claim-2", "resourceVersion": "9"}));
        for deletion in [404, 409] {
            let (done, _) = Box::pin(given_up(NodeSeen::Gone, Now { deletion, ..Now::default() })).await;
            assert!(!done, "{deletion}: the pod must stay");
        }
    }

    #[tokio::test]
    async fn s6_nothing_is_given_up_when_anything_changed_meanwhile() {
        let changed = [
            ("another term", Now { epoch: 4, ..Now::default() }),
            ("a node took the pod", Now { pod: Some(pod("uid-2", Some("n1"))), ..Now::default() }),
            ("another pod", Now { pod: Some(pod("other", None)), ..Now::default() }),
            ("no pod", Now { pod: None, ..Now::default() }),
            ("the node came back", Now { nodes: vec![there()], ..Now::default() }),
        ];
        for (what, now) in changed {
            assert_eq!(Box::pin(given_up(NodeSeen::Gone, now)).await, (false, None), "{what}");
        }
        // With replaceAfter the node may be there all the time.
        let facts = kubernetes::nodes::NodeFacts::default();
        let now = Now { nodes: vec![there()], ..Now::default() };
        assert!(Box::pin(given_up(NodeSeen::There(facts), now)).await.0);
    }
}
