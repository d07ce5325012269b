//! The control plane: etcd, the API server, the controller manager, the scheduler, CoreDNS and the provisioner
//! of volumes, each a process in the control plane's network, and the objects that make them a cluster.

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::layout::{
    API_PORT, CONTROL_ADDRESS, DNS_ADDRESS, DNS_SERVICE_ADDRESS, Layout, Record, SERVICE_RANGE,
    VOLUMES_IN_NODE, control_netns, write,
};
use super::net;
use super::process::{self, Service};
use crate::command;
use crate::golang::Programs;

/// How long the API server may take from start to ready; four seconds is usual.
const READY: Duration = Duration::from_secs(120);
/// The components without which no pod is ever started, in the order of their start.
const COMPONENTS: [&str; 7] =
    ["relay", "etcd", "apiserver", "controller-manager", "scheduler", "coredns", "provisioner"];
/// How many of them a rig without nodes has: those that only serve pods are left out.
const WITHOUT_NODES: usize = 4;

/// The components that this rig consists of, in the order of their start.
pub(crate) fn components(record: &Record) -> &'static [&'static str] {
    if record.nodes == 0 { COMPONENTS.get(..WITHOUT_NODES).unwrap_or(&COMPONENTS) } else { &COMPONENTS }
}

/// Starts what does not run yet and waits until the API server is ready.
pub(crate) fn ensure(layout: &Layout, record: &Record) -> Result<()> {
    let programs = &record.programs;
    relay(layout, record)?;
    start(layout, "etcd", etcd(layout, programs, record))?;
    wait(layout, "etcd", READY, || {
        net::within(&control_netns(), || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, 2379)).map(drop).context("reaching its port")
        })
    })?;
    start(layout, "apiserver", apiserver(layout, programs)?)?;
    wait(layout, "apiserver", READY, || {
        let mut ready = kubectl(layout, programs);
        ready.args(["get", "--raw", "/readyz", "--request-timeout=2s"]);
        command::output(&mut ready).map(drop)
    })?;
    start(layout, "controller-manager", controller_manager(layout, programs))?;
    if record.nodes == 0 {
        return Ok(());
    }
    start(layout, "scheduler", scheduler(layout, programs))?;
    apply(layout, programs, &objects())?;
    start(layout, "coredns", coredns(layout, programs)?)?;
    start(layout, "provisioner", provisioner(layout, programs))
}

/// Makes sure that nothing has died since it was started.
pub(crate) fn all_alive(layout: &Layout, record: &Record) -> Result<()> {
    for component in components(record) {
        let alive = process::recorded(layout, component).is_some_and(process::Identity::alive);
        ensure!(alive, "{component} died; the end of its log:\n  {}", end_of_log(layout, component));
    }
    Ok(())
}

/// Waits until `check` succeeds. When the time is over or the program has died, the error says which program,
/// what was wrong last, and shows the end of its log.
pub(crate) fn wait(
    layout: &Layout,
    component: &str,
    limit: Duration,
    mut check: impl FnMut() -> Result<()>,
) -> Result<()> {
    let started = Instant::now();
    loop {
        let Err(error) = check() else { return Ok(()) };
        let alive = process::recorded(layout, component).is_some_and(process::Identity::alive);
        if !alive || started.elapsed() > limit {
            let what = if alive { "did not become ready" } else { "died" };
            bail!("{component} {what}: {error:#}\nthe end of its log:\n  {}", end_of_log(layout, component));
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// The last lines that a program wrote.
pub(crate) fn end_of_log(layout: &Layout, component: &str) -> String {
    match std::fs::read(layout.log(component)) {
        Ok(log) => command::last_lines(&String::from_utf8_lossy(&log), 25),
        Err(error) => format!("(no log: {error})"),
    }
}

/// `kubectl` as the administrator, through the relay.
pub(crate) fn kubectl(layout: &Layout, programs: &Programs) -> std::process::Command {
    let mut kubectl = command::command(&programs.kube, ["kubectl"]);
    kubectl.env("KUBECONFIG", layout.kubeconfig());
    kubectl
}

/// Creates or updates objects.
pub(crate) fn apply(layout: &Layout, programs: &Programs, objects: &Value) -> Result<()> {
    let mut apply = kubectl(layout, programs);
    apply.args(["apply", "--server-side", "--force-conflicts", "--field-manager=rig", "-f", "-"]);
    command::feed(&mut apply, objects.to_string().as_bytes())
        .map(drop)
        .context("creating the rig's own objects")
}

fn start(layout: &Layout, name: &str, command: Vec<String>) -> Result<()> {
    Service { name, netns: Some(&control_netns()), command }.ensure(layout).map(drop)
}

fn relay(layout: &Layout, record: &Record) -> Result<()> {
    let own = std::env::current_exe().context("finding this program")?;
    let command =
        vec![text(&own), "rig".into(), "relay".into(), "--port".into(), record.relay_port.to_string()];
    Service { name: "relay", netns: None, command }.ensure(layout).map(drop)
}

fn etcd(layout: &Layout, programs: &Programs, record: &Record) -> Vec<String> {
    let mut command = vec![
        text(&programs.etcd),
        format!("--data-dir={}", text(&layout.path("etcd"))),
        "--listen-client-urls=http://127.0.0.1:2379".into(),
        "--advertise-client-urls=http://127.0.0.1:2379".into(),
        "--listen-peer-urls=http://127.0.0.1:2380".into(),
        "--log-level=warn".into(),
    ];
    if !record.fsync {
        command.push("--unsafe-no-fsync".into());
    }
    command
}

fn apiserver(layout: &Layout, programs: &Programs) -> Result<Vec<String>> {
    let pki = |file: &str| text(&layout.pki(file));
    // Tests count the writes of every client per minute, so the log holds each request once, when it is over.
    write(
        layout.path("audit-policy.json"),
        json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
            "rules": [{"level": "None", "nonResourceURLs": ["/readyz*", "/livez*", "/healthz*"]}, {"level": "Metadata"}]})
        .to_string(),
    )?;
    Ok(vec![
        text(&programs.kube),
        "kube-apiserver".into(),
        "--etcd-servers=http://127.0.0.1:2379".into(),
        format!("--advertise-address={CONTROL_ADDRESS}"),
        format!("--secure-port={API_PORT}"),
        format!("--service-cluster-ip-range={SERVICE_RANGE}"),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--service-account-key-file={}", pki("accounts.pub")),
        format!("--service-account-signing-key-file={}", pki("accounts.key")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
        format!("--kubelet-client-key={}", pki("kubelet-client.key")),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        "--kubelet-preferred-address-types=InternalIP".into(),
        "--allow-privileged=true".into(),
        "--enable-aggregator-routing=true".into(),
        format!("--requestheader-client-ca-file={}", pki("ca.crt")),
        "--requestheader-allowed-names=front-proxy-client".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        format!("--proxy-client-cert-file={}", pki("front.crt")),
        format!("--proxy-client-key-file={}", pki("front.key")),
        format!("--audit-policy-file={}", text(&layout.path("audit-policy.json"))),
        format!("--audit-log-path={}", text(&layout.path("log/audit.log"))),
        "--audit-log-maxsize=1000".into(),
        "--audit-log-maxbackup=1".into(),
    ])
}

fn controller_manager(layout: &Layout, programs: &Programs) -> Vec<String> {
    let pki = |file: &str| text(&layout.pki(file));
    vec![
        text(&programs.kube),
        "kube-controller-manager".into(),
        format!("--kubeconfig={}", text(&layout.inner_kubeconfig("controller-manager"))),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--service-account-private-key-file={}", pki("accounts.key")),
        "--use-service-account-credentials".into(),
        "--allocate-node-cidrs=false".into(),
        "--leader-elect=false".into(),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
    ]
}

fn scheduler(layout: &Layout, programs: &Programs) -> Vec<String> {
    vec![
        text(&programs.kube),
        "kube-scheduler".into(),
        format!("--kubeconfig={}", text(&layout.inner_kubeconfig("scheduler"))),
        "--leader-elect=false".into(),
    ]
}

/// As stock as it can be (K5): answers live 30 s, and so does the memory that there was no answer.
fn coredns(layout: &Layout, programs: &Programs) -> Result<Vec<String>> {
    let corefile = format!(
        ".:53 {{
  bind {DNS_ADDRESS}
  errors
  ready 127.0.0.1:8181
  kubernetes cluster.local in-addr.arpa ip6.arpa {{
    kubeconfig {}
    pods insecure
    fallthrough in-addr.arpa ip6.arpa
    ttl 30
  }}
  cache 30
  loadbalance
}}
",
        text(&layout.inner_kubeconfig("admin"))
    );
    let path = layout.path("Corefile");
    write(path.clone(), corefile)?;
    Ok(vec![text(&programs.coredns), "-conf".into(), text(&path)])
}

fn provisioner(layout: &Layout, programs: &Programs) -> Vec<String> {
    vec![
        text(&programs.kube),
        "rig-provisioner".into(),
        format!("--kubeconfig={}", text(&layout.inner_kubeconfig("admin"))),
        format!("--state={}", text(&layout.state())),
        format!("--mounted={VOLUMES_IN_NODE}"),
    ]
}

/// What a cluster's installer would create: kube-proxy's rights, DNS, the default storage class.
fn objects() -> Value {
    let ports = json!([{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]);
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "rig-node-proxy"},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:node-proxier"},
         "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-proxy"}]},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns", "namespace": "kube-system"},
         "spec": {"clusterIP": DNS_SERVICE_ADDRESS, "ports": ports}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
         "metadata": {"name": "kube-dns-rig", "namespace": "kube-system", "labels": {"kubernetes.io/service-name": "kube-dns"}},
         "ports": ports, "endpoints": [{"addresses": [DNS_ADDRESS], "conditions": {"ready": true}}]},
        {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "rig.test/local-path",
         "metadata": {"name": "local-path", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
         "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Delete"},
    ]})
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
