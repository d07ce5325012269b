//! The operator dies after each of its writes, the answer to the last one lost; another one goes on. In the end
//! everything is as if nobody had died.
//!
//! Turned red by: a decision that rests on what an operator remembers, a write whose repetition is refused, a record made
//! after the first volume.

use std::time::{Duration, Instant};

use api::names;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::agents::Agents;
use crate::dump::{Dump, difference, dump};
use crate::operator_process::{Operator, defaults};
use crate::wait;
use crate::world::{self, World};

/// More writes than any of the scenarios takes.
const MOST: usize = 80;
/// So many of them run at a time.
const AT_ONCE: usize = 4;
/// Silence that counts as settled.
const SETTLED: Duration = Duration::from_millis(700);

/// What happens to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Create,
    ScaleUp,
    DeleteRetaining,
    DeleteAll,
    CreateAgain,
}

fn spec(policy: &str) -> Value {
    json!({"storage": {"size": "1Gi"}, "instances": 2, "deletionPolicy": policy})
}

impl Act {
    /// Brings the world to where the act begins, undisturbed.
    async fn prepare(self, world: &World) {
        if self == Self::Create {
            return;
        }
        let operator = Operator::start(world).await;
        world.create("pg", spec(if self == Self::DeleteAll { "Delete" } else { "Retain" })).await;
        world.healthy("pg").await;
        operator.quiet(SETTLED).await;
        if self == Self::CreateAgain {
            world.delete(&world::CLUSTER, "pg").await;
            gone(world).await;
        }
    }

    /// What the user does.
    async fn act(self, world: &World) {
        match self {
            Self::Create | Self::CreateAgain => drop(world.create("pg", spec("Retain")).await),
            Self::ScaleUp => drop(world.edit("pg", json!({"instances": 3})).await),
            Self::DeleteRetaining | Self::DeleteAll => world.delete(&world::CLUSTER, "pg").await,
        }
    }

    /// Waits until the act is over.
    async fn over(self, world: &World) {
        match self {
            Self::DeleteRetaining | Self::DeleteAll => gone(world).await,
            _ => drop(world.healthy("pg").await),
        }
    }
}

/// Waits until the cluster and everything that it owned is gone.
async fn gone(world: &World) {
    wait::until("the end of the cluster", || async {
        let mut left = Vec::new();
        for kind in world::KINDS {
            for object in world.all(&kind).await {
                let metadata = &object["metadata"];
                let ours = metadata["labels"][names::labels::CLUSTER] == "pg" || kind == world::CLUSTER;
                if ours && (!metadata["ownerReferences"].is_null() || kind == world::CLUSTER) {
                    left.push(format!("{} {}", kind.kind, metadata["name"]));
                }
            }
        }
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
}

/// One run; the operator dies after `writes`, if it comes to it. The end, and the writes of a life that did not end.
async fn run(act: Act, writes: Option<usize>) -> (Dump, Option<Vec<String>>) {
    let world = World::new("crash").await;
    let _agents = Agents::play(&world, "pg");
    act.prepare(&world).await;
    let began = Instant::now();
    let mortal = Operator::start_as(&world, defaults(), writes).await;
    act.act(&world).await;
    let undisturbed = tokio::select! {
        () = mortal.crashed() => None,
        () = async { act.over(&world).await; mortal.quiet(SETTLED).await } => Some(mortal.traffic.since(began)),
    };
    mortal.kill();
    if undisturbed.is_some() {
        return (dump(&world).await, undisturbed);
    }
    let other = Operator::start(&world).await;
    act.over(&world).await;
    other.quiet(SETTLED).await;
    (dump(&world).await, None)
}

async fn everywhere(act: Act) {
    let (wanted, whole) = run(act, None).await;
    let whole = whole.expect("nobody died");
    println!("{act:?}: {} writes: {whole:#?}", whole.len());
    let mut first = 1;
    loop {
        assert!(first < MOST, "{act:?} never ends undisturbed");
        let runs = join_all((first..first + AT_ONCE).map(|writes| run(act, Some(writes)))).await;
        for (writes, (end, undisturbed)) in (first..).zip(&runs) {
            let differs = difference(&wanted, end);
            let after = whole.get(writes - 1).cloned().unwrap_or_default();
            assert!(differs.is_empty(), "{act:?}, killed after write {writes} (about {after}):\n{differs}");
            if undisturbed.is_some() {
                return;
            }
        }
        first += AT_ONCE;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_every_write_of_a_creation() {
    everywhere(Act::Create).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_every_write_of_growing() {
    everywhere(Act::ScaleUp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_every_write_of_a_deletion_that_retains() {
    everywhere(Act::DeleteRetaining).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_every_write_of_a_deletion_of_everything() {
    everywhere(Act::DeleteAll).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_every_write_of_a_creation_from_what_was_retained() {
    everywhere(Act::CreateAgain).await;
}
