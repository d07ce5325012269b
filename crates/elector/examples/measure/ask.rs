//! One connection to a sidecar, and what is told of many measured times.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// No answer takes longer, unless it was asked to.
const BOUND: Duration = Duration::from_secs(30);

/// A connection that is kept.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    /// Opens one.
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        stream.set_read_timeout(Some(BOUND)).context("bound the answers")?;
        Ok(Self(BufReader::new(stream)))
    }

    /// One request: the answer's code and body.
    pub(crate) fn ask(&mut self, method: &str, path: &str) -> Result<(u16, Vec<u8>)> {
        let text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        self.0.get_mut().write_all(text.as_bytes()).context("ask")?;
        let mut line = String::new();
        self.0.read_line(&mut line).context("read the status line")?;
        let code = line.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status line")?;
        let mut length = 0;
        loop {
            line.clear();
            self.0.read_line(&mut line).context("read a header")?;
            let header = line.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().context("the answer's length")?;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).context("read the body")?;
        Ok((code, body))
    }
}

/// Median, 90th and 99th percentile and the longest, in milliseconds.
pub(crate) fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |percent: usize| {
        let place = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(place).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    };
    format!("p50 {:.3} ms, p90 {:.3} ms, p99 {:.3} ms, longest {:.3} ms", at(50), at(90), at(99), at(100))
}
