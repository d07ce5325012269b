//! Accepted connections: who proves membership is listened to.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::{Shared, frame, trust::Trust};
use crate::clock;

/// Connections at once: strangers may knock, and each costs a handshake.
const MAX_CONNECTIONS: usize = 64;
/// For the whole handshake.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// A peer speaks five times a second; after this much silence its connection is dead weight.
const IDLE: Duration = Duration::from_secs(5);

pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connection = 0;
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a peer's connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        connection += 1;
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let from = stream.peer_addr().ok();
            if let Err(error) = listen_to(connection, stream, &shared).await {
                tracing::debug!(?from, error = telemetry::report(&error), "a peer's connection ended");
            }
            drop(permit);
        });
    }
}

async fn listen_to(connection: u64, stream: TcpStream, shared: &Shared) -> io::Result<()> {
    super::outgoing::tune(&stream)?;
    let mut trust = shared.trust.subscribe();
    let Some(trusted) = trust.borrow_and_update().clone() else {
        return Err(io::Error::other("no certificates yet"));
    };
    let acceptor = TlsAcceptor::from(Arc::clone(&trusted.server));
    let mut stream = timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    let mut buffer = Vec::new();
    let listen = async {
        loop {
            let said = timeout(IDLE, frame::read(&mut stream, &mut buffer)).await??;
            let name = said.announcement.member.name.clone();
            let is_news = {
                let mut table = shared.table();
                let is_news = table.hear(connection, said.announcement, clock::now());
                table.note(connection, &name, said.notes);
                is_news
            };
            if is_news {
                shared.changed.notify_one();
            }
        }
    };
    tokio::select! {
        ended = listen => ended,
        () = distrusted(&mut trust, &trusted) => Ok(()),
    }
}

/// Resolves when the trusted authorities have changed.
pub(super) async fn distrusted(trust: &mut watch::Receiver<Option<Arc<Trust>>>, since: &Trust) {
    let other = |now: &Option<Arc<Trust>>| now.as_ref().is_some_and(|now| !now.trusts_the_same(since));
    if trust.wait_for(other).await.is_err() {
        std::future::pending::<()>().await;
    }
}
