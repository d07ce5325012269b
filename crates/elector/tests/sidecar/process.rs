//! A sidecar that runs, and what it answers.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::api::Door;

/// Nothing that is waited for takes longer, on any machine.
pub(crate) const LONG: Duration = Duration::from_secs(90);

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

/// One sidecar.
#[derive(Debug)]
pub(crate) struct Sidecar {
    child: Child,
    directory: tempfile::TempDir,
    address: Option<SocketAddr>,
}

/// The command for a sidecar behind that door, with these further arguments.
pub(crate) fn command(door: SocketAddr, directory: &std::path::Path, arguments: &[&str]) -> Command {
    let kubeconfig = directory.join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: 'http://{door}'}}}}]\n\
         users: [{{name: u, user: {{}}}}]\ncontexts: [{{name: x, context: {{cluster: c, user: u, namespace: shop}}}}]\n\
         current-context: x\n"
    );
    std::fs::write(&kubeconfig, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_matriarch-elector"));
    command.arg("--election=web").arg("--kubeconfig").arg(kubeconfig).args(arguments).stdin(Stdio::null());
    for variable in ["POD_NAME", "POD_UID", "POD_IP", "NODE_NAME", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command
}

impl Sidecar {
    pub(crate) fn start(door: &Door, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| std::fs::File::create(directory.path().join(name)).unwrap();
        let mut all = vec!["--http=127.0.0.1:0"];
        all.extend(arguments);
        let child = command(door.address, directory.path(), &all)
            .stdout(file("out"))
            .stderr(file("log"))
            .spawn()
            .unwrap();
        let mut sidecar = Self { child, directory, address: None };
        let start = Instant::now();
        while sidecar.address.is_none() {
            sidecar.address = sidecar.log().lines().find_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                line["answers"].as_str()?.parse().ok()
            });
            assert!(start.elapsed() < LONG, "{}", sidecar.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        sidecar
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.path("out")).unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn ask(&self, method: &str, path: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address.unwrap()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let code = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(k, v)| (k.to_lowercase(), v.to_owned()))
            .collect();
        Answer { code, headers, body: body.to_owned() }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path)
    }

    pub(crate) fn status(&self) -> Value {
        self.get("/status").json()
    }

    pub(crate) fn leads(&self) -> bool {
        self.status()["isLeader"] == true
    }

    /// The old answer.
    pub(crate) fn name(&self) -> String {
        self.get("/").json()["name"].as_str().unwrap().to_owned()
    }

    /// Looks at `/status` until it is as wanted.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let status = self.status();
            if wanted(&status) {
                return status;
            }
            assert!(start.elapsed() < LONG, "{what}: {status}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn until_leads(&self) -> u64 {
        self.until("leads", |status| status["isLeader"] == true)["epoch"].as_u64().unwrap()
    }

    /// SIGTERM, and its end.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        signal(self.pid(), "TERM");
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < LONG, "{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Its end, when it comes by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to one process.
pub(crate) fn signal(pid: u32, name: &str) {
    let signal = match name {
        "TERM" => rustix::process::Signal::TERM,
        "STOP" => rustix::process::Signal::STOP,
        "CONT" => rustix::process::Signal::CONT,
        other => panic!("{other}"),
    };
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Waits for a condition.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
