//! The judge against real servers that each test starts for itself: clean where nothing is broken, red where something is.
//!
//! Against the servers that the environment names, else the newest that is installed; without any, nothing is shown.

mod server;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::arguments::Command;
use server::{BOUND, Server, free_port, programs};

/// A client that writes, and its pages.
struct Running {
    task: JoinHandle<anyhow::Result<ExitCode>>,
    port: u16,
}

impl Running {
    /// Starts one; `more` are arguments.
    fn start(logs: &Path, server: &Server, more: &str) -> Self {
        let port = free_port();
        let line = format!(
            "matriarch-client write --url {} --log-dir {} --listen 127.0.0.1:{port} {PATIENT} {more}",
            server.url(),
            logs.display()
        );
        Self { task: tokio::spawn(Command::try_parse_from(line.split_whitespace()).unwrap().run()), port }
    }

    async fn page(&self, page: &str) -> std::io::Result<Value> {
        Ok(serde_json::from_str(&self.text(page).await?).unwrap())
    }

    async fn text(&self, page: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.write_all(format!("GET /{page} HTTP/1.1\r\n\r\n").as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{page}: {text}");
        Ok(body.to_owned())
    }

    /// Waits until every log has so many attempts of this outcome.
    async fn until(&self, outcome: &str, wanted: u64) {
        let start = Instant::now();
        loop {
            let logs = self.page("summary").await;
            let enough = |log: &Value| log[outcome].as_u64().unwrap() >= wanted;
            if logs.as_ref().is_ok_and(|logs| logs.as_array().unwrap().iter().all(enough)) {
                return;
            }
            assert!(start.elapsed() < BOUND && !self.task.is_finished(), "{wanted} {outcome}: {logs:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the writers; what everything amounts to.
    async fn end(self) -> Value {
        self.page("stop").await.unwrap();
        let report = self.page("report").await.unwrap();
        self.task.abort();
        report
    }
}

/// What the command line says of all logs of a directory.
async fn check(logs: &Path, server: &Server) -> ExitCode {
    let line =
        format!("matriarch-client check --url {} --log-dir {} --format text", server.url(), logs.display());
    Command::try_parse_from(line.split_whitespace()).unwrap().run().await.unwrap()
}

/// The same, all of it.
async fn report(logs: &Path, server: &Server) -> Value {
    use crate::arguments::check::{gather, logs_in};
    use crate::session::{Bounds, Door, target::Target};
    let bounds = Bounds { connect: BOUND, statement: BOUND };
    let door = Door::new(Target::parse(&server.url()).unwrap(), None, bounds).unwrap();
    let logs = gather(&logs_in(logs).unwrap(), Duration::ZERO).unwrap();
    serde_json::to_value(logs.judge(&door).await.unwrap()).unwrap()
}

fn writer<'a>(report: &'a Value, prefix: &str) -> &'a Value {
    let named = |log: &&Value| log["writer"].as_str().unwrap().starts_with(prefix);
    report["writers"].as_array().unwrap().iter().find(named).unwrap()
}

/// A slow machine is no failure.
const PATIENT: &str = "--connect-timeout 60s --statement-timeout 60s --observe-timeout 60s";
const EVERYTHING: &str = "--kept 20ms --fresh 100ms --transfers 20ms --appends 20ms --lists 1 --deletes 20ms";

/// Servers and writers of several tests at once would only wait for each other.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_workload_is_clean_and_each_broken_promise_is_seen() {
    let _alone = ALONE.lock().await;
    for programs in programs() {
        let (server, logs) = (Server::new(&programs).await, tempfile::tempdir().unwrap());
        let members = format!("--observe 127.0.0.1:{},127.0.0.1:{}", server.port, free_port());
        let pinned = format!("--pin 127.0.0.1:{} --sync 100ms", server.port);
        let client = Running::start(logs.path(), &server, &format!("{EVERYTHING} {pinned} {members}"));
        client.until("ok", 15).await;
        // Whole and locked transfers would stand in each other's way as serialisable ones do; these only show it.
        let serializable = Running::start(
            logs.path(),
            &server,
            "--id b --transfers 10ms --isolation serializable --connections both",
        );
        serializable.until("ok", 10).await;
        serializable.page("stop").await.unwrap();
        serializable.task.abort();
        let appends = client.text("log?workload=appends").await.unwrap();
        let heads = appends.lines().filter(|line| line.contains("\"writer\"")).count();
        assert!(heads == 1 && appends.contains("\"position\":15"), "{appends}");
        assert!(client.text("log").await.unwrap().contains("\"observer\""));
        let own = client.end().await;
        assert_eq!(own["clean"], true, "{own}");
        assert_eq!(own["writers"].as_array().unwrap().len(), 6);
        assert_eq!(own["unjudged"].as_array().unwrap().len(), 0, "{own}");
        let seen = |at: usize| &own["observed"][at]["runs"][0];
        assert_eq!((seen(0)["role"].as_str(), seen(0)["timeline"].as_u64()), (Some("master"), Some(1)));
        assert_eq!(
            (seen(1)["role"].as_str(), seen(1)["listener"].as_str()),
            (Some("unknown"), Some("refused"))
        );
        assert_eq!(check(logs.path(), &server).await, ExitCode::SUCCESS);

        // Acknowledged rows vanish, come twice and come back; money is made; a list is cut.
        for (broken, count, sql) in [
            ("kept_", "lost", "DELETE FROM t WHERE n = 7"),
            ("kept_", "duplicated", "INSERT INTO t SELECT * FROM t WHERE n = 8"),
            ("kept_", "phantom", "INSERT INTO t SELECT writer, 1000000 FROM t GROUP BY writer"),
            (
                "deletes_",
                "resurrected",
                "INSERT INTO t_deletes SELECT writer, 3 FROM t_deletes GROUP BY writer",
            ),
            ("transfers_", "lost", "DELETE FROM t_transfers WHERE n = 7"),
            ("transfers_", "unbalanced", "UPDATE t_accounts SET balance = balance + 1 WHERE id = 0"),
            ("appends_", "holes", "DELETE FROM t_appends WHERE position = 2"),
            ("appends_", "moved", "UPDATE t_appends SET position = -position WHERE position = 3"),
            (
                "appends_",
                "reordered",
                "UPDATE t_appends SET position = 1000 - position WHERE position BETWEEN 4 AND 9",
            ),
        ] {
            server.app(sql).await;
            let found = report(logs.path(), &server).await;
            assert!(writer(&found, broken)[count].as_u64().unwrap() > 0, "{broken} {count}: {found}");
        }
        assert_eq!(check(logs.path(), &server).await, ExitCode::FAILURE);
        drop(server);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_wait_for_a_standby_is_unknown_p2() {
    let _alone = ALONE.lock().await;
    for programs in programs() {
        let (server, logs) = (Server::new(&programs).await, tempfile::tempdir().unwrap());
        let workloads = "--kept 20ms --transfers 20ms --appends 20ms --deletes 20ms";
        let client = Running::start(logs.path(), &server, workloads);
        client.until("ok", 5).await;
        server.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await;
        server.sql("SELECT pg_reload_conf()").await;
        let start = Instant::now();
        while !client.page("summary").await.unwrap().as_array().unwrap().iter().all(|log| log["unknown"] != 0)
        {
            server
                .sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
                .await;
            assert!(start.elapsed() < BOUND, "{:?}", client.page("summary").await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server.sql("ALTER SYSTEM RESET synchronous_standby_names").await;
        server.sql("SELECT pg_reload_conf()").await;
        let report = client.end().await;
        assert_eq!(report["clean"], true, "{report}");
        for log in report["writers"].as_array().unwrap() {
            let (unknown, present) = (&log["unknown"], &log["unknown_present"]);
            assert_eq!(log["sqlstates"]["01000"], *unknown, "a warning beside a success: {log}");
            // Those of before the last ten deletions are gone again.
            let there = log["workload"] == "deletes" || unknown == present;
            assert!(there, "each was committed here, and nobody told its client so: {log}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_superseded_master_that_goes_on_is_seen_and_what_it_acknowledged_is_lost() {
    let _alone = ALONE.lock().await;
    for programs in programs() {
        let (old, logs) = (Server::new(&programs).await, tempfile::tempdir().unwrap());
        let client = Running::start(logs.path(), &old, "--kept 20ms --fresh 100ms");
        client.until("ok", 5).await;
        let new = old.standby().await;
        let pin = format!("--id b --pin-every 20ms --pin 127.0.0.1:{}", old.port);
        let observe = format!("--observe 127.0.0.1:{},127.0.0.1:{}", old.port, new.port);
        let pinned = Running::start(logs.path(), &old, &format!("{pin} {observe}"));
        pinned.until("ok", 10).await;
        client.page("stop").await.unwrap();
        client.task.abort();

        // A failover without a fence.
        new.sql("SELECT pg_promote()").await;
        new.until("SELECT pg_is_in_recovery()", "f").await;
        let after = Running::start(logs.path(), &new, "--id c --kept 20ms --fresh 100ms --appends 20ms");
        after.until("ok", 10).await;
        let so_far = pinned.page("summary").await.unwrap()[0]["ok"].as_u64().unwrap();
        pinned.until("ok", so_far + 10).await;
        assert_eq!(after.end().await["clean"], true, "by itself it is clean");
        pinned.end().await;

        let report = report(logs.path(), &new).await;
        let stale = writer(&report, "pin1_");
        assert!(stale["stale"].as_u64().unwrap() >= 9 && stale["lost"].as_u64().unwrap() >= 9, "{stale}");
        assert_eq!(writer(&report, "kept_c_")["stale"], 0, "{report}");
        assert!(report["masters"]["two_ms"].as_u64().unwrap() > 0, "{}", report["masters"]);
        let timelines: Vec<_> =
            report["members"]["reigns"].as_array().unwrap().iter().map(|reign| &reign["timeline"]).collect();
        assert_eq!(timelines, [1, 2], "{}", report["members"]);
        assert_eq!(check(logs.path(), &new).await, ExitCode::FAILURE);
    }
}
