//! Carries connections from 127.0.0.1 in the ordinary network to the API server inside the rig's. It copies
//! bytes and looks at none of them, so everything that `kubectl` does works through it.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::layout::{API_PORT, CONTROL_ADDRESS, RELAY_PORT, USUAL, control_netns, instance};
use super::net;

/// The kernel accepts in the place of a stopped server, so only a missing one ever takes this long.
const CONNECT: Duration = Duration::from_secs(5);

/// Accepts and carries until it is killed.
pub(crate) fn run(port: u16) -> Result<std::convert::Infallible> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("listening on port {port}"))?;
    loop {
        // Out of descriptors passes; there is nobody to tell but the log.
        match listener.accept() {
            Ok((near, _)) => {
                thread::spawn(move || {
                    if let Err(error) = carry(&near) {
                        eprintln!("{error:#}");
                    }
                });
            }
            Err(error) => {
                eprintln!("accepting: {error}");
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// A port for the relay: always the same one, unless it is taken. Rigs of other names leave it to the usual one.
pub(crate) fn choose_port() -> Result<u16> {
    let wanted = if instance() == USUAL { RELAY_PORT } else { 0 };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .context("finding a free port")?;
    Ok(listener.local_addr().context("asking for the port")?.port())
}

fn carry(near: &TcpStream) -> Result<()> {
    let server: SocketAddr =
        format!("{CONTROL_ADDRESS}:{API_PORT}").parse().context("the API server's address")?;
    // Only the making of the socket must happen inside; afterwards any thread may use it.
    let far = net::within(&control_netns(), || {
        TcpStream::connect_timeout(&server, CONNECT).context("reaching the API server")
    })?;
    for stream in [near, &far] {
        stream.set_nodelay(true).context("sending without delay")?;
    }
    let (near_too, far_too) = (near.try_clone().context("copying")?, far.try_clone().context("copying")?);
    thread::spawn(move || forward(&near_too, &far_too));
    forward(&far, near);
    Ok(())
}

/// One direction, until its sender is done or its receiver gone.
fn forward(mut from: &TcpStream, mut to: &TcpStream) {
    if io::copy(&mut from, &mut to).is_ok() {
        let _ = to.shutdown(Shutdown::Write);
    } else {
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn an_end_of_one_direction_leaves_the_other_open() {
        let pair = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (one, listener.accept().unwrap().0)
        };
        let (mut client, near) = pair();
        let (far, mut server) = pair();
        let (near_too, far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        thread::spawn(move || forward(&near_too, &far_too));
        thread::spawn(move || forward(&far, &near));
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        server.read_to_string(&mut text).unwrap();
        assert_eq!(text, "question");
        server.write_all(b"answer").unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        text.clear();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
    }
}
