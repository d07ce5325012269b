//! How long nobody leads after a step-down, or after the leader's process was killed: three sidecars over one Lease of a
//! real API server, again and again (`docs/elector.md`).
//!
//! `cargo run --release -p matriarch-elector --example failover -- --program target/release/matriarch-elector \
//! --kubeconfig FILE --namespace NAME [--crash]`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use serde_json::Value;

#[path = "measure/ask.rs"]
mod ask;

use ask::{Connection, percentiles};

/// Measures fail-overs.
#[derive(Debug, Parser)]
struct Options {
    /// The elector.
    #[arg(long)]
    program: PathBuf,
    /// How it reaches the API server.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Where the Lease is: a namespace that exists.
    #[arg(long)]
    namespace: String,
    /// The name of the Lease.
    #[arg(long, default_value = "failover")]
    election: String,
    /// The TTL in seconds.
    #[arg(long, default_value_t = 3)]
    ttl: u32,
    /// How many fail-overs.
    #[arg(long, default_value_t = 50)]
    times: u32,
    /// The leader's process is killed instead of asked.
    #[arg(long)]
    crash: bool,
}

/// How long anything but a fail-over may take.
const LONG: Duration = Duration::from_secs(120);
/// Between two looks.
const PACE: Duration = Duration::from_millis(20);

struct Sidecar {
    child: Child,
    address: SocketAddr,
}

impl Sidecar {
    fn start(options: &Options, id: usize) -> Result<Self> {
        // Taken and given back: whoever listens there next is this child.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("find a port")?;
        let address = listener.local_addr().context("find a port")?;
        drop(listener);
        let child = Command::new(&options.program)
            .arg(format!("--election={}", options.election))
            .arg(format!("--election-namespace={}", options.namespace))
            .arg(format!("--id=candidate-{id}"))
            .arg(format!("--ttl={}s", options.ttl))
            .arg(format!("--http={address}"))
            .arg("--kubeconfig")
            .arg(&options.kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {}", options.program.display()))?;
        Ok(Self { child, address })
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.end();
    }
}

fn status(address: SocketAddr, path: &str) -> Result<Value> {
    let (_, body) = Connection::open(address)?.ask("GET", path)?;
    serde_json::from_slice(&body).context("read an answer")
}

fn main() -> Result<()> {
    let options = Options::parse();
    let mut sidecars = (0..3).map(|id| Sidecar::start(&options, id)).collect::<Result<Vec<_>>>()?;
    let mut times = Vec::new();
    for turn in 0..options.times {
        let leader = settled(&sidecars)?;
        // At another moment between two renewals each time.
        let part = u64::from(options.ttl) * 1000 / 3 * u64::from(turn % 10) / 10;
        std::thread::sleep(Duration::from_millis(part));
        let took = fail_over(&options, &mut sidecars, leader)?;
        println!("{:3}: {:.1} ms", turn + 1, took.as_secs_f64() * 1e3);
        times.push(took);
    }
    let what = if options.crash { "crashes" } else { "step-downs" };
    println!("{} {what}, TTL {} s: {}", times.len(), options.ttl, percentiles(times));
    Ok(())
}

/// Waits until one leads and all know all; which one.
fn settled(sidecars: &[Sidecar]) -> Result<usize> {
    let start = Instant::now();
    loop {
        let seen: Vec<Value> = sidecars
            .iter()
            .map(|sidecar| status(sidecar.address, "/status").unwrap_or(Value::Null))
            .collect();
        let complete = |status: &Value| status["candidates"].as_array().is_some_and(|all| all.len() == 3);
        let leaders: Vec<usize> = (0..seen.len())
            .filter(|id| seen.get(*id).is_some_and(|status| status["isLeader"] == true))
            .collect();
        if let [leader] = leaders.as_slice()
            && seen.iter().all(complete)
        {
            return Ok(*leader);
        }
        anyhow::ensure!(start.elapsed() < LONG, "no settled election: {seen:?}");
        std::thread::sleep(PACE);
    }
}

/// From the request or the kill until another one says that it leads.
fn fail_over(options: &Options, sidecars: &mut [Sidecar], leader: usize) -> Result<Duration> {
    let old = sidecars.get_mut(leader).context("the leader")?;
    let epoch = status(old.address, "/status")?["epoch"].as_u64().context("the leader's epoch")?;
    let (tell, told) = mpsc::channel();
    let addresses: Vec<SocketAddr> = sidecars.iter().map(|sidecar| sidecar.address).collect();
    for (_, address) in addresses.into_iter().enumerate().filter(|(id, _)| *id != leader) {
        let tell = tell.clone();
        std::thread::spawn(move || {
            let mut known = epoch;
            while let Ok(seen) = status(address, &format!("/wait?epoch={known}&timeout=20")) {
                known = seen["epoch"].as_u64().unwrap_or(known);
                if known > epoch && seen["isLeader"] == true {
                    // Nobody listens any more once another one was quicker.
                    let _ = tell.send(Instant::now());
                }
                // While a winner waits for its answer, it names nobody.
                if known > epoch && seen["name"] != "" {
                    return;
                }
            }
        });
    }
    // Both ask by now.
    std::thread::sleep(PACE * 5);
    let old = sidecars.get_mut(leader).context("the leader")?;
    let start = Instant::now();
    if options.crash {
        old.child.kill().context("kill the leader")?;
    } else {
        let (code, _) = Connection::open(old.address)?.ask("POST", "/step-down")?;
        anyhow::ensure!(code == 200, "the step-down was answered {code}");
    }
    let led = told.recv_timeout(LONG).context("nobody leads")?;
    if options.crash {
        old.end();
        *old = Sidecar::start(options, leader)?;
    }
    Ok(led.saturating_duration_since(start))
}
