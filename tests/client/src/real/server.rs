//! A PostgreSQL server in a temporary directory, ended with the test.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Generous: it only catches a hang.
pub(super) const BOUND: Duration = Duration::from_secs(300);

/// Directories of server programs, separated as in `PATH`; set by the program that runs tests inside a root file system.
const VARIABLE: &str = "MATRIARCH_POSTGRES";

/// Where to find server programs: those that [`VARIABLE`] names, else the newest that is installed.
pub(super) fn programs() -> Vec<PathBuf> {
    if let Some(directories) = std::env::var_os(VARIABLE) {
        return std::env::split_paths(&directories).collect();
    }
    let Ok(entries) = std::fs::read_dir("/usr/lib/postgresql") else { return Vec::new() };
    let majors = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let newest = majors.max().map(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")));
    newest.into_iter().filter(|directory| directory.join("postgres").exists()).collect()
}

/// A server.
pub(super) struct Server {
    programs: PathBuf,
    directory: tempfile::TempDir,
    /// Where it listens.
    pub(super) port: u16,
    child: Child,
}

impl Server {
    /// A new one with an `app` role and database.
    pub(super) async fn new(programs: &Path) -> Self {
        let directory = directory();
        let data = directory.path().join("data");
        run(program(programs, "initdb", directory.path())
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync", "--pgdata"])
            .arg(&data));
        let server = Self::start(programs, directory).await;
        server.sql("CREATE ROLE app LOGIN").await;
        server.sql("CREATE DATABASE app OWNER app").await;
        server
    }

    /// One that streams from this one.
    pub(super) async fn standby(&self) -> Self {
        let directory = directory();
        run(program(&self.programs, "pg_basebackup", directory.path())
            .args(["--host=127.0.0.1", "--username=postgres", "--write-recovery-conf", "--checkpoint=fast"])
            .args(["--no-sync", &format!("--port={}", self.port), "--pgdata"])
            .arg(directory.path().join("data")));
        let standby = Self::start(&self.programs, directory).await;
        self.until("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'", "1").await;
        standby
    }

    async fn start(programs: &Path, directory: tempfile::TempDir) -> Self {
        let port = free_port();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let child = program(programs, "postgres", directory.path())
            .arg("-D")
            .arg(directory.path().join("data"))
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"])
            .args(["-c", "unix_socket_directories=", "-c", "shared_buffers=16MB"])
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Self { programs: programs.to_owned(), directory, port, child };
        server.until("SELECT 1", "1").await;
        server
    }

    /// The URL of the database `app` for the role of that name.
    pub(super) fn url(&self) -> String {
        format!("postgres://app@127.0.0.1:{}/app", self.port)
    }

    /// Runs a statement as a superuser, in the database `postgres`; the first column of its first row.
    pub(super) async fn sql(&self, sql: &str) -> Option<String> {
        self.ask("postgres", sql).await.unwrap()
    }

    /// The same in the database `app`.
    pub(super) async fn app(&self, sql: &str) -> Option<String> {
        self.ask("app", sql).await.unwrap()
    }

    async fn ask(&self, database: &str, sql: &str) -> Result<Option<String>, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").dbname(database);
        let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
        let driver = tokio::spawn(connection);
        let answer = client.simple_query(sql).await;
        driver.abort();
        Ok(answer?.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        }))
    }

    /// Asks until it answers so.
    pub(super) async fn until(&self, sql: &str, wanted: &str) {
        let start = Instant::now();
        loop {
            let answer = self.ask("postgres", sql).await;
            if answer.as_ref().is_ok_and(|answer| answer.as_deref() == Some(wanted)) {
                return;
            }
            let log = || std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(start.elapsed() < BOUND, "{sql}: {answer:?}, not {wanted}; {}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            // SIGQUIT: the postmaster takes all of its processes along.
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        }
        let _ended = self.child.wait();
    }
}

/// A port that nobody listens on at this moment.
pub(super) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// PostgreSQL refuses to run as root; so root runs it as somebody else, in a directory of theirs.
fn unprivileged() -> Option<(u32, u32)> {
    if !rustix::process::getuid().is_root() {
        return None;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let ids = |user: &str| {
        let line = passwd.lines().find(|line| line.starts_with(&format!("{user}:")))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Some(ids("postgres").or_else(|| ids("nobody")).unwrap())
}

fn directory() -> tempfile::TempDir {
    let directory = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
    if let Some((uid, gid)) = unprivileged() {
        chown(directory.path(), Some(uid), Some(gid)).unwrap();
    }
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    directory
}

fn program(programs: &Path, name: &str, directory: &Path) -> Command {
    let mut command = Command::new(programs.join(name));
    command.current_dir(directory).env_clear().env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null());
    if let Some((uid, gid)) = unprivileged() {
        command.uid(uid).gid(gid);
    }
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
