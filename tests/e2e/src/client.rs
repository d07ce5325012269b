//! The test client in a pod of its own, and what it says afterwards.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use api::names;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::wait;
use crate::world::{World, show};

const PORT: u16 = 8080;
/// From the pod's creation to its first acknowledged writes.
const START: Duration = Duration::from_secs(60);
/// For writes to go on after a fault; catches a hang.
pub(crate) const RESUME: Duration = Duration::from_secs(120);
/// Pace of fresh connections: the resolution of what they measure, and bearable on two cores.
const FRESH: &str = "25ms";
/// Pace of the kept connection.
const KEPT: &str = "5ms";
/// Pace of transfers and of appends: few beside the single rows, whose gaps are measured.
const COMPOUND: &str = "50ms";

/// Milliseconds of a gap whose failures are told, so that people see what clients saw.
const UNUSUAL: u64 = 3800;

/// A stretch without an acknowledged write.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Gap {
    /// In milliseconds.
    pub(crate) ms: u64,
}

/// What one writer's log says, with what the database says about it where that was asked.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Judgement {
    /// The writer's name.
    pub(crate) writer: String,
    /// `fresh`, `kept` or `read`; for a writer of something else than rows, what it writes.
    pub(crate) mode: String,
    /// What it writes.
    #[serde(default)]
    workload: String,
    /// Acknowledged.
    pub(crate) ok: u64,
    /// Refused.
    pub(crate) error: u64,
    /// Doubtful.
    pub(crate) unknown: u64,
    /// Acknowledged attempts that began within the window.
    pub(crate) ok_begun: u64,
    /// The longest stretch without an acknowledgement.
    pub(crate) longest_gap: Gap,
    /// Who answered.
    pub(crate) servers: BTreeMap<String, u64>,
    /// What failures said.
    pub(crate) failures: BTreeMap<String, u64>,
    /// Reads that a master answered.
    pub(crate) from_master: u64,
    /// Acknowledged and missing.
    #[serde(default)]
    pub(crate) lost: u64,
    /// There more than once.
    #[serde(default)]
    pub(crate) duplicated: u64,
    /// There though refused or never attempted.
    #[serde(default)]
    pub(crate) phantom: u64,
    /// Appends before one that was acknowledged before they began.
    #[serde(default)]
    reordered: u64,
    /// Appends at another place than the acknowledged one.
    #[serde(default)]
    moved: u64,
    /// Places of lists that hold none or several.
    #[serde(default)]
    holes: u64,
    /// Accounts, and their sum, that do not hold what the transfers make of them.
    #[serde(default)]
    unbalanced: u64,
    /// Acknowledged by a member after another one had acknowledged on a later timeline.
    #[serde(default)]
    stale: u64,
    /// Acknowledged and found.
    #[serde(default)]
    pub(crate) found: u64,
    /// Numbers of rows that went wrong.
    #[serde(default)]
    pub(crate) examples: Vec<String>,
}

impl Judgement {
    fn is_of_rows(&self) -> bool {
        ["", "rows"].contains(&self.workload.as_str())
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ok {} error {} unknown {} longest gap {} ms from [{}] failures [{}]",
            self.writer,
            self.ok,
            self.error,
            self.unknown,
            self.longest_gap.ms,
            show(&self.servers),
            show(&self.failures)
        )
    }
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Answer {
    /// Its address.
    pub(crate) server: Option<String>,
    /// Whether it is in recovery.
    pub(crate) in_recovery: bool,
    /// When its postmaster started.
    pub(crate) started: String,
    /// Version.
    pub(crate) version: String,
    /// The parameter `work_mem`.
    pub(crate) work_mem: String,
}

/// How a client is to run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    /// Write through this host instead of `pgwrite`.
    pub(crate) host: Option<String>,
    /// Read through this host too.
    pub(crate) read_host: Option<String>,
    /// On this node.
    pub(crate) node: Option<String>,
    /// Only a kept connection, no fresh ones.
    pub(crate) only_kept: bool,
    /// Transfers between accounts and appends to lists as well.
    pub(crate) transfers_and_appends: bool,
}

/// A running client.
#[derive(Debug)]
pub(crate) struct Client {
    namespace: String,
    pod: String,
}

impl Client {
    /// Starts one and waits until each of its writers has had acknowledgements.
    pub(crate) async fn start(world: &World, cluster: &Cluster, wish: &Wish) -> Result<Self> {
        let id = format!("c{}", world.next());
        let client = Self { namespace: cluster.namespace.clone(), pod: format!("client-{id}") };
        let pod: Pod = serde_json::from_value(manifest(world, cluster, wish, &id, &client.pod))?;
        world
            .api::<Pod>(&client.namespace)
            .create(&PostParams::default(), &pod)
            .await
            .context("create the client's pod")?;
        wait::until("the client writes", START, async || {
            let logs = client.summary(world, None).await?;
            let writing = logs.iter().all(|log| log.ok >= 5);
            Ok(if writing { Ok(()) } else { Err(list(&logs)) })
        })
        .await?;
        Ok(client)
    }

    /// The logs by themselves, of what ended since then.
    pub(crate) async fn summary(&self, world: &World, from: Option<u64>) -> Result<Vec<Judgement>> {
        let page = from.map_or_else(|| "summary".to_owned(), |from| format!("summary?from={from}"));
        self.logs(world, &page).await
    }

    /// The logs of single rows by themselves, of what ended between the two times: timings are those of single rows.
    pub(crate) async fn between(&self, world: &World, from: u64, to: u64) -> Result<Vec<Judgement>> {
        let mut logs = self.logs(world, &format!("summary?from={from}&to={to}")).await?;
        logs.retain(Judgement::is_of_rows);
        Ok(logs)
    }

    /// Waits until every writer had an acknowledgement of an attempt that began after this time.
    pub(crate) async fn resumed(&self, world: &World, since: u64) -> Result<Vec<Judgement>> {
        let (logs, _) = wait::until("writes go on after the fault", RESUME, async || {
            let logs = self.summary(world, Some(since)).await?;
            let going = logs.iter().all(|log| log.mode == "read" || log.ok_begun > 0);
            Ok(if going { Ok(logs) } else { Err(list(&logs)) })
        })
        .await?;
        Ok(logs)
    }

    /// Asks the server at this host about itself.
    pub(crate) async fn ask(&self, world: &World, host: &str) -> Result<Answer> {
        self.page(world, &format!("ask?host={host}")).await
    }

    /// Ends the writers, compares their logs with the database by way of `pgwrite`, and removes the pod.
    ///
    /// Fails when an acknowledged row is lost or doubled, or a row is there that was refused or never attempted; when
    /// lists or accounts are not what their history makes of them; or when a superseded member acknowledged.
    pub(crate) async fn finish(self, world: &World, cluster: &Cluster) -> Result<Vec<Judgement>> {
        let judged = self.judge(world, cluster).await?;
        for log in &judged {
            ensure!(
                log.lost == 0 && (log.mode == "read" || log.found == log.ok),
                "{}: {} acknowledged rows lost, {} of {} found ({}); {log}",
                log.writer,
                log.lost,
                log.found,
                log.ok,
                log.examples.join(", ")
            );
            ensure!(
                log.stale == 0,
                "{}: {} acknowledged by a superseded member ({}); {log}",
                log.writer,
                log.stale,
                log.examples.join(", ")
            );
        }
        let rows: u64 = judged.iter().map(|log| log.found).sum();
        let doubtful: u64 = judged.iter().map(|log| log.unknown).sum();
        world.say(format!("{rows} acknowledged rows, each there exactly once; {doubtful} doubtful"));
        Ok(judged)
    }

    /// The same where a failover may lose what was acknowledged last: fails for doubled rows and phantoms only, and
    /// returns how many acknowledged rows are there and how many are lost.
    pub(crate) async fn finish_counting(self, world: &World, cluster: &Cluster) -> Result<(u64, u64)> {
        let judged = self.judge(world, cluster).await?;
        let sum = |count: fn(&Judgement) -> u64| judged.iter().map(count).sum();
        Ok((sum(|log| log.found), sum(|log| log.lost)))
    }

    /// The same, by writer: what is lost is told and is no failure.
    pub(crate) async fn judge(self, world: &World, cluster: &Cluster) -> Result<Vec<Judgement>> {
        self.stop(world).await?;
        let host = cluster.write_host();
        let (judged, _) = wait::until("the client's logs judged", Duration::from_secs(60), async || {
            Ok(Ok(self.logs(world, &format!("check?host={host}")).await?))
        })
        .await?;
        for log in &judged {
            ensure!(
                log.duplicated == 0 && log.phantom == 0,
                "{}: {} rows doubled, {} phantoms ({}); {log}",
                log.writer,
                log.duplicated,
                log.phantom,
                log.examples.join(", ")
            );
            // What a lost tail takes along it takes as a whole: these hold in asynchronous mode too.
            ensure!(
                log.reordered == 0 && log.moved == 0 && log.holes == 0 && log.unbalanced == 0,
                "{}: {} appends out of order, {} moved, {} places with none or several, {} sums off ({}); {log}",
                log.writer,
                log.reordered,
                log.moved,
                log.holes,
                log.unbalanced,
                log.examples.join(", ")
            );
        }
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        world.api::<Pod>(&self.namespace).delete(&self.pod, &now).await.context("delete the client's pod")?;
        Ok(judged)
    }

    /// Every line of every log of single rows: for each writer one that says whose it is, then its attempts.
    pub(crate) async fn log(&self, world: &World) -> Result<String> {
        world
            .get(&format!(
                "/api/v1/namespaces/{}/pods/{}:{PORT}/proxy/log?workload=rows",
                self.namespace, self.pod
            ))
            .await
    }

    /// Ends the writers.
    pub(crate) async fn stop(&self, world: &World) -> Result<()> {
        self.page::<Vec<Judgement>>(world, "stop").await.map(drop)
    }

    async fn logs(&self, world: &World, page: &str) -> Result<Vec<Judgement>> {
        let mut logs: Vec<Judgement> = self.page(world, page).await?;
        // A gap of a transfer is not one of a single row, whatever the connection.
        for log in logs.iter_mut().filter(|log| !log.is_of_rows()) {
            log.mode.clone_from(&log.workload);
        }
        Ok(logs)
    }

    async fn page<T: serde::de::DeserializeOwned>(&self, world: &World, page: &str) -> Result<T> {
        world.page(&self.namespace, &self.pod, PORT, page).await
    }
}

/// The longest gap of each mode, as text, and of all, in milliseconds.
pub(crate) fn gaps(logs: &[Judgement]) -> (String, Duration) {
    let writers = || logs.iter().filter(|log| log.mode != "read");
    let text = writers().map(|log| format!("{} {} ms", log.mode, log.longest_gap.ms)).collect::<Vec<_>>();
    let longest = writers().map(|log| log.longest_gap.ms).max().unwrap_or(0);
    let mut text = text.join(", ");
    if longest > UNUSUAL {
        text = format!("{text}; {}", list(logs));
    }
    (text, Duration::from_millis(longest))
}

/// Logs as text.
pub(crate) fn list(logs: &[Judgement]) -> String {
    logs.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn manifest(world: &World, cluster: &Cluster, wish: &Wish, id: &str, pod: &str) -> Value {
    let mut arguments =
        vec!["write", "--id", id, "--ca-file", "/app/ca.crt", "--log-dir", "/log", "--kept", KEPT];
    if !wish.only_kept {
        arguments.extend(["--fresh", FRESH]);
    }
    if wish.transfers_and_appends {
        arguments.extend(["--transfers", COMPOUND, "--appends", COMPOUND]);
    }
    if let Some(host) = &wish.host {
        arguments.extend(["--host", host]);
    }
    if let Some(host) = &wish.read_host {
        arguments.extend(["--read-host", host]);
    }
    let secret = names::app_secret(&cluster.name);
    let selector = wish.node.as_ref().map(|node| json!({"kubernetes.io/hostname": node}));
    json!({
        "metadata": {"name": pod, "labels": {"app": "matriarch-client"}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "nodeSelector": selector,
            "tolerations": [{"operator": "Exists", "effect": "NoExecute"}],
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "client",
                "image": world.client_image,
                "imagePullPolicy": "IfNotPresent",
                "args": arguments,
                "env": [{"name": "URI", "valueFrom": {"secretKeyRef": {"name": secret, "key": "uri"}}}],
                "ports": [{"containerPort": PORT}],
                "resources": {"requests": {"memory": "32Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "log", "mountPath": "/log"},
                    {"name": "app", "mountPath": "/app", "readOnly": true},
                ],
            }],
            "volumes": [
                {"name": "log", "emptyDir": {}},
                {"name": "app", "secret": {"secretName": secret, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            ],
        }
    })
}
