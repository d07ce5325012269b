//! Bad input against a real API server: one clear sentence and a non-zero exit, or a retry that says so.

use std::net::TcpListener;

use crate::sidecar::{Sidecar, command};
use crate::world::World;

#[tokio::test]
async fn what_cannot_work_ends_with_one_sentence() {
    let world = World::new("input").await;
    let kubeconfig = world.administrator();
    let ends = |arguments: &[&str]| {
        let output = command(&kubeconfig, arguments).arg("--election=web").output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        let last = text.lines().filter(|line| line.starts_with("error:")).collect::<Vec<_>>().join("\n");
        assert!(!last.is_empty(), "{text}");
        last
    };
    let long = format!("--id={}", "x".repeat(254));
    assert!(ends(&["--http=", &long]).contains("the id has 254 bytes; 253 are the most"));
    for ttl in ["--ttl=0", "--ttl=100ms"] {
        assert!(ends(&["--http=", ttl]).contains("too short: one second is the least"));
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    assert!(ends(&[&format!("--http={address}")]).contains(&format!("cannot listen on {address}")));
    assert_eq!(world.holder("web").await, None, "nobody stood");
}

#[tokio::test]
async fn a_missing_namespace_is_told_and_tried_again() {
    let world = World::new("nowhere").await;
    let kubeconfig = world.administrator();
    let arguments = ["--election=web", "--id=one", "--ttl=1s", "--election-namespace=there-is-none"];
    let one = Sidecar::start(&kubeconfig, &arguments);
    let sentence = "the Lease cannot be made: namespaces \"there-is-none\" not found";
    one.until("told by /status", |one| one.status()["problem"] == sentence);
    one.until("told by the log", |one| one.log().contains("namespaces \\\"there-is-none\\\" not found"));
    assert_eq!(one.get("/livez").code, 200, "no reason for a restart");
}

#[tokio::test]
async fn an_api_server_that_is_not_there_is_told_and_tried_again() {
    let world = World::new("away").await;
    let kubeconfig = world.administrator();
    let text = std::fs::read_to_string(&kubeconfig).unwrap();
    let mut text: serde_json::Value = serde_json::from_str(&text).unwrap();
    // A port that nobody listens on while this test has it.
    let kept = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = kept.local_addr().unwrap();
    drop(kept);
    text["clusters"][0]["cluster"]["server"] = format!("https://{address}").into();
    std::fs::write(&kubeconfig, text.to_string()).unwrap();
    let one = Sidecar::start(&kubeconfig, &["--election=web", "--id=one", "--ttl=2s"]);
    one.until("told", |one| {
        let ready = one.get("/readyz");
        ready.code == 503 && ready.body.contains("no answer to get the Lease")
    });
    assert!(one.log().contains("no answer that helps"));
    assert_eq!((one.get("/").code, one.get("/livez").code), (503, 200));
}
