//! Work done in a child process, which tells its outcome in one message.
//!
//! Creating a container takes libcontainer through much memory and many descriptors, and may hang
//! on a mount. In a child none of that stays in the keeper, and the keeper goes on writing logs
//! meanwhile. The processes that libcontainer makes are the keeper's children, not the child's:
//! they are cloned as its siblings.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

use nix::{
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
    unistd::{ForkResult, Pid},
};

use crate::protocol;

/// What the work brought: the process that was started, or one line of why not.
pub(super) type Outcome = Result<i32, String>;

/// Work that goes on in a child.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) pid: Pid,
    /// Readable when the outcome is there.
    pub(super) outcome: OwnedFd,
}

/// Forks; `None` in the child.
#[expect(unsafe_code, reason = "fork")]
pub(super) fn fork() -> nix::Result<Option<Pid>> {
    // SAFETY: the keeper has one thread, so no lock is held by a thread that the child lacks.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Starts the work in a child.
#[expect(unsafe_code, reason = "_exit")]
pub(super) fn start(work: impl FnOnce() -> Outcome) -> io::Result<Work> {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    if let Some(pid) = fork()? {
        return Ok(Work { pid, outcome: ours });
    }
    drop(ours);
    let outcome = catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err("the container runtime panicked".to_owned()));
    let _ = protocol::send(theirs.as_fd(), &outcome, &[]);
    // SAFETY: ends this child at once. Destructors and buffers are the keeper's to run and flush.
    unsafe { libc::_exit(0) }
}

impl Work {
    /// The outcome; call when it is readable.
    pub(super) fn finish(&self) -> Outcome {
        match protocol::receive(self.outcome.as_fd()) {
            Ok(Some(message)) => protocol::decode::<Outcome>(&message.bytes)
                .unwrap_or_else(|error| Err(format!("the container runtime: {error}"))),
            Ok(None) => Err("the container runtime was killed".to_owned()),
            Err(error) => Err(format!("the container runtime: {error}")),
        }
    }
}
