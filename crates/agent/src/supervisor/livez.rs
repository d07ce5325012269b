//! PID 1's own answer to the kubelet (K7): it turns, whatever Postgres and the agent do.
//!
//! Non-blocking, bounded in connections, bytes and time; it shares the supervisor's one loop, which is what it attests.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use ha::Instant;
use rustix::event::{PollFd, PollFlags};

use crate::clock;

const MAX_CONNECTIONS: usize = 16;
const MAX_REQUEST: usize = 1024;
/// The kubelet's own timeout is a second.
const IDLE: Duration = Duration::from_secs(2);
/// Between attempts to take the port.
const BIND_AGAIN: Duration = Duration::from_secs(1);

/// The listener and what is said over it.
#[derive(Debug)]
pub(super) struct Livez {
    address: SocketAddr,
    listener: Option<TcpListener>,
    bind_at: Instant,
    connections: Vec<Connection>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    since: Instant,
    request: Vec<u8>,
}

impl Livez {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, listener: None, bind_at: Instant(0), connections: Vec::new() }
    }

    /// What to wait for.
    pub(super) fn interest<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if let Some(listener) = &self.listener
            && self.connections.len() < MAX_CONNECTIONS
        {
            fds.push(PollFd::new(listener, PollFlags::IN));
        }
        fds.extend(self.connections.iter().map(|connection| PollFd::new(&connection.stream, PollFlags::IN)));
    }

    /// Does what can be done without waiting. An error is one of taking the port; it is tried again.
    pub(super) fn turn(&mut self) -> std::io::Result<()> {
        let now = clock::now();
        if self.listener.is_none() && now >= self.bind_at {
            self.bind_at = now.after(BIND_AGAIN);
            let listener = TcpListener::bind(self.address)?;
            listener.set_nonblocking(true)?;
            self.listener = Some(listener);
        }
        while let Some(listener) = &self.listener
            && self.connections.len() < MAX_CONNECTIONS
        {
            // Errors are the connection's own (it ended already), or none waits.
            let Ok((stream, _)) = listener.accept() else { break };
            if stream.set_nonblocking(true).is_ok() {
                self.connections.push(Connection { stream, since: now, request: Vec::new() });
            }
        }
        self.connections.retain_mut(|connection| connection.goes_on(now));
        Ok(())
    }
}

impl Connection {
    fn goes_on(&mut self, now: Instant) -> bool {
        let mut chunk = [0; 256];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return false,
                Ok(length) => self.request.extend_from_slice(chunk.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return now.since(self.since) < IDLE;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return false,
            }
            if self.request.len() > MAX_REQUEST || self.request.windows(4).any(|end| end == b"\r\n\r\n") {
                // It fits any socket's buffer; a reader that takes none of it gets nothing.
                let _ = self.stream.write(answer(&self.request));
                let _ = self.stream.shutdown(std::net::Shutdown::Write);
                return false;
            }
        }
    }
}

fn answer(request: &[u8]) -> &'static [u8] {
    let asked = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    if asked.starts_with(b"GET /livez ") || asked.starts_with(b"HEAD /livez ") {
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\nConnection: close\r\n\r\nalive\n"
    } else {
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    }
}
