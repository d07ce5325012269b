//! The test's hold on a running client: a few lines of HTTP, reached through the API server's pod proxy.
//!
//! `/healthz` · `/summary?from=&to=` (microseconds since 1970) · `/stop` (waits for the last attempt) ·
//! `/check?host=` (verdicts by log, by way of another host name if given) · `/report?host=&format=text` (all of them
//! judged together, as JSON or text) · `/observed?from=&to=` (what was seen of each member) · `/ask?host=` (who answers
//! there, and is it in recovery?) · `/log` (every line of every log) · `/log?workload=` (of those that write this).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::clock;
use crate::journal::{Journal, Log};
use crate::observer::observation::{Observations, Observed};
use crate::report::summary::{Summary, summarise};
use crate::report::{Logs, Report};
use crate::session::Door;

/// The longest request head that is read.
const LONGEST_HEAD: usize = 8192;
/// The longest time for a whole request.
const REQUEST: Duration = Duration::from_secs(120);
/// Statements of the longest attempt, a transfer.
const STATEMENTS: u32 = 5;

/// What a server says of itself.
#[derive(Serialize)]
struct Answer {
    server: Option<String>,
    in_recovery: bool,
    started: String,
    version: String,
    work_mem: String,
}

/// What the server can reach.
pub(crate) struct Control {
    /// All logs.
    pub(crate) journals: Vec<Arc<Journal>>,
    /// All logs of observers.
    pub(crate) observers: Vec<Arc<Observations>>,
    /// How to ask the database.
    pub(crate) door: Arc<Door>,
    /// Ends the writers.
    pub(crate) stop: watch::Sender<bool>,
}

impl Control {
    /// Answers until the process ends.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let control = self.clone();
                    tokio::spawn(async move {
                        match timeout(REQUEST, control.answer(stream)).await {
                            Ok(Ok(())) => {}
                            Ok(Err(error)) => eprintln!("request: {error:#}"),
                            Err(_) => eprintln!("request: took longer than {REQUEST:?}"),
                        }
                    });
                }
                Err(error) => {
                    eprintln!("accept: {error}");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn answer(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        let mut head = Vec::new();
        while !head.windows(4).any(|window| window == b"\r\n\r\n") {
            anyhow::ensure!(head.len() < LONGEST_HEAD, "the request's head is too long");
            let n = stream.read_buf(&mut head).await?;
            anyhow::ensure!(n > 0, "the request ended within its head");
        }
        let head = String::from_utf8_lossy(&head);
        let target = head.split_whitespace().nth(1).context("the request has no target")?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let (status, body) = match self.route(path, &query).await {
            Ok(Some(body)) => ("200 OK", body),
            Ok(None) => ("404 Not Found", b"{\"error\":\"no such page\"}".to_vec()),
            Err(error) => {
                ("500 Internal Server Error", json(&BTreeMap::from([("error", format!("{error:#}"))]))?)
            }
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&body).await?;
        stream.shutdown().await?;
        Ok(())
    }

    async fn route(&self, path: &str, query: &BTreeMap<&str, &str>) -> anyhow::Result<Option<Vec<u8>>> {
        let time = |key: &str| query.get(key).map(|text| text.parse::<u64>().context("a time")).transpose();
        Ok(Some(match path {
            "/healthz" => b"\"ok\"".to_vec(),
            "/summary" => json(&self.summaries(time("from")?, time("to")?))?,
            "/stop" => {
                self.stop().await?;
                json(&self.summaries(None, None))?
            }
            "/check" => json(&self.report(query.get("host").copied()).await?.writers)?,
            "/report" => {
                let report = self.report(query.get("host").copied()).await?;
                if query.get("format") == Some(&"text") {
                    format!("{report}\n").into_bytes()
                } else {
                    json(&report)?
                }
            }
            "/observed" => json(&self.observed(time("from")?, time("to")?))?,
            "/ask" => json(&self.ask(query.get("host").copied()).await?)?,
            "/log" => self.lines(query.get("workload").copied()).await?,
            _ => return Ok(None),
        }))
    }

    async fn ask(&self, host: Option<&str>) -> anyhow::Result<Answer> {
        let through = host.map(|host| self.door.through(host));
        let session = through.as_ref().unwrap_or(&self.door).open().await?;
        let sql = "SELECT host(inet_server_addr()), pg_is_in_recovery(), pg_postmaster_start_time()::text, \
                   current_setting('server_version'), current_setting('work_mem')";
        let rows = session.run(sql, &[]).await.map_err(|failure| anyhow::anyhow!("{}", failure.text()))?;
        let row = rows.first().context("no row")?;
        Ok(Answer {
            server: row.try_get(0)?,
            in_recovery: row.try_get(1)?,
            started: row.try_get(2)?,
            version: row.try_get(3)?,
            work_mem: row.try_get(4)?,
        })
    }

    async fn lines(&self, workload: Option<&str>) -> anyhow::Result<Vec<u8>> {
        let wanted = |journal: &&Arc<Journal>| {
            workload.is_none_or(|workload| journal.identity.workload.word() == workload)
        };
        let journals = self.journals.iter().filter(wanted).map(|journal| &journal.path);
        let observers = self.observers.iter().filter(|_| workload.is_none()).map(|observer| &observer.path);
        let mut all = Vec::new();
        for path in journals.chain(observers) {
            all.extend(tokio::fs::read(path).await?);
        }
        Ok(all)
    }

    /// Ends all writers, readers and observers.
    pub(crate) async fn stop(&self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        self.ended().await
    }

    /// What the logs say by themselves, of what ended between these times.
    pub(crate) fn summaries(&self, from: Option<u64>, to: Option<u64>) -> Vec<Summary> {
        let summary = |journal: &Arc<Journal>| {
            let until = to.unwrap_or(u64::MAX).min(journal.ended().unwrap_or_else(clock::now));
            journal.look(|attempts| summarise(&journal.identity, attempts, from.unwrap_or(0), until))
        };
        self.journals.iter().map(summary).collect()
    }

    fn observed(&self, from: Option<u64>, to: Option<u64>) -> Vec<Observed> {
        let between = (from.unwrap_or(0), to.unwrap_or(u64::MAX));
        self.observers.iter().map(|observer| observer.observed(between.0, between.1)).collect()
    }

    async fn report(&self, host: Option<&str>) -> anyhow::Result<Report> {
        let through = host.map(|host| self.door.through(host));
        let door = through.as_ref().unwrap_or(&self.door);
        let log = |journal: &Arc<Journal>| -> (Log, u64) {
            (journal.log(), journal.ended().unwrap_or_else(clock::now))
        };
        let journals = self.journals.iter().map(log).collect();
        // All of this process, so of one clock.
        Logs::new(journals, self.observed(None, None), 0).judge(door).await
    }

    /// Waits until every log is finished; an attempt has a bound for connecting and one for each of its statements.
    async fn ended(&self) -> anyhow::Result<()> {
        let bounds = self.door.bounds;
        let deadline =
            Instant::now() + bounds.connect + bounds.statement * STATEMENTS + Duration::from_secs(2);
        let going = || {
            self.journals.iter().any(|journal| journal.ended().is_none())
                || self.observers.iter().any(|observer| !observer.ended())
        };
        while going() {
            anyhow::ensure!(Instant::now() < deadline, "a writer did not stop in time");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

fn json<T: Serialize>(value: &T) -> anyhow::Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}
