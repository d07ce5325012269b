//! The agent as it is, but for a watcher of its steps: each is told to the test, which lets it go on or ends it there.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Mutex;

use agent::cli::{Cli, Mode};
use clap::Parser as _;
use kubernetes::client::Origin;
use postgres::steps::{self, Kind};
use rustix::process::{Signal, getpid, kill_process};

/// Where the test listens.
pub const SOCKET: &str = "MATRIARCH_STEPS";
/// Its answer: go on.
pub const GO_ON: u8 = b'g';
/// Its answer: end here.
pub const END: u8 = b'k';

static TEST: Mutex<Option<UnixStream>> = Mutex::new(None);

/// Runs as supervisor or agent.
pub fn main() -> ExitCode {
    let ended = match Cli::parse().mode {
        Mode::Run(config) => {
            if let Some(socket) = std::env::var_os(SOCKET) {
                let mut test = UnixStream::connect(socket).unwrap();
                writeln!(test, "{}", config.pod_name).unwrap();
                *TEST.lock().unwrap() = Some(test);
                steps::watch(watcher);
            }
            telemetry::init().unwrap();
            // A kubeconfig instead of the files of a service account, which nobody may write here.
            agent::run::run(*config, Origin::Infer)
        }
        mode => Cli { mode }.run(),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Programs that only read.
const READERS: [&str; 3] = ["pg_controldata ", "pg_waldump ", "postgres "];
/// What a program says when it goes from one part of its work to the next; the rest is progress.
const PARTS: [&str; 3] = ["need to copy", "creating backup label", "syncing target data directory"];
/// How the names of statements begin that change nothing. Whatever is not here counts as a step.
const QUESTIONS: [&str; 9] =
    ["ask whether ", "count ", "find ", "list ", "look ", "name the probe", "observe ", "read ", "it is "];

fn watcher(kind: Kind, what: &str) {
    let begins = |words: &[&str]| words.iter().any(|word| what.starts_with(word));
    let nothing = match kind {
        Kind::Program => {
            let part = PARTS.iter().any(|part| what.contains(part));
            begins(&READERS) || (what.contains(" says ") && !part)
        }
        Kind::Statement => begins(&QUESTIONS),
        Kind::Supervisor => what == "heartbeat",
        // For people, written beside everything else, and nobody waits for one.
        Kind::Api => what.ends_with(" events"),
        Kind::File | Kind::Signal => false,
    };
    if nothing {
        return;
    }
    let mut test = TEST.lock().unwrap();
    let mut answer = [GO_ON];
    let asked = test.as_mut().is_some_and(|test| {
        writeln!(test, "{kind:?} {what}").is_ok() && test.read_exact(&mut answer).is_ok()
    });
    if asked && answer == [END] {
        kill_process(getpid(), Signal::KILL).unwrap();
        // The signal takes effect before another instruction of ours matters.
        loop {
            std::thread::park();
        }
    }
}
