//! A cluster at rest costs next to nothing: no writes to the API but renewals, little memory.
//!
//! Turned red by: a status or a slice that is written again without a change, a controller that spins on its own writes,
//! an agent that grows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::Value;

use crate::cluster::FORM;
use crate::wait;
use crate::world::{World, show};

/// The users of the operator's namespace, as the chart is installed on the rig.
const OPERATORS: &str = "system:serviceaccount:matriarch:";
/// Without a write for so long, a cluster has settled.
const SETTLED: Duration = Duration::from_secs(5);
/// How long it is watched.
const MINUTE: Duration = Duration::from_secs(60);
/// One lease renewal in 10 s and cluster, and one for chance.
const RENEWALS: u32 = 7;
/// Writes of Leases by the operator in a minute: its leader renews each third of a TTL of 15 s, and some for chance.
const OPERATOR_RENEWALS: u32 = 20;
/// Resident memory of one member's agent with its supervisor, in KiB.
const AGENT: u64 = 25 << 10;
/// Resident memory of the operator, in KiB.
const OPERATOR: u64 = 60 << 10;

/// One minute of rest.
pub(crate) async fn at_rest(world: &World) -> Result<()> {
    let cluster = world.shared().await?;
    cluster.whole(world, 3, FORM).await?;
    let members = format!("system:serviceaccount:{}:", cluster.namespace);
    let users = [members.as_str(), OPERATORS];
    // Forming has an end; what is measured is the time after it.
    wait::until("five seconds without a write but renewals", FORM, async || {
        let now = Timestamp::now();
        let mut writes = writes(&audit_log()?, now.checked_sub(SETTLED)?, now, &users)?;
        writes.retain(|what, _| !what.contains(" leases/"));
        wait::when(writes.is_empty(), || show(&writes))
    })
    .await?;
    let from = Timestamp::now();
    // The minute itself is what is measured, so this is no wait for anything.
    tokio::time::sleep(MINUTE).await;
    let to = Timestamp::now();
    cluster.whole(world, 3, FORM).await?;

    let writes = writes(&audit_log()?, from, to, &users)?;
    for (what, count) in &writes {
        world.say(format!("in a minute: {count} × {what}"));
    }
    let mut operator = 0;
    for (what, count) in &writes {
        if what.starts_with(&members) {
            ensure!(what.ends_with(" leases/pg"), "a member at rest writes: {what}");
            ensure!(*count <= RENEWALS, "{count} renewals in a minute");
        } else {
            ensure!(what.contains(" leases/"), "the operator at rest writes: {what}");
            operator += count;
        }
    }
    ensure!(operator <= OPERATOR_RENEWALS, "the operator wrote its Lease {operator} times in a minute");

    let agents = resident("matriarch-agent", Some(&cluster.namespace))?;
    ensure!(agents.len() == 3, "{} pods with an agent on this machine", agents.len());
    for (pod, kib) in agents {
        world.say(format!("{pod}: agent and supervisor {:.1} MiB", mib(kib)));
        ensure!(kib <= AGENT, "{pod}: {kib} KiB resident");
    }
    let operators = resident("matriarch-operator", None)?;
    ensure!(!operators.is_empty(), "no process of the operator on this machine");
    for (pod, kib) in operators {
        world.say(format!("{pod}: {:.1} MiB", mib(kib)));
        ensure!(kib <= OPERATOR, "{pod}: {kib} KiB resident");
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// The rig's audit log.
fn audit_log() -> Result<PathBuf> {
    let cache = match std::env::var_os("MATRIARCH_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("neither MATRIARCH_CACHE nor HOME is set")?)
            .join(".cache/matriarch"),
    };
    let rig = std::env::var("MATRIARCH_RIG").unwrap_or_else(|_| "rig".to_owned());
    Ok(cache.join(rig).join("state/log/audit.log"))
}

/// Requests that change something, by user, verb and object.
fn writes(log: &Path, from: Timestamp, to: Timestamp, users: &[&str]) -> Result<BTreeMap<String, u32>> {
    let text = std::fs::read_to_string(log).with_context(|| format!("read {}", log.display()))?;
    let mut found = BTreeMap::new();
    for line in text.lines() {
        // The last line may be half written.
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        let field = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let Ok(at) = field("/requestReceivedTimestamp").parse::<Timestamp>() else { continue };
        let user = field("/user/username");
        let changes = matches!(field("/verb"), "create" | "update" | "patch" | "delete" | "deletecollection");
        if changes && at >= from && at <= to && users.iter().any(|known| user.starts_with(known)) {
            let object = format!("{}/{}", field("/objectRef/resource"), field("/objectRef/name"));
            *found.entry(format!("{user} {} {object}", field("/verb"))).or_insert(0) += 1;
        }
    }
    Ok(found)
}

/// Resident memory of the processes of this program, summed by pod, in KiB; those of this namespace, or of any.
fn resident(program: &str, namespace: Option<&str>) -> Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").context("read /proc")? {
        let process = entry.context("read /proc")?.path();
        // Processes that end meanwhile are left out.
        let Ok(command) = std::fs::read(process.join("cmdline")) else { continue };
        let name = command.split(|byte| *byte == 0).next().unwrap_or_default();
        if Path::new(&*String::from_utf8_lossy(name)).file_name().is_none_or(|name| name != program) {
            continue;
        }
        let Ok(environment) = std::fs::read(process.join("environ")) else { continue };
        let variables: BTreeMap<String, String> = environment
            .split(|byte| *byte == 0)
            .filter_map(|one| String::from_utf8_lossy(one).split_once('=').map(|(k, v)| (k.into(), v.into())))
            .collect();
        let Some(pod) = variables.get("POD_NAME") else { continue };
        if namespace
            .is_some_and(|namespace| variables.get("POD_NAMESPACE").is_none_or(|own| own != namespace))
        {
            continue;
        }
        let Ok(status) = std::fs::read_to_string(process.join("status")) else { continue };
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        *found.entry(pod.clone()).or_insert(0) += kib.unwrap_or(0);
    }
    Ok(found)
}
