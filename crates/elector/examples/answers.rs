//! How fast a sidecar answers under a steady load, whether it keeps up or not: each request is due at its own time, and one
//! that is late because those before it were slow counts as slow (`docs/elector.md`).
//!
//! `cargo run --release -p matriarch-elector --example answers -- --url http://127.0.0.1:4040 --rate 1000 --seconds 20`

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;

#[path = "measure/ask.rs"]
mod ask;

use ask::{Connection, percentiles};

/// Measures how fast a sidecar answers.
#[derive(Debug, Parser)]
struct Options {
    /// The sidecar, by address and port.
    #[arg(long, default_value = "http://127.0.0.1:4040")]
    url: String,
    /// What is asked for.
    #[arg(long, default_value = "/")]
    path: String,
    /// Requests per second.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// For how long.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Over how many connections.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    connections: u32,
    /// A new connection for each request, as clients without a pool have it.
    #[arg(long)]
    connect: bool,
    /// The sidecar's process, whose memory and processor time are told, too.
    #[arg(long)]
    pid: Option<u32>,
}

/// What one connection saw.
#[derive(Default)]
struct Seen {
    /// From when each request was due.
    due: Vec<Duration>,
    /// From when each was sent.
    sent: Vec<Duration>,
    errors: Vec<String>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let address = options.url.trim_start_matches("http://").trim_end_matches('/');
    let address: SocketAddr = address.parse().with_context(|| format!("{address} is no address and port"))?;
    let before = options.pid.map(ticks).transpose()?;
    let next = AtomicU32::new(0);
    let start = Instant::now() + Duration::from_millis(50);
    let mut all = Seen::default();
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..options.connections)
            .map(|_| scope.spawn(|| asker(&options, address, &next, start)))
            .collect();
        for asker in askers {
            match asker.join() {
                Ok(seen) => {
                    all.due.extend(seen.due);
                    all.sent.extend(seen.sent);
                    all.errors.extend(seen.errors);
                }
                Err(_) => all.errors.push("an asker failed".to_owned()),
            }
        }
    });
    println!(
        "{} answers in {:.1} s, {} errors",
        all.due.len(),
        start.elapsed().as_secs_f64(),
        all.errors.len()
    );
    println!("since due:  {}", percentiles(all.due));
    println!("since sent: {}", percentiles(all.sent));
    if let (Some(pid), Some(before)) = (options.pid, before) {
        println!("{}", resident(pid)?);
        // One tick is 10 ms on Linux.
        println!("processor time: {} ms", (ticks(pid)? - before) * 10);
    }
    if let Some(error) = all.errors.first() {
        anyhow::bail!("{} errors, the first: {error}", all.errors.len());
    }
    Ok(())
}

fn asker(options: &Options, address: SocketAddr, next: &AtomicU32, start: Instant) -> Seen {
    let mut seen = Seen::default();
    let mut kept = None;
    loop {
        let turn = next.fetch_add(1, Ordering::Relaxed);
        if turn >= options.rate * options.seconds {
            return seen;
        }
        let due = start + Duration::from_secs(1) * turn / options.rate;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let sent = Instant::now();
        let connection = match kept.take().filter(|_| !options.connect) {
            Some(connection) => Ok(connection),
            None => Connection::open(address),
        };
        let answered = connection.and_then(|mut connection| {
            let (code, _) = connection.ask("GET", &options.path)?;
            anyhow::ensure!(code == 200, "answered {code}");
            Ok(connection)
        });
        match answered {
            Ok(connection) => {
                seen.due.push(due.elapsed());
                seen.sent.push(sent.elapsed());
                kept = Some(connection);
            }
            Err(error) => seen.errors.push(format!("{error:#}")),
        }
    }
}

/// Resident memory, as Linux counts it.
fn resident(pid: u32) -> Result<String> {
    let status =
        std::fs::read_to_string(format!("/proc/{pid}/status")).context("read the process's status")?;
    let lines = status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"));
    Ok(lines.collect::<Vec<_>>().join("; "))
}

/// Processor time of a process in ticks, the system's part included.
fn ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("read the process's times")?;
    let (_, fields) = stat.rsplit_once(") ").context("the process's times")?;
    let time = |place| fields.split(' ').nth(place).and_then(|field| field.parse::<u64>().ok());
    time(11).zip(time(12)).map(|(user, system)| user + system).context("the process's times")
}
