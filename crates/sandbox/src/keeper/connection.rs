//! A client's connection to the keeper: what it waits for, and its answers. What a call does is not its business.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use nix::unistd::Pid;

use crate::protocol::{self, Reply};

/// A client, and why it is still connected.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) fd: OwnedFd,
    pub(super) waits_for: Wait,
    /// The command that it started is killed when it leaves.
    pub(super) kills: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Its call has not come yet.
    Call,
    /// The containers are to differ from this version.
    Change(u64),
    /// What it asked for is under way; the child with this pid does it.
    Work(Pid),
    /// A command runs as this process.
    Exit(Pid),
    /// Everything is to end.
    Shutdown,
}

impl Connection {
    #[expect(unsafe_code, reason = "an accepted descriptor becomes an owned one")]
    pub(super) fn new(raw: i32) -> Self {
        // SAFETY: the kernel has just made this descriptor for this process.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        Self { fd, waits_for: Wait::Call, kills: false }
    }

    /// Answers, if the client is still there: nothing depends on its getting the answer.
    pub(super) fn reply(&self, reply: &Reply, fds: &[i32]) {
        if let Err(error) = protocol::send(self.fd.as_fd(), reply, fds) {
            eprintln!("reply: {error}");
        }
    }

    pub(super) fn refuse(&self, reason: &str) {
        self.reply(&Reply::Refused { reason: reason.to_owned() }, &[]);
    }

    pub(super) fn finish(&self, result: Result<(), String>) {
        match result {
            Ok(()) => self.reply(&Reply::Done, &[]),
            Err(reason) => self.refuse(&reason),
        }
    }
}
