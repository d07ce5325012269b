//! The demonstration's client: a pod that writes, asked by way of the API server.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{CLUSTER, NAMESPACE, all_found, until};
use crate::command;
use crate::deploy::Target;

/// The image on the rig.
pub(super) const IMAGE: &str = "rig.test/matriarch-client:dev";

const POD: &str = "client";
const PORT: u16 = 8080;

/// A running client.
pub(super) struct Client<'a> {
    target: &'a Target,
}

/// Starts it and waits for its first acknowledged rows.
pub(super) fn start<'a>(target: &'a Target, image: &str) -> Result<Client<'a>> {
    command::feed(
        &mut target.kubectl(["create", "--filename", "-"])?,
        manifest(image).to_string().as_bytes(),
    )?;
    let client = Client { target };
    until(|| {
        let logs = client.page("summary")?;
        let writing = !logs.is_empty() && logs.iter().all(|log| number(log, "ok") >= 20);
        Ok(if writing { Ok(()) } else { Err(Value::from(logs).to_string()) })
    })
    .context("a client that writes")?;
    Ok(client)
}

/// Microseconds since 1970, for the client's pages.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

impl Client<'_> {
    /// Waits until writes go on; says how long each kind of connection went without an acknowledgement.
    pub(super) fn resumed(&self, since: u64) -> Result<String> {
        let logs = until(|| {
            let logs = self.page(&format!("summary?from={since}"))?;
            let going = logs.iter().all(|log| number(log, "ok_begun") > 0);
            Ok(if going { Ok(logs) } else { Err(Value::from(logs).to_string()) })
        })
        .context("writes after the master's death")?;
        let gaps: Vec<String> = logs
            .iter()
            .map(|log| {
                let ms = log.pointer("/longest_gap/ms").and_then(Value::as_u64).unwrap_or(0);
                format!("{} ms with {}", ms, kind(log))
            })
            .collect();
        Ok(format!("longest time without an acknowledged write: {}", gaps.join(", ")))
    }

    /// Ends the writers and compares their logs with the database.
    pub(super) fn judge(&self) -> Result<String> {
        self.page("stop")?;
        let logs =
            until(|| self.page("check").map(Ok)).context("comparing the client's log with the database")?;
        let sum = |key: &str| logs.iter().map(|log| number(log, key)).sum::<u64>();
        all_found(sum("lost"), sum("duplicated"), sum("phantom"))?;
        anyhow::ensure!(sum("found") == sum("ok"), "{} of {} rows found", sum("found"), sum("ok"));
        Ok(format!("{} acknowledged rows, {} of them found: all", sum("ok"), sum("found")))
    }

    /// Removes it.
    pub(super) fn remove(self) -> Result<()> {
        let delete = ["delete", "pod", POD, "--namespace", NAMESPACE, "--grace-period=1", "--wait=false"];
        command::output(&mut self.target.kubectl(delete)?).map(drop)
    }

    fn page(&self, page: &str) -> Result<Vec<Value>> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{POD}:{PORT}/proxy/{page}");
        let text = command::output(&mut self.target.kubectl(["get", "--raw", &path])?)?;
        serde_json::from_str(&text).with_context(|| format!("reading {page}: {text}"))
    }
}

fn number(log: &Value, key: &str) -> u64 {
    log[key].as_u64().unwrap_or(0)
}

fn kind(log: &Value) -> &'static str {
    if log["mode"] == "fresh" { "new connections" } else { "a kept connection" }
}

fn manifest(image: &str) -> Value {
    let secret = format!("{CLUSTER}-app");
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": POD, "namespace": NAMESPACE},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "client", "image": image, "imagePullPolicy": "IfNotPresent",
                "args": ["write", "--ca-file", "/app/ca.crt", "--kept", "5ms", "--fresh", "25ms"],
                "env": [{"name": "URI", "valueFrom": {"secretKeyRef": {"name": secret, "key": "uri"}}}],
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
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
        },
    })
}
