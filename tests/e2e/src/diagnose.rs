//! What a failed scenario leaves for people: the objects, the agents' own account, the ends of logs.

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt};

use crate::cluster::{clusters, status_page};
use crate::seen::Seen;
use crate::world::World;

/// Lines of each log.
const LINES: i64 = 25;
/// Characters of each line: JSON logs can be very long.
const WIDTH: usize = 400;

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
