//! A sidecar that runs as a process, and what it answers.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::LONG;

/// Between two looks.
const PACE: Duration = Duration::from_millis(20);

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// One sidecar. Dropping it kills it.
pub(crate) struct Sidecar {
    child: Child,
    directory: tempfile::TempDir,
    pub(crate) address: SocketAddr,
}

/// The command for a sidecar with this kubeconfig, which knows nothing of a pod.
pub(crate) fn command(kubeconfig: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_elector-under-test"));
    command.arg("--kubeconfig").arg(kubeconfig).args(arguments).stdin(Stdio::null());
    for variable in ["POD_NAME", "POD_UID", "POD_IP", "NODE_NAME", "RUST_LOG", "MATRIARCH_LOG", "KUBECONFIG"]
    {
        command.env_remove(variable);
    }
    command
}

impl Sidecar {
    pub(crate) fn start(kubeconfig: &Path, arguments: &[&str]) -> Self {
        let mut all = vec!["--http=127.0.0.1:0"];
        all.extend(arguments);
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let file = std::fs::File::create(&log).unwrap();
        let mut child =
            command(kubeconfig, &all).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        let start = Instant::now();
        let address = loop {
            let told = std::fs::read_to_string(&log).unwrap();
            let found = told.lines().find_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                line["answers"].as_str()?.parse().ok()
            });
            if let Some(address) = found {
                break address;
            }
            assert!(child.try_wait().unwrap().is_none() && start.elapsed() < LONG, "{told}");
            std::thread::sleep(PACE);
        };
        Self { child, directory, address }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    pub(crate) fn ask(&self, method: &str, path: &str) -> Answer {
        ask(self.address, method, path)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path)
    }

    pub(crate) fn status(&self) -> Value {
        self.get("/status").json()
    }

    /// The old answer.
    pub(crate) fn name(&self) -> String {
        self.get("/").json()["name"].as_str().unwrap().to_owned()
    }

    /// Looks until `wanted`.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !wanted(self) {
            assert!(start.elapsed() < LONG, "{what}: {}\n{}", self.status(), self.log());
            std::thread::sleep(PACE);
        }
    }

    /// Waits until it leads; its epoch.
    pub(crate) fn until_leads(&self) -> u64 {
        let start = Instant::now();
        loop {
            let status = self.status();
            if status["isLeader"] == true {
                return status["epoch"].as_u64().unwrap();
            }
            assert!(start.elapsed() < LONG, "does not lead: {status}\n{}", self.log());
            std::thread::sleep(PACE);
        }
    }

    /// Sends it a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        self.kill();
    }
}

fn open(address: SocketAddr, method: &str, path: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    BufReader::new(stream)
}

/// One request.
pub(crate) fn ask(address: SocketAddr, method: &str, path: &str) -> Answer {
    let mut text = String::new();
    open(address, method, path).read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let code = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    Answer { code, headers, body: body.to_owned() }
}

/// The data of server-sent events, as they come.
pub(crate) fn events(address: SocketAddr) -> impl Iterator<Item = Value> {
    let lines = open(address, "GET", "/events").lines();
    lines.map_while(Result::ok).filter_map(|line| {
        let data = line.strip_prefix("data: ")?.to_owned();
        Some(serde_json::from_str(&data).unwrap())
    })
}
