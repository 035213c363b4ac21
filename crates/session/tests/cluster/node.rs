//! A node as the agent is one: what is on its disk, when it beats, when it asks for its grant.

use std::{net::SocketAddr, time::Duration};

use toono_session::{Keyring, NodeSession, NodeUid};
use toono_wire::join::SessionGrant;

use crate::{bundles::Held, random::Random, world::Bug};

pub(crate) const GENERATION: u16 = 1;

/// What a power cut leaves, and a rollback brings back.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) grant: SessionGrant,
    pub(crate) boot: u32,
    pub(crate) held: Held,
}

pub(crate) struct Node {
    /// Its link loses nothing, and it is left alone: it must be heard whatever happens to others.
    pub(crate) good: bool,
    pub(crate) disk: Disk,
    /// An earlier state of the disk.
    backup: Disk,
    pub(crate) session: NodeSession,
    /// Counts its starts, whatever its disk says.
    pub(crate) start: u32,
    pub(crate) address: SocketAddr,
    /// The server that its datagrams reach.
    pub(crate) home: usize,
    /// It is off until then.
    pub(crate) off_until: Duration,
    /// A fetch is under way.
    pub(crate) fetching: bool,
    /// Fetches since all is calm.
    pub(crate) fetches: u32,
}

pub(crate) fn uid(node: usize) -> NodeUid {
    NodeUid::new(&format!("uid-{node}"))
}

pub(crate) fn address(random: &mut Random) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], u16::try_from(1024 + random.below(60_000)).unwrap()))
}

/// The grant of the first join.
fn joined(node: usize, ring: &Keyring, now: u64) -> SessionGrant {
    let secret = ring.secrets(now).remove(0);
    SessionGrant {
        index: u32::try_from(node).unwrap(),
        generation: GENERATION,
        epoch: secret.epoch(),
        key_hex: secret.session_key(&uid(node), GENERATION).to_hex(),
        udp_port: 1,
        interval_ms: 10_000,
        boot_floor: 0,
        servers: Vec::new(),
    }
}

impl Node {
    pub(crate) fn new(
        node: usize,
        ring: &Keyring,
        now: u64,
        servers: usize,
        random: &mut Random,
    ) -> Self {
        let disk = Disk { grant: joined(node, ring, now), boot: 1, held: Held::default() };
        Self {
            good: node.is_multiple_of(3),
            backup: disk.clone(),
            session: NodeSession::new(&disk.grant, 1, random.word()).unwrap(),
            disk,
            start: 1,
            address: address(random),
            home: random.pick(servers),
            off_until: Duration::ZERO,
            fetching: false,
            fetches: 0,
        }
    }

    /// A new session, as at each start of the daemon and with each new grant.
    pub(crate) fn start(&mut self, bug: Bug, random: &mut Random) {
        self.start += 1;
        self.fetching = false;
        let floor = if bug == Bug::FloorIgnored { 0 } else { self.disk.grant.boot_floor };
        self.disk.boot = self.disk.boot.max(floor) + 1;
        let salt = if bug == Bug::SaltReused { 0 } else { random.word() };
        self.session = NodeSession::new(&self.disk.grant, self.disk.boot, salt).unwrap();
    }

    pub(crate) fn back_up(&mut self) {
        self.backup = self.disk.clone();
    }

    pub(crate) fn roll_back(&mut self, bug: Bug) {
        let digest = self.disk.held.digest;
        self.disk = self.backup.clone();
        if bug == Bug::DigestNotSetBack {
            self.disk.held.digest = digest;
        }
    }

    /// Takes a grant, if it is of any help: the agent's own rule.
    pub(crate) fn take(&mut self, grant: SessionGrant, bug: Bug, random: &mut Random) {
        let old = &self.disk.grant;
        let same = (grant.epoch, &grant.key_hex) == (old.epoch, &old.key_hex);
        let (floor, boot) = (grant.boot_floor, self.session.boot());
        if !same || floor > boot || floor == boot && !self.session.counted() {
            self.disk.grant = grant;
            self.start(bug, random);
        }
    }
}
