//! The netfilter socket: one request at a time, lists and transactions. It owns sending, receiving and
//! matching answers to requests, and does not know what the objects mean.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::message::{self, Attributes, Messages, NFTABLES, Reader, Received};

/// How long to wait for an answer. The kernel has answered when `send` returns, so only a bug runs into it.
const ANSWER_TIMEOUT_SECONDS: i64 = 5;

/// How often a list is asked for again when the ruleset changes under it.
const LIST_ATTEMPTS: u32 = 16;

/// How often a transaction is sent again when somebody else's came between.
const COMMIT_ATTEMPTS: u32 = 16;

/// `NFT_MSG_GETGEN`, and `NFTA_GEN_ID`.
const GET_GENERATION: u8 = 16;
const GENERATION_ID: u16 = 1;

/// The smallest send buffer. A transaction is one datagram; a larger one asks for more.
const SEND_BUFFER_MIN: usize = 256 * 1024;

/// An open socket. It stays in the namespace that it was opened in.
pub(crate) struct Socket {
    socket: netlink_sys::Socket,
    sequence: u32,
    /// The generation of the rulesets that the last transaction made.
    pub(crate) generation: Option<u32>,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// An object that was listed.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) family: u8,
    attributes: Vec<u8>,
}

impl Object {
    pub(crate) fn attributes(&self) -> Reader<'_> {
        Reader::new(&self.attributes)
    }
}

/// Steps that happen together or not at all.
#[derive(Debug)]
pub(crate) struct Transaction {
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
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub(crate) fn add(
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
    pub(crate) fn open() -> io::Result<Self> {
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
        Ok(Self { socket, sequence: 1, generation: None })
    }

    pub(crate) fn transaction(&self) -> Transaction {
        Transaction { steps: Vec::new() }
    }

    /// Sends the transaction. On failure nothing has happened; the step that the kernel refused comes first.
    pub(crate) fn commit(
        &mut self,
        transaction: &Transaction,
    ) -> Result<(), (Cow<'static, str>, io::Error)> {
        let mut attempts = COMMIT_ATTEMPTS;
        loop {
            let generation =
                self.generation_now().map_err(|error| (Cow::Borrowed("commit"), error))?;
            match self.commit_once(transaction, generation) {
                Err((_, error)) if error.raw_os_error() == Some(libc::ERESTART) && attempts > 0 => {
                    attempts -= 1;
                }
                Ok(()) => {
                    self.generation = Some(generation.wrapping_add(1));
                    return Ok(());
                }
                refused => return refused,
            }
        }
    }

    fn commit_once(
        &mut self,
        transaction: &Transaction,
        generation: u32,
    ) -> Result<(), (Cow<'static, str>, io::Error)> {
        let mut messages = Messages::starting_at(self.sequence);
        messages.begin(generation);
        let first = self.sequence.wrapping_add(1);
        let last = transaction.steps.len().saturating_sub(1);
        let mut awaited = self.sequence;
        for (place, step) in transaction.steps.iter().enumerate() {
            // One acknowledgement says all: a receive buffer full of them would overflow.
            let ack = if place == last { message::ACK } else { 0 };
            let flags = message::REQUEST | ack | step.flags;
            awaited = messages.push(NFTABLES, step.kind, flags, step.family, &step.attributes);
        }
        messages.commit();
        let (datagram, next) = messages.finish();
        let own = std::mem::replace(&mut self.sequence, next)..next;
        match self.send(&datagram).and_then(|()| self.outcome(own, awaited)) {
            Ok((_, 0)) => Ok(()),
            Ok((sequence, errno)) => {
                let place = usize::try_from(sequence.wrapping_sub(first)).ok();
                let step = place.and_then(|place| transaction.steps.get(place));
                let what = step.map_or(Cow::Borrowed("commit"), |step| step.what.clone());
                Err((what, io::Error::from_raw_os_error(errno)))
            }
            Err(error) => Err((Cow::Borrowed("commit"), error)),
        }
    }

    /// The generation that the rulesets of the namespace are of: each transaction makes the next.
    fn generation_now(&mut self) -> io::Result<u32> {
        let found = self.ask(NFTABLES, GET_GENERATION, 0, 0, &Attributes::default())?;
        let generation = found.and_then(|object| object.attributes().number(GENERATION_ID));
        generation.ok_or_else(|| io::Error::from_raw_os_error(libc::EPROTO))
    }

    /// Sends a single request; the object that it is answered with, if it is.
    pub(crate) fn ask(
        &mut self,
        subsystem: u16,
        kind: u8,
        flags: u16,
        family: u8,
        attributes: &Attributes,
    ) -> io::Result<Option<Object>> {
        let mut messages = Messages::starting_at(self.sequence);
        let flags = message::REQUEST | message::ACK | flags;
        let own = messages.push(subsystem, kind, flags, family, attributes);
        let (datagram, next) = messages.finish();
        self.sequence = next;
        self.send(&datagram)?;
        let mut found = None;
        loop {
            let datagram = self.receive()?;
            for received in message::messages(&datagram) {
                match received {
                    Received::Object { family, sequence, attributes, .. } if sequence == own => {
                        found = Some(Object { family, attributes: attributes.to_vec() });
                    }
                    Received::Outcome { sequence, errno } if sequence == own => {
                        return match errno {
                            0 => Ok(found),
                            errno => Err(io::Error::from_raw_os_error(errno)),
                        };
                    }
                    _ => {}
                }
            }
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
    pub(crate) fn list(
        &mut self,
        subsystem: u16,
        kind: u8,
        family: u8,
        filter: &Attributes,
    ) -> io::Result<Vec<Object>> {
        let mut messages = Messages::starting_at(0);
        messages.push(subsystem, kind, message::REQUEST | message::DUMP, family, filter);
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
