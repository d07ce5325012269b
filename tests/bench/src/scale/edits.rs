//! From an edit to its effect: a parameter of one cluster after another, and the ConfigMap that its agents follow.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use api::names;
use controller::world::World;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long an edit may take. Generous: it only catches a hang.
const BOUND: Duration = Duration::from_secs(120);

/// The newest settings of each cluster, and when they came.
type Seen = BTreeMap<String, (String, Instant)>;

/// Watches every cluster's settings.
struct Watch {
    seen: watch::Receiver<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    fn begin(world: &World) -> Self {
        let (told, seen) = watch::channel(Seen::new());
        let maps = watcher(world.api::<ConfigMap>(), watcher::Config::default()).default_backoff();
        let task = tokio::spawn(async move {
            let mut maps = std::pin::pin!(maps.applied_objects());
            // A watch that broke begins anew by itself.
            loop {
                match maps.try_next().await {
                    Ok(Some(map)) => told.send_modify(|seen| {
                        let settings = map.data.as_ref().and_then(|data| data.get(names::SETTINGS_KEY));
                        let settings = settings.cloned().unwrap_or_default();
                        seen.insert(map.name_any(), (settings, Instant::now()));
                    }),
                    Ok(None) => return,
                    Err(_) => {}
                }
            }
        });
        Self { seen, task }
    }

    /// When the settings of this name contained this.
    async fn contains(&mut self, name: &str, wanted: &str) -> Result<Instant> {
        let there = |seen: &Seen| {
            let (settings, at) = seen.get(name)?;
            settings.contains(wanted).then_some(*at)
        };
        let told = self.seen.wait_for(|seen| there(seen).is_some());
        let seen = tokio::time::timeout(BOUND, told).await;
        let seen = seen.with_context(|| format!("{wanted} did not come to {name} within {BOUND:?}"))?;
        there(&*seen.context("the watch ended")?).context("the settings changed meanwhile")
    }
}

/// Edits so many of these clusters, spread evenly; how long each took.
pub(super) async fn edit(world: &World, clusters: &[String], count: u32) -> Result<Vec<Duration>> {
    let mut watch = Watch::begin(world);
    let count = count as usize;
    let mut took = Vec::with_capacity(count);
    for number in 0..count {
        let at =
            if clusters.len() >= count { number * clusters.len() / count } else { number % clusters.len() };
        let name = clusters.get(at).context("no cluster to edit")?;
        // What no edit has asked for before, in earlier repetitions neither.
        let milliseconds = 1_000_000 + (jiff::Timestamp::now().as_millisecond() % 1_000_000_000);
        let value = format!("{milliseconds}ms");
        let settings = names::settings(name);
        watch.contains(&settings, "{").await?;
        let asked = Instant::now();
        world.edit(name, json!({"postgres": {"parameters": {"statement_timeout": value}}})).await;
        let done = watch.contains(&settings, &value).await?;
        took.push(done.saturating_duration_since(asked));
        // Edits do not come in step with anything.
        tokio::time::sleep(Duration::from_millis(100 + (number as u64 * 37) % 200)).await;
    }
    Ok(took)
}
