//! The supervisor as it runs: the real binary (as a sub-reaper instead of PID 1), a scripted agent, and processes that
//! behave like Postgres's at their worst: sessions of their own, orphans, deafness.
//!
//! The scripted agent is this very test binary: the supervisor starts it with the argument `run`, which the test
//! framework takes for the name of a test.

#![expect(clippy::unwrap_used, reason = "what surrounds the tests may fail them too")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agent::control::StartCommand;
use agent::supervised::{Postmaster, PostmasterState, Progress, SupervisedError};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const POSTGRES: &str = r#"#!/bin/sh
setsid sleep 30 & echo $! >> "$DIR/pids"
( setsid sleep 30 & echo $! >> "$DIR/pids" )
( sleep 0.1 & )
if [ -n "$DEAF" ]; then trap '' INT; else trap 'exit 0' INT; fi
echo "pg|1700000000.123|$$|1|postmaster|00000|LOG:  ready | steady" >&2
printf 'pg|1700000000.123|%s|2|postmaster|42601|ERROR:  no\n\tway\n' $$ >&2
if [ -n "$CHATTY" ]; then head -c 8000000 /dev/zero | tr '\0' 'x' | fold -w 100 >&2; : > "$DIR/wrote"; fi
echo $$ >> "$DIR/pids"
while :; do sleep 0.1; done
"#;

// ---- the scripted agent ----

/// Not a test by itself: see above.
#[test]
fn run() {
    let Ok(scene) = std::env::var("SCENE") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(play(&scene));
    std::process::exit(0);
}

fn command() -> StartCommand {
    let dir = PathBuf::from(std::env::var("DIR").unwrap());
    let mut env: std::collections::BTreeMap<String, String> = ["DIR", "DEAF", "CHATTY"]
        .into_iter()
        .filter_map(|k| Some((k.into(), std::env::var(k).ok()?)))
        .collect();
    env.insert("PATH".into(), "/usr/bin:/bin".into());
    let args =
        std::env::var("ARGS").map(|args| args.split(' ').map(str::to_owned).collect()).unwrap_or_default();
    let program = std::env::var("PROGRAM").map_or_else(|_| dir.join("postgres"), PathBuf::from);
    StartCommand { program, args, env, cwd: dir.join("pgdata") }
}

async fn play(scene: &str) {
    let dir = PathBuf::from(std::env::var("DIR").unwrap());
    let progress = Progress::new(Duration::from_millis(if scene == "stall" { 300 } else { 3000 }));
    let postmaster = Postmaster::connect(progress).await.unwrap();
    let found = postmaster.now();
    match scene {
        "crash" if found.pid().is_none() => {
            postmaster.start(command()).await.unwrap();
            wait_for(|| pids(&dir).len() == 3).await;
            std::process::exit(1);
        }
        "crash" => leave(&dir.join("adopted"), &found.pid().unwrap().to_string()),
        "kill" => {
            postmaster.start(command()).await.unwrap();
            let again = postmaster.start(command()).await;
            assert!(matches!(again, Err(SupervisedError::Refused { .. })));
            postmaster.kill_all().await.unwrap();
            assert!(matches!(postmaster.now(), PostmasterState::Gone { last: Some(_) }));
            postmaster.kill_all().await.unwrap();
            fs::write(dir.join("killed"), "").unwrap();
        }
        "patient" => loop {
            match postmaster.start(command()).await {
                Ok(_) => {
                    assert!(postmaster.holds_lock());
                    break;
                }
                Err(error) => leave(&dir.join("refused"), &error.to_string()),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        },
        _ if found.is_gone() => drop(postmaster.start(command()).await.unwrap()),
        _ => {}
    }
    if scene == "freeze" && found == (PostmasterState::Gone { last: None }) && !dir.join("frozen").exists() {
        wait_for(|| pids(&dir).len() >= 3).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        fs::write(dir.join("frozen"), "").unwrap();
        kill_process(rustix::process::getpid(), Signal::STOP).unwrap();
    }
    let mut terminating = postmaster.terminating();
    let gone = postmaster.clone();
    let turns = async {
        loop {
            if scene != "stall" {
                postmaster.progress().touch();
            }
            if *terminating.borrow_and_update() && scene != "deaf" {
                postmaster.stop_fast(Duration::from_secs(2)).await.unwrap();
                postmaster.finished().unwrap();
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = turns => {}
        () = gone.supervisor_gone() => {}
    }
}

/// Whole or not at all, for a reader that looks all the time.
fn leave(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

async fn wait_for(done: impl Fn() -> bool) {
    while !done() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

// ---- the stage ----

struct Member {
    dir: PathBuf,
    _keep: tempfile::TempDir,
    child: Child,
    live: SocketAddr,
    said: Arc<Mutex<Vec<Value>>>,
}

#[derive(Default)]
struct Stage {
    scene: &'static str,
    volume: Option<PathBuf>,
    agent: Option<&'static str>,
    env: Vec<(&'static str, String)>,
    grace: u64,
    unread: bool,
    program: Option<&'static str>,
    dir: Option<tempfile::TempDir>,
    user: Option<u32>,
}

impl Member {
    fn start(stage: Stage) -> Self {
        let keep = stage.dir.unwrap_or_else(|| tempfile::tempdir().unwrap());
        let dir = keep.path().to_owned();
        fs::create_dir_all(dir.join("pgdata")).unwrap();
        let postgres = dir.join("postgres");
        match stage.program {
            None => fs::write(&postgres, POSTGRES).unwrap(),
            Some(program) => drop(fs::copy(program, &postgres).unwrap()),
        }
        fs::set_permissions(&postgres, fs::Permissions::from_mode(0o755)).unwrap();
        let live = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut agent = stage.agent.map_or_else(|| std::env::current_exe().unwrap(), PathBuf::from);
        let mut supervisor = PathBuf::from(env!("CARGO_BIN_EXE_matriarch-agent"));
        if stage.user.is_some() {
            // Another user may not look into the directory of the build.
            for (program, name) in [(&mut agent, "agent"), (&mut supervisor, "supervisor")] {
                fs::copy(&program, dir.join(name)).unwrap();
                *program = dir.join(name);
            }
        }
        let grace = if stage.grace == 0 { 60 } else { stage.grace };
        let mut command = Command::new(supervisor);
        if let Some(user) = stage.user {
            command.uid(user).gid(user);
        }
        let mut child = command
            .arg("supervise")
            .env("MATRIARCH_VOLUME", stage.volume.unwrap_or_else(|| dir.join("volume")))
            .env("MATRIARCH_LIVE_LISTEN", live.to_string())
            .env("MATRIARCH_TERMINATION_GRACE_SECONDS", grace.to_string())
            .env("MATRIARCH_LOCK_WAIT_SECONDS", "0")
            .env("MATRIARCH_AGENT_PROGRAM", agent)
            .env("SCENE", stage.scene)
            .env("DIR", &dir)
            .envs(stage.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        if !stage.unread {
            let (stdout, heard) = (child.stdout.take().unwrap(), Arc::clone(&said));
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines() {
                    let parsed = serde_json::from_str(&line.unwrap()).expect("every line is JSON");
                    heard.lock().unwrap().push(parsed);
                }
            });
        }
        Self { dir, _keep: keep, child, live, said }
    }

    fn signal(&self, signal: Signal) {
        kill_process(pid(self.child.id()), signal).unwrap();
    }

    fn said(&self, message: &str) -> usize {
        self.said.lock().unwrap().iter().filter(|line| line["message"].as_str() == Some(message)).count()
    }

    fn livez(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect_timeout(&self.live, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn pids(&self) -> Vec<u32> {
        pids(&self.dir)
    }

    fn ends(&mut self, within: Duration) -> Option<i32> {
        let until = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "the supervisor does not end: {:#?}", self.said.lock().unwrap());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn eventually(&self, what: &str, within: Duration, done: impl Fn(&Self) -> bool) {
        let until = Instant::now() + within;
        while !done(self) {
            assert!(Instant::now() < until, "not in time: {what}; said: {:#?}", self.said.lock().unwrap());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let pgdata = self.dir.join("pgdata");
        let numbers = fs::read_dir("/proc").unwrap().flatten();
        let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let at_work =
            numbers.filter(|n: &u32| fs::read_link(format!("/proc/{n}/cwd")).is_ok_and(|at| at == pgdata));
        for number in self.pids().into_iter().chain(at_work) {
            if alive(number) {
                let _ = kill_process(pid(number), Signal::KILL);
            }
        }
    }
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.try_into().unwrap()).unwrap()
}

fn pids(dir: &Path) -> Vec<u32> {
    let text = fs::read_to_string(dir.join("pids")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn alive(number: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn zombies_of(parent: u32) -> usize {
    let stats = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    stats
        .filter(|stat| {
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(&format!("Z {parent} ")))
        })
        .count()
}

const SECOND: Duration = Duration::from_secs(1);
const SILENT: &str = "the agent is silent: every process of Postgres is killed";

// ---- the tests ----

/// §5: a frozen agent; P7: backends in sessions of their own, orphans; K8: the supervisor goes on.
#[test]
fn a_frozen_agent_costs_every_process_of_postgres_its_life() {
    let member = Member::start(Stage { scene: "freeze", ..Stage::default() });
    member.eventually("the agent freezes", 10 * SECOND, |m| m.dir.join("frozen").exists());
    let frozen = Instant::now();
    let before = member.pids();
    assert!(before.iter().all(|pid| alive(*pid)));
    member.eventually("all die", 4 * SECOND, |_| !before.iter().any(|pid| alive(*pid)));
    let took = frozen.elapsed();
    assert!(took > Duration::from_millis(1500) && took < Duration::from_millis(3500), "{took:?}");
    assert_eq!(member.said(SILENT), 1);
    member.eventually("a new agent starts Postgres again", 10 * SECOND, |m| m.pids().len() == 6);
    assert!(member.livez("/livez").unwrap().starts_with("HTTP/1.1 200"));
}

#[test]
fn a_driver_that_stands_still_costs_postgres_its_life() {
    let member = Member::start(Stage { scene: "stall", ..Stage::default() });
    member.eventually("silence", 10 * SECOND, |m| m.said(SILENT) == 1);
    member.eventually("all gone", SECOND, |m| m.said("no process of Postgres is left") == 1);
}

#[test]
fn an_agent_that_comes_back_at_once_finds_its_postgres() {
    let member = Member::start(Stage { scene: "crash", ..Stage::default() });
    member.eventually("adopted", 10 * SECOND, |m| m.dir.join("adopted").exists());
    let adopted: u32 = fs::read_to_string(member.dir.join("adopted")).unwrap().parse().unwrap();
    assert_eq!(member.pids().last(), Some(&adopted));
    std::thread::sleep(3 * SECOND);
    assert!(alive(adopted));
    assert_eq!((member.said("the agent starts"), member.said("the postmaster starts")), (2, 1));
}

#[test]
fn killing_resolves_when_nothing_is_left_and_spares_strangers() {
    let member = Member::start(Stage {
        scene: "patient",
        program: Some("/bin/sleep"),
        env: vec![("ARGS", "30".into())],
        ..Stage::default()
    });
    member.eventually("Postgres starts", 10 * SECOND, |m| m.said("the postmaster starts") == 1);
    let outside =
        |cwd: &Path| Command::new(member.dir.join("postgres")).arg("30").current_dir(cwd).spawn().unwrap();
    let (mut ours, mut stranger) = (outside(&member.dir.join("pgdata")), outside(&member.dir));
    member.signal(Signal::TERM);
    member.eventually("all gone", 5 * SECOND, |m| m.said("no process of Postgres is left") >= 1);
    assert!(ours.try_wait().unwrap().is_some(), "same binary, same directory: Postgres, whoever started it");
    assert!(stranger.try_wait().unwrap().is_none(), "another directory: somebody else's");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn a_kill_is_answered_also_when_there_was_nothing() {
    let member = Member::start(Stage { scene: "kill", ..Stage::default() });
    member.eventually("killed", 10 * SECOND, |m| m.dir.join("killed").exists());
    assert!(!member.pids().iter().any(|pid| alive(*pid)));
}

#[test]
fn orphans_are_reaped() {
    let member = Member::start(Stage { scene: "steady", ..Stage::default() });
    member.eventually("Postgres starts", 10 * SECOND, |m| m.pids().len() == 3);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(zombies_of(member.child.id()), 0);
    assert!(member.pids().iter().all(|pid| alive(*pid)));
    let orphan = member.pids()[1];
    kill_process(pid(orphan), Signal::KILL).unwrap();
    member.eventually("it is gone altogether", SECOND, |_| !Path::new(&format!("/proc/{orphan}")).exists());
}

/// P7: what a dead postmaster leaves is killed, and the agent learns how it ended.
#[test]
fn a_dead_postmaster_takes_all_with_it() {
    let member = Member::start(Stage { scene: "steady", ..Stage::default() });
    member.eventually("Postgres starts", 10 * SECOND, |m| m.pids().len() == 3);
    let pids = member.pids();
    kill_process(pid(pids[2]), Signal::KILL).unwrap();
    member.eventually("all die", SECOND, |_| !pids.iter().any(|pid| alive(*pid)));
    member.eventually("and it is said", SECOND, |m| m.said("the postmaster ended") == 1);
    assert_eq!(member.said("the agent starts"), 1);
}

/// K7, K8.
#[test]
fn it_answers_while_everything_is_dead_and_paces_the_agent() {
    let member = Member::start(Stage { scene: "", agent: Some("/bin/false"), ..Stage::default() });
    member.eventually("it listens", 5 * SECOND, |m| m.livez("/livez").is_some());
    for _ in 0..20 {
        assert!(member.livez("/livez").unwrap().starts_with("HTTP/1.1 200"));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(member.livez("/other").unwrap().starts_with("HTTP/1.1 404"));
    let starts = member.said("the agent starts");
    assert!((3..8).contains(&starts), "{starts} starts in two seconds");
    // A client that says nothing does not keep it from answering others.
    let _mute: Vec<_> = (0..10).map(|_| TcpStream::connect(member.live).unwrap()).collect();
    assert!(member.livez("/livez").unwrap().starts_with("HTTP/1.1 200"));
}

#[test]
fn a_pod_that_ends_lets_the_agent_hand_over() {
    let mut member = Member::start(Stage { scene: "steady", ..Stage::default() });
    member.eventually("Postgres starts", 10 * SECOND, |m| m.pids().len() == 3);
    member.signal(Signal::TERM);
    assert_eq!(member.ends(4 * SECOND), Some(0));
    let ended = member
        .said
        .lock()
        .unwrap()
        .iter()
        .any(|line| line["message"] == "the postmaster ended" && line["exit"] == "exit status 0");
    assert!(ended && member.said("the agent has finished") == 1);
    assert!(!member.pids().iter().any(|pid| alive(*pid)));
}

#[test]
fn a_deaf_agent_and_a_deaf_postgres_end_before_the_kubelet_loses_patience() {
    let mut member =
        Member::start(Stage { scene: "deaf", env: vec![("DEAF", "1".into())], grace: 2, ..Stage::default() });
    member.eventually("Postgres starts", 10 * SECOND, |m| m.pids().len() == 3);
    let asked = Instant::now();
    member.signal(Signal::TERM);
    assert_eq!(member.ends(4 * SECOND), Some(0));
    assert!(asked.elapsed() < 2 * SECOND, "{:?}", asked.elapsed());
    assert_eq!(member.said("no hand-over within the bound: fast stop"), 1);
    assert_eq!(member.said("no clean stop within the bound: immediate stop"), 1);
    assert!(!member.pids().iter().any(|pid| alive(*pid)));
}

#[test]
fn a_dead_agent_without_postgres_does_not_hold_up_the_end() {
    let mut member = Member::start(Stage { scene: "", agent: Some("/bin/false"), ..Stage::default() });
    member.eventually("it listens", 5 * SECOND, |m| m.livez("/livez").is_some());
    member.signal(Signal::TERM);
    assert_eq!(member.ends(SECOND), Some(0));
}

/// Two pods, one volume: only the lock's holder starts Postgres, the other one when the first is gone.
#[test]
fn only_the_holder_of_the_volume_starts_postgres() {
    let volume = tempfile::tempdir().unwrap();
    let stage = || Stage { scene: "patient", volume: Some(volume.path().to_owned()), ..Stage::default() };
    let first = Member::start(stage());
    first.eventually("Postgres starts", 10 * SECOND, |m| m.pids().len() == 3);
    let second = Member::start(stage());
    second.eventually("refused", 10 * SECOND, |m| m.dir.join("refused").exists());
    let why = fs::read_to_string(second.dir.join("refused")).unwrap();
    assert!(why.contains("lock"), "{why}");
    assert!(second.pids().is_empty());
    drop(first);
    second.eventually("Postgres starts", 5 * SECOND, |m| m.pids().len() == 3);
}

#[test]
fn the_log_of_postgres_becomes_json_with_whole_messages() {
    let member = Member::start(Stage { scene: "steady", ..Stage::default() });
    member.eventually("it is said", 10 * SECOND, |m| m.said("no\nway") == 1 && m.said("ready | steady") == 1);
    let said = member.said.lock().unwrap();
    let line = said.iter().find(|line| line["message"] == "no\nway").unwrap();
    assert_eq!(
        (&line["level"], &line["logger"], &line["sqlstate"]),
        (&"ERROR".into(), &"postgres".into(), &"42601".into())
    );
    assert_eq!(line["timestamp"], "2023-11-14T22:13:20.123000Z");
}

/// Nobody reads the container's output: neither Postgres nor PID 1 may wait for it.
#[test]
fn an_unread_log_stops_nobody() {
    let member = Member::start(Stage {
        scene: "steady",
        env: vec![("CHATTY", "1".into())],
        unread: true,
        ..Stage::default()
    });
    member.eventually("Postgres wrote all", 20 * SECOND, |m| m.dir.join("wrote").exists());
    assert!(member.livez("/livez").unwrap().starts_with("HTTP/1.1 200"));
}

/// Processes of a Postgres on this directory, with their sessions.
fn servers(program: &Path, pgdata: &Path) -> Vec<(u32, String)> {
    let numbers =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let ours = numbers.filter(|number: &u32| {
        let link = |name: &str| fs::read_link(format!("/proc/{number}/{name}")).unwrap_or_default();
        link("exe") == program && link("cwd") == pgdata
    });
    let session = |number: u32| {
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(3)).unwrap_or_default().to_owned()
    };
    ours.map(|number| (number, session(number))).collect()
}

/// The real thing: a server with sessions at work, none of which is in the postmaster's session.
#[test]
fn a_real_postgres_dies_whole_with_its_frozen_agent() {
    let Some(bin) = fs::read_dir("/usr/lib/postgresql").ok().and_then(|versions| {
        versions.flatten().map(|version| version.path().join("bin")).find(|bin| bin.join("initdb").exists())
    }) else {
        eprintln!("skipped: there is no PostgreSQL on this machine");
        return;
    };
    // It refuses to be root.
    let user = rustix::process::geteuid().is_root().then_some(65534);
    let keep = tempfile::tempdir().unwrap();
    let (dir, pgdata) = (keep.path().to_owned(), keep.path().join("pgdata"));
    std::os::unix::fs::chown(&dir, user, user).unwrap();
    let mut initdb = Command::new(bin.join("initdb"));
    if let Some(user) = user {
        initdb.uid(user).gid(user);
    }
    let options = ["--no-sync", "--auth=trust", "--username=postgres", "--locale=C", "-D"];
    let made = initdb.args(options).arg(&pgdata).current_dir("/").output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let pgdata = pgdata.canonicalize().unwrap();

    let program = bin.join("postgres").canonicalize().unwrap();
    let args = format!("-D {} -k {} -h  -F", pgdata.display(), dir.display())
        .replace("-h  ", "-clisten_addresses= ");
    let env = vec![("ARGS", args), ("PROGRAM", program.display().to_string())];
    let stage = Stage { scene: "freeze", env, dir: Some(keep), user, ..Stage::default() };
    let mut member = Member::start(stage);
    let psql = |statement: &str| {
        let mut psql = Command::new(bin.join("psql"));
        psql.args(["-qXU", "postgres", "-c", statement, "-h"]).arg(&dir);
        psql.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    member.eventually("it answers", 20 * SECOND, |_| psql("select 1").wait().unwrap().success());
    let mut sessions: Vec<Child> = (0..8).map(|_| psql("select pg_sleep(60)")).collect();
    member.eventually("sessions are at work, each process in a session of its own", 10 * SECOND, |_| {
        let mut distinct: Vec<_> = servers(&program, &pgdata).into_iter().map(|(_, own)| own).collect();
        distinct.sort();
        distinct.dedup();
        distinct.len() >= 14
    });

    // What the scripted agent waits for; they are no processes.
    fs::write(dir.join("pids"), "0\n0\n0\n").unwrap();
    member.eventually("it is silent", 10 * SECOND, |m| m.said(SILENT) == 1);
    let began = Instant::now();
    member.eventually("no process is left", 2 * SECOND, |m| m.said("no process of Postgres is left") == 1);
    let took = began.elapsed();
    assert!(took < Duration::from_millis(500), "{took:?}");
    for session in &mut sessions {
        assert!(!session.wait().unwrap().success());
    }
    member.eventually("a new agent starts it again", 10 * SECOND, |m| m.said("the postmaster starts") == 2);
    member.signal(Signal::TERM);
    assert_eq!(member.ends(10 * SECOND), Some(0));
    assert_eq!(servers(&program, &pgdata), []);
}
