//! Time, the network, the servers, the store of their secrets, and what goes wrong.

mod desired;
mod nodes;
mod servers;
mod trouble;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::Duration,
};

use toono_session::{
    Address, Answer, BundleDigest, Keyring, NodeEvent, NodeIndex, Observed, Opened, Poke, Refused,
    ReplyFlags, ServerSessions, Standing,
};
use toono_wire::join::SessionGrant;

use crate::{
    bundles::{Backup, Bundle, Index, Store},
    node::{GENERATION, Node, address, uid},
    random::Random,
    rules::{self, Belief, Ledger},
};

pub(crate) const INTERVAL: Duration = Duration::from_secs(10);
pub(crate) const GRACE: Duration = Duration::from_secs(40);
/// After the trouble: a secret that was rotated at its end is granted after 30 s, and told with the beat after; and
/// who is asked in vain is asked often meanwhile.
const CALM: Duration = Duration::from_secs(95);
/// Servers hear of changes of the store so late, at most.
const LAG_MOST_MS: u64 = 3_000;
const TICK: Duration = Duration::from_millis(100);
/// The wall clock at the beginning.
const BEGIN: u64 = 1_700_000_000;
const GRANTED_IN: u64 = 30;
/// Between two new secrets: all nodes can have moved, or asked, meanwhile.
const WRITTEN_AGAIN: Duration = Duration::from_secs(80);
const ATTACKER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(6, 6, 6, 6)), 666);

/// A way to get the protocol wrong, planted around the real ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// A server that forgets which counters it has seen.
    ReplaysAccepted,
    /// A server that takes heartbeats for another instance as signs of life.
    FreshnessIgnored,
    /// A server that starts with everybody alive.
    LivenessKept,
    /// A node that has no salt.
    SaltReused,
    /// A server that starts under the instance of before.
    InstanceReused,
    /// A node that takes what it has taken before.
    OldAnswersTaken,
    /// A server that looks at no tag.
    ForgeriesTaken,
    /// A node that never asks for its grant.
    NothingAskedAgain,
    /// A node that does not care how far its disk was set back.
    FloorIgnored,
    /// A server that answers some nodes and does not count them.
    SomeNotCounted,
    /// A server that asks no node to compare.
    ComparisonNotAsked,
    /// A node that does not compare when it is asked to.
    ComparisonNotMade,
    /// A node that stores a bundle and keeps the digest of the one before.
    DigestOfBefore,
    /// A node whose digest is not set back with its disk.
    DigestNotSetBack,
    /// A node that believes that what it has and what it got make the whole.
    NothingChecked,
    /// A server for which a node with nothing whole agrees with no pods.
    NothingAgrees,
}

/// How large a run is.
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    pub(crate) servers: usize,
    /// Of trouble.
    pub(crate) seconds: u64,
    pub(crate) bug: Bug,
}

enum Event {
    Beat {
        node: usize,
        start: u32,
    },
    Ask {
        node: usize,
        start: u32,
    },
    AtServer {
        server: usize,
        from: SocketAddr,
        bytes: Vec<u8>,
    },
    AtNode {
        node: usize,
        bytes: Vec<u8>,
    },
    /// A server reads the ring that is in the store.
    Adopt(usize),
    /// A bundle arrives.
    Fetched {
        node: usize,
        start: u32,
        bundle: Bundle,
    },
}

struct Server {
    sessions: ServerSessions,
    ring: Keyring,
    beliefs: HashMap<usize, Belief>,
    index: Index,
    /// How late it hears of changes of the store.
    lag: Duration,
    started: Duration,
    /// Seconds that its wall clock is ahead.
    skew: i64,
}

/// What the attacker keeps of a datagram.
struct Seen {
    up: bool,
    at: Duration,
    bytes: Vec<u8>,
}

pub(crate) struct World {
    bug: Bug,
    trouble: Duration,
    random: Random,
    now: Duration,
    events: BTreeMap<(Duration, u64), Event>,
    scheduled: u64,
    servers: Vec<Server>,
    nodes: Vec<Node>,
    /// The ring in the store.
    stored: Keyring,
    seen: Vec<Seen>,
    ledger: Ledger,
    store: Store,
    backup: Backup,
    /// When the ring was written last.
    written: Duration,
    last_opened: Option<Opened>,
}

impl World {
    pub(crate) fn new(plan: &Plan, seed: u64) -> Self {
        let mut random = Random(seed);
        let stored = Keyring::new(random.secret(), BEGIN);
        let nodes: Vec<Node> = (0..plan.nodes)
            .map(|node| Node::new(node, &stored, BEGIN, plan.servers, &mut random))
            .collect();
        let mut world = Self {
            bug: plan.bug,
            trouble: Duration::from_secs(plan.seconds),
            now: Duration::ZERO,
            events: BTreeMap::new(),
            scheduled: 0,
            servers: Vec::new(),
            nodes,
            stored,
            seen: Vec::new(),
            ledger: Ledger::default(),
            backup: Store::new(plan.nodes).back_up(),
            store: Store::new(plan.nodes),
            written: Duration::ZERO,
            last_opened: None,
            random,
        };
        for _ in 0..plan.servers {
            let server = world.fresh_server(0, None);
            world.servers.push(server);
        }
        for node in 0..world.nodes.len() {
            let at = Duration::from_millis(world.random.below(10_000));
            world.schedule(at, Event::Beat { node, start: 1 });
        }
        world
    }

    /// One run; the error is the first broken rule.
    pub(crate) fn run(mut self) -> Result<(), String> {
        let mut ticks = 0_u32;
        while self.now < self.trouble + CALM {
            self.now += TICK;
            ticks += 1;
            while let Some(entry) = self.events.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let event = entry.remove();
                self.happen(event);
            }
            for _ in 0..=self.nodes.len() / 500 {
                self.attack();
                if self.in_trouble() {
                    self.go_wrong();
                }
            }
            if self.now == self.trouble {
                self.calm_down();
            }
            if ticks.is_multiple_of(50) {
                self.audit();
            }
            if let Some(broken) = self.ledger.broken.take() {
                return Err(format!("{broken}, after {:?}", self.now));
            }
        }
        self.all_are_back();
        self.all_are_told();
        self.ledger.broken.map_or(Ok(()), Err)
    }

    fn in_trouble(&self) -> bool {
        self.now < self.trouble
    }

    fn schedule(&mut self, at: Duration, event: Event) {
        self.scheduled += 1;
        self.events.insert((at, self.scheduled), event);
    }

    fn fresh_server(&mut self, skew: i64, instance: Option<u64>) -> Server {
        let instance = instance.unwrap_or_else(|| self.random.next().max(1));
        let ring = self.stored.clone();
        let secrets = ring.secrets(wall(self.now, skew));
        let mut sessions = ServerSessions::new(instance, secrets);
        for node in 0..self.nodes.len() {
            sessions.admit(NodeIndex(u32::try_from(node).unwrap()), uid(node), GENERATION);
        }
        let lag = Duration::from_millis(self.random.below(LAG_MOST_MS));
        let (index, beliefs) = (self.index(), HashMap::new());
        Server { sessions, ring, beliefs, index, lag, started: self.now, skew }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Beat { node, start } if self.nodes[node].start == start => self.beat(node),
            Event::Ask { node, start } if self.nodes[node].start == start => {
                if self.nodes[node].session.unanswered() > 2 {
                    self.ask(node);
                }
            }
            Event::Fetched { node, start, bundle } if self.nodes[node].start == start => {
                self.fetched(node, &bundle);
            }
            Event::Beat { .. } | Event::Ask { .. } | Event::Fetched { .. } => {}
            Event::AtServer { server, from, bytes } => self.at_server(server, &bytes, from),
            Event::AtNode { node, bytes } => self.at_node(node, &bytes),
            Event::Adopt(server) => {
                let ring = self.stored.clone();
                self.servers[server].ring = ring;
                self.tell(server);
            }
        }
    }

    /// A server's secrets, and which of them is current, as its clock of the moment says.
    fn tell(&mut self, server: usize) {
        let now = self.now;
        let server = &mut self.servers[server];
        server.sessions.set_secrets(server.ring.secrets(wall(now, server.skew)));
    }
}

impl World {
    fn calm_down(&mut self) {
        for server in 0..self.servers.len() {
            self.servers[server].skew = 0;
            self.servers[server].started = self.servers[server].started.min(self.now);
            self.tell(server);
        }
        // Everybody is on.
        self.events.retain(|_, event| !matches!(event, Event::Beat { .. }));
        for node in 0..self.nodes.len() {
            self.nodes[node].off_until = Duration::ZERO;
            let (at, start) = (self.random.below(10_000), self.nodes[node].start);
            self.schedule(self.now + Duration::from_millis(at), Event::Beat { node, start });
        }
    }

    fn audit(&mut self) {
        let now = self.now;
        // An epoch's time may have come.
        (0..self.servers.len()).for_each(|server| self.tell(server));
        for server in &self.servers {
            let alive = server.beliefs.iter().filter(|(_, belief)| belief.at + GRACE > now);
            alive.for_each(|(node, _)| self.ledger.is_alive(*node, now));
        }
        for (place, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.good) {
            let home = &self.servers[node.home];
            let heard = home.beliefs.get(&place).is_some_and(|belief| belief.at + GRACE > now);
            self.ledger.is_heard(place, heard, now.saturating_sub(home.started));
        }
    }

    fn all_are_back(&mut self) {
        let now = wall(self.now, 0);
        let current = self.stored.current_epoch(now);
        for (place, node) in self.nodes.iter().enumerate() {
            let belief = self.servers[node.home].beliefs.get(&place);
            match belief.filter(|belief| belief.at + 2 * INTERVAL > self.now) {
                None => self.ledger.broken(rules::NOT_BACK, place),
                Some(belief) if belief.address != node.address => {
                    self.ledger.broken(rules::WRONG_ADDRESS, place);
                }
                Some(_) => {}
            }
            if node.disk.grant.epoch != current && self.stored.age(now) > 20 {
                self.ledger.broken(rules::OLD_KEY, place);
            }
        }
    }
}

fn wall(now: Duration, skew: i64) -> u64 {
    (BEGIN + now.as_secs()).saturating_add_signed(skew)
}
