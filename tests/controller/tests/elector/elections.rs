//! Candidates over one Lease: hand-over, waiting for it, deletion.
//!
//! Turned red by: a successor that waits for the TTL, an answer that mixes two terms, a Lease that counts as free when it is
//! deleted.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use serde_json::{Value, json};

use crate::sidecar::{Sidecar, ask, events};
use crate::world::{LONG, World};

/// Nobody's time is ever over while a test takes place.
const NEVER: &str = "--ttl=10m";

#[tokio::test]
async fn a_hand_over_is_told_in_every_way_at_once() {
    let world = World::new("handover").await;
    world.free_lease("web").await;
    let kubeconfig = world.administrator();
    let start = |id: &str| Sidecar::start(&kubeconfig, &["--election=web", NEVER, &format!("--id={id}")]);
    let one = start("one");
    let epoch = one.until_leads();
    let (two, three) = (start("two"), start("three"));
    one.until("all stand", |one| one.status()["candidates"].as_array().unwrap().len() == 3);
    for follower in [&two, &three] {
        follower.until("names it", |follower| follower.name() == "one");
        let answer = follower.get("/status");
        let status = answer.json();
        assert_eq!((&status["isLeader"], &status["epoch"]), (&json!(false), &json!(epoch)));
        assert_eq!((&*answer.headers["x-leader"], &*answer.headers["x-is-leader"]), ("one", "false"));
        assert_eq!(answer.headers["x-epoch"], epoch.to_string());
        assert_eq!(follower.ask("POST", "/step-down").code, 409, "who does not lead cannot");
    }
    assert!(world.holder("web").await.unwrap().starts_with("one_"));

    let (wait_at, events_at) = (two.address, two.address);
    let wait = std::thread::spawn(move || next_leader(wait_at, epoch));
    let stream = std::thread::spawn(move || {
        let mut seen: Vec<Value> = Vec::new();
        for event in events(events_at) {
            let last = event["name"] == "three";
            seen.push(event);
            if last {
                break;
            }
        }
        seen
    });
    let asked = Instant::now();
    assert_eq!(one.ask("POST", "/step-down?to=three").code, 200, "{}", one.log());
    let next = three.until_leads();
    println!("handed over after {:?}", asked.elapsed());
    assert!(next > epoch, "{next} after {epoch}");
    assert!(world.holder("web").await.unwrap().starts_with("three_"));

    let waited = wait.join().unwrap();
    assert_eq!((&waited["name"], &waited["epoch"]), (&json!("three"), &json!(next)));
    let seen = stream.join().unwrap();
    let epochs: Vec<u64> = seen.iter().filter_map(|event| event["epoch"].as_u64()).collect();
    assert!(epochs.is_sorted() && seen.last().unwrap()["epoch"] == next, "{seen:?}");
    for event in &seen {
        let (name, of) = (event["name"].as_str().unwrap(), event["epoch"].as_u64());
        assert!(name != "one" || of == Some(epoch), "nobody's name with another's epoch: {event}");
        assert!(name != "three" || of == Some(next), "nobody's name with another's epoch: {event}");
    }
    assert_eq!(one.name(), "three");
}

/// Long polls until another one leads.
fn next_leader(address: std::net::SocketAddr, epoch: u64) -> Value {
    let mut known = epoch;
    loop {
        let told = ask(address, "GET", &format!("/wait?epoch={known}&timeout=60")).json();
        known = told["epoch"].as_u64().unwrap();
        if known != epoch && told["name"] != "" {
            return told;
        }
    }
}

#[tokio::test]
async fn a_deleted_lease_is_made_again_by_its_holder() {
    let world = World::new("deleted").await;
    world.free_lease("web").await;
    let kubeconfig = world.administrator();
    let start = |id: &str| Sidecar::start(&kubeconfig, &["--election=web", NEVER, &format!("--id={id}")]);
    let one = start("one");
    let epoch = one.until_leads();
    let two = start("two");
    one.until("both stand", |one| one.status()["candidates"].as_array().unwrap().len() == 2);
    world.delete::<Lease>("web").await;
    let started = Instant::now();
    while world.holder("web").await.is_none() {
        assert_eq!(two.status()["isLeader"], false, "what is missing is not free");
        assert!(started.elapsed() < LONG, "{}", one.log());
    }
    assert!(world.holder("web").await.unwrap().starts_with("one_"), "{}", two.log());
    assert!(one.until_leads() >= epoch);
    assert_eq!(two.status()["isLeader"], false);
}

#[tokio::test]
async fn a_lease_that_is_deleted_with_its_holder_is_not_free_before_its_holders_deadline() {
    let world = World::new("orphaned").await;
    world.free_lease("web").await;
    let kubeconfig = world.administrator();
    let start =
        |id: &str| Sidecar::start(&kubeconfig, &["--election=web", "--ttl=8s", &format!("--id={id}")]);
    let mut one = start("one");
    one.until_leads();
    let two = start("two");
    one.until("both stand", |one| one.status()["candidates"].as_array().unwrap().len() == 2);
    two.until("follows", |two| two.name() == "one");
    let asked = Instant::now();
    let status = one.status();
    // A frozen process would go on until then; this one is killed only so that nobody makes the Lease again.
    one.kill();
    world.delete::<Lease>("web").await;
    let epoch = two.until_leads();
    if status["isLeader"] == true {
        let deadline = Duration::from_millis(status["expiresIn"].as_u64().unwrap());
        assert!(asked.elapsed() >= deadline, "{:?} of {deadline:?}", asked.elapsed());
        assert!(epoch > status["epoch"].as_u64().unwrap(), "also of a new Lease");
    }
}
