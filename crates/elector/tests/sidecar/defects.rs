//! The sixteen defects of the sidecar whose place this one takes, each a test by name.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::api::{Api, LEASE, Mode};
use crate::process::{Sidecar, until};

#[test]
fn defect_01_a_leader_that_lost_the_lease_names_itself() {
    let api = Api::default();
    api.free();
    let cut = api.door();
    let one = Sidecar::start(&cut, &["--id=one", "--ttl=2s"]);
    one.until_leads();
    let two = Sidecar::start(&api.door(), &["--id=two", "--ttl=2s"]);
    cut.set(Mode::Silent);
    two.until_leads();
    let old = one.status();
    assert_eq!((&old["isLeader"], &old["name"]), (&json!(false), &json!("")), "{old}");
    one.until("says that it knows nothing", |status| status["stale"] == true);
    assert_eq!(one.get("/").code, 503);
}

#[test]
fn defect_02_followers_name_a_leader_of_the_past_for_ever() {
    let api = Api::default();
    api.free();
    let mut one = Sidecar::start(&api.door(), &["--id=one", "--ttl=3s"]);
    one.until_leads();
    let two = Sidecar::start(&api.door(), &["--id=two", "--ttl=3s"]);
    let three = Sidecar::start(&api.door(), &["--id=three", "--ttl=3s", "--priority=0"]);
    until("both name it", || two.name() == "one" && three.name() == "one");
    one.terminate();
    two.until_leads();
    until("the third names the second", || three.name() == "two");
    until("and said so", || three.said() == "one is the leader\ntwo is the leader\n");
}

#[test]
fn defect_03_needed_rights_are_told_and_the_namespace_is_the_own_one() {
    let api = Api::default();
    let door = api.door();
    door.set(Mode::Forbidden);
    let one = Sidecar::start(&door, &["--id=one", "--ttl=2s"]);
    until("readyz says what is missing", || {
        let ready = one.get("/readyz");
        ready.code == 503
            && ready.body.contains("get, list, watch and update")
            && ready.body.contains("forbidden")
    });
    assert!(one.log().contains("forbidden"));
    door.set(Mode::Up);
    one.until_leads();
    assert_eq!(one.get("/readyz").code, 200);
    assert!(api.get(LEASE).is_some(), "in the namespace of the context");
}

#[test]
fn defect_04_a_deleted_record_is_no_free_one() {
    let api = Api::default();
    api.free();
    let one = Sidecar::start(&api.door(), &["--id=one", "--ttl=3s"]);
    let epoch = one.until_leads();
    let two = Sidecar::start(&api.door(), &["--id=two", "--ttl=3s"]);
    until("both stand", || one.status()["candidates"].as_array().unwrap().len() == 2);
    api.delete();
    until("made again by its holder", || api.holder().is_some_and(|holder| holder.starts_with("one_")));
    let now = one.until_leads();
    // On a machine that stood still for longer than the deadline it is another term, but never an older one.
    assert!(now >= epoch, "{now} after {epoch}");
    assert!(!two.leads() || !one.leads());
}

#[test]
fn defect_05_trouble_with_the_connection_needs_no_restart() {
    let api = Api::default();
    api.free();
    let door = api.door();
    let one = Sidecar::start(&door, &["--id=one", "--ttl=2s"]);
    let epoch = one.until_leads();
    for mode in [Mode::Silent, Mode::Down] {
        door.set(mode);
        one.until("stops", |status| status["isLeader"] == false);
        door.set(Mode::Up);
        assert!(one.until_leads() > epoch, "a new term");
    }
}

#[test]
fn defect_06_the_record_is_of_an_api_that_is_kept_and_the_version_is_told() {
    let api = Api::default();
    api.free();
    let one = Sidecar::start(&api.door(), &["--id=one", "--ttl=3s"]);
    one.until_leads();
    assert_eq!(api.get(LEASE).unwrap()["apiVersion"], "coordination.k8s.io/v1");
    let metrics = one.get("/metrics").body;
    assert!(
        metrics.contains("matriarch_build_info{") && metrics.contains("matriarch_elector_is_leader 1"),
        "{metrics}"
    );
}

#[test]
fn defect_07_a_race_for_the_first_record_ends_nobody() {
    let api = Api::default();
    let door = api.door();
    door.set(Mode::CreateRace);
    let one = Sidecar::start(&door, &["--id=one", "--ttl=2s"]);
    until("names who was quicker", || one.name() == "other");
}

#[test]
fn defect_08_sigterm_releases_the_record() {
    let api = Api::default();
    api.free();
    let mut one = Sidecar::start(&api.door(), &["--id=one", "--ttl=60s"]);
    one.until_leads();
    let two = Sidecar::start(&api.door(), &["--id=two", "--ttl=60s"]);
    until("it follows", || two.name() == "one");
    let asked = Instant::now();
    assert!(one.terminate().success(), "{}", one.log());
    two.until_leads();
    assert!(asked.elapsed() < Duration::from_secs(40), "long before the TTL: {:?}", asked.elapsed());
}

#[test]
fn defect_09_two_pods_with_one_id_are_two_candidates() {
    let api = Api::default();
    api.free();
    let one = Sidecar::start(&api.door(), &["--id=same", "--ttl=2s"]);
    let two = Sidecar::start(&api.door(), &["--id=same", "--ttl=2s"]);
    until("both stand", || one.status()["candidates"].as_array().unwrap().len() == 2);
    for _ in 0..50 {
        let (first, second) = (one.status(), two.status());
        for status in [&first, &second] {
            assert!(status["isLeader"] == true || status["name"] != "same", "{first} {second}");
        }
        assert!(
            first["isLeader"] == false || second["isLeader"] == false || first["epoch"] != second["epoch"]
        );
    }
}

#[test]
fn defect_10_a_record_that_still_names_oneself_proves_nothing() {
    let api = Api::default();
    api.hold("one_of-an-earlier-life", 3);
    let start = Instant::now();
    let one = Sidecar::start(&api.door(), &["--id=one", "--ttl=3s"]);
    let first = one.until("has seen it", |status| status["stale"] == false);
    if start.elapsed() < Duration::from_secs(2) {
        assert_eq!((&first["isLeader"], &first["name"]), (&json!(false), &json!("")), "{first}");
    }
    one.until_leads();
    assert!(start.elapsed() >= Duration::from_secs(3), "its earlier life may still act");
}

#[test]
fn defect_11_an_answer_is_one_moment() {
    let api = Api::default();
    api.free();
    let one = Sidecar::start(&api.door(), &["--id=one", "--ttl=2s"]);
    let two = Sidecar::start(&api.door(), &["--id=two", "--ttl=2s"]);
    let mut epochs = std::collections::BTreeMap::new();
    for turn in 0..300 {
        for sidecar in [&one, &two] {
            let status = sidecar.status();
            if status["isLeader"] == true {
                assert_eq!(status["name"], status["self"]);
                let epoch = status["epoch"].as_u64().unwrap();
                let name = status["self"].as_str().unwrap().to_owned();
                assert_eq!(
                    epochs.entry(epoch).or_insert_with(|| name.clone()),
                    &name,
                    "one leader per epoch"
                );
            }
        }
        if turn % 60 == 30 {
            one.ask("POST", "/step-down");
            two.ask("POST", "/step-down");
        }
    }
    assert!(!epochs.is_empty());
}

#[test]
fn defect_12_followers_go_by_the_ttl_of_the_record() {
    let api = Api::default();
    api.hold("other_1", 5);
    let start = Instant::now();
    let one = Sidecar::start(&api.door(), &["--id=one", "--ttl=1s"]);
    one.until_leads();
    assert!(start.elapsed() >= Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn defect_13_the_answer_has_age_term_expiry_and_self() {
    let api = Api::default();
    api.free();
    let door = api.door();
    let one = Sidecar::start(&api.door(), &["--id=one", "--ttl=3s"]);
    one.until_leads();
    let two = Sidecar::start(&door, &["--id=two", "--ttl=3s", "--priority=7"]);
    two.until("both stand", |status| {
        status["name"] == "one" && status["candidates"].as_array().unwrap().len() == 2
    });
    let answer = two.get("/status");
    let status = answer.json();
    assert!(status["epoch"].is_u64() && status["age"].is_u64() && status["expiresIn"].is_u64(), "{status}");
    assert_eq!((&status["self"], &status["isLeader"]), (&json!("two"), &json!(false)));
    assert_eq!(answer.headers["x-epoch"], status["epoch"].to_string());
    assert_eq!((&*answer.headers["x-leader"], &*answer.headers["x-is-leader"]), ("one", "false"));
    for page in ["/livez", "/healthz", "/readyz"] {
        assert_eq!(two.get(page).code, 200, "{page}");
    }
    assert_eq!(two.get("/any/thing").json(), json!({"name": "one"}), "any GET, as it always was");
    door.set(Mode::Silent);
    until("what is old is not told", || {
        let answer = two.get("/");
        answer.code == 503 && answer.json() == json!({"name": ""})
    });
    assert_eq!((two.get("/readyz").code, two.get("/livez").code), (503, 200));
}

#[test]
fn defect_15_only_the_lease_is_written_and_rarely() {
    let api = Api::default();
    api.free();
    let one = Sidecar::start(&api.door(), &["--id=one", "--ttl=3s"]);
    one.until_leads();
    let before = api.asked().len();
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs(6));
    let asked = api.asked().split_off(before);
    let writes = asked.iter().filter(|(verb, _)| verb == "PUT").count();
    let most = usize::try_from(start.elapsed().as_secs()).unwrap() + 2;
    assert!(writes <= most, "{writes} renewals of one per second: {asked:?}");
    assert!(asked.iter().all(|(_, path)| path.contains("/leases")), "{asked:?}");
    assert!(asked.len() <= writes + most, "nothing is polled: {asked:?}");
}

#[test]
fn defect_16_there_is_fencing_hand_over_priority_labels_and_commands() {
    let api = Api::default();
    api.free();
    let pod = "/api/v1/namespaces/shop/pods/web-0";
    api.put(
        pod,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "shop"}}),
    );
    let door = api.door();
    let directory = tempfile::tempdir().unwrap();
    let told = directory.path().join("told");
    let script = format!("echo $ELECTION_EPOCH $ELECTION_LEADER $0 >> {}", told.display());
    let hook = |option: &str, word: &str| format!("{option}={}", json!(["sh", "-c", script, word]));
    let one = Sidecar::start(
        &door,
        &[
            "--id=one",
            "--ttl=4s",
            "--pod-name=web-0",
            "--pod-uid=u",
            "--label-pods=role=leader,follower",
            &hook("--exec-on-lead", "lead"),
            &hook("--exec-on-follow", "follow"),
        ],
    );
    let epoch = one.until_leads();
    let role = || api.get(pod).unwrap()["metadata"]["labels"]["role"].clone();
    until("labelled", || role() == "leader");
    let lines = || std::fs::read_to_string(&told).unwrap_or_default();
    until("told", || lines().contains("lead"));
    let two = Sidecar::start(&api.door(), &["--id=two", "--ttl=4s"]);
    let three = Sidecar::start(&api.door(), &["--id=three", "--ttl=4s"]);
    until("all stand", || one.status()["candidates"].as_array().unwrap().len() == 3);
    assert_eq!(two.ask("POST", "/step-down").code, 409, "who does not lead cannot");
    assert_eq!(one.ask("POST", "/step-down?to=nobody").code, 409);
    assert_eq!(one.ask("POST", "/step-down?to=three").code, 200, "{}", one.log());
    let next = three.until_leads();
    assert!(next > epoch);
    until("labelled again", || role() == "follower");
    until("told again", || lines().contains("follow"));
    let wait = one.get(&format!("/wait?epoch={epoch}"));
    assert!(wait.json()["epoch"].as_u64().unwrap() > epoch, "{wait:?}");
}
