//! The objects of a cluster as the API server has them: of the smallest manifest in every detail that the design names,
//! and of each manifest in `examples/`.
//!
//! Turned red by: an owner reference left out, a selector on a routed Service, a Role without names.

use std::collections::{BTreeMap, BTreeSet};

use api::{PostgresCluster, names};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource, ResourceExt as _};
use kubernetes::record::RecordRead;
use serde_json::json;

use crate::agents::Agents;
use crate::operator_process::Operator;
use crate::wait;
use crate::world::{self, World};

/// What stays when a cluster is deleted with `Retain` and therefore has no owner (K15).
fn is_kept(kind: &str, name: &str, cluster: &str) -> bool {
    kind == "Lease"
        || kind == "PersistentVolumeClaim"
        || [names::ca_secret(cluster), names::superuser_secret(cluster), names::app_secret(cluster)]
            .contains(&name.to_owned())
}

/// Every object belongs to its cluster by UID, or to nobody; all carry its label.
async fn owners(world: &World, cluster: &PostgresCluster) {
    let name = cluster.name_any();
    for kind in world::KINDS {
        if kind == world::CLUSTER || kind == world::POD {
            continue;
        }
        for object in world.all(&kind).await {
            let labels = &object["metadata"]["labels"];
            let ours = labels[names::labels::CLUSTER] == name.as_str();
            let of_us = kind != world::SLICE || labels[names::labels::SLICE_MANAGED_BY] == api::MANAGED_BY;
            if !ours || !of_us {
                continue;
            }
            let there = object["metadata"]["name"].as_str().unwrap();
            let owner = &object["metadata"]["ownerReferences"];
            if is_kept(kind.kind, there, &name) {
                assert!(owner.is_null(), "{} {there} is kept, so nobody owns it: {owner}", kind.kind);
            } else {
                let wanted = json!([{"apiVersion": "matriarch.dev/v1alpha1", "kind": "PostgresCluster",
                    "name": name, "uid": cluster.uid(), "controller": true}]);
                assert_eq!(*owner, wanted, "{} {there}", kind.kind);
            }
        }
    }
}

/// What holds for every cluster.
async fn everything(world: &World, cluster: &PostgresCluster) {
    let name = cluster.name_any();
    let (write, read) = services_of(cluster);
    owners(world, cluster).await;
    services(world, &name, &write, &read).await;
    secrets(world, cluster, &write).await;
    rights(world, cluster, &write, &read).await;
    stateful_set(world, cluster).await;
    let budget: PodDisruptionBudget = world.api().get(&names::disruption_budget(&name)).await.unwrap();
    let spec = budget.spec.unwrap();
    assert_eq!(spec.max_unavailable, Some(IntOrString::Int(1)));
    assert_eq!(spec.selector.unwrap().match_labels.unwrap(), names::labels::pool_selector(&name, "default"));
    let settings = world.get(&world::CONFIG_MAP, &names::settings(&name)).await.unwrap();
    let settings = settings["data"][names::SETTINGS_KEY].as_str().unwrap();
    let settings = api::MemberSettings::from_json(settings).unwrap();
    assert_eq!(settings.members.len(), usize::try_from(cluster.spec.instances).unwrap());
    assert_eq!((settings.services.write, settings.services.read), (write, read));
    assert_eq!(settings.cluster.uid, cluster.uid().unwrap());
}

fn services_of(cluster: &PostgresCluster) -> (String, String) {
    let (spec, name) = (&cluster.spec.services, cluster.name_any());
    let write = spec.write.name.clone().unwrap_or_else(|| names::write_service(&name));
    (write, spec.read.name.clone().unwrap_or_else(|| names::read_service(&name)))
}

/// K1, K2: no selector, slices of ours with the Service's port name.
async fn services(world: &World, name: &str, write: &str, read: &str) {
    let headless: Service = world.api().get(&names::headless_service(name)).await.unwrap();
    let headless = headless.spec.unwrap();
    assert_eq!(headless.cluster_ip.as_deref(), Some("None"));
    assert_eq!(headless.publish_not_ready_addresses, Some(true));
    assert_eq!(headless.selector, Some(names::labels::pool_selector(name, "default")));
    for service in [write, read] {
        let there: Service = world.api().get(service).await.unwrap();
        let spec = there.spec.unwrap();
        assert_eq!(spec.selector, None, "{service}: a selector would keep a cut-off member's address");
        assert_eq!(spec.type_.as_deref(), Some("ClusterIP"));
        let ports = spec.ports.unwrap();
        assert_eq!((ports.len(), ports[0].port), (1, 5432));
        let slice: EndpointSlice = world.api().get(&format!("{service}-ipv4")).await.unwrap();
        assert_eq!(slice.labels()["kubernetes.io/service-name"], service);
        assert_eq!(slice.labels()["endpointslice.kubernetes.io/managed-by"], "matriarch.dev");
        let port = slice.ports.unwrap().remove(0);
        assert_eq!((port.name, port.port), (ports[0].name.clone(), Some(5432)), "kube-proxy matches by name");
    }
}

/// K6: kept connections to a vanished node end by the settings in the URIs.
async fn secrets(world: &World, cluster: &PostgresCluster, write: &str) {
    let name = cluster.name_any();
    let data = |secret: Secret| -> BTreeMap<String, String> {
        let data = secret.data.unwrap_or_default();
        data.into_iter().map(|(key, value)| (key, String::from_utf8(value.0).unwrap())).collect()
    };
    let app = data(world.api().get(&names::app_secret(&name)).await.unwrap());
    let keys: BTreeSet<&str> = app.keys().map(String::as_str).collect();
    for key in ["host", "port", "dbname", "user", "password", "uri", "jdbc-uri", "ca.crt"] {
        assert!(keys.contains(key), "the app Secret has {key}: {keys:?}");
    }
    assert!(app["host"].starts_with(&format!("{write}.{}", world.namespace)), "{}", app["host"]);
    assert_eq!((app["dbname"].as_str(), app["user"].as_str()), ("app", "app"));
    let uri = &app["uri"];
    assert!(uri.starts_with(&format!("postgresql://app:{}@{}:5432/app?", app["password"], app["host"])));
    for setting in ["connect_timeout=", "keepalives=1", "keepalives_idle=", "tcp_user_timeout="] {
        assert!(uri.contains(setting), "{setting} in the URI");
    }
    let jdbc = &app["jdbc-uri"];
    assert!(jdbc.starts_with(&format!("jdbc:postgresql://{}:5432/app?", app["host"])));
    for setting in ["socketTimeout=", "tcpKeepAlive=true", "connectTimeout="] {
        assert!(jdbc.contains(setting), "{setting} in the JDBC URI");
    }
    let superuser = data(world.api().get(&names::superuser_secret(&name)).await.unwrap());
    assert_eq!(superuser["username"], "postgres");
    assert!(superuser["password"].len() >= 24 && superuser["password"] != app["password"]);
    let authority = data(world.api().get(&names::ca_secret(&name)).await.unwrap());
    for secret in [names::server_secret(&name), names::peer_secret(&name), names::client_secret(&name)] {
        let leaf = data(world.api().get(&secret).await.unwrap());
        assert_eq!(leaf["ca.crt"], authority["ca.crt"], "{secret}");
        assert!(pki::keys_match(&leaf["tls.crt"], &leaf["tls.key"]).is_ok(), "{secret}");
    }
    assert_eq!(app["ca.crt"], authority["ca.crt"]);
}

/// K17: members may touch their own cluster's objects and no others.
async fn rights(world: &World, cluster: &PostgresCluster, write: &str, read: &str) {
    let name = cluster.name_any();
    let account: ServiceAccount = world.api().get(&names::member_role(&name)).await.unwrap();
    assert_eq!(account.automount_service_account_token, Some(false));
    let binding: RoleBinding = world.api().get(&names::member_role(&name)).await.unwrap();
    let subject = binding.subjects.unwrap().remove(0);
    assert_eq!((subject.kind.as_str(), subject.name), ("ServiceAccount", account.name_any()));
    assert_eq!(binding.role_ref.name, names::member_role(&name));
    let role: Role = world.api().get(&names::member_role(&name)).await.unwrap();
    let mut named = BTreeMap::<String, BTreeSet<String>>::new();
    for rule in role.rules.unwrap() {
        let resource = rule.resources.unwrap().remove(0);
        let allowed = rule.resource_names.unwrap_or_default();
        let creates =
            rule.verbs.iter().all(|verb| verb == "create" || (resource == "events" && verb == "patch"));
        assert!(!allowed.is_empty() || creates, "{resource} {:?} without names", rule.verbs);
        assert!(!rule.verbs.iter().any(|verb| verb == "*" || verb == "delete"), "{resource}");
        named.entry(resource).or_default().extend(allowed);
    }
    let set = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
    let pods: Vec<String> = (0..u32::try_from(cluster.spec.instances).unwrap())
        .map(|ordinal| names::pod(&name, ordinal))
        .collect();
    assert_eq!(named["pods"], set(&pods));
    assert_eq!(named["leases"], set(&[names::lease(&name)]));
    assert_eq!(named["configmaps"], set(&[names::settings(&name)]));
    assert!(!named["secrets"].contains(&names::ca_secret(&name)), "the authority's key is not for members");
    let slices = [write, read].map(|service| ["ipv4", "ipv6"].map(|family| format!("{service}-{family}")));
    assert_eq!(named["endpointslices"], set(slices.as_flattened()));
}

/// K9, K12, K13.
async fn stateful_set(world: &World, cluster: &PostgresCluster) {
    let name = cluster.name_any();
    let set: StatefulSet = world.api().get(&names::stateful_set(&name)).await.unwrap();
    let spec = set.spec.unwrap();
    assert_eq!(spec.replicas, Some(cluster.spec.instances));
    assert_eq!(spec.pod_management_policy.as_deref(), Some("Parallel"));
    assert_eq!(spec.update_strategy.unwrap().type_.as_deref(), Some("OnDelete"));
    assert_eq!(spec.service_name.as_deref(), Some(names::headless_service(&name).as_str()));
    let retention = spec.persistent_volume_claim_retention_policy.unwrap();
    let retain = Some("Retain".to_owned());
    assert_eq!((retention.when_deleted, retention.when_scaled), (retain.clone(), retain));
    let claim = spec.volume_claim_templates.unwrap().remove(0);
    assert_eq!(claim.name_any(), names::DATA_CLAIM);
    let requests = claim.spec.unwrap().resources.unwrap().requests.unwrap();
    assert_eq!(requests["storage"], cluster.spec.storage.size.to_quantity());
    let pod = spec.template.spec.unwrap();
    assert_eq!(pod.automount_service_account_token, Some(false));
    assert_eq!(pod.service_account_name, Some(names::member_role(&name)));
    let security = pod.security_context.unwrap();
    assert_eq!(security.run_as_non_root, Some(true));
    assert_eq!(security.fs_group_change_policy.as_deref(), Some("OnRootMismatch"));
    assert!(!pod.topology_spread_constraints.unwrap_or_default().is_empty(), "spread over nodes and zones");
    assert_eq!(pod.termination_grace_period_seconds, Some(1800));
    let main = pod.containers.iter().find(|one| one.name == names::CONTAINER).unwrap();
    assert!(main.startup_probe.is_none(), "K7");
    assert_eq!(main.security_context.as_ref().unwrap().read_only_root_filesystem, Some(true));
    let claims: Vec<PersistentVolumeClaim> =
        world.calls.list(&world.namespace, &format!("{}={name}", names::labels::CLUSTER)).await.unwrap();
    assert_eq!(claims.len(), usize::try_from(cluster.spec.instances).unwrap());
    let identity = cluster.uid().unwrap();
    assert!(claims.iter().all(|claim| claim.labels()[names::labels::CLUSTER_UID] == identity));
}

#[tokio::test]
async fn the_smallest_cluster_has_every_object() {
    let world = World::new("objects").await;
    let operator = Operator::start(&world).await;
    let made = world.create("pg", json!({"storage": {"size": "1Gi"}})).await;
    wait::until("the record", || async {
        match world.record("pg").await {
            RecordRead::Known(there) => Ok(there),
            other => Err(other),
        }
    })
    .await;
    let RecordRead::Known(record) = world.record("pg").await else { panic!("no record") };
    assert_eq!(record.record(), &ha::Record::uninitialised(made.uid().unwrap()), "before any member ran");

    let _agents = Agents::play(&world, "pg");
    let cluster = world.healthy("pg").await;
    everything(&world, &cluster).await;
    assert_eq!(cluster.spec.instances, 3, "the default of the schema");
    assert_eq!(cluster.finalizers(), [names::FINALIZER]);
    let status = cluster.status.unwrap();
    assert_eq!((status.master.as_deref(), status.epoch), (Some("pg-0"), Some(1)));
    assert_eq!((status.instances, status.ready_instances), (Some(3), Some(3)));
    assert_eq!(status.selector, Some(names::labels::pool_selector_text("pg", "default")));
    let pinned = status.pinned.unwrap();
    assert_eq!((pinned.version, pinned.image.as_deref()), (17, Some("registry.test/postgres:17.6")));
    for (type_, is) in
        [("Ready", "True"), ("Progressing", "False"), ("Degraded", "False"), ("SpecValid", "True")]
    {
        assert_eq!(world.condition("pg", type_).await.0, is, "{type_}");
    }
    operator.kill();
}

#[tokio::test]
async fn every_example_has_its_objects() {
    let world = World::new("examples").await;
    let _operator = Operator::start(&world).await;
    let mut playing = Vec::new();
    let mut all = Vec::new();
    for entry in std::fs::read_dir(world::tree().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(path).unwrap();
        let manifest: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        if manifest["kind"] != "PostgresCluster" {
            continue;
        }
        let cluster = world.create_as(&manifest).await;
        playing.push(Agents::play(&world, &cluster.name_any()));
        all.push(cluster.name_any());
    }
    assert!(all.len() >= 5, "{all:?}");
    for name in all {
        let cluster = world.healthy(&name).await;
        println!("{name}: {} {}", PostgresCluster::kind(&()), cluster.spec.instances);
        everything(&world, &cluster).await;
    }
}
