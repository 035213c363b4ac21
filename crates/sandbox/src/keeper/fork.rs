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
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::{
        signal::{Signal, killpg},
        socket::{AddressFamily, SockFlag, SockType, socketpair},
    },
    unistd::{ForkResult, Pid, setpgid},
};

use crate::protocol;

/// What the work brought: the process that was started, or one line of why not.
pub(super) type Outcome = Result<i32, String>;

/// The outcome of work whose child ended without one.
const KILLED: &str = "the container runtime was killed";

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
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        return Ok(Work { pid, outcome: ours });
    }
    drop(ours);
    // A group, so that what libcontainer forks can be killed with it.
    let _ = setpgid(Pid::this(), Pid::this());
    let outcome = catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err("the container runtime panicked".to_owned()));
    let _ = protocol::send(theirs.as_fd(), &outcome, &[]);
    // SAFETY: ends this child at once. Destructors and buffers are the keeper's to run and flush.
    unsafe { libc::_exit(0) }
}

impl Work {
    /// The outcome; call when it is readable or the child has ended.
    pub(super) fn finish(&self) -> Outcome {
        match protocol::receive(self.outcome.as_fd()) {
            Ok(Some(message)) => protocol::decode::<Outcome>(&message.bytes)
                .unwrap_or_else(|error| Err(format!("the container runtime: {error}"))),
            Ok(None) => Err(KILLED.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(KILLED.to_owned()),
            Err(error) => Err(format!("the container runtime: {error}")),
        }
    }

    /// Kills what failed work may leave half-way: processes between two steps of libcontainer wait
    /// for each other for ever.
    pub(super) fn kill_rest(&self) {
        // The child itself is a zombie of ours, or gone; then its group is empty or what it left.
        let _ = killpg(self.pid, Signal::SIGKILL);
    }
}
