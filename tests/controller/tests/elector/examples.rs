//! The example manifests: the API server takes every field of them, and the rights that they give are enough for what they
//! ask the elector to do, and for nothing else.
//!
//! Turned red by: a rule that is missing from a Role, one that names no object, an option that the elector does not know.

use std::path::PathBuf;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;

use crate::service::beside;
use crate::sidecar::Sidecar;
use crate::world::{World, until};

fn documents(name: &str) -> Vec<Value> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/elector")).join(name);
    let text = std::fs::read_to_string(path).unwrap();
    text.split("\n---\n").map(|document| serde_yaml::from_str(document).unwrap()).collect()
}

/// Applies an example as a user does; the sidecar's arguments in it.
async fn applied(world: &World, name: &str) -> Vec<String> {
    let mut arguments = Vec::new();
    for mut object in documents(name) {
        if object["kind"] != "Deployment" {
            if object["kind"] == "RoleBinding" {
                // As a user's client does with the namespace of its context.
                object["subjects"][0]["namespace"] = world.namespace.as_str().into();
            }
            world.apply(&object).await;
            continue;
        }
        world.would_apply(&object).await;
        let containers = object["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        let elector = containers.iter().find(|container| {
            container["command"][0].as_str().is_some_and(|program| program.ends_with("/matriarch-elector"))
        });
        let words = elector.unwrap()["args"].as_array().unwrap();
        arguments = words.iter().map(|word| word.as_str().unwrap().to_owned()).collect();
    }
    // The credentials and the port are the test's.
    arguments.retain(|word| word != "--use-cluster-credentials" && !word.starts_with("--http"));
    arguments
}

/// Nothing was refused to any of them.
fn unhindered(sidecars: &[&Sidecar]) {
    for sidecar in sidecars {
        let metrics = sidecar.get("/metrics").body;
        assert!(!metrics.contains("status=\"403\""), "{metrics}\n{}", sidecar.log());
        assert!(!sidecar.log().contains("forbidden"), "{}", sidecar.log());
    }
}

#[tokio::test]
async fn the_web_application_s_rights_are_enough_and_no_more() {
    let world = World::new("exampleweb").await;
    let arguments = applied(&world, "web.yaml").await;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let kubeconfig = world.kubeconfig_of("web").await;
    let one = beside(&kubeconfig, "web-0", "10.9.0.1", &arguments);
    let two = beside(&kubeconfig, "web-1", "10.9.0.2", &arguments);
    one.until("both stand", |one| one.status()["candidates"].as_array().unwrap().len() == 2);
    let (leader, other) = led_by(&one, &two);
    assert_eq!(leader.ask("POST", "/step-down").code, 200, "{}", leader.log());
    other.until_leads();
    unhindered(&[&one, &two]);

    world.free_lease("other").await;
    let mut astray = arguments.clone();
    for word in &mut astray {
        if word.starts_with("--election=") {
            *word = "--election=other";
        }
    }
    let three = beside(&kubeconfig, "web-2", "10.9.0.3", &astray);
    three.until("refused", |three| three.get("/readyz").body.contains("\"other\" is forbidden"));
    assert_eq!(world.holder("other").await, None);
}

#[tokio::test]
async fn the_singleton_s_rights_are_enough() {
    let world = World::new("examplesingleton").await;
    let mut arguments = applied(&world, "singleton.yaml").await;
    // The program of the example is not here; what matters is that it runs only beside the leader.
    let run = arguments.iter().position(|word| word == "--run").unwrap();
    arguments.truncate(run + 1);
    arguments.extend(["sleep".to_owned(), "3600".to_owned()]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let kubeconfig = world.kubeconfig_of("singleton").await;
    let one = beside(&kubeconfig, "singleton-0", "10.9.0.1", &arguments);
    let two = beside(&kubeconfig, "singleton-1", "10.9.0.2", &arguments);
    one.until("both stand", |one| one.status()["candidates"].as_array().unwrap().len() == 2);
    let (leader, other) = led_by(&one, &two);
    let at = |sidecar: &Sidecar| if std::ptr::eq(sidecar, &raw const one) { "10.9.0.1" } else { "10.9.0.2" };
    points_at(&world, at(leader)).await;
    assert_eq!(leader.ask("POST", "/step-down").code, 200, "{}", leader.log());
    other.until_leads();
    points_at(&world, at(other)).await;
    // Somebody deletes it: made again at the next hand-over, by the right to create.
    world.delete::<EndpointSlice>("singleton-ipv4").await;
    assert_eq!(other.ask("POST", "/step-down").code, 200, "{}", other.log());
    leader.until_leads();
    points_at(&world, at(leader)).await;
    unhindered(&[&one, &two]);
    let lease = world.api::<Lease>().get("singleton").await.unwrap();
    assert!(lease.spec.unwrap().holder_identity.is_some());
}

/// Who leads, and who does not.
fn led_by<'a>(one: &'a Sidecar, two: &'a Sidecar) -> (&'a Sidecar, &'a Sidecar) {
    let leads = |it: &Sidecar| it.status()["isLeader"] == true;
    one.until("one of them leads", |one| leads(one) || leads(two));
    if leads(one) { (one, two) } else { (two, one) }
}

async fn points_at(world: &World, address: &str) {
    until(&format!("the Service points at {address}"), || async {
        let slice = world.api::<EndpointSlice>().get_opt("singleton-ipv4").await.unwrap();
        let there: Vec<String> =
            slice.iter().flat_map(|slice| &slice.endpoints).flat_map(|it| it.addresses.clone()).collect();
        if there == [address] { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
}
