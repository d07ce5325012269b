//! The operator as a process, as the chart starts it, with the chart's rights.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use controller::world::{IDENTITY, KUBECONFIG, World};
use driver::scratch::Scratch;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long it may take to lead, and to end. Generous: they only catch a hang.
const BOUND: Duration = Duration::from_secs(60);
/// How often it is asked.
const PACE: Duration = Duration::from_millis(20);
/// The Lease of the election.
const LEASE: &str = "matriarch-operator";

/// Everything that an operator needs to be started.
pub(super) struct Installed {
    program: PathBuf,
    namespace: String,
    directory: Scratch,
    kubeconfig: PathBuf,
}

impl Installed {
    /// Gives it an identity, and the rights in its own namespace that the chart gives it there; the others are there.
    pub(super) async fn new(world: &World, program: &Path) -> Result<Self> {
        let directory = Scratch::new_in(&std::env::temp_dir(), "scale-").context("make a directory")?;
        let text = std::fs::read_to_string(std::env::var_os(KUBECONFIG).context("no API server is named")?);
        let mut file: Value = serde_yaml::from_str(&text.context("read the kubeconfig")?)?;
        for user in file["users"].as_array_mut().into_iter().flatten() {
            user["user"]["as"] = IDENTITY.into();
        }
        let kubeconfig = directory.path().join("kubeconfig");
        std::fs::write(&kubeconfig, file.to_string()).context("write a kubeconfig")?;
        elects(world).await?;
        let (program, namespace) = (program.to_owned(), world.namespace.clone());
        Ok(Self { program, namespace, directory, kubeconfig })
    }

    /// The program.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Starts one.
    pub(super) fn start(&self) -> Result<Operator> {
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
        let http = free.local_addr().context("find a free port")?;
        drop(free);
        let log = self.directory.path().join("log");
        let file = File::create(&log).context("make a log")?;
        let started = Instant::now();
        let child = Command::new(&self.program)
            .args(["run", "--agent-image", "registry.test/matriarch:1", "--identity", "measured"])
            .args(["--default-image", "17=registry.test/postgres:17.6"])
            .args(["--leader-election-namespace", &self.namespace, "--http", &http.to_string()])
            .env_clear()
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("make a log")?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        Ok(Operator { child, http, started, log })
    }
}

/// An operator that runs; killed when dropped.
pub(super) struct Operator {
    child: Child,
    http: SocketAddr,
    started: Instant,
    log: PathBuf,
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Operator {
    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What its metrics say.
    pub(super) async fn numbers(&self) -> Result<Numbers> {
        let asked = tokio::time::timeout(BOUND, async {
            let mut stream = TcpStream::connect(self.http).await?;
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await.map(|_| text)
        });
        Ok(Numbers(asked.await.context("the operator does not answer")?.context("ask the operator")?))
    }

    /// Waits until it leads; since its start.
    pub(super) async fn leads(&self) -> Result<Duration> {
        self.until("to lead", BOUND, |numbers| numbers.sum("matriarch_operator_leading", &[]) > 0).await
    }

    /// Waits until so many `StatefulSet`s were applied, each of which is the last object of its cluster; since its start.
    pub(super) async fn applied(&self, clusters: u32) -> Result<Duration> {
        let bound = BOUND + Duration::from_secs(u64::from(clusters) * 2);
        self.until("to apply everything", bound, |numbers| {
            numbers.requests(&[r#"verb="patch""#, r#"resource="statefulsets""#, r#"status="200""#])
                >= u64::from(clusters)
        })
        .await
    }

    async fn until(&self, what: &str, bound: Duration, done: impl Fn(&Numbers) -> bool) -> Result<Duration> {
        loop {
            // It does not listen at first.
            if self.numbers().await.is_ok_and(|numbers| done(&numbers)) {
                return Ok(self.started.elapsed());
            }
            if self.started.elapsed() > bound {
                bail!("the operator took longer than {bound:?} {what}; it said last:\n{}", self.said());
            }
            tokio::time::sleep(PACE).await;
        }
    }

    /// Tells it to end and waits for it; it gives the leadership back.
    pub(super) async fn end(mut self) -> Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("a process without id")?;
        kill_process(pid, Signal::TERM).context("end the operator")?;
        let asked = Instant::now();
        while self.child.try_wait().context("wait for the operator")?.is_none() {
            ensure!(asked.elapsed() < BOUND, "the operator does not end; it said last:\n{}", self.said());
            tokio::time::sleep(PACE).await;
        }
        Ok(())
    }

    /// The end of its log.
    pub(super) fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }
}

/// Counters and gauges at one moment.
pub(super) struct Numbers(String);

impl Numbers {
    /// The sum over all lines of this name that have these labels.
    pub(super) fn sum(&self, name: &str, labels: &[&str]) -> u64 {
        let lines = self.0.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    }

    /// Requests to the API server.
    pub(super) fn requests(&self, labels: &[&str]) -> u64 {
        self.sum("matriarch_operator_api_requests_total", labels)
    }

    /// How often it looked at a cluster.
    pub(super) fn reconciliations(&self) -> u64 {
        self.sum("matriarch_operator_reconciliations_total", &[])
    }
}

/// The rights for the election of a leader, and its Lease.
async fn elects(world: &World) -> Result<()> {
    let account = IDENTITY.rsplit(':').take(2).collect::<Vec<_>>();
    let [name, namespace] = account.as_slice() else { bail!("{IDENTITY} is no service account") };
    let objects = [
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": LEASE},
            "rules": [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [LEASE],
                "verbs": ["get", "list", "watch", "update"]}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": LEASE},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": LEASE},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}]}),
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": LEASE}}),
    ];
    for object in objects {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let (group, version) = text("apiVersion").rsplit_once('/').unwrap_or_default();
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("kind")));
        let api: Api<DynamicObject> =
            Api::namespaced_with(world.calls.client().clone(), &world.namespace, &resource);
        let applied = api.patch(LEASE, &PatchParams::apply("tests").force(), &Patch::Apply(&object)).await;
        applied.with_context(|| format!("apply the {}", text("kind")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_summed_by_name_and_labels() {
        let text = "matriarch_operator_leading 1\nmatriarch_operator_api_requests_total{verb=\"get\",status=\"200\"} 3\n\
                    matriarch_operator_api_requests_total{verb=\"patch\",status=\"200\"} 4\n# EOF\n";
        let numbers = Numbers(text.to_owned());
        assert_eq!((numbers.requests(&[]), numbers.requests(&["verb=\"get\""])), (7, 3));
        assert_eq!(
            (numbers.sum("matriarch_operator_leading", &[]), numbers.sum("matriarch_operator", &[])),
            (1, 0)
        );
    }
}
