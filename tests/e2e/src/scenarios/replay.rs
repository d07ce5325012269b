//! What the agents of a real cluster decided, the same code decides again from their logs.
//!
//! Turned red by: an agent whose memory is fed with more than its log says, a view that does not survive being written.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::cluster::{Cluster, FORM};
use crate::faults::{Fault, exec};
use crate::scenarios::failover;
use crate::world::World;

/// Where the agents write; a volume of the pod that everybody may write to.
const LOG: &str = "/tmp/decisions.jsonl";

/// Two failovers with logs, then both members' logs are replayed.
pub(crate) async fn decisions(world: &World) -> Result<()> {
    let namespace = world.namespace("replay").await?;
    let container = json!({"name": "postgres", "env": [{"name": "MATRIARCH_DECISION_LOG", "value": LOG}]});
    let change = json!({"spec": {"podTemplate": {"spec": {"containers": [container]}}}});
    let cluster = Cluster::from_example(world, &namespace, "minimal.yaml", &change).await?;
    cluster.whole(world, 3, FORM).await?;
    failover::under_load(world, &cluster, Fault::Postmaster, 3).await?;
    failover::under_load(world, &cluster, Fault::Postmaster, 3).await?;
    for member in cluster.look(world).await?.members {
        let text = exec(world, &namespace, &member.name, &["cat", LOG]).await?;
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| text.get(..=end).unwrap_or_default());
        let file = tempfile::NamedTempFile::new().context("make a file for a log")?;
        std::fs::write(file.path(), whole).context("write a log")?;
        let said = world.sim(&["--replay", &file.path().display().to_string()]).await?;
        let lines = whole.lines().count();
        ensure!(lines > 50, "{} wrote {lines} lines only", member.name);
        world.say(format!("{}, {lines} lines: {}", member.name, said.trim()));
    }
    world.remove_namespace(&namespace).await
}
