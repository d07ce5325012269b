//! Signals as something to read: the handlers only write a byte.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// SIGCHLD and the wishes to end.
#[derive(Debug)]
pub(super) struct Signals {
    child: UnixStream,
    end: UnixStream,
    asked: bool,
}

impl Signals {
    pub(super) fn register() -> io::Result<Self> {
        let (child, child_in) = pair()?;
        let (end, end_in) = pair()?;
        pipe::register(SIGCHLD, child_in)?;
        pipe::register(SIGTERM, end_in.try_clone()?)?;
        pipe::register(SIGINT, end_in)?;
        Ok(Self { child, end, asked: false })
    }

    /// What to wait for.
    pub(super) fn interest<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.push(PollFd::new(&self.child, PollFlags::IN));
        fds.push(PollFd::new(&self.end, PollFlags::IN));
    }

    /// Takes what has come. To be called *before* reaping, so that no child's end falls between.
    pub(super) fn drain(&mut self) {
        let mut bytes = [0; 64];
        while matches!(self.child.read(&mut bytes), Ok(1..)) {}
        while matches!(self.end.read(&mut bytes), Ok(1..)) {
            self.asked = true;
        }
    }

    /// Somebody asked for the end.
    pub(super) fn terminate(&self) -> bool {
        self.asked
    }
}

fn pair() -> io::Result<(UnixStream, UnixStream)> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    write.set_nonblocking(true)?;
    Ok((read, write))
}
