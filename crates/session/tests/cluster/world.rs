//! Time, the network, the servers, the store of their secrets, and what goes wrong.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::Duration,
};

use toono_session::{
    Address, Answer, Keyring, NodeEvent, NodeIndex, Opened, Poke, Refused, ReplyFlags,
    ServerSessions,
};
use toono_wire::join::SessionGrant;

use crate::{
    node::{GENERATION, Node, address, uid},
    random::Random,
    rules::{self, Belief, Ledger},
};

pub(crate) const INTERVAL: Duration = Duration::from_secs(10);
pub(crate) const GRACE: Duration = Duration::from_secs(40);
/// After the trouble: a secret that was rotated at its end is granted after 30 s, and told with the beat after.
const CALM: Duration = Duration::from_secs(65);
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
}

struct Server {
    sessions: ServerSessions,
    ring: Keyring,
    beliefs: HashMap<usize, Belief>,
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
    desired: u64,
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
            desired: 1,
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
        Server { sessions, ring, beliefs: HashMap::new(), started: self.now, skew }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Beat { node, start } if self.nodes[node].start == start => self.beat(node),
            Event::Ask { node, start } if self.nodes[node].start == start => {
                if self.nodes[node].session.unanswered() > 2 {
                    self.ask(node);
                }
            }
            Event::Beat { .. } | Event::Ask { .. } => {}
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

// === the nodes ===

impl World {
    fn beat(&mut self, node: usize) {
        let (now, sender) = (self.now, &mut self.nodes[node]);
        let start = sender.start;
        if sender.off_until > now {
            let at = sender.off_until;
            return self.schedule(at, Event::Beat { node, start });
        }
        let missed = sender.session.unanswered();
        self.schedule(now + INTERVAL, Event::Beat { node, start });
        if missed >= 2 && self.bug != Bug::NothingAskedAgain {
            self.schedule(now + Duration::from_secs(3), Event::Ask { node, start });
        }
        self.send(node);
    }

    fn send(&mut self, node: usize) {
        let (now, sender) = (self.now, &mut self.nodes[node]);
        let observed = sender.disk.observed;
        let datagram = sender.session.heartbeat(now, observed, 0).unwrap();
        let (from, home) = (sender.address, sender.home);
        self.ledger.said(node, datagram.as_bytes(), now, from, observed);
        let bytes = datagram.as_bytes().to_vec();
        self.transmit(node, true, Event::AtServer { server: home, from, bytes });
    }

    /// The network, and who listens to it.
    fn transmit(&mut self, node: usize, up: bool, event: Event) {
        let (Event::AtServer { bytes, .. } | Event::AtNode { bytes, .. }) = &event else { return };
        let bytes = bytes.clone();
        self.seen.push(Seen { up, at: self.now, bytes: bytes.clone() });
        let clean = self.nodes[node].good || !self.in_trouble();
        if !clean && self.random.chance(150) {
            return;
        }
        if let (true, Event::AtServer { server, from, .. }) = (self.random.chance(50), &event) {
            let again = Event::AtServer { server: *server, from: *from, bytes };
            self.deliver(clean, again);
        }
        self.deliver(clean, event);
    }

    fn deliver(&mut self, clean: bool, event: Event) {
        // Mostly quick, sometimes longer than an interval: behind later ones.
        let late = !clean && self.random.chance(30);
        let delay = Duration::from_millis(self.random.below(if late { 24_000 } else { 400 }));
        self.schedule(self.now + delay, event);
    }

    fn at_node(&mut self, node: usize, bytes: &[u8]) {
        let now = self.now;
        if self.nodes[node].off_until > now {
            return;
        }
        let judged = self.nodes[node].session.receive(bytes, now);
        let own = bytes.len() > 8 && bytes[4..8] == u32::try_from(node).unwrap().to_be_bytes();
        let taken = judged.is_ok() || self.bug == Bug::OldAnswersTaken && own;
        if taken {
            let start = self.nodes[node].start;
            self.ledger.took(node, start, bytes, now);
        }
        match judged {
            Ok(NodeEvent::Reply { desired_revision, flags, send_again, .. }) => {
                self.nodes[node].disk.observed = desired_revision;
                if send_again {
                    self.send(node);
                }
                if flags.contains(ReplyFlags::REKEY) {
                    self.ask(node);
                }
            }
            Ok(NodeEvent::Poke(Poke::BundleMoved { revision })) => {
                self.nodes[node].disk.observed = revision;
            }
            Ok(NodeEvent::Poke(Poke::DialBack { .. })) | Err(_) => {}
        }
    }

    /// Asks for the grant over HTTPS.
    fn ask(&mut self, node: usize) {
        let works = self.nodes[node].good || !self.in_trouble() || self.random.chance(700);
        if !works || self.nodes[node].off_until > self.now {
            return;
        }
        let server = &self.servers[self.nodes[node].home];
        let index = NodeIndex(u32::try_from(node).unwrap());
        let (epoch, key) = server.sessions.grant(&uid(node), GENERATION).unwrap();
        let floor = server.sessions.fresh(index).map_or(0, |fresh| fresh.counter >> 32);
        let grant = SessionGrant {
            epoch,
            key_hex: key.to_hex(),
            boot_floor: u32::try_from(floor).unwrap(),
            ..self.nodes[node].disk.grant.clone()
        };
        let before = self.nodes[node].start;
        self.nodes[node].take(grant, self.bug, &mut self.random);
        let start = self.nodes[node].start;
        if start != before {
            self.schedule(self.now, Event::Beat { node, start });
        }
    }
}

// === the servers ===

impl World {
    fn at_server(&mut self, place: usize, bytes: &[u8], from: SocketAddr) {
        let now = self.now;
        if self.servers[place].started > now {
            return;
        }
        let Some(opened) = self.judge(place, bytes, from) else { return };
        let node = usize::try_from(opened.index.0).unwrap();
        let instance = self.servers[place].sessions.instance();
        let ignored = self.bug == Bug::SomeNotCounted && node.is_multiple_of(6);
        if (opened.fresh || self.bug == Bug::FreshnessIgnored) && !ignored {
            let observed = opened.heartbeat.observed_revision;
            let belief = Belief { at: now, address: from, observed };
            self.ledger.counted(bytes, instance, &belief);
            self.servers[place].beliefs.insert(node, belief);
        }
        let told = opened.old_key && (!self.in_trouble() || self.random.chance(300));
        let flags = if told { ReplyFlags::REKEY } else { ReplyFlags::default() };
        let answer = Answer { desired_revision: self.desired, flags, interval: INTERVAL };
        let reply = self.servers[place].sessions.reply(&opened, &answer);
        self.ledger.answered(reply.as_bytes(), now);
        self.last_opened = Some(opened);
        // A NAT gives the reply to whoever has that address now.
        if from == self.nodes[node].address {
            let bytes = reply.as_bytes().to_vec();
            self.transmit(node, false, Event::AtNode { node, bytes });
        }
    }

    fn judge(&mut self, place: usize, bytes: &[u8], from: SocketAddr) -> Option<Opened> {
        let index = ServerSessions::claimed(bytes);
        let server = &mut self.servers[place];
        let before = index.and_then(|index| server.sessions.fresh(index).copied());
        let judged = server.sessions.receive(bytes, from, self.now);
        let after = index.and_then(|index| server.sessions.fresh(index).copied());
        if before != after && !judged.as_ref().is_ok_and(|opened| opened.fresh) {
            self.ledger.broken(rules::ALIVE_BY_REPLAY, "a refused datagram changed something");
        }
        if after.is_some_and(|fresh| before != after && fresh.address != Address::Udp(from)) {
            self.ledger.broken(rules::WRONG_ADDRESS, "not where it came from");
        }
        match (judged, self.bug) {
            (Ok(opened), _) => Some(opened),
            (Err(Refused::Replayed), Bug::ReplaysAccepted) => {
                let instance = self.servers[place].sessions.instance();
                let mut forgetful = self.fresh_server(0, Some(instance)).sessions;
                forgetful.receive(bytes, from, self.now).ok()
            }
            (Err(Refused::Unauthentic), Bug::ForgeriesTaken) => {
                let mut opened = self.last_opened.clone()?;
                opened.fresh = true;
                Some(opened)
            }
            _ => None,
        }
    }

    fn restart_server(&mut self, place: usize) {
        let instance = self.servers[place].sessions.instance();
        let instance = (self.bug == Bug::InstanceReused).then_some(instance);
        let skew = self.servers[place].skew;
        let mut server = self.fresh_server(skew, instance);
        server.started = self.now + Duration::from_millis(self.random.below(5_000));
        if self.bug == Bug::LivenessKept {
            let known = self.servers[place].beliefs.iter();
            let renewed = known.map(|(node, belief)| (*node, Belief { at: self.now, ..*belief }));
            server.beliefs = renewed.collect();
        }
        self.servers[place] = server;
    }

    /// One server writes the ring; the others read it a little later.
    fn write_ring(&mut self, change: impl Fn(&mut Keyring, [u8; 32], u64)) {
        if self.now < self.written + WRITTEN_AGAIN {
            return;
        }
        self.written = self.now;
        let writer = self.random.pick(self.servers.len());
        let (secret, now) = (self.random.secret(), wall(self.now, self.servers[writer].skew));
        change(&mut self.stored, secret, now);
        for server in 0..self.servers.len() {
            let delay = if server == writer { 0 } else { self.random.below(2_000) };
            self.schedule(self.now + Duration::from_millis(delay), Event::Adopt(server));
        }
    }
}

// === what goes wrong ===

impl World {
    fn go_wrong(&mut self) {
        let server = self.random.pick(self.servers.len());
        let node = self.random.pick(self.nodes.len());
        let good = self.nodes[node].good;
        match self.random.below(1000) {
            0..=1 => self.restart_server(server),
            2..=4 => self.write_ring(|ring, secret, now| ring.rotate(secret, now + GRANTED_IN)),
            5..=6 => self.write_ring(|ring, secret, now| {
                ring.rotate(secret, now);
                ring.retire(now, true, 0);
            }),
            7..=8 => {
                let step = i64::try_from(self.random.below(7_200)).unwrap() - 3_600;
                self.servers[server].skew = step;
                self.tell(server);
            }
            9..=15 if !good => self.nodes[node].address = address(&mut self.random),
            16..=25 if !good => self.nodes[node].home = server,
            26..=45 if !good => self.restart_node(node),
            46..=55 => self.nodes[node].back_up(),
            56..=75 => self.poke(server, node),
            76..=80 => self.desired += 1,
            _ => {}
        }
    }

    fn restart_node(&mut self, node: usize) {
        let (bug, now) = (self.bug, self.now);
        let off = Duration::from_millis(self.random.below(150_000));
        let restarted = &mut self.nodes[node];
        if self.random.chance(300) {
            restarted.roll_back();
        }
        restarted.off_until = if self.random.chance(500) { now + off } else { now };
        restarted.start(bug, &mut self.random);
        let start = restarted.start;
        self.schedule(now, Event::Beat { node, start });
    }

    fn poke(&mut self, server: usize, node: usize) {
        let index = NodeIndex(u32::try_from(node).unwrap());
        let poke = Poke::BundleMoved { revision: self.desired };
        let sessions = &mut self.servers[server].sessions;
        let Some((datagram, Address::Udp(to))) = sessions.poke(index, poke) else { return };
        let bytes = datagram.as_bytes().to_vec();
        self.ledger.answered(&bytes, self.now);
        if to == self.nodes[node].address {
            self.transmit(node, false, Event::AtNode { node, bytes });
        }
    }

    /// The attacker sends something that it heard, as it was or changed.
    fn attack(&mut self) {
        if self.seen.is_empty() {
            return;
        }
        let place = self.random.pick(self.seen.len());
        let (server, node) =
            (self.random.pick(self.servers.len()), self.random.pick(self.nodes.len()));
        let Seen { up, at, ref bytes } = self.seen[place];
        let mut bytes = bytes.clone();
        let index = u32::from_be_bytes(bytes[4..8].try_into().unwrap());
        if self.random.chance(300) {
            match self.random.below(3) {
                0 => bytes.truncate(self.random.pick(bytes.len())),
                1 => bytes[4..8].copy_from_slice(&u32::try_from(node).unwrap().to_be_bytes()),
                _ => {
                    let bit = self.random.pick(bytes.len() * 8);
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
            }
            if bytes == self.seen[place].bytes {
                return;
            }
        } else if up && self.is_news(server, index, at, &bytes)
            || !up && self.ledger.is_news_to(usize::try_from(index).unwrap(), &bytes)
        {
            // Who can hold back a datagram can also deliver it: that is no replay.
            return;
        }
        if up {
            self.at_server(server, &bytes, ATTACKER);
        } else {
            let its_own = usize::try_from(index).unwrap();
            let to = if self.random.chance(500) { node } else { its_own };
            self.at_node(to, &bytes);
        }
    }

    /// Whether it is a heartbeat that this server can have missed.
    fn is_news(&self, server: usize, index: u32, at: Duration, bytes: &[u8]) -> bool {
        let counter = u64::from_be_bytes(bytes[8..16].try_into().unwrap());
        let newest = self.servers[server].sessions.fresh(NodeIndex(index));
        at >= self.servers[server].started && newest.is_none_or(|fresh| fresh.counter < counter)
    }
}

// === the end ===

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
            if node.disk.observed != self.desired {
                self.ledger.broken(rules::NOT_TOLD, place);
            }
        }
    }
}

fn wall(now: Duration, skew: i64) -> u64 {
    (BEGIN + now.as_secs()).saturating_add_signed(skew)
}
