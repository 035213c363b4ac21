//! Nodes that choose among several servers, as the agent does: one thread in which all have their turns.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use toono_net::datagrams::{Inbox, Outbox, set_receive_buffer};
use toono_session::{
    NodeEvent, NodeSession, NodeUid, Observed,
    servers::{Choice, Step},
};
use toono_wire::{
    datagram::{DownlinkHeader, MAX_DATAGRAM},
    join::{JoinResponse, Server},
};

use crate::Failure;

/// Datagrams of one system call.
const BATCH: usize = 64;
/// Turns that nodes have before answers are looked at.
const TURN: usize = 1_024;
/// Nothing is due for less than this.
const PAUSE: Duration = Duration::from_millis(1);
/// A node that has its turn so long after its time is late: the load is at its limit.
const LATE: Duration = Duration::from_secs(1);
/// The part by which intervals vary, as the agent's do.
const JITTER: f64 = 0.05;
const RECEIVE_BUFFER: usize = 16 * 1024 * 1024;

/// What is known of a node, for whoever watches.
#[derive(Default)]
pub(super) struct Seen {
    /// The server that counted it last, from 1; 0 for none yet.
    at: AtomicU32,
    /// When it was first counted there, and when last, in milliseconds.
    since: AtomicU32,
    heard: AtomicU32,
}

impl Seen {
    /// The server that counted it last.
    pub(super) fn server(&self) -> Option<usize> {
        usize::try_from(self.at.load(Ordering::Acquire)).ok()?.checked_sub(1)
    }

    /// When it turned to that server.
    pub(super) fn since(&self) -> Duration {
        Duration::from_millis(self.since.load(Ordering::Relaxed).into())
    }

    /// When it was counted last.
    pub(super) fn heard(&self) -> Duration {
        Duration::from_millis(self.heard.load(Ordering::Relaxed).into())
    }
}

/// The running nodes; they end when this is dropped.
pub(super) struct Load {
    pub(super) seen: Arc<Vec<Seen>>,
    pub(super) began: Instant,
    late: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts all nodes, spread over an interval. Servers are numbered in the order of these ports.
    pub(super) fn start(
        joined: &[JoinResponse],
        ports: &[u16],
        sockets: usize,
    ) -> Result<Self, Failure> {
        let seen: Arc<Vec<Seen>> = Arc::new(joined.iter().map(|_| Seen::default()).collect());
        let (ends, late, began) = (Arc::default(), Arc::default(), Instant::now());
        let mut driver = Driver::new(joined, ports, sockets, Arc::clone(&seen), began)?;
        let (stop, told): (Arc<AtomicBool>, Arc<AtomicU64>) =
            (Arc::clone(&ends), Arc::clone(&late));
        let thread = std::thread::Builder::new().name("nodes".to_owned()).spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                driver.turn();
                told.store(driver.late, Ordering::Relaxed);
            }
        })?;
        Ok(Self { seen, began, late, ends, thread: Some(thread) })
    }

    /// Turns that nodes had late so far.
    pub(super) fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has failed already if it has.
            let _ = thread.join();
        }
    }
}

struct Node {
    session: NodeSession,
    choice: Choice,
    observed: Observed,
    /// Of what it does next: an older entry in the queue is of no account.
    turn: u32,
    awaits_answer: bool,
    next_beat: Duration,
}

struct Driver {
    nodes: Vec<Node>,
    /// The node with a session index.
    by_index: HashMap<u32, usize>,
    /// By name: number and address.
    servers: HashMap<String, (u32, SocketAddr)>,
    sockets: Vec<(UdpSocket, Outbox)>,
    inbox: Inbox,
    /// Whose turn it is when.
    due: BinaryHeap<Reverse<(Duration, usize, u32)>>,
    began: Instant,
    interval: Duration,
    late: u64,
    random: fastrand::Rng,
    seen: Arc<Vec<Seen>>,
}

impl Driver {
    fn new(
        joined: &[JoinResponse],
        ports: &[u16],
        sockets: usize,
        seen: Arc<Vec<Seen>>,
        began: Instant,
    ) -> Result<Self, Failure> {
        let first = &joined.first().ok_or("no nodes")?.session;
        let interval = Duration::from_millis(first.interval_ms.into());
        let number = |server: &Server| ports.iter().position(|port| *port == server.port);
        let servers = first.servers.iter().map(|server| {
            let number = number(server).ok_or("the nodes were told of another server")?;
            let address = (Ipv4Addr::LOCALHOST, server.udp_port).into();
            Ok((server.name.clone(), (u32::try_from(number)?, address)))
        });
        let servers = servers.collect::<Result<HashMap<_, _>, Failure>>()?;
        let sockets = (0..sockets.max(1)).map(|number| {
            let address = Ipv4Addr::from(0x7f01_0001 + u32::try_from(number)?);
            let socket = UdpSocket::bind((address, 0))?;
            set_receive_buffer(&socket, RECEIVE_BUFFER)?;
            Ok((socket, Outbox::default()))
        });
        let mut driver = Self {
            nodes: Vec::with_capacity(joined.len()),
            by_index: HashMap::new(),
            servers,
            sockets: sockets.collect::<Result<_, Failure>>()?,
            inbox: Inbox::new(BATCH, MAX_DATAGRAM + 1),
            due: BinaryHeap::new(),
            began,
            interval,
            late: 0,
            random: fastrand::Rng::with_seed(1),
            seen,
        };
        for (number, node) in joined.iter().enumerate() {
            let servers = first.servers.clone();
            driver.nodes.push(Node {
                session: NodeSession::new(&node.session, 1, u32::try_from(number)?)?,
                choice: Choice::new(&NodeUid::new(&node.node_uid), servers),
                observed: Observed {
                    revision: node.bundle_revision,
                    bundle: node.pool.as_ref().map_or(0, |pool| pool.version.share()),
                    status: 1,
                },
                turn: 0,
                awaits_answer: false,
                next_beat: Duration::ZERO,
            });
            driver.by_index.insert(node.session.index, number);
            let at = interval.mul_f64(number as f64 / joined.len() as f64);
            driver.due.push(Reverse((at, number, 0)));
        }
        Ok(driver)
    }

    /// Does what is due and takes what has arrived.
    fn turn(&mut self) {
        let now = self.began.elapsed();
        let mut any = false;
        for _ in 0..TURN {
            let Some(Reverse((at, ..))) = self.due.peek() else { break };
            if *at > now {
                break;
            }
            let Some(Reverse((at, number, turn))) = self.due.pop() else { break };
            any = true;
            if self.nodes.get(number).is_some_and(|node| node.turn == turn) {
                self.late += u64::from(now > at + LATE);
                self.act(number, now);
            }
        }
        for (socket, outbox) in &mut self.sockets {
            outbox.send(socket);
        }
        if !self.receive() && !any {
            std::thread::sleep(PAUSE);
        }
    }

    /// An interval has passed, or an answer was waited for in vain.
    fn act(&mut self, number: usize, now: Duration) {
        let Some(node) = self.nodes.get_mut(number) else { return };
        if node.awaits_answer {
            if node.choice.unanswered(now, self.random.u32(..)) == Step::Rest {
                node.awaits_answer = false;
                let next = node.next_beat.max(now);
                self.plan(number, next);
                return;
            }
        } else {
            node.choice.go_home(now);
            let vary = 1.0 - JITTER + 2.0 * JITTER * self.random.f64();
            node.next_beat = now + self.interval.mul_f64(vary);
        }
        self.beat(number, now);
    }

    /// What the node does next it does then, and nothing of what was planned before.
    fn plan(&mut self, number: usize, at: Duration) {
        if let Some(node) = self.nodes.get_mut(number) {
            node.turn = node.turn.wrapping_add(1);
            self.due.push(Reverse((at, number, node.turn)));
        }
    }

    fn beat(&mut self, number: usize, now: Duration) {
        let Some(node) = self.nodes.get_mut(number) else { return };
        node.awaits_answer = true;
        let patience = node.choice.patience();
        let server = node.choice.server().and_then(|server| self.servers.get(&server.name));
        let at = number % self.sockets.len();
        if let Ok(datagram) = node.session.heartbeat(now, node.observed)
            && let (Some((_, to)), Some((socket, outbox))) = (server, self.sockets.get_mut(at))
        {
            outbox.push(datagram.as_bytes(), *to);
            if outbox.len() >= BATCH {
                outbox.send(socket);
            }
        }
        self.plan(number, now + patience);
    }

    /// Whether anything had arrived.
    fn receive(&mut self) -> bool {
        let mut any = false;
        let mut again = Vec::new();
        for at in 0..self.sockets.len() {
            while let Some((socket, _)) = self.sockets.get(at)
                && self.inbox.receive(socket).is_ok()
            {
                any = true;
                let now = self.began.elapsed();
                let mut answered = Vec::new();
                for (bytes, from) in self.inbox.iter() {
                    let header = DownlinkHeader::split(bytes).ok().map(|(header, _)| header.index);
                    let number = header.and_then(|index| self.by_index.get(&index).copied());
                    let Some(node) = number.and_then(|number| self.nodes.get_mut(number)) else {
                        continue;
                    };
                    match node.session.receive(bytes, now) {
                        Ok(NodeEvent::Reply {
                            desired_revision, send_again, round_trip, ..
                        }) => {
                            node.observed.revision = desired_revision;
                            node.choice.answered(round_trip);
                            if send_again {
                                again.extend(number);
                            } else {
                                answered.extend(number.map(|number| (number, from)));
                            }
                        }
                        Ok(NodeEvent::Poke(_)) | Err(_) => {}
                    }
                }
                answered.into_iter().for_each(|(number, from)| self.counted(number, from, now));
            }
        }
        for number in again {
            self.beat(number, self.began.elapsed());
        }
        any
    }

    /// A server has counted a node as alive.
    fn counted(&mut self, number: usize, from: SocketAddr, now: Duration) {
        let server = self.servers.values().find(|(_, address)| *address == from);
        let (Some((server, _)), Some(seen)) = (server, self.seen.get(number)) else { return };
        let millis = u32::try_from(now.as_millis()).unwrap_or(u32::MAX);
        seen.heard.store(millis, Ordering::Relaxed);
        if seen.at.load(Ordering::Relaxed) != server + 1 {
            seen.since.store(millis, Ordering::Relaxed);
            seen.at.store(server + 1, Ordering::Release);
        }
        let Some(node) = self.nodes.get_mut(number) else { return };
        node.awaits_answer = false;
        let next = node.next_beat;
        self.plan(number, next);
    }
}
