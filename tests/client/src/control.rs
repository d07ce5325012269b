//! The test's hold on a running client: a few lines of HTTP, reached through the API server's pod proxy.
//!
//! `/healthz` · `/summary?from=&to=` (microseconds since 1970) · `/stop` (waits for the last attempt) ·
//! `/check?host=` (verdicts, by way of another host name if given) · `/ask?host=` (who answers there, and is it in
//! recovery?) · `/log` (every line of every journal).

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
use crate::journal::Journal;
use crate::judge;
use crate::session::Door;

/// The longest request head that is read.
const LONGEST_HEAD: usize = 8192;
/// The longest time for a whole request.
const REQUEST: Duration = Duration::from_secs(120);

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
                self.stop.send_replace(true);
                self.ended().await?;
                json(&self.summaries(None, None))?
            }
            "/check" => json(&self.check(query.get("host").copied()).await?)?,
            "/ask" => json(&self.ask(query.get("host").copied()).await?)?,
            "/log" => {
                let mut all = Vec::new();
                for journal in &self.journals {
                    all.extend(tokio::fs::read(&journal.path).await?);
                }
                all
            }
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

    fn summaries(&self, from: Option<u64>, to: Option<u64>) -> Vec<judge::Summary> {
        self.journals
            .iter()
            .map(|journal| {
                let (attempts, ended) = journal.attempts();
                let until = to.unwrap_or(u64::MAX).min(ended.unwrap_or_else(clock::now));
                judge::summarise(&journal.identity, &attempts, from.unwrap_or(0), until)
            })
            .collect()
    }

    async fn check(&self, host: Option<&str>) -> anyhow::Result<Vec<judge::Judgement>> {
        let through = host.map(|host| self.door.through(host));
        let door = through.as_ref().unwrap_or(&self.door);
        let mut judgements = Vec::new();
        for journal in &self.journals {
            let (attempts, ended) = journal.attempts();
            let until = ended.unwrap_or_else(clock::now);
            judgements.push(judge::judge(door, &journal.identity, &attempts, until).await?);
        }
        Ok(judgements)
    }

    /// Waits until every journal is finished; an attempt takes at most the two bounds of a session.
    async fn ended(&self) -> anyhow::Result<()> {
        let deadline =
            Instant::now() + self.door.bounds.connect + self.door.bounds.statement + Duration::from_secs(2);
        while self.journals.iter().any(|journal| journal.attempts().1.is_none()) {
            anyhow::ensure!(Instant::now() < deadline, "a writer did not stop in time");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

fn json<T: Serialize>(value: &T) -> anyhow::Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}
