//! On what it was measured: a figure without its machine says nothing.

use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::world::World;

/// Facts; what could not be found out is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Machine {
    /// Processors that may be used.
    pub(crate) cores: Option<usize>,
    /// Memory in GiB, rounded down.
    pub(crate) memory_gib: Option<u64>,
    /// Release of the kernel.
    pub(crate) kernel: Option<String>,
    /// Version of the API server.
    pub(crate) kubernetes: Option<String>,
    /// Commit of this tree.
    pub(crate) commit: Option<String>,
}

impl Machine {
    /// Finds out.
    pub(crate) async fn look(world: &World) -> Self {
        let read = |file: &str| std::fs::read_to_string(file).ok();
        let memory = read("/proc/meminfo").and_then(|text| {
            let rest = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().to_owned();
            rest.trim_end_matches(" kB").parse::<u64>().ok()
        });
        Self {
            cores: std::thread::available_parallelism().ok().map(usize::from),
            memory_gib: memory.map(|kib| kib >> 20),
            kernel: read("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()),
            kubernetes: world.client.apiserver_version().await.ok().map(|version| version.git_version),
            commit: commit(world),
        }
    }
}

fn commit(world: &World) -> Option<String> {
    let arguments = ["rev-parse", "--short=10", "HEAD"];
    let output = Command::new("git").args(arguments).current_dir(&world.tree).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
