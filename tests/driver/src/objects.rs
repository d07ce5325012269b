//! What the operator and the kubelets would have made: one cluster of two members.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use api::names;
use api::settings::{FORMAT, MemberSettings};
use ha::Record;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use kubernetes::record::RECORD_ANNOTATION;
use pki::{Authority, Leaf};
use serde_json::{Value, json};

use crate::api_server::ApiServer;

/// The cluster's name.
pub const CLUSTER: &str = "pg";
/// Its namespace.
pub const NAMESPACE: &str = "shop";
/// Its UID.
pub const CLUSTER_UID: &str = "uid-of-the-cluster";
/// The slice that leads to the master.
pub const WRITE_SLICE: &str = "pg-pgwrite-ipv4";
/// The slice that leads to the followers.
pub const READ_SLICE: &str = "pg-pgread-ipv4";

/// A machine that stands still for a while must not change who leads: a killed agent that takes long to be back is not
/// suspected, and a master that nobody answers meanwhile does not fence itself.
pub const PATIENT: Duration = Duration::from_secs(60);

/// Settings, certificates, passwords, pods, empty slices, and a record that says "uninitialised".
pub fn make(api: &ApiServer, major: u16, members: &BTreeMap<String, Ipv4Addr>) {
    let spec = json!({"storage": {"size": "1Gi"}, "version": major});
    api.put(
        "postgresclusters",
        json!({"apiVersion": format!("{}/{}", api::GROUP, api::VERSION), "kind": "PostgresCluster",
            "metadata": {"name": CLUSTER, "namespace": NAMESPACE, "uid": CLUSTER_UID}, "spec": spec}),
    );
    for (name, address) in members {
        pod(api, name, *address);
    }
    for (slice, service) in
        [(WRITE_SLICE, names::write_service(CLUSTER)), (READ_SLICE, names::read_service(CLUSTER))]
    {
        api.put(
            "endpointslices",
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": slice, "namespace": NAMESPACE,
                    "labels": {kubernetes::slices::SERVICE_LABEL: service}},
                "endpoints": []}),
        );
    }
    let record = serde_json::to_string(&Record::uninitialised(CLUSTER_UID)).unwrap();
    api.put(
        "leases",
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": names::lease(CLUSTER), "namespace": NAMESPACE,
                "annotations": {RECORD_ANNOTATION: record}},
            "spec": {"leaseTransitions": 0}}),
    );
    certificates(api);
    secret(api, &names::superuser_secret(CLUSTER), &[("user", "postgres"), ("password", "super secret")]);
    let app = [("user", "app"), ("password", "secret"), ("dbname", "app")];
    secret(api, &names::app_secret(CLUSTER), &app);
    settings(api, major, members, &[], PATIENT);
}

/// A pod that runs.
fn pod(api: &ApiServer, name: &str, address: Ipv4Addr) {
    api.put(
        "pods",
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE, "uid": format!("uid-of-{name}")},
            "spec": {"nodeName": format!("node-of-{name}"), "containers": []},
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
                "conditions": [{"type": "Ready", "status": "True"}]}}),
    );
}

fn certificates(api: &ApiServer) {
    let now = Timestamp::now();
    let authority = Authority::create(CLUSTER, now).unwrap();
    let (write, read) = (names::write_service(CLUSTER), names::read_service(CLUSTER));
    let server = pki::names::server_names(CLUSTER, NAMESPACE, &[&write, &read]);
    let peer = names::peer_common_name(CLUSTER, NAMESPACE);
    let leaves = [
        (names::server_secret(CLUSTER), Leaf::server(server)),
        (names::client_secret(CLUSTER), Leaf::client(names::REPLICATION_COMMON_NAME)),
        (names::peer_secret(CLUSTER), Leaf::peer(peer, pki::names::peer_names(CLUSTER, NAMESPACE))),
    ];
    for (name, leaf) in leaves {
        let issued = authority.issue(&leaf, now).unwrap();
        let files = [
            ("tls.crt", issued.certificate_pem()),
            ("tls.key", issued.key_pem()),
            ("ca.crt", authority.certificate_pem()),
        ];
        secret(api, &name, &files);
    }
}

fn secret(api: &ApiServer, name: &str, files: &[(&str, &str)]) {
    let data: BTreeMap<&str, ByteString> =
        files.iter().map(|(key, text)| (*key, ByteString(text.as_bytes().to_vec()))).collect();
    let metadata = json!({"name": name, "namespace": NAMESPACE});
    api.put("secrets", json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}));
}

/// The wishes, with these members told to hand over, and this silence of a master before the others elect.
pub fn settings(
    api: &ApiServer,
    major: u16,
    members: &BTreeMap<String, Ipv4Addr>,
    away: &[&str],
    detection: Duration,
) {
    let plans: serde_json::Map<String, Value> = members
        .keys()
        .map(|name| (name.clone(), json!({"host": names::member_host(CLUSTER, NAMESPACE, name)})))
        .collect();
    // Small, and clients without TLS: what they see is not about that.
    let postgres = json!({
        "parameters": {"shared_buffers": "16MB", "max_connections": "30", "max_worker_processes": "4",
            "min_wal_size": "32MB", "max_wal_size": "64MB", "wal_keep_size": "128MB"},
        "hba": ["hostnossl app app 127.0.0.0/8 trust"],
    });
    let wanted = json!({
        "format": FORMAT, "generation": 1, "version": major,
        "cluster": {"name": CLUSTER, "namespace": NAMESPACE, "uid": CLUSTER_UID, "identity": CLUSTER_UID},
        "members": plans,
        "handoverAway": away,
        "postgres": postgres,
        "failover": {"detectionMs": detection.as_millis(), "fenceMs": 60_000, "shrinkAfterMs": 1500},
        "services": {"write": names::write_service(CLUSTER), "read": names::read_service(CLUSTER),
            "readMaxLagBytes": 16 << 20},
    });
    let wanted = MemberSettings::from_json(&wanted.to_string()).unwrap();
    let data: Value = json!({names::SETTINGS_KEY: wanted.to_json().unwrap()});
    let metadata = json!({"name": names::settings(CLUSTER), "namespace": NAMESPACE});
    api.put(
        "configmaps",
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}),
    );
}
