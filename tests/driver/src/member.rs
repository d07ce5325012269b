//! One member's pod: a supervisor with everything below it, on an address of its own.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use api::names::ports;
use postgres::Layout;
use rustix::process::{Pid, Signal, kill_process};

use crate::objects::{CLUSTER, CLUSTER_UID, NAMESPACE};
use crate::{steps, under_test};

/// One member.
pub struct Member {
    /// The pod's name.
    pub name: String,
    /// The pod's address.
    pub address: Ipv4Addr,
    /// Where its server's files are.
    pub layout: Layout,
    root: PathBuf,
    own: PathBuf,
    binaries: PathBuf,
    /// Whether the agent tells its steps.
    watched: bool,
    supervisor: Mutex<Option<Child>>,
}

impl Member {
    /// An empty volume in the world's directory.
    pub fn new(root: &Path, name: &str, address: Ipv4Addr, api: &str, binaries: &Path) -> Self {
        let own = root.join(name);
        for part in ["volume", "tls", "run"] {
            fs::create_dir_all(own.join(part)).unwrap();
        }
        fs::write(own.join("kubeconfig"), kubeconfig(name, api)).unwrap();
        let layout = Layout::new(own.join("volume")).with_socket(own.join("run"), ports::POSTGRES);
        let (name, root, binaries) = (name.to_owned(), root.to_owned(), binaries.to_owned());
        Self { name, address, layout, root, own, binaries, watched: true, supervisor: Mutex::default() }
    }

    /// The agent tells nobody of its steps, as the product's does not.
    #[must_use]
    pub fn unwatched(mut self) -> Self {
        self.watched = false;
        self
    }

    /// The pod's UID: a container that starts again has the same.
    pub fn uid(&self) -> String {
        format!("uid-of-{}", self.name)
    }

    /// Starts the container.
    pub fn start(&self) {
        let at = |port: u16| format!("{}:{port}", self.address);
        let log = File::options().create(true).append(true).open(self.own.join("log")).unwrap();
        let steps = self.watched.then(|| (under_test::SOCKET, steps::socket(&self.root)));
        let child = Command::new(std::env::current_exe().unwrap())
            .arg("supervise")
            // By this everything below it is found again.
            .current_dir(&self.own)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned()))
            .env("POD_NAME", &self.name)
            .env("POD_NAMESPACE", NAMESPACE)
            .env("POD_UID", self.uid())
            .env("POD_IP", self.address.to_string())
            .env("NODE_NAME", format!("node-of-{}", self.name))
            .env("CLUSTER_NAME", CLUSTER)
            .env("CLUSTER_UID", CLUSTER_UID)
            .env("MATRIARCH_VOLUME", self.layout.volume())
            .env("MATRIARCH_PGDATA", self.layout.data())
            .env("MATRIARCH_TLS_DIR", self.own.join("tls"))
            .env("MATRIARCH_SOCKET_DIR", self.layout.run())
            .env("MATRIARCH_PG_BIN", &self.binaries)
            .env("MATRIARCH_PG_LISTEN", self.address.to_string())
            .env("MATRIARCH_LIVE_LISTEN", at(ports::LIVE))
            .env("MATRIARCH_HTTP_LISTEN", at(ports::HTTP))
            .env("MATRIARCH_PEER_LISTEN", at(ports::PEER))
            .env("KUBECONFIG", self.own.join("kubeconfig"))
            .envs(steps)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let before = self.supervisor.lock().unwrap().replace(child);
        assert!(before.is_none(), "{} runs already", self.name);
    }

    /// The supervisor's process, while the container runs.
    pub fn supervisor(&self) -> Option<u32> {
        self.supervisor.lock().unwrap().as_ref().map(Child::id)
    }

    /// Whether the container runs.
    pub fn runs(&self) -> bool {
        self.supervisor.lock().unwrap().is_some()
    }

    /// Ends every process of the container at once, the supervisor first.
    pub fn kill(&self) {
        let Some(mut supervisor) = self.supervisor.lock().unwrap().take() else { return };
        let _ = supervisor.kill();
        supervisor.wait().unwrap();
        let start = Instant::now();
        loop {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            for pid in left.into_iter().filter_map(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
            assert!(start.elapsed() < Duration::from_secs(30), "{} does not die", self.name);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Everything whose working directory is ours.
    fn processes(&self) -> Vec<i32> {
        let all = fs::read_dir("/proc").unwrap().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| {
            fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&self.own))
        })
        .collect()
    }

    /// The end of what supervisor and agent said; all of it, and the server too, when asked for.
    pub fn log(&self, whole: bool) -> String {
        let text = fs::read(self.own.join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let told = |line: &&str| whole || !line.contains(r#""logger":"postgres""#);
        let all: Vec<&str> = text.lines().filter(told).collect();
        let from = if whole { 0 } else { all.len().saturating_sub(40) };
        all[from..].join("\n")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The token says who asks.
fn kubeconfig(name: &str, api: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: c, cluster: {{server: \"http://{api}\"}}}}]\n\
         users: [{{name: u, user: {{token: {name}}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u, namespace: {NAMESPACE}}}}}]\n"
    )
}
