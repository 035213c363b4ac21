//! The thread: whose turn it is, what leaves and what comes back.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use toono_net::datagrams::{Inbox, Outbox, set_receive_buffer};
use toono_session::{NodeEvent, NodeSession, Observed, Poke, ReplyFlags};
use toono_wire::{
    datagram::{DownlinkHeader, MAX_DATAGRAM},
    join::JoinResponse,
};

use super::{Cue, Fetching, Shared};
use crate::{Failure, fleet::digests::Digests};

/// Datagrams of one system call.
const BATCH: usize = 64;
/// A heartbeat that leaves so long after its time is late: the load is at its limit.
const LATE: Duration = Duration::from_secs(1);
/// One round trip in so many is remembered.
const SAMPLE: u64 = 16;
/// As `toono node`: after so many unanswered heartbeats it looks whether the server can be reached, again after
/// this, and then after twice as long each time, up to the most.
const LOOK_AFTER: u64 = 2;
const LOOK_AGAIN: Duration = Duration::from_secs(15);
const LOOK_AGAIN_MOST: Duration = Duration::from_secs(60);
const RECEIVE_BUFFER: usize = 16 * 1024 * 1024;
/// Heartbeats that leave before answers are looked at.
const TURN: u64 = 4_096;
/// Nothing is due for less than this.
const PAUSE: Duration = Duration::from_millis(2);
/// Heartbeats that are told at once, at most.
const TAPPED: usize = 100_000;
/// The digest of a report that the server is taken to have acknowledged.
const REPORTED: u32 = 1;

struct Node {
    session: NodeSession,
    observed: u64,
    fetches: bool,
    /// The return of the server that it was heard after.
    returns: u32,
    /// As `toono node`: when it looks next whether the server can be reached, and after which pause then.
    look_at: Duration,
    pause: Duration,
}

pub(super) struct Driver {
    nodes: Vec<Node>,
    digests: Digests,
    /// The node with a session index.
    by_index: Vec<u32>,
    sockets: Vec<(UdpSocket, Outbox)>,
    inbox: Inbox,
    server: SocketAddr,
    interval: Duration,
    began: Instant,
    /// Turns that nodes had so far, silent ones included.
    turns: u64,
    /// Nodes that the server asked for one more.
    again: Vec<usize>,
    fetching: Option<Fetching>,
    pub(super) shared: Arc<Shared>,
}

impl Driver {
    pub(super) fn new(
        joined: &[JoinResponse],
        sockets: usize,
        digests: Digests,
        fetching: Option<Fetching>,
        shared: Arc<Shared>,
    ) -> Result<Self, Failure> {
        let first = &joined.first().ok_or("no nodes")?.session;
        let highest = joined.iter().map(|node| node.session.index).max().unwrap_or(0);
        let mut by_index = vec![u32::MAX; usize::try_from(highest)? + 1];
        let mut nodes = Vec::with_capacity(joined.len());
        for (number, node) in joined.iter().enumerate() {
            let session = NodeSession::new(&node.session, 1, u32::try_from(number)?)?;
            let fetches = fetching.as_ref().is_some_and(|some| some.nodes.contains(&number));
            nodes.push(Node {
                session,
                observed: node.bundle_revision,
                fetches,
                returns: 0,
                look_at: Duration::ZERO,
                pause: LOOK_AGAIN,
            });
            if let Some(place) = by_index.get_mut(usize::try_from(node.session.index)?) {
                *place = u32::try_from(number)?;
            }
        }
        let sockets = (0..sockets.max(1)).map(|number| {
            let address = Ipv4Addr::from(0x7f01_0001 + u32::try_from(number)?);
            let socket = UdpSocket::bind((address, 0))?;
            set_receive_buffer(&socket, RECEIVE_BUFFER)?;
            Ok((socket, Outbox::default()))
        });
        Ok(Self {
            nodes,
            digests,
            by_index,
            sockets: sockets.collect::<Result<_, Failure>>()?,
            inbox: Inbox::new(BATCH, MAX_DATAGRAM + 1),
            server: (Ipv4Addr::LOCALHOST, first.udp_port).into(),
            interval: Duration::from_millis(first.interval_ms.into()),
            began: Instant::now(),
            turns: 0,
            again: Vec::new(),
            fetching,
            shared,
        })
    }

    /// Sends what is due and takes what has arrived.
    pub(super) fn turn(&mut self) {
        self.take_fetched();
        let nodes = self.nodes.len() as f64;
        let passed = self.began.elapsed().as_secs_f64() / self.interval.as_secs_f64();
        let due = ((passed * nodes) as u64).saturating_sub(self.turns);
        let late = LATE.as_secs_f64() / self.interval.as_secs_f64() * nodes;
        if due as f64 > late {
            self.shared.late.fetch_add(due.min(TURN), Ordering::Relaxed);
        }
        for _ in 0..due.min(TURN) {
            let number = usize::try_from(self.turns).unwrap_or(0) % self.nodes.len();
            self.turns += 1;
            if !self.is_silent(number) {
                self.beat(number);
            }
        }
        let mut urged = self.shared.urged.lock().unwrap_or_else(PoisonError::into_inner);
        self.again.append(&mut urged);
        drop(urged);
        for number in std::mem::take(&mut self.again) {
            self.beat(number);
        }
        for (socket, outbox) in &mut self.sockets {
            outbox.send(socket);
        }
        if !self.receive() && due == 0 {
            std::thread::sleep(PAUSE);
        }
    }

    fn take_fetched(&mut self) {
        let Some(fetching) = &self.fetching else { return };
        for (number, revision, digest) in fetching.fetched.try_iter() {
            if let Some(node) = self.nodes.get_mut(number) {
                node.observed = revision;
                self.digests.set(number, digest);
            }
        }
    }

    fn is_silent(&self, number: usize) -> bool {
        let stride = self.shared.silent_stride.load(Ordering::Relaxed);
        let count = self.shared.silent.load(Ordering::Relaxed);
        stride > 0 && number.is_multiple_of(stride) && number / stride < count
    }

    fn beat(&mut self, number: usize) {
        let at = number % self.sockets.len();
        let now = self.began.elapsed();
        let Some(node) = self.nodes.get_mut(number) else { return };
        if let Some(whom) = self.shared.unanswered.get()
            && node.looks(now)
        {
            let _ = whom.send(number);
        }
        let bundle = self.digests.of(number);
        let observed = Observed { revision: node.observed, bundle, status: REPORTED };
        let Ok(datagram) = node.session.heartbeat(now, observed) else { return };
        let Some((socket, outbox)) = self.sockets.get_mut(at) else { return };
        outbox.push(datagram.as_bytes(), self.server);
        if outbox.len() >= BATCH {
            outbox.send(socket);
        }
        self.shared.sent.fetch_add(1, Ordering::Relaxed);
        if self.shared.tapped.load(Ordering::Relaxed) {
            let mut told = self.shared.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.len() < TAPPED {
                told.push(datagram.as_bytes().to_vec());
            }
        }
    }

    /// Whether anything had arrived.
    fn receive(&mut self) -> bool {
        let mut any = false;
        for at in readable(&self.sockets) {
            while let Some((socket, _)) = self.sockets.get(at)
                && self.inbox.receive(socket).is_ok()
            {
                any = true;
                let now = self.began.elapsed();
                for (bytes, _) in self.inbox.iter() {
                    let number = DownlinkHeader::split(bytes).ok().and_then(|(header, _)| {
                        let index = usize::try_from(header.index).ok()?;
                        usize::try_from(*self.by_index.get(index)?).ok()
                    });
                    let Some(number) = number else { continue };
                    let Some(node) = self.nodes.get_mut(number) else { continue };
                    let took = take(node, number, bytes, now, &self.shared);
                    if took.again {
                        self.again.push(number);
                    }
                    let Some(desired) = took.desired else { continue };
                    match &self.fetching {
                        Some(fetching) if node.fetches => {
                            let cue = Cue { number, observed: node.observed, desired };
                            let _ = fetching.cues.send(cue);
                        }
                        _ => node.observed = desired,
                    }
                }
            }
        }
        any
    }
}

/// The sockets that something has come to: one system call tells, where each would need one of its own.
fn readable(sockets: &[(UdpSocket, Outbox)]) -> Vec<usize> {
    let watched = sockets.iter().map(|(socket, _)| PollFd::new(socket.as_fd(), PollFlags::POLLIN));
    let mut all: Vec<_> = watched.collect();
    match poll(&mut all, PollTimeout::ZERO) {
        Ok(_) => {
            (0..).zip(&all).filter(|(_, one)| one.any() == Some(true)).map(|(at, _)| at).collect()
        }
        Err(_) => Vec::new(),
    }
}

/// What came of a datagram.
#[derive(Default)]
struct Took {
    /// The node is to send a heartbeat at once.
    again: bool,
    /// The revision of its bundle that the cloud has and the node has not.
    desired: Option<u64>,
}

impl Node {
    /// Whether it looks now if the server can be reached.
    fn looks(&mut self, now: Duration) -> bool {
        if self.session.unanswered() < LOOK_AFTER {
            self.pause = LOOK_AGAIN;
            return false;
        }
        let looks = now >= self.look_at;
        if looks {
            self.look_at = now + self.pause / 2 + self.pause.mul_f64(fastrand::f64() / 2.0);
            self.pause = (self.pause * 2).min(LOOK_AGAIN_MOST);
        }
        looks
    }

    /// The server has counted it.
    fn counted(&mut self, shared: &Shared) {
        let returns = shared.returns.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.returns, returns) != returns {
            shared.heard.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn take(node: &mut Node, number: usize, bytes: &[u8], now: Duration, shared: &Shared) -> Took {
    let observed = node.observed;
    let news = |revision: u64| (revision > observed).then_some(revision);
    match node.session.receive(bytes, now) {
        Ok(NodeEvent::Reply { desired_revision, flags, send_again, round_trip, .. }) => {
            if let Some(answers) = shared.answers.get(number) {
                answers.fetch_add(1, Ordering::Relaxed);
            }
            if !send_again {
                node.counted(shared);
            }
            let asked = flags != ReplyFlags::default() || desired_revision > observed;
            shared.asked.fetch_add(u64::from(asked), Ordering::Relaxed);
            let answered = shared.answered.fetch_add(1, Ordering::Relaxed);
            if answered.is_multiple_of(SAMPLE) {
                let mut told = shared.round_trips.lock().unwrap_or_else(PoisonError::into_inner);
                told.push(round_trip);
            }
            Took { again: send_again, desired: news(desired_revision) }
        }
        Ok(NodeEvent::Poke(Poke::BundleMoved { revision })) => {
            Took { again: false, desired: news(revision) }
        }
        Ok(NodeEvent::Poke(Poke::DialBack { .. } | Poke::PoolMoved { .. })) => Took::default(),
        Err(_) => {
            shared.refused.fetch_add(1, Ordering::Relaxed);
            Took::default()
        }
    }
}
