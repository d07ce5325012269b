//! What the leader does for its application at the API server: a Service pointed at it, a label on its pod.
//!
//! Turned red by: a slice written without comparing epochs, a Service left pointing at who stepped down, a label on another
//! pod of the same name.

use std::path::Path;

use ha::{Boot, Epoch};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt as _;
use kube::api::PostParams;
use kubernetes::FieldManager;
use kubernetes::slices::{Family, Published, Route, Slices, Target};
use serde_json::{Value, json};

use crate::sidecar::Sidecar;
use crate::world::{World, until};

/// A sidecar of a pod of this name with this address.
pub(crate) fn beside(kubeconfig: &Path, pod: &str, ip: &str, arguments: &[&str]) -> Sidecar {
    let of_pod = [
        format!("--pod-name={pod}"),
        format!("--pod-uid=uid-of-{pod}"),
        format!("--pod-ip={ip}"),
        "--node-name=node".to_owned(),
    ];
    let mut all: Vec<&str> = of_pod.iter().map(String::as_str).collect();
    all.extend(arguments);
    Sidecar::start(kubeconfig, &all)
}

/// Where the Service `web` leads: pods' UIDs, and the epoch under which that was written.
async fn pointed(world: &World) -> (Vec<String>, Option<u64>) {
    let Some(slice) = world.api::<EndpointSlice>().get_opt("web-ipv4").await.unwrap() else {
        return (Vec::new(), None);
    };
    let epoch = slice.annotations().get("matriarch.dev/epoch").map(|epoch| epoch.parse().unwrap());
    let uid = |endpoint: &k8s_openapi::api::discovery::v1::Endpoint| {
        endpoint.target_ref.as_ref().unwrap().uid.clone().unwrap()
    };
    (slice.endpoints.iter().map(uid).collect(), epoch)
}

async fn points_at(world: &World, pod: &str, epoch: u64) {
    until(&format!("the Service points at {pod}"), || async {
        let seen = pointed(world).await;
        if seen == (vec![format!("uid-of-{pod}")], Some(epoch)) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
}

async fn service(world: &World, spec: Value) -> Service {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec});
    serde_json::from_value(world.apply(&service).await).unwrap()
}

#[tokio::test]
async fn the_service_follows_the_leader_and_no_older_one_points_it() {
    let world = World::new("service").await;
    world.free_lease("web").await;
    let service = service(&world, json!({"ports": [{"name": "http", "port": 80, "targetPort": 8080}]})).await;
    let kubeconfig = world.administrator();
    let arguments = ["--election=web", "--service=web", "--ttl=5s"];
    let one = beside(&kubeconfig, "web-0", "10.9.0.1", &arguments);
    let first = one.until_leads();
    points_at(&world, "web-0", first).await;
    let slice = world.api::<EndpointSlice>().get("web-ipv4").await.unwrap();
    assert_eq!(slice.labels()["kubernetes.io/service-name"], "web");
    assert_eq!(slice.endpoints[0].addresses, ["10.9.0.1"]);
    assert_eq!(slice.ports.as_ref().unwrap()[0].port, Some(8080));

    let two = beside(&kubeconfig, "web-1", "10.9.0.2", &arguments);
    two.until("follows", |two| two.name() == "web-0");
    // Frozen while it leads: it learns of nothing, and goes on afterwards as if nothing had been.
    one.signal("STOP");
    let second = two.until_leads();
    assert!(second > first);
    points_at(&world, "web-1", second).await;
    one.signal("CONT");
    one.until("it knows better", |one| one.name() == "web-1");

    // The write that it might have had under way, with its own epoch, and on the version that it had read.
    let route = Route {
        namespace: world.namespace.clone(),
        service: "web".to_owned(),
        port_name: "http".to_owned(),
        port: 8080,
        owner: OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            name: "web".to_owned(),
            uid: service.uid().unwrap(),
            ..OwnerReference::default()
        },
        labels: std::collections::BTreeMap::new(),
    };
    let late = Target {
        pod: "web-0".to_owned(),
        uid: "uid-of-web-0".to_owned(),
        addresses: vec!["10.9.0.1".parse().unwrap()],
        node: "node".to_owned(),
        zone: None,
    };
    let slices = Slices::new(world.calls.clone(), FieldManager::ELECTION);
    let published =
        slices.publish(&route, Family::V4, Epoch(first), Boot(1), std::slice::from_ref(&late)).await.unwrap();
    assert_eq!(published, Published::Superseded { by: Epoch(second) });
    let refused = world.api::<EndpointSlice>().replace("web-ipv4", &PostParams::default(), &slice).await;
    assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == 409));
    assert_eq!(pointed(&world).await, (vec!["uid-of-web-1".to_owned()], Some(second)));

    two.until("both stand", |two| two.status()["candidates"].as_array().unwrap().len() == 2);
    // On a machine that stands still for longer than the TTL somebody else may lead by now.
    if two.ask("POST", "/step-down?to=web-0").code == 200 {
        let third = one.until_leads();
        assert!(third > second);
        points_at(&world, "web-0", third).await;
    }
}

#[tokio::test]
async fn a_service_with_a_selector_is_refused_in_one_sentence() {
    let world = World::new("selector").await;
    world.free_lease("web").await;
    service(&world, json!({"selector": {"app": "web"}, "ports": [{"port": 80}]})).await;
    let kubeconfig = world.administrator();
    let one = beside(&kubeconfig, "web-0", "10.9.0.1", &["--election=web", "--service=web", "--ttl=10s"]);
    one.until("told", |one| {
        one.log().contains("the Service web has a selector, so Kubernetes points it itself")
    });
    assert_eq!(pointed(&world).await, (Vec::new(), None));
    // Mended without a restart.
    let selector = json!({"spec": {"selector": null}});
    let patch = kube::api::Patch::Merge(&selector);
    world.api::<Service>().patch("web", &kube::api::PatchParams::default(), &patch).await.unwrap();
    until("it points", || async {
        let (pods, _) = pointed(&world).await;
        if pods == ["uid-of-web-0"] { Ok(()) } else { Err(one.log()) }
    })
    .await;
}

#[tokio::test]
async fn the_own_pod_is_labelled_and_no_other_of_its_name() {
    let world = World::new("labels").await;
    world.free_lease("web").await;
    let mut uids = Vec::new();
    for name in ["web-0", "web-1"] {
        let pod = json!({"metadata": {"name": name}, "spec": {"automountServiceAccountToken": false,
            "containers": [{"name": "app", "image": "registry.test/app:1"}]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        // Pods are refused until the namespace has its service account.
        let made = until("a pod", || async {
            let made = world.api::<Pod>().create(&PostParams::default(), &pod).await;
            made.map_err(|error| error.to_string())
        })
        .await;
        uids.push(made.uid().unwrap());
    }
    let kubeconfig = world.administrator();
    let start = |pod: &str, uid: &str| {
        let (name, uid) = (format!("--pod-name={pod}"), format!("--pod-uid={uid}"));
        let all =
            ["--election=web", "--ttl=10m", "--label-pods=example.test/role=leader,follower", &name, &uid];
        Sidecar::start(&kubeconfig, &all)
    };
    let role = async |pod: &str| {
        let pod = world.api::<Pod>().get(pod).await.unwrap();
        pod.labels().get("example.test/role").cloned()
    };
    let labelled = async |pod: &str, value: &str| {
        until(&format!("{pod} is {value}"), || async {
            let seen = role(pod).await;
            if seen.as_deref() == Some(value) { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
    };
    let one = start("web-0", &uids[0]);
    one.until_leads();
    labelled("web-0", "leader").await;
    // A pod of that name that is gone: its sidecar must not label the one that took its place.
    let two = start("web-1", "uid-of-an-earlier-pod");
    two.until("told", |two| two.log().contains("the pod of this name is another one: not labelled"));
    assert_eq!(role("web-1").await, None);
    drop(two);
    let three = start("web-1", &uids[1]);
    labelled("web-1", "follower").await;
    one.until("both stand", |one| one.status()["candidates"].to_string().contains("web-1"));
    assert_eq!(one.ask("POST", "/step-down").code, 200);
    three.until_leads();
    labelled("web-1", "leader").await;
    labelled("web-0", "follower").await;
}
