//! What a failed scenario leaves for people: the objects, the agents' own account, the ends of logs.

use std::ops::Range;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt};
use serde_json::Value;

use crate::cluster::{clusters, status_page};
use crate::seen::Seen;
use crate::world::World;

/// Lines of each log.
const LINES: i64 = 25;
/// Characters of each line: JSON logs can be very long.
const WIDTH: usize = 400;

/// Lines of an explanation.
const EXPLAINED: usize = 300;
/// What PostgreSQL says again and again while it is sealed.
const NOISE: [&str; 4] =
    ["waiting for WAL", "recovery has paused", "Execute pg_wal_replay_resume", "received SIGHUP"];

/// Why something took so long, in the members' own words: what they logged meanwhile, in order of time, without the
/// clients' part. Never fails.
pub(crate) async fn explain(world: &World, when: &Range<Timestamp>) {
    let seconds = Timestamp::now().as_second().saturating_sub(when.start.as_second()).saturating_add(1);
    let mut lines = Vec::new();
    for namespace in world.namespaces() {
        let pods = world.api::<Pod>(&namespace).list(&ListParams::default()).await;
        for pod in pods.map(|list| list.items).unwrap_or_default() {
            if !pod.labels().contains_key(api::names::labels::POOL) {
                continue;
            }
            let name = pod.name_any();
            for previous in [true, false] {
                let parameters = LogParams { since_seconds: Some(seconds), previous, ..LogParams::default() };
                let Ok(text) = world.api::<Pod>(&namespace).logs(&name, &parameters).await else { continue };
                lines.extend(text.lines().filter_map(|line| own_words(&name, line, when)));
            }
        }
    }
    lines.sort();
    world.say(format!("the members' account of {:.0} to {:.0}:", when.start, when.end));
    for (_, line) in lines.iter().take(EXPLAINED) {
        world.say(format!("  {}", cut(line, WIDTH)));
    }
}

/// Time, member and the rest of a line that the agent or the supervisor wrote; PostgreSQL's only where it is not a client's.
fn own_words(pod: &str, line: &str, when: &Range<Timestamp>) -> Option<(Timestamp, String)> {
    let Ok(Value::Object(mut fields)) = serde_json::from_str::<Value>(line) else { return None };
    let mut text = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) => Some(text),
        other => other.map(|other| other.to_string()),
    };
    let at: Timestamp = text("timestamp")?.parse().ok()?;
    let (level, message) = (text("level")?, text("message").unwrap_or_default());
    let of_a_client = fields.get("backend").and_then(Value::as_str) == Some("client backend");
    let noise = of_a_client || NOISE.iter().any(|noise| message.starts_with(noise));
    if !when.contains(&at) || noise {
        return None;
    }
    let rest: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let message = message.replace('\n', " ");
    Some((at, format!("{} {pod} {level} {message} {}", at.strftime("%H:%M:%S%.3f"), rest.join(" "))))
}

/// Prints what can be found out about each namespace that the run made. Never fails.
pub(crate) async fn dump(world: &World) {
    for namespace in world.namespaces() {
        println!("    ---- {namespace}");
        let pods = world.api::<Pod>(&namespace).list(&ListParams::default()).await;
        let pods = pods.map(|list| list.items).unwrap_or_default();
        if let Ok(list) = clusters(world, &namespace).list(&ListParams::default()).await {
            for object in list {
                let name = object.name_any();
                match Seen::look(world, &namespace, &name).await {
                    Ok(seen) => println!("    {name}: {seen}"),
                    Err(error) => println!("    {name}: {error:#}"),
                }
                println!("    conditions: {}", object.data["status"]["conditions"]);
                for pod in &pods {
                    if pod.labels().contains_key(api::names::labels::POOL) {
                        match status_page(world, &namespace, &pod.name_any()).await {
                            Ok(page) => {
                                println!("    {} /status: {}", pod.name_any(), cut(&page.to_string(), 3000));
                            }
                            Err(error) => println!("    {} /status: {error:#}", pod.name_any()),
                        }
                    }
                }
            }
        }
        events(world, &namespace).await;
        for pod in &pods {
            logs(world, &namespace, pod).await;
        }
    }
    operator(world).await;
}

async fn events(world: &World, namespace: &str) {
    let Ok(events) = world.api::<Event>(namespace).list(&ListParams::default()).await else { return };
    let lines: Vec<String> = events
        .iter()
        .map(|event| {
            format!(
                "{} {} {}: {}",
                event.type_.as_deref().unwrap_or("-"),
                event.involved_object.name.as_deref().unwrap_or("-"),
                event.reason.as_deref().unwrap_or("-"),
                event.message.as_deref().unwrap_or("-")
            )
        })
        .collect();
    for line in lines.iter().skip(lines.len().saturating_sub(20)) {
        println!("    event {}", cut(line, WIDTH));
    }
}

async fn logs(world: &World, namespace: &str, pod: &Pod) {
    let pods: Api<Pod> = world.api(namespace);
    let containers =
        pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    for container in containers {
        for previous in [true, false] {
            let parameters = LogParams {
                container: Some(container.name.clone()),
                tail_lines: Some(LINES),
                previous,
                ..LogParams::default()
            };
            let Ok(text) = pods.logs(&pod.name_any(), &parameters).await else { continue };
            let which = if previous { " (before its restart)" } else { "" };
            println!("    log of {}/{}{which}:", pod.name_any(), container.name);
            for line in text.lines() {
                println!("      {}", cut(line, WIDTH));
            }
        }
    }
}

async fn operator(world: &World) {
    let selector = ListParams::default().labels("app.kubernetes.io/name=matriarch-operator");
    let Ok(pods) = Api::<Pod>::all(world.client.clone()).list(&selector).await else { return };
    for pod in &pods {
        logs(world, &pod.namespace().unwrap_or_default(), pod).await;
    }
}

fn cut(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}
