//! `--run`: a command that runs only while this one leads, and ends with all its children before the deadline.

use std::path::Path;
use std::time::Duration;

use crate::api::{Api, Mode};
use crate::process::{Sidecar, signal, until};

/// A command whose child has a session of its own and will not hear of SIGTERM; both write their pids.
fn stubborn(directory: &Path) -> String {
    let pids = directory.join("pids");
    let pids = pids.display();
    format!(
        "trap '' TERM; setsid sh -c \"trap '' TERM; echo \\$\\$ >> {pids}; sleep 1000\" & echo $$ >> {pids}; wait; wait"
    )
}

fn alive(directory: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(directory.join("pids")).unwrap_or_default();
    let pids = text.lines().filter_map(|line| line.parse().ok());
    pids.filter(|pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    })
    .collect()
}

fn leads_with(api: &Api, door: &crate::api::Door, directory: &Path, grace: &str) -> Sidecar {
    api.free();
    let script = stubborn(directory);
    let grace = format!("--run-grace={grace}");
    let one = Sidecar::start(door, &["--id=one", "--ttl=3s", &grace, "--run", "sh", "-c", &script]);
    until("the command and its child run", || alive(directory).len() == 2);
    one
}

#[test]
fn a_step_down_ends_the_command_and_its_children_before_another_leads() {
    let (api, directory) = (Api::default(), tempfile::tempdir().unwrap());
    let one = leads_with(&api, &api.door(), directory.path(), "300ms");
    let two = Sidecar::start(&api.door(), &["--id=two", "--ttl=3s"]);
    until("it stands", || one.status()["candidates"].as_array().unwrap().len() == 2);
    assert_eq!(one.ask("POST", "/step-down?to=two").code, 200, "{}", one.log());
    assert_eq!(alive(directory.path()), [0_i32; 0], "the Lease is released after them");
    two.until_leads();
}

#[test]
fn a_leader_that_is_cut_off_ends_the_command_before_another_leads() {
    let (api, directory) = (Api::default(), tempfile::tempdir().unwrap());
    let door = api.door();
    let _one = leads_with(&api, &door, directory.path(), "300ms");
    let two = Sidecar::start(&api.door(), &["--id=two", "--ttl=3s"]);
    door.set(Mode::Silent);
    two.until_leads();
    assert_eq!(alive(directory.path()), [0_i32; 0]);
}

#[test]
fn a_frozen_sidecar_does_not_keep_its_command_beyond_the_deadline() {
    let (api, directory) = (Api::default(), tempfile::tempdir().unwrap());
    let one = leads_with(&api, &api.door(), directory.path(), "300ms");
    let two = Sidecar::start(&api.door(), &["--id=two", "--ttl=3s"]);
    signal(one.pid(), "STOP");
    two.until_leads();
    assert_eq!(alive(directory.path()), [0_i32; 0], "its ward has a clock of its own");
    signal(one.pid(), "CONT");
}

#[test]
fn a_killed_sidecar_takes_its_command_along() {
    let (api, directory) = (Api::default(), tempfile::tempdir().unwrap());
    let mut one = leads_with(&api, &api.door(), directory.path(), "300ms");
    one.kill();
    until("both have ended", || alive(directory.path()).is_empty());
}

#[test]
fn the_commands_own_end_releases_and_is_the_sidecars() {
    let api = Api::default();
    api.free();
    let mut one =
        Sidecar::start(&api.door(), &["--id=one", "--ttl=60s", "--run", "sh", "-c", "sleep 0.5; exit 7"]);
    assert_eq!(one.wait().code(), Some(7), "{}", one.log());
    assert_eq!(api.holder(), None, "{}", one.log());
}

#[test]
fn sigterm_gives_the_command_its_grace() {
    let (api, directory) = (Api::default(), tempfile::tempdir().unwrap());
    api.free();
    let file = directory.path().join("ended");
    let script = format!(
        "trap 'sleep 0.3; echo well > {}; exit 0' TERM; echo x > {0}.started; sleep 1000 & wait",
        file.display()
    );
    let mut one = Sidecar::start(
        &api.door(),
        &["--id=one", "--ttl=30s", "--run-grace=20s", "--run", "sh", "-c", &script],
    );
    until("it runs", || directory.path().join("ended.started").exists());
    std::thread::sleep(Duration::from_millis(100));
    assert!(one.terminate().success(), "{}", one.log());
    assert_eq!(std::fs::read_to_string(file).unwrap(), "well\n");
    assert_eq!(api.holder(), None);
}
