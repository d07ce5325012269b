//! K12: a roll-out that stops at a bad template goes back to the last good one, until the spec changes. K24: what the
//! operator chose stays chosen, whatever a newer operator would choose.
//!
//! Turned red by: a halted roll-out whose template stays, a default that follows the operator.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::json;

use crate::agents::{Agents, BAD};
use crate::dump::{difference, dump};
use crate::operator_process::{Operator, defaults};
use crate::wait;
use crate::world::{self, World};

const GOOD: &str = "registry.test/postgres:17.6";

fn image_of(pod: &Pod) -> String {
    pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap_or_default()
}

/// A StatefulSet's image of PostgreSQL.
async fn image(world: &World) -> String {
    let set = world.get(&world::STATEFUL_SET, "pg").await.unwrap();
    set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
}

async fn images(world: &World) -> Vec<(String, String)> {
    world.pods("pg").await.iter().map(|pod| (pod.name_any(), image_of(pod))).collect()
}

async fn all_have(world: &World, image: &str) {
    wait::until_within(Duration::from_secs(120), &format!("{image} everywhere"), || async {
        let there = images(world).await;
        if there.len() == 3 && there.iter().all(|(_, is)| is == image) { Ok(()) } else { Err(there) }
    })
    .await;
    world.healthy("pg").await;
}

#[tokio::test]
async fn k12_a_bad_image_is_taken_back_and_nobody_gets_it_meanwhile() {
    let world = World::new("bad").await;
    let _operator = Operator::start(&world).await;
    let _agents = Agents::play(&world, "pg");
    world.create("pg", json!({"storage": {"size": "1Gi"}})).await;
    world.healthy("pg").await;
    let bad = format!("registry.test/{BAD}:1");
    world.edit("pg", json!({"image": bad})).await;
    wait::until("one member with the bad image", || async {
        let there = images(&world).await;
        if there.iter().any(|(_, is)| *is == bad) { Ok(()) } else { Err(there) }
    })
    .await;
    // Whether a bad image is bad is known after half a minute.
    let halted = world.told("pg", "RollOutHalted", "True", &["FirstMemberUnhealthy"]).await;
    assert!(halted.contains("pg-2") && halted.contains(&bad), "{halted}");
    assert_eq!(image(&world).await, GOOD, "the last good template");
    // A pod that is made anew while it is halted gets the good one.
    world.api::<Pod>().delete("pg-1", &DeleteParams::default()).await.unwrap();
    wait::always(Duration::from_secs(3), "at most one bad member", || async {
        let there = images(&world).await;
        let others = there.iter().filter(|(pod, is)| *is == bad && pod != "pg-2").count();
        if others == 0 { Ok(()) } else { Err(there) }
    })
    .await;
    all_have(&world, GOOD).await;
    assert_eq!(world.condition("pg", "RollOutHalted").await.0, "True", "until the spec changes");

    world.edit("pg", json!({"image": null})).await;
    wait::until("the end of the halt", || async {
        let (status, _, message) = world.condition("pg", "RollOutHalted").await;
        if status == "True" { Err(message) } else { Ok(()) }
    })
    .await;
    all_have(&world, GOOD).await;
}

#[tokio::test]
async fn a_good_image_is_rolled_out_with_the_master_last() {
    let world = World::new("good").await;
    let _operator = Operator::start(&world).await;
    let _agents = Agents::play(&world, "pg");
    world.create("pg", json!({"storage": {"size": "1Gi"}})).await;
    world.healthy("pg").await;
    let new = "registry.test/postgres:17.7";
    world.edit("pg", json!({"image": new})).await;
    let order = std::sync::Mutex::new(Vec::<String>::new());
    wait::until_within(Duration::from_secs(120), "the new image everywhere", || async {
        let there = images(&world).await;
        let mut order = order.lock().unwrap();
        for (pod, is) in &there {
            if is == new && !order.contains(pod) {
                order.push(pod.clone());
            }
        }
        if order.len() == 3 { Ok(()) } else { Err(there) }
    })
    .await;
    let order = order.into_inner().unwrap();
    assert_eq!(order, ["pg-2", "pg-1", "pg-0"], "followers from the highest ordinal, the master last");
    world.healthy("pg").await;
    assert_ne!(world.status("pg").await.master.as_deref(), Some("pg-0"), "it handed over before");
}

#[tokio::test]
async fn k24_another_operator_changes_no_cluster_at_rest() {
    let world = World::new("pins").await;
    let operator = Operator::start(&world).await;
    let _agents = Agents::play(&world, "pg");
    world.create("pg", json!({"storage": {"size": "1Gi"}})).await;
    world.healthy("pg").await;
    operator.quiet(Duration::from_millis(700)).await;
    let before = dump(&world).await;
    let pods: Vec<_> = world.pods("pg").await.iter().map(kube::ResourceExt::uid).collect();
    operator.kill();

    let mut newer = defaults();
    newer.images.insert(17, "registry.test/postgres:17.9".to_owned());
    newer.major = 18;
    newer.agent_image = "registry.test/matriarch:2".to_owned();
    let other = Operator::start_as(&world, newer, None).await;
    let _more = Agents::play(&world, "new");
    world.create("new", json!({"storage": {"size": "1Gi"}, "instances": 1})).await;
    let new = world.healthy("new").await.status.unwrap().pinned.unwrap();
    assert_eq!((new.version, new.image.as_deref()), (18, Some("registry.test/postgres:18.1")));
    assert_eq!(new.agent_image, "registry.test/matriarch:2");
    other.quiet(Duration::from_millis(700)).await;
    let mut after = dump(&world).await;
    after.retain(|key, _| !key.contains("/new") && !key.contains("-new-"));
    let differs = difference(&before, &after);
    assert!(differs.is_empty(), "a newer operator changed a cluster at rest:\n{differs}");
    let now: Vec<_> = world.pods("pg").await.iter().map(kube::ResourceExt::uid).collect();
    assert_eq!(now, pods);

    // An image of the user's own wins, is not pinned, and its removal goes back to the pinned one.
    world.edit("pg", json!({"image": "registry.test/own:1"})).await;
    wait::until("the user's image", || async {
        let is = image(&world).await;
        if is == "registry.test/own:1" { Ok(()) } else { Err(is) }
    })
    .await;
    world.edit("pg", json!({"image": null})).await;
    wait::until("the pinned image", || async {
        let is = image(&world).await;
        if is == GOOD { Ok(()) } else { Err(is) }
    })
    .await;
}
