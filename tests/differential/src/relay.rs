//! The way from a standby to another server, which can be cut.
//!
//! Each pair of servers has a port of its own; what comes in goes to the other server's socket. Cut, it ends every
//! connection and takes none. Must never pass anything while it is cut.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

/// One way.
#[derive(Debug)]
pub(crate) struct Relay {
    port: u16,
    open: watch::Sender<bool>,
}

impl Relay {
    /// A cut way to this socket.
    pub(crate) async fn new(socket: PathBuf) -> Result<Self> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = TcpListener::bind(any).await.context("listening for a relay")?;
        let port = listener.local_addr().context("asking for a relay's port")?.port();
        let (open, opened) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass(stream, socket.clone(), opened.clone()));
            }
        });
        Ok(Self { port, open })
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Cuts or mends it.
    pub(crate) fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }
}

async fn pass(mut from: TcpStream, socket: PathBuf, mut open: watch::Receiver<bool>) {
    if !*open.borrow_and_update() {
        return;
    }
    let Ok(mut to) = UnixStream::connect(socket).await else { return };
    tokio::select! {
        _ = open.wait_for(|open| !*open) => {}
        _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
    }
}
