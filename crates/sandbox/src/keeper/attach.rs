//! Who looks at a running container's streams besides its log, and writes to its input.
//!
//! A viewer is a pipe that gets a copy of what the container writes from now on. It must never hold
//! the container up: what it has no room for, it does not see, and the log has it.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{pipe2, write},
};

use super::state::Container;

/// Clients that are attached to one container at once; each may be handed a full pipe.
const MAX_VIEWERS: usize = 16;
/// The room of a viewer's pipe, for as long as its client is slow: what an unprivileged process may
/// have at most.
const VIEWER_BYTES: i32 = 1 << 20;

/// The pipes that get a copy of one stream.
#[derive(Debug, Default)]
pub(super) struct Viewers(Vec<OwnedFd>);

impl Viewers {
    /// Copies bytes to everyone; those that have gone are forgotten.
    pub(super) fn show(&mut self, bytes: &[u8]) {
        self.0.retain(|viewer| !matches!(write(viewer, bytes), Err(Errno::EPIPE)));
    }

    fn add(&mut self, viewer: OwnedFd) -> io::Result<()> {
        // The container may have been silent since the others left.
        self.0.retain(|viewer| !has_left(viewer));
        if self.0.len() >= MAX_VIEWERS {
            return Err(io::Error::other("too many clients are attached to the container"));
        }
        fcntl(&viewer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        fcntl(&viewer, FcntlArg::F_SETPIPE_SZ(VIEWER_BYTES))?;
        self.0.push(viewer);
        Ok(())
    }
}

/// Whether nobody can read any more what is written.
fn has_left(viewer: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(viewer.as_fd(), PollFlags::empty())];
    let asked = poll(&mut fds, PollTimeout::ZERO).is_ok();
    let [fd] = fds;
    asked && fd.revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
}

impl Container {
    /// Descriptors for a client: output and then the terminal's master, or output, error and then
    /// input if that is asked for and open.
    pub(super) fn attach(&mut self, stdin: bool) -> io::Result<Vec<OwnedFd>> {
        let mut fds = Vec::new();
        let names: &[&str] = if self.is_terminal { &["stdout"] } else { &["stdout", "stderr"] };
        for name in names {
            let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
            // The pipe of a stream that the container has closed ends at once.
            fds.push(reader);
            if let Some(output) = self.outputs.iter_mut().find(|output| output.name == *name) {
                output.viewers.add(writer)?;
                if self.is_terminal {
                    fds.push(output.fd.try_clone()?);
                }
            }
        }
        let input = match &self.stdin {
            Some(open) if stdin && !self.stdin_once => Some(open.try_clone()?),
            Some(_) if stdin => self.stdin.take(),
            _ => None,
        };
        fds.extend(input);
        Ok(fds)
    }
}
