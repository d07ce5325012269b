//! A client that goes where `pgwrite` leads and keeps its own log of what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::names::ports;
use postgres::{Layout, Session};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls};

use crate::api_server::ApiServer;
use crate::objects::WRITE_SLICE;

const PACE: Duration = Duration::from_millis(25);
const BOUND: Duration = Duration::from_secs(5);

/// Every attempt writes a number of its own, once.
#[derive(Debug, Default)]
struct Log {
    tried: i64,
    acknowledged: BTreeSet<i64>,
}

/// The client; ends when dropped.
pub(crate) struct Rows {
    log: Arc<Mutex<Log>>,
    task: JoinHandle<()>,
}

impl Drop for Rows {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Rows {
    /// Writes from now on.
    pub(crate) fn write(api: ApiServer) -> Self {
        let log = Arc::new(Mutex::new(Log::default()));
        let own = Arc::clone(&log);
        let task = tokio::spawn(async move {
            let mut session: Option<(Ipv4Addr, Client)> = None;
            loop {
                tokio::time::sleep(PACE).await;
                let Some(to) = led_to(&api) else { continue };
                if session.as_ref().is_none_or(|(at, client)| *at != to || client.is_closed()) {
                    session = tokio::time::timeout(BOUND, open(to)).await.ok().flatten().map(|it| (to, it));
                }
                let Some((_, client)) = &session else { continue };
                let number = {
                    let mut log = own.lock().unwrap();
                    log.tried += 1;
                    log.tried
                };
                let insert = async { client.execute("INSERT INTO public.t VALUES ($1)", &[&number]).await };
                match tokio::time::timeout(BOUND, insert).await {
                    Ok(Ok(_)) => drop(own.lock().unwrap().acknowledged.insert(number)),
                    // Unknown, whatever was said: the session is not used again.
                    _ => session = None,
                }
            }
        });
        Self { log, task }
    }

    /// How many were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> usize {
        self.log.lock().unwrap().acknowledged.len()
    }

    /// Compares the log with what is there: every acknowledged row once, no other but attempted ones, none twice. On a
    /// follower all of it within this time.
    pub(crate) async fn judge(&self, layout: &Layout, within: Option<Duration>) -> anyhow::Result<()> {
        let expected = self.log.lock().unwrap().acknowledged.clone();
        let start = Instant::now();
        loop {
            let judged = self.compare(layout, &expected).await;
            if judged.is_ok() || within.is_none_or(|within| start.elapsed() > within) {
                return judged;
            }
            tokio::time::sleep(PACE * 4).await;
        }
    }

    async fn compare(&self, layout: &Layout, expected: &BTreeSet<i64>) -> anyhow::Result<()> {
        let session = Session::open_database(layout, "app", BOUND).await?;
        let found = session.rows("read the rows", "SELECT i, count(*) FROM public.t GROUP BY i", &[]).await?;
        let found: BTreeMap<i64, i64> = found.iter().map(|row| (row.get(0), row.get(1))).collect();
        let tried = self.log.lock().unwrap().tried;
        let lost: Vec<&i64> = expected.iter().filter(|number| !found.contains_key(*number)).collect();
        anyhow::ensure!(lost.is_empty(), "acknowledged rows are lost: {lost:?}");
        let twice: Vec<_> = found.iter().filter(|(_, times)| **times != 1).collect();
        anyhow::ensure!(twice.is_empty(), "rows are there more than once: {twice:?}");
        let strange: Vec<_> = found.keys().filter(|number| **number < 1 || **number > tried).collect();
        anyhow::ensure!(strange.is_empty(), "rows that nobody wrote: {strange:?}");
        Ok(())
    }
}

fn led_to(api: &ApiServer) -> Option<Ipv4Addr> {
    api.get("endpointslices", WRITE_SLICE)?["endpoints"][0]["addresses"][0].as_str()?.parse().ok()
}

async fn open(to: Ipv4Addr) -> Option<Client> {
    let mut config = Config::new();
    config.host(to.to_string()).port(ports::POSTGRES).user("app").dbname("app").connect_timeout(BOUND);
    let (client, connection) = config.connect(NoTls).await.ok()?;
    tokio::spawn(async move { drop(connection.await) });
    client.batch_execute("CREATE TABLE IF NOT EXISTS public.t (i int8 NOT NULL)").await.ok()?;
    Some(client)
}
