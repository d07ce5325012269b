//! Two operators at once, each a process: one acts, the other waits, and takes over when the first is killed.
//!
//! Turned red by: an operator that works without leading, a Lease that is never taken over.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use api::names;
use kube::config::Kubeconfig;
use serde_json::json;

use crate::wait;
use crate::world::{self, KUBECONFIG, World};

/// The holder's Lease is free after 15 s of silence, and looked at every 2 s.
const TAKE_OVER: Duration = Duration::from_secs(30);

struct Process {
    child: Child,
    log: std::path::PathBuf,
}

impl Process {
    fn start(world: &World, identity: &str) -> Self {
        let directory = std::env::temp_dir().join(&world.namespace);
        std::fs::create_dir_all(&directory).unwrap();
        let log = directory.join(format!("{identity}.log"));
        let file = std::fs::File::create(&log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_operator-under-test"))
            .args(["run", "--agent-image", "registry.test/matriarch:1", "--http", "127.0.0.1:0"])
            .args(["--default-image", "17=registry.test/postgres:17.6"])
            .args(["--watch-namespace", &world.namespace, "--identity", identity])
            .args(["--leader-election-namespace", &world.namespace])
            .env("KUBECONFIG", std::env::var_os(KUBECONFIG).unwrap())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    fn told(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn works(&self) -> bool {
        self.told().contains("\"working\"")
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn holder(world: &World) -> Option<String> {
    let lease = world.get(&world::LEASE, "matriarch-operator").await?;
    Some(lease["spec"]["holderIdentity"].as_str()?.to_owned())
}

async fn comes_back(world: &World) {
    world.delete(&world::SERVICE, &names::read_service("pg")).await;
    wait::until("the Service again", || async {
        world.get(&world::SERVICE, &names::read_service("pg")).await.map(drop).ok_or("none")
    })
    .await;
}

#[tokio::test]
async fn one_acts_and_the_other_takes_over() {
    assert!(Kubeconfig::read_from(std::env::var_os(KUBECONFIG).expect(KUBECONFIG)).is_ok());
    let world = World::new("election").await;
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "matriarch-operator"}});
    let lease = serde_json::from_value(lease).unwrap();
    world.dynamic(&world::LEASE).create(&kube::api::PostParams::default(), &lease).await.unwrap();
    let one = Process::start(&world, "one");
    wait::until("one leads", || async {
        let holder = holder(&world).await;
        if one.works() { Ok(()) } else { Err((holder, one.told())) }
    })
    .await;
    let two = Process::start(&world, "two");
    world.create("pg", json!({"storage": {"size": "1Gi"}, "instances": 1})).await;
    wait::until("the StatefulSet", || async {
        world.get(&world::STATEFUL_SET, "pg").await.map(drop).ok_or_else(|| one.told())
    })
    .await;
    comes_back(&world).await;
    assert!(!two.works(), "the other waits: {}", two.told());
    assert!(holder(&world).await.is_some_and(|holder| holder.starts_with("one_")));

    let killed = Instant::now();
    one.kill();
    wait::until_within(TAKE_OVER, "two leads", || async {
        let holder = holder(&world).await;
        if two.works() { Ok(()) } else { Err((holder, two.told())) }
    })
    .await;
    println!("taken over after {:?}", killed.elapsed());
    assert!(holder(&world).await.is_some_and(|holder| holder.starts_with("two_")));
    comes_back(&world).await;

    // A third one that comes while the second leads only waits; an orderly end hands over at once.
    let three = Process::start(&world, "three");
    wait::until("three waits", || async {
        if three.told().contains("waiting for the leadership") { Ok(()) } else { Err(three.told()) }
    })
    .await;
    let stopped = Instant::now();
    let status = Command::new("kill").arg(two.child.id().to_string()).status().unwrap();
    assert!(status.success());
    wait::until("three leads", || async { if three.works() { Ok(()) } else { Err(three.told()) } }).await;
    assert!(stopped.elapsed() < Duration::from_secs(12), "released, not waited for: {:?}", stopped.elapsed());
    comes_back(&world).await;
}
