//! The netfilter socket: one request at a time, lists and transactions. It owns sending, receiving and
//! matching answers to requests, and does not know what the objects mean.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::message::{self, Attributes, Messages, Reader, Received};

/// How long to wait for an answer. The kernel has answered when `send` returns, so only a bug runs into it.
const ANSWER_TIMEOUT_SECONDS: i64 = 5;

/// How often a list is asked for again when the ruleset changes under it.
const LIST_ATTEMPTS: u32 = 16;

/// The smallest send buffer. A transaction is one datagram; a larger one asks for more.
const SEND_BUFFER_MIN: usize = 256 * 1024;

/// An open socket. It stays in the namespace that it was opened in.
pub(super) struct Socket {
    socket: netlink_sys::Socket,
    sequence: u32,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// An object that was listed.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) family: u8,
    attributes: Vec<u8>,
}

impl Object {
    pub(super) fn attributes(&self) -> Reader<'_> {
        Reader::new(&self.attributes)
    }
}

/// Steps that happen together or not at all.
#[derive(Debug)]
pub(super) struct Transaction {
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    what: Cow<'static, str>,
    kind: u8,
    flags: u16,
    family: u8,
    attributes: Attributes,
}

impl Transaction {
    pub(super) fn add(
        &mut self,
        what: impl Into<Cow<'static, str>>,
        kind: u8,
        flags: u16,
        family: u8,
        attributes: Attributes,
    ) {
        self.steps.push(Step { what: what.into(), kind, flags, family, attributes });
    }
}

impl Socket {
    /// Opens a socket in the calling thread's namespace.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = netlink_sys::Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        // SAFETY: the descriptor is open for as long as `socket`, which outlives this borrow.
        #[expect(unsafe_code, reason = "netlink-sys lends no borrowed descriptor")]
        let descriptor = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
        setsockopt(
            &descriptor,
            sockopt::ReceiveTimeout,
            &TimeVal::seconds(ANSWER_TIMEOUT_SECONDS),
        )?;
        Ok(Self { socket, sequence: 1 })
    }

    pub(super) fn transaction(&self) -> Transaction {
        Transaction { steps: Vec::new() }
    }

    /// Sends the transaction. On failure nothing has happened; the step that the kernel refused comes first.
    pub(super) fn commit(
        &mut self,
        transaction: Transaction,
    ) -> Result<(), (Cow<'static, str>, io::Error)> {
        let mut messages = Messages::starting_at(self.sequence);
        messages.begin();
        let mut sent = Vec::new();
        let last = transaction.steps.len().saturating_sub(1);
        for (place, step) in transaction.steps.into_iter().enumerate() {
            // One acknowledgement says all: a receive buffer full of them would overflow.
            let ack = if place == last { message::ACK } else { 0 };
            let flags = message::REQUEST | ack | step.flags;
            sent.push((messages.push(step.kind, flags, step.family, step.attributes), step.what));
        }
        messages.commit();
        let (datagram, next) = messages.finish();
        let first = std::mem::replace(&mut self.sequence, next);
        let awaited = sent.last().map_or(first, |(sequence, _)| *sequence);
        let outcome = self.send(&datagram).and_then(|()| self.outcome(first..next, awaited));
        match outcome {
            Ok((_, 0)) => Ok(()),
            Ok((sequence, errno)) => {
                let step = sent.into_iter().find(|(sent, _)| *sent == sequence);
                let what = step.map_or(Cow::Borrowed("commit"), |(_, what)| what);
                Err((what, io::Error::from_raw_os_error(errno)))
            }
            Err(error) => Err((Cow::Borrowed("commit"), error)),
        }
    }

    /// Waits for the first failure, or for the success of the step `awaited`.
    fn outcome(&self, own: std::ops::Range<u32>, awaited: u32) -> io::Result<(u32, i32)> {
        loop {
            let datagram = self.receive()?;
            for received in message::messages(&datagram) {
                // Errors come in the order of the steps, before the acknowledgement of the last one.
                if let Received::Outcome { sequence, errno } = received
                    && own.contains(&sequence)
                    && (errno != 0 || sequence == awaited)
                {
                    return Ok((sequence, errno));
                }
            }
        }
    }

    /// All objects of a kind.
    pub(super) fn list(
        &mut self,
        kind: u8,
        family: u8,
        filter: Attributes,
    ) -> io::Result<Vec<Object>> {
        let mut messages = Messages::starting_at(0);
        messages.push(kind, message::REQUEST | message::DUMP, family, filter);
        let (template, _) = messages.finish();
        for _ in 0..LIST_ATTEMPTS {
            if let Some(objects) = self.list_once(&template)? {
                return Ok(objects);
            }
        }
        Err(io::Error::from_raw_os_error(libc::EINTR))
    }

    /// `None` when the ruleset changed meanwhile, so that the list may be a mix of two.
    fn list_once(&mut self, template: &[u8]) -> io::Result<Option<Vec<Object>>> {
        let own = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        self.send(&message::with_sequence(template, own))?;
        let mut objects = Vec::new();
        let mut mixed = false;
        loop {
            let datagram = self.receive()?;
            for received in message::messages(&datagram) {
                match received {
                    Received::Object { family, interrupted, sequence, attributes }
                        if sequence == own =>
                    {
                        mixed |= interrupted;
                        objects.push(Object { family, attributes: attributes.to_vec() });
                    }
                    Received::Done { sequence, interrupted } if sequence == own => {
                        mixed |= interrupted;
                        return Ok((!mixed).then_some(objects));
                    }
                    Received::Outcome { sequence, errno } if sequence == own && errno != 0 => {
                        return Err(io::Error::from_raw_os_error(errno));
                    }
                    _ => {}
                }
            }
        }
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        // SAFETY: the descriptor is open for as long as `self.socket`, which outlives this borrow.
        #[expect(unsafe_code, reason = "netlink-sys lends no borrowed descriptor")]
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) };
        setsockopt(
            &descriptor,
            sockopt::SndBufForce,
            &datagram.len().saturating_mul(2).max(SEND_BUFFER_MIN),
        )?;
        let kernel = netlink_sys::SocketAddr::new(0, 0);
        let sent = self.socket.send_to(datagram, &kernel, 0)?;
        if sent == datagram.len() {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::EMSGSIZE))
        }
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        loop {
            match self.socket.recv_from_full() {
                Ok((datagram, sender)) if sender.port_number() == 0 => return Ok(datagram),
                // Another process can write to our socket; only the kernel is believed.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
