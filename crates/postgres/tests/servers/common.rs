//! Real servers in temporary directories, one per member, over loopback with TLS.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ha::{Incarnation, Lsn, Names, Position};
use postgres::command::waldump::WalReader;
use postgres::command::{basebackup, controldata, initdb::Initdb};
use postgres::conninfo::{ClientTls, Upstream};
use postgres::server::{Observation, Prober, StartCommand, StopMode, clear_remains, stop};
use postgres::settings::{Access, Hba, HbaLine, MEMBER_GROUP, Protocol, ServerTls, Settings, UserParameters};
use postgres::{Binaries, Layout, Session, follow, gate, replication, roles};

/// Bound of every single step: generous, it only catches a hang.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

/// Directories of server programs, separated as in `PATH`: the tests use exactly these. Set by the program that runs the
/// tests inside a root file system, whose `/tmp` is its own.
const VARIABLE: &str = "MATRIARCH_POSTGRES";

/// One row, by whoever.
pub(crate) const INSERT: &str = "INSERT INTO public.t VALUES (1)";

/// Runs the test once per major: those that [`VARIABLE`] names, else those that are installed. PostgreSQL refuses to run
/// as root, so root runs this very test again as an unprivileged user.
pub(crate) fn run<F>(module: &str, name: &str, test: F)
where
    F: AsyncFn(Arc<Lab>),
{
    let name = &format!("{}::{name}", module.split_once("::").map_or(module, |(_, m)| m));
    if rustix::process::getuid().is_root() {
        again_unprivileged(name);
        return;
    }
    let servers = servers();
    if servers.is_empty() {
        println!("SKIPPED {name}: no PostgreSQL server programs of a supported major are installed");
        return;
    }
    for binaries in servers {
        println!("{name} on PostgreSQL {}", binaries.major());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let lab = Arc::new(Lab::new(binaries));
        runtime.block_on(test(lab));
    }
}

/// A test of this name, once per major.
macro_rules! each_major {
    ($name:ident, $test:expr) => {
        #[test]
        fn $name() {
            $crate::common::run(module_path!(), stringify!($name), $test);
        }
    };
}
pub(crate) use each_major;

fn servers() -> Vec<Binaries> {
    let Some(directories) = std::env::var_os(VARIABLE) else { return Binaries::installed() };
    let at = |directory: PathBuf| {
        Binaries::at(&directory)
            .unwrap_or_else(|| panic!("{VARIABLE}: no servers in {}", directory.display()))
    };
    std::env::split_paths(&directories).map(at).collect()
}

static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A new cluster. Where `/tmp` is ours alone the first one is kept, and the others are copies of it.
async fn initdb(binaries: &Binaries, layout: &Layout) {
    let bound = Duration::from_secs(120);
    if std::env::var_os(VARIABLE).is_none() {
        Initdb::default().run(binaries, layout, bound).await.unwrap();
        return;
    }
    let kept = Layout::new(std::env::temp_dir().join(format!("initdb-{}", binaries.major())));
    {
        let _alone = ONE_AT_A_TIME.lock().await;
        if !kept.has_data() {
            std::fs::create_dir_all(kept.volume()).unwrap();
            Initdb::default().run(binaries, &kept, bound).await.unwrap();
        }
    }
    copy_below(&kept.data(), &layout.data());
    layout.prepare().unwrap();
}

pub(crate) fn copy_below(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_below(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn again_unprivileged(name: &str) {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let field = |user: &str, index: usize| {
        let line = passwd.lines().find(|l| l.starts_with(&format!("{user}:")))?;
        line.split(':').nth(index)?.parse::<u32>().ok()
    };
    let ids = |user| Some((field(user, 2)?, field(user, 3)?));
    let (uid, gid) = ids("postgres").or_else(|| ids("nobody")).unwrap();
    // The build directory may be out of that user's reach.
    let directory = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).unwrap();
    let program = directory.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = std::process::Command::new(&program);
    command.args(["--exact", name, "--nocapture"]).current_dir("/").uid(uid).gid(gid);
    // A test that starts at the same moment may hold the copy open for writing between its fork and its exec.
    let start = Instant::now();
    let status = loop {
        match command.status() {
            Err(error)
                if error.kind() == std::io::ErrorKind::ExecutableFileBusy && start.elapsed() < BOUND =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => break other.unwrap(),
        }
    };
    assert!(status.success(), "{name} failed as uid {uid}");
}

/// What the members of one test share: programs and certificates.
pub(crate) struct Lab {
    pub(crate) binaries: Binaries,
    root: tempfile::TempDir,
    pub(crate) server_tls: ServerTls,
    pub(crate) client_tls: ClientTls,
}

impl Lab {
    fn new(binaries: Binaries) -> Self {
        let root = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        let mut authority = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(path("ca.crt"), authority.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = rcgen::Issuer::new(authority, key);
        let leaf = |file: &str, common_name: &str, names: Vec<String>| {
            let mut leaf = rcgen::CertificateParams::new(names).unwrap();
            leaf.distinguished_name = rcgen::DistinguishedName::new();
            leaf.distinguished_name.push(rcgen::DnType::CommonName, common_name);
            let key = rcgen::KeyPair::generate().unwrap();
            std::fs::write(path(&format!("{file}.crt")), leaf.signed_by(&key, &issuer).unwrap().pem())
                .unwrap();
            let key_path = path(&format!("{file}.key"));
            std::fs::write(&key_path, key.serialize_pem()).unwrap();
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(key_path, private).unwrap();
        };
        leaf("server", "pg", vec!["pg.test".to_owned()]);
        leaf("client", MEMBER_GROUP, vec![]);
        Self {
            binaries,
            server_tls: ServerTls {
                certificate: path("server.crt"),
                key: path("server.key"),
                authority: path("ca.crt"),
            },
            client_tls: ClientTls {
                certificate: path("client.crt"),
                key: path("client.key"),
                authority: path("ca.crt"),
            },
            root,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }
}

/// One member: volume, settings and, while it runs, its server.
pub(crate) struct Member {
    pub(crate) lab: Arc<Lab>,
    pub(crate) layout: Layout,
    pub(crate) settings: Settings,
    pub(crate) incarnation: Incarnation,
    server: Option<tokio::process::Child>,
    log: PathBuf,
}

impl Member {
    /// An empty volume.
    pub(crate) fn new(lab: &Arc<Lab>, number: u64) -> Self {
        let volume = lab.path().join(format!("v{number}"));
        let run = lab.path().join(format!("r{number}"));
        std::fs::create_dir(&volume).unwrap();
        std::fs::create_dir(&run).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = lab.path().join(format!("log{number}"));
        let layout = Layout::new(volume).with_socket(run, port);
        layout.prepare().unwrap();
        let incarnation = Incarnation(0x1000 + number);
        let mut protocol = Protocol::new(lab.binaries.major(), layout.clone(), incarnation, "pg");
        "127.0.0.1".clone_into(&mut protocol.listen_addresses);
        protocol.tls = Some(lab.server_tls.clone());
        let mut hba = Hba::closed();
        hba.access = Access::Open;
        hba.os_user = os_user();
        hba.user_lines = vec![HbaLine::new("host all all 127.0.0.1/32 scram-sha-256").unwrap()];
        let small = [("shared_buffers", "16MB"), ("max_worker_processes", "4"), ("wal_keep_size", "256MB")];
        let small = small.map(|(k, v)| (k.to_owned(), v.to_owned()));
        let settings = Settings { user: UserParameters::new(small, []).unwrap(), protocol, hba };
        Self { lab: lab.clone(), layout, settings, incarnation, server: None, log }
    }

    /// A new cluster, started as a master that waits for nobody real.
    pub(crate) async fn primary(lab: &Arc<Lab>, number: u64) -> Self {
        let mut member = Self::new(lab, number);
        member.initialise().await;
        member
    }

    /// Makes the cluster on the empty volume and starts it as a master.
    pub(crate) async fn initialise(&mut self) {
        initdb(&self.lab.binaries, &self.layout).await;
        self.start_primary().await;
        roles::ensure_member_group(&self.session().await).await.unwrap();
    }

    /// A clone of `leader` that streams from it.
    pub(crate) async fn standby_of(leader: &mut Self, number: u64) -> Self {
        let mut member = Self::new(&leader.lab, number);
        leader.admit(member.incarnation).await;
        let mut seen = Vec::new();
        basebackup::clone_from(
            &member.lab.binaries,
            &member.layout,
            &leader.upstream(),
            member.incarnation,
            Duration::from_secs(120),
            |p| seen.push(p),
        )
        .await
        .unwrap();
        assert!(seen.last().is_some_and(|p| p.copied > 0), "progress was reported");
        member.start_standby(Some(leader.upstream())).await;
        member.wait_streaming().await;
        member
    }

    /// Role, slot and map line for another member.
    pub(crate) async fn admit(&mut self, member: Incarnation) {
        let session = self.session().await;
        let one = BTreeSet::from([member]);
        roles::ensure_member_roles(&session, &one).await.unwrap();
        replication::slots::ensure_slots(&session, &one).await.unwrap();
        self.settings.hba.members.insert(member);
        gate::admit_members(&self.layout, &session, &self.settings, BOUND).await.unwrap();
    }

    pub(crate) fn upstream(&self) -> Upstream {
        Upstream {
            address: "127.0.0.1".parse().unwrap(),
            server_name: "pg.test".to_owned(),
            port: self.layout.port(),
            tls: self.lab.client_tls.clone(),
        }
    }

    pub(crate) async fn start_primary(&mut self) {
        follow::make_primary(&self.layout).await.unwrap();
        self.settings.protocol.upstream = None;
        self.start().await;
    }

    pub(crate) async fn start_standby(&mut self, upstream: Option<Upstream>) {
        follow::make_standby(&self.layout).await.unwrap();
        self.settings.protocol.upstream = upstream;
        self.start().await;
    }

    /// The same for a server that need not come up.
    pub(crate) async fn try_start_standby(&mut self) {
        follow::make_standby(&self.layout).await.unwrap();
        self.spawn().await;
    }

    /// The same, to stream from `leader`.
    pub(crate) async fn try_start_standby_of(&mut self, leader: &Self) {
        self.settings.protocol.upstream = Some(leader.upstream());
        self.try_start_standby().await;
    }

    async fn start(&mut self) {
        self.spawn().await;
        let answers = |o: &Observation| matches!(o, Observation::Primary(_) | Observation::Standby(_));
        self.wait_for("an answer", answers).await;
    }

    async fn spawn(&mut self) {
        clear_remains(&self.layout).unwrap();
        self.settings.write(&self.layout).await.unwrap();
        let command = StartCommand::new(&self.lab.binaries, &self.layout).unwrap();
        let log = std::fs::File::options().create(true).append(true).open(&self.log).unwrap();
        let child = tokio::process::Command::new(&command.program)
            .args(&command.args)
            .env_clear()
            .envs(command.environment.iter().map(|(k, v)| (k, v)))
            .stdin(std::process::Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.server = Some(child);
    }

    pub(crate) async fn session(&self) -> Session {
        Session::open(&self.layout, BOUND).await.unwrap()
    }

    pub(crate) async fn observe(&self) -> Observation {
        Prober::new(self.layout.clone()).observe(BOUND).await
    }

    /// Looks until the condition holds and fails with the last sight.
    pub(crate) async fn wait_for(&self, what: &str, condition: impl Fn(&Observation) -> bool) -> Observation {
        let start = Instant::now();
        let mut prober = Prober::new(self.layout.clone());
        loop {
            let seen = prober.observe(BOUND).await;
            if condition(&seen) {
                return seen;
            }
            assert!(start.elapsed() < BOUND, "no {what} in {BOUND:?}; last seen: {seen:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn wait_streaming(&self) {
        self.wait_for("stream", |o| matches!(o, Observation::Standby(s) if s.streaming)).await;
    }

    /// Waits until the standby has replayed up to `lsn`.
    pub(crate) async fn wait_replayed(&self, lsn: Lsn) {
        let reached = |o: &Observation| matches!(o, Observation::Standby(s) if s.replayed >= Some(lsn));
        self.wait_for("replay", reached).await;
    }

    pub(crate) async fn flushed(&self) -> Lsn {
        postgres::promote::flush_position(&self.session().await).await.unwrap()
    }

    /// Stops the server and waits for its end.
    pub(crate) async fn stop(&mut self, mode: StopMode) {
        stop(&self.layout, mode).unwrap();
        let mut server = self.server.take().unwrap();
        tokio::time::timeout(BOUND, server.wait()).await.expect("stops").unwrap();
    }

    /// True when the server that was asked to stop has ended within `bound`.
    pub(crate) async fn ends_within(&mut self, bound: Duration) -> bool {
        let ended = tokio::time::timeout(bound, self.server.as_mut().unwrap().wait()).await.is_ok();
        if ended {
            self.server = None;
        }
        ended
    }

    /// Kills the postmaster and every process that is left of it.
    pub(crate) async fn kill(&mut self) {
        let mut server = self.server.take().unwrap();
        let parent = server.id().unwrap();
        let children = children(parent);
        server.kill().await.unwrap();
        for pid in &children {
            send(*pid, rustix::process::Signal::KILL);
        }
        // They are the shared memory's last users, and a start is refused while it is in use.
        let start = Instant::now();
        while let Some(pid) = children.iter().find(|pid| is_alive(**pid)) {
            assert!(start.elapsed() < BOUND, "{pid} survives SIGKILL");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(crate) async fn control(&self) -> controldata::ControlData {
        controldata::read(&self.lab.binaries, &self.layout.data(), BOUND).await.unwrap()
    }

    pub(crate) async fn reader(&self) -> WalReader {
        WalReader::new(&self.lab.binaries, &self.layout.data(), self.control().await.segment)
    }

    /// Seals it and gives the end of its log.
    pub(crate) async fn seal(&mut self) -> Position {
        let session = self.session().await;
        postgres::seal::stop_receiving(&self.layout, &session, &self.settings, BOUND).await.unwrap();
        self.settings.protocol.upstream = None;
        self.end_of_wal().await
    }

    pub(crate) async fn end_of_wal(&self) -> Position {
        let session = self.session().await;
        let reader = self.reader().await;
        postgres::seal::end_of_wal(&self.layout, &session, &reader, "pg", BOUND).await.unwrap()
    }

    /// Puts these names in force.
    pub(crate) async fn set_names(&mut self, names: Names) {
        let from = std::mem::replace(&mut self.settings.protocol.names, names);
        let session = self.session().await;
        replication::names::put_in_force(&self.layout, &session, &self.settings, &from, BOUND).await.unwrap();
    }

    /// A client's session over the socket: commits wait as the server says.
    pub(crate) async fn client(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::Config::new()
            .host_path(self.layout.run())
            .port(self.layout.port())
            .user("postgres")
            .application_name("client")
            .connect(tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        client
    }

    /// Waits until a client's commit waits for synchronous standbys.
    pub(crate) async fn wait_for_waiting_commit(&self) {
        let session = self.session().await;
        let seen = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        let start = Instant::now();
        while session.value::<i64>("look", seen, &[]).await.unwrap() == 0 {
            assert!(start.elapsed() < BOUND, "no commit waits");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A client's commit of one row that nobody acknowledges, left waiting.
    pub(crate) async fn waiting_commit(&self) -> tokio::task::JoinHandle<Result<u64, tokio_postgres::Error>> {
        let client = self.client().await;
        let waiting = tokio::spawn(async move { client.execute(INSERT, &[]).await });
        self.wait_for_waiting_commit().await;
        waiting
    }

    /// The table that [`INSERT`] writes to.
    pub(crate) async fn make_table(&self) {
        self.session().await.batch("table", "CREATE TABLE public.t (x int)").await.unwrap();
    }

    pub(crate) async fn count(&self, table: &str) -> i64 {
        let query = format!("SELECT count(*) FROM public.{table}");
        self.session().await.value("count", &query, &[]).await.unwrap()
    }

    pub(crate) fn log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// The process of this kind, such as `checkpointer`.
    pub(crate) async fn process(&self, kind: &str) -> i32 {
        let query = "SELECT pid FROM pg_stat_activity WHERE backend_type = $1";
        self.session().await.value("find a process", query, &[&kind]).await.unwrap()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- log of {}:\n{}\n---", self.incarnation, self.log());
        }
        let Some(server) = &self.server else { return };
        let Some(pid) = server.id() else { return };
        for child in children(pid) {
            // A test may have frozen one.
            send(child, rustix::process::Signal::CONT);
            send(child, rustix::process::Signal::KILL);
        }
        send(i32::try_from(pid).unwrap(), rustix::process::Signal::KILL);
    }
}

pub(crate) fn send(pid: i32, signal: rustix::process::Signal) {
    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal);
}

/// True while it runs; a zombie that nobody has buried yet does not.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !matches!(rest.trim_start().chars().next(), Some('Z' | 'X')))
}

/// The kernel's list of a process's children.
pub(crate) fn children(parent: u32) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let rest = stat.rsplit_once(')').map(|(_, r)| r.to_owned()).unwrap_or_default();
        if rest.split_whitespace().nth(1) == Some(parent.to_string().as_str()) {
            found.push(pid);
        }
    }
    found
}

/// The name of our own uid: peer authentication compares it with the map.
fn os_user() -> String {
    let uid = rustix::process::getuid().as_raw().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|l| l.split(':').nth(2) == Some(&uid)).expect("a passwd entry (P26)");
    line.split(':').next().unwrap().to_owned()
}

/// A quorum of one of these members.
pub(crate) fn any_of(members: &[&Member]) -> Names {
    Names::Quorum { members: members.iter().map(|m| m.incarnation).collect(), acks: 1 }
}
