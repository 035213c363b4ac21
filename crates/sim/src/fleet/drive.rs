//! The nodes' heartbeats: one thread in which a million sessions take turns, each every interval.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use toono_net::datagrams::{Inbox, Outbox, set_receive_buffer};
use toono_session::{NodeEvent, NodeSession, Poke};
use toono_wire::{
    datagram::{DownlinkHeader, MAX_DATAGRAM},
    join::JoinResponse,
};

use crate::Failure;

/// Datagrams of one system call.
const BATCH: usize = 64;
/// Heartbeats that leave before answers are looked at.
const TURN: u64 = 4_096;
/// Nothing is due for less than this.
const PAUSE: Duration = Duration::from_millis(1);
/// A heartbeat that leaves so long after its time is late: the load is at its limit.
const LATE: Duration = Duration::from_secs(1);
/// One round trip in so many is remembered.
const SAMPLE: u64 = 16;
/// Heartbeats that are told at once, at most.
const TAPPED: usize = 100_000;
const RECEIVE_BUFFER: usize = 16 * 1024 * 1024;

/// What happened so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    /// Heartbeats that left late.
    pub(crate) late: u64,
    /// Datagrams that a node refused.
    pub(crate) refused: u64,
}

impl Counts {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            sent: self.sent - before.sent,
            answered: self.answered - before.answered,
            late: self.late - before.late,
            refused: self.refused - before.refused,
        }
    }
}

#[derive(Default)]
struct Shared {
    sent: AtomicU64,
    answered: AtomicU64,
    late: AtomicU64,
    refused: AtomicU64,
    round_trips: Mutex<Vec<Duration>>,
    /// Whether what is sent is told, and what was since it was taken last.
    tapped: AtomicBool,
    told: Mutex<Vec<Vec<u8>>>,
    /// One node in so many is silent; 0 for none.
    silent_stride: AtomicUsize,
    silent: AtomicUsize,
    ends: AtomicBool,
}

/// The running load; it ends when this is dropped.
pub(crate) struct Load {
    shared: Arc<Shared>,
    nodes: usize,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts the heartbeats of all nodes, spread evenly over the interval.
    pub(crate) fn start(joined: &[JoinResponse], sockets: usize) -> Result<Self, Failure> {
        let shared = Arc::new(Shared::default());
        let mut driver = Driver::new(joined, sockets, Arc::clone(&shared))?;
        let thread =
            std::thread::Builder::new().name("heartbeats".to_owned()).spawn(move || {
                while !driver.shared.ends.load(Ordering::Relaxed) {
                    driver.turn();
                }
            })?;
        Ok(Self { shared, nodes: joined.len(), thread: Some(thread) })
    }

    pub(crate) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Shared { sent, answered, late, refused, .. } = &*self.shared;
        // Answers first: what is counted as answered was counted as sent.
        let answered = read(answered);
        Counts { sent: read(sent), answered, late: read(late), refused: read(refused) }
    }

    /// The round trips remembered since the last call.
    pub(crate) fn round_trips(&self) -> Vec<Duration> {
        let mut told = self.shared.round_trips.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut told)
    }

    /// The heartbeats that left since the last call, as somebody on their way sees them; none for the first.
    pub(crate) fn tap(&self) -> Vec<Vec<u8>> {
        self.shared.tapped.store(true, Ordering::Relaxed);
        std::mem::take(&mut self.shared.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets so many nodes, evenly chosen, send nothing from now on; their numbers.
    pub(crate) fn silence(&self, count: usize) -> HashSet<usize> {
        let count = count.clamp(1, self.nodes);
        let stride = self.nodes / count;
        self.shared.silent.store(count, Ordering::Relaxed);
        self.shared.silent_stride.store(stride, Ordering::Relaxed);
        (0..count).map(|at| at * stride).collect()
    }

    pub(crate) fn end(mut self) -> Result<(), Failure> {
        self.shared.ends.store(true, Ordering::Relaxed);
        let thread = self.thread.take();
        thread.map_or(Ok(()), JoinHandle::join).map_err(|_| "the load failed".into())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
    }
}

struct Node {
    session: NodeSession,
    observed: u64,
}

struct Driver {
    nodes: Vec<Node>,
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
    shared: Arc<Shared>,
}

impl Driver {
    fn new(joined: &[JoinResponse], sockets: usize, shared: Arc<Shared>) -> Result<Self, Failure> {
        let first = &joined.first().ok_or("no nodes")?.session;
        let highest = joined.iter().map(|node| node.session.index).max().unwrap_or(0);
        let mut by_index = vec![u32::MAX; usize::try_from(highest)? + 1];
        let mut nodes = Vec::with_capacity(joined.len());
        for (number, node) in joined.iter().enumerate() {
            let session = NodeSession::new(&node.session, 1, u32::try_from(number)?)?;
            nodes.push(Node { session, observed: node.bundle_revision });
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
            by_index,
            sockets: sockets.collect::<Result<_, Failure>>()?,
            inbox: Inbox::new(BATCH, MAX_DATAGRAM + 1),
            server: (Ipv4Addr::LOCALHOST, first.udp_port).into(),
            interval: Duration::from_millis(first.interval_ms.into()),
            began: Instant::now(),
            turns: 0,
            again: Vec::new(),
            shared,
        })
    }

    /// Sends what is due and takes what has arrived.
    fn turn(&mut self) {
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

    fn is_silent(&self, number: usize) -> bool {
        let stride = self.shared.silent_stride.load(Ordering::Relaxed);
        let count = self.shared.silent.load(Ordering::Relaxed);
        stride > 0 && number.is_multiple_of(stride) && number / stride < count
    }

    fn beat(&mut self, number: usize) {
        let at = number % self.sockets.len();
        let now = self.began.elapsed();
        let Some(node) = self.nodes.get_mut(number) else { return };
        let Ok(datagram) = node.session.heartbeat(now, node.observed, 0) else { return };
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
        for at in 0..self.sockets.len() {
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
                    if take(node, bytes, now, &self.shared) {
                        self.again.push(number);
                    }
                }
            }
        }
        any
    }
}

/// What a node does with a datagram; whether it is to send a heartbeat at once.
fn take(node: &mut Node, bytes: &[u8], now: Duration, shared: &Shared) -> bool {
    match node.session.receive(bytes, now) {
        Ok(NodeEvent::Reply { desired_revision, send_again, round_trip, .. }) => {
            node.observed = desired_revision;
            let answered = shared.answered.fetch_add(1, Ordering::Relaxed);
            if answered.is_multiple_of(SAMPLE) {
                let mut told = shared.round_trips.lock().unwrap_or_else(PoisonError::into_inner);
                told.push(round_trip);
            }
            send_again
        }
        Ok(NodeEvent::Poke(Poke::BundleMoved { revision })) => {
            node.observed = revision;
            false
        }
        Ok(NodeEvent::Poke(Poke::DialBack { .. })) => false,
        Err(_) => {
            shared.refused.fetch_add(1, Ordering::Relaxed);
            false
        }
    }
}
