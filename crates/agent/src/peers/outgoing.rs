//! One task per peer: dial, speak, dial again.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ha::announcement::HEARTBEAT;
use ha::{Announcement, MemberName};
use rustix::net::sockopt;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_rustls::TlsConnector;

use super::{Shared, frame, incoming::distrusted};
use crate::clock;

const CONNECT: Duration = Duration::from_millis(500);
const HANDSHAKE: Duration = Duration::from_secs(1);
const WRITE: Duration = Duration::from_secs(1);
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// Never returns; aborted when the peer is gone or moved.
pub(super) async fn talk_to(name: MemberName, address: IpAddr, shared: Arc<Shared>) {
    let mut back_off = BACK_OFF_MIN;
    let mut told = false;
    loop {
        let mut spoke = false;
        let ended = converse(&name, address, &shared, &mut spoke).await;
        if spoke {
            back_off = BACK_OFF_MIN;
            told = false;
        }
        match ended {
            Ok(()) => continue,
            Err(error) if !told => {
                told = true;
                tracing::info!(peer = %name, %address, error = telemetry::report(&error), "cannot speak to a peer");
            }
            Err(_) => {}
        }
        if !spoke {
            let jitter = rand::random_range(0.8..1.2);
            tokio::time::sleep(back_off.mul_f64(jitter)).await;
            back_off = (back_off * 2).min(BACK_OFF_MAX);
        }
    }
}

/// One connection, from dialling to its end; `Ok` when it is to be made anew for other certificates.
async fn converse(name: &MemberName, address: IpAddr, shared: &Shared, spoke: &mut bool) -> io::Result<()> {
    let mut trust = shared.trust.subscribe();
    let trusted = match trust.wait_for(Option::is_some).await {
        Ok(trusted) => trusted.clone(),
        Err(_) => None,
    };
    let Some(trusted) = trusted else { return std::future::pending().await };
    let stream = dial(name, address, shared).await?;
    tune(&stream)?;
    let options = &shared.options;
    let host = api::names::member_host(&options.cluster, &options.namespace, &name.0);
    let host = ServerName::try_from(host).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::clone(&trusted.client));
    let stream = timeout(HANDSHAKE, connector.connect(host, stream)).await??;
    let (mut listen, mut speak) = tokio::io::split(stream);
    tracing::debug!(peer = %name, %address, "speaking to a peer");

    let mut said = shared.said.subscribe();
    let mut beat = tokio::time::interval(HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The other end never speaks here; what arrives is its end, at once instead of after a failed write.
    let mut nothing = [0; 16];
    let ended = listen.read(&mut nothing);
    tokio::pin!(ended);
    loop {
        tokio::select! {
            ended = &mut ended => {
                return Err(ended.map_or_else(|error| error, |_| io::ErrorKind::ConnectionReset.into()));
            }
            () = distrusted(&mut trust, &trusted) => return Ok(()),
            changed = said.changed() => changed.map_err(io::Error::other)?,
            _ = beat.tick() => {}
        }
        let announcement = said.borrow_and_update().clone();
        let Some(announcement) = announcement else { continue };
        let frame = {
            let echoes = shared.table().echoes();
            let announcement = Announcement { sent_at: clock::now(), echoes, ..(*announcement).clone() };
            let notes = shared.notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
            frame::encode(&frame::Message { announcement, notes })?
        };
        timeout(WRITE, async {
            speak.write_all(&frame).await?;
            speak.flush().await
        })
        .await??;
        *spoke = true;
    }
}

async fn dial(name: &MemberName, address: IpAddr, shared: &Shared) -> io::Result<TcpStream> {
    let since = clock::now();
    let dialled = connect(SocketAddr::new(address, shared.options.port)).await;
    let refused = |dialled: &io::Result<TcpStream>| {
        dialled.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    if refused(&dialled) {
        let dead = match shared.options.live_port {
            None => true,
            Some(port) => refused(&connect(SocketAddr::new(address, port)).await),
        };
        if dead && shared.table().refuse(name, since) {
            tracing::info!(peer = %name, %address, "a peer refuses connections");
            shared.changed.notify_one();
        }
    }
    dialled
}

async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    timeout(CONNECT, TcpStream::connect(to)).await?
}

/// No delay for small messages, and a dead network shows within seconds even when nothing is written.
pub(super) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(2))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(1))?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    sockopt::set_tcp_user_timeout(stream, 5000)?;
    Ok(())
}
