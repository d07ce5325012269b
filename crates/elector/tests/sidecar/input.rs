//! Bad input: each one clear sentence and a non-zero exit, or a retry that says so.

use std::net::TcpListener;

use crate::api::{Api, Mode};
use crate::process::{Sidecar, command, until};

fn ends(arguments: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let output = command(Api::default().door().address, directory.path(), arguments).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn defect_14_what_cannot_work_ends_with_one_sentence() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = ends(&[&format!("--http={address}")]);
    assert!(text.contains(&format!("cannot listen on {address}")), "{text}");
    for ttl in ["0", "0s", "100ms"] {
        let text = ends(&["--http=", &format!("--ttl={ttl}")]);
        assert!(text.contains("too short: one second is the least"), "{text}");
    }
    assert!(ends(&["--http=", &format!("--id={}", "x".repeat(300))]).contains("300 bytes; 253 are the most"));
    assert!(ends(&["--http=", "--label-pods=role=a,b"]).contains("POD_NAME"));
    assert!(ends(&["--http=", "--ttl=soon"]).contains("no duration"));
}

#[test]
fn without_a_cluster_it_says_where_it_looked() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_matriarch-elector"));
    command
        .args(["--election=web", "--http=", "--use-cluster-credentials"])
        .env_remove("KUBERNETES_SERVICE_HOST");
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("no cluster"), "{text}");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_matriarch-elector"));
    command.args(["--election=web", "--http=", "--kubeconfig=/nowhere/kubeconfig"]);
    let text = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert!(text.contains("read the kubeconfig /nowhere/kubeconfig"), "{text}");
}

#[test]
fn a_missing_namespace_is_told_and_tried_again() {
    let api = Api::default();
    let door = api.door();
    door.set(Mode::NoNamespace);
    let one = Sidecar::start(&door, &["--id=one", "--ttl=1s"]);
    until("told", || one.status()["problem"].to_string().contains("namespaces \\\"shop\\\" not found"));
    door.set(Mode::Up);
    one.until_leads();
    assert!(one.status()["problem"].is_null());
}
