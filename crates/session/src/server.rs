//! The cloud's end of all sessions: a dense table, one small record a node.

use std::{net::SocketAddr, time::Duration};

use toono_wire::datagram::{
    DownlinkHeader, DownlinkKind, HeartbeatBody, Poke, ReplyBody, ReplyFlags, UplinkHeader,
    UplinkKind,
};

use crate::{
    ClusterSecret, Datagram, NodeUid, SessionKey,
    key::{downlink_nonce, uplink_nonce},
};

/// A node's dense number: its place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub u32);

impl NodeIndex {
    fn place(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Where a node's datagrams come from, and the cloud's go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// UDP.
    Udp(SocketAddr),
    /// A stream of the server's, by a number that it never gives twice.
    Stream(u64),
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Udp(address)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Udp(address) => address.fmt(f),
            Self::Stream(number) => write!(f, "stream {number}"),
        }
    }
}

/// What the cloud remembers of one node's session.
#[derive(Debug, Clone)]
pub struct Record {
    uid: NodeUid,
    generation: u16,
    fresh: Option<Fresh>,
}

/// The newest fresh heartbeat of a node under this server instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fresh {
    /// When it arrived.
    pub at: Duration,
    /// Where pokes go: where it came from, unless it was a probe.
    pub address: Address,
    /// The node's counter.
    pub counter: u64,
    /// The salt of the node's start.
    pub salt: u32,
    /// The epoch of its key.
    pub epoch: u8,
    /// The bundle revision that the node has on disk.
    pub observed_revision: u64,
    /// The digest that came with that bundle.
    pub bundle_digest: u32,
    /// Digest of the status that the node believes the cloud has; 0 for none.
    pub status_digest: u32,
}

/// What the cloud tells a node in a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// What the node's bundle should hold; above what it holds is a cue to fetch.
    pub desired_revision: u64,
    /// What the node should do besides.
    pub flags: ReplyFlags,
    /// Time until the node's next heartbeat.
    pub interval: Duration,
}

/// An authentic heartbeat. [`ServerSessions::reply`] answers it; the answer goes to where it came from.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Which node speaks.
    pub index: NodeIndex,
    /// What it says.
    pub heartbeat: HeartbeatBody,
    /// Whether the node is alive now: the heartbeat was made for this server instance and is new.
    /// When not, nothing but the reply may follow from it.
    pub fresh: bool,
    /// Whether the node's fresh heartbeat before this one named the same bundle: what differs in both is not
    /// just on its way.
    pub repeats: bool,
    /// Whether its key is of another epoch than the current one: sooner or later an answer should tell the
    /// node so, by [`ReplyFlags::REKEY`].
    pub old_key: bool,
    header: UplinkHeader,
    key: SessionKey,
}

/// Why a datagram was refused. Nothing changed, and nothing is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a heartbeat of this version.
    #[error("not a heartbeat")]
    Malformed,
    /// No such node, generation or epoch.
    #[error("a heartbeat of an unknown session")]
    Unknown,
    /// The tag does not match.
    #[error("a heartbeat that fails authentication")]
    Unauthentic,
    /// Its counter is not above the newest one taken.
    #[error("a replayed heartbeat")]
    Replayed,
}

/// All sessions of one server process.
#[derive(Debug)]
pub struct ServerSessions {
    instance: u64,
    /// Newest epoch first.
    secrets: Vec<ClusterSecret>,
    /// Downlink datagrams made so far, over all nodes: the next nonce. It outlives any record, so
    /// that forgetting a node and admitting it again cannot repeat a nonce.
    sent: u64,
    records: Vec<Option<Record>>,
}

impl ServerSessions {
    /// An empty table. `instance` is random and not 0, chosen anew at each start of a server.
    /// `secrets` are those whose keys are accepted; the first is the current one.
    #[must_use]
    pub fn new(instance: u64, secrets: Vec<ClusterSecret>) -> Self {
        Self { instance, secrets, sent: 0, records: Vec::new() }
    }

    /// Which server process this is.
    #[must_use]
    pub fn instance(&self) -> u64 {
        self.instance
    }

    /// Takes a node into the table, which grows to the index: keep indexes dense. The same identity
    /// again changes nothing; another one forgets the old one's session.
    pub fn admit(&mut self, index: NodeIndex, uid: NodeUid, generation: u16) {
        let place = index.place();
        if self.records.len() <= place {
            self.records.resize(place + 1, None);
        }
        if let Some(record) = self.records.get_mut(place) {
            let same =
                record.as_ref().is_some_and(|old| old.uid == uid && old.generation == generation);
            if !same {
                *record = Some(Record { uid, generation, fresh: None });
            }
        }
    }

    /// Forgets a node; its heartbeats are then those of a stranger.
    pub fn remove(&mut self, index: NodeIndex) {
        if let Some(record) = self.records.get_mut(index.place()) {
            *record = None;
        }
    }

    /// The newest fresh heartbeat of a node.
    #[must_use]
    pub fn fresh(&self, index: NodeIndex) -> Option<&Fresh> {
        self.record(index)?.fresh.as_ref()
    }

    /// The current epoch and a node's key in it: what a grant holds.
    #[must_use]
    pub fn grant(&self, uid: &NodeUid, generation: u16) -> Option<(u8, SessionKey)> {
        let secret = self.secrets.first()?;
        Some((secret.epoch(), secret.session_key(uid, generation)))
    }

    /// Which node a heartbeat says that it is of, before anything vouches for that; none for other bytes.
    #[must_use]
    pub fn claimed(bytes: &[u8]) -> Option<NodeIndex> {
        UplinkHeader::split(bytes).ok().map(|(header, ..)| NodeIndex(header.index))
    }

    /// From now on these secrets are accepted; the first is the current one. No session is forgotten: a node
    /// of an epoch that is not among them is a stranger until it has a key of another.
    pub fn set_secrets(&mut self, secrets: Vec<ClusterSecret>) {
        self.secrets = secrets;
    }

    /// The epoch whose keys are granted.
    #[must_use]
    pub fn current_epoch(&self) -> Option<u8> {
        self.secrets.first().map(ClusterSecret::epoch)
    }

    /// Judges bytes that arrived from `from`. A fresh heartbeat is in the table afterwards.
    ///
    /// # Errors
    /// Why the datagram changes nothing and gets no reply.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        from: impl Into<Address>,
        now: Duration,
    ) -> Result<Opened, Refused> {
        let (header, mut sealed, tag) =
            UplinkHeader::split(bytes).map_err(|_| Refused::Malformed)?;
        let index = NodeIndex(header.index);
        let record = self
            .record(index)
            .filter(|record| record.generation == header.generation)
            .ok_or(Refused::Unknown)?;
        let secret = self.secret(header.epoch).ok_or(Refused::Unknown)?;
        // Nobody need prove who sent what changes nothing anyway: a counter that is not above the newest
        // is a replay, or of a node whose disk was set back and which asks over HTTPS. That is the cheap
        // end of most of what an attacker can send.
        if record.fresh.is_some_and(|newest| header.counter <= newest.counter) {
            return Err(Refused::Replayed);
        }
        let key = secret.session_key(&record.uid, record.generation);
        let nonce = uplink_nonce(header.counter, header.salt);
        key.uplink().open(nonce, &header.encode(), &mut sealed, tag).ok_or(Refused::Unauthentic)?;
        let heartbeat = HeartbeatBody::decode(&sealed);

        let fresh = heartbeat.instance == self.instance;
        let same = |newest: Fresh| {
            (newest.observed_revision, newest.bundle_digest)
                == (heartbeat.observed_revision, heartbeat.bundle_digest)
        };
        let repeats = fresh && record.fresh.is_some_and(same);
        if fresh {
            // A probe may have come on a way that leads up only.
            let probes = header.kind == UplinkKind::Probe;
            let before = record.fresh.filter(|_| probes).map(|newest| newest.address);
            let newest = Fresh {
                at: now,
                address: before.unwrap_or_else(|| from.into()),
                counter: header.counter,
                salt: header.salt,
                epoch: header.epoch,
                observed_revision: heartbeat.observed_revision,
                bundle_digest: heartbeat.bundle_digest,
                status_digest: heartbeat.status_digest,
            };
            if let Some(record) = self.records.get_mut(index.place()).and_then(Option::as_mut) {
                record.fresh = Some(newest);
            }
        }
        let old_key = self.current_epoch() != Some(header.epoch);
        Ok(Opened { index, heartbeat, fresh, repeats, old_key, header, key })
    }

    /// The answer to a heartbeat. One that was not fresh is answered too: the node learns this
    /// server's instance from it.
    pub fn reply(&mut self, to: &Opened, answer: &Answer) -> Datagram {
        let body = ReplyBody {
            echo: u32::try_from(to.header.counter & 0xffff_ffff).unwrap_or(0),
            desired_revision: answer.desired_revision,
            flags: answer.flags,
            interval_ms: u32::try_from(answer.interval.as_millis()).unwrap_or(u32::MAX),
        };
        let UplinkHeader { epoch, generation, salt, .. } = to.header;
        let header = self.downlink_header(DownlinkKind::Reply, epoch, generation, to.index);
        seal(&to.key, &header, salt, body.encode())
    }

    /// An unasked word to a node, and where to send it; none before its first fresh heartbeat.
    pub fn poke(&mut self, index: NodeIndex, poke: Poke) -> Option<(Datagram, Address)> {
        let record = self.record(index)?;
        let fresh = record.fresh?;
        let key = self.key(record, fresh.epoch)?;
        let generation = record.generation;
        let header = self.downlink_header(DownlinkKind::Poke, fresh.epoch, generation, index);
        Some((seal(&key, &header, fresh.salt, poke.encode()), fresh.address))
    }

    /// A header with the next counter of this instance. At a million datagrams a second the counter
    /// lasts for 500,000 years.
    fn downlink_header(
        &mut self,
        kind: DownlinkKind,
        epoch: u8,
        generation: u16,
        index: NodeIndex,
    ) -> DownlinkHeader {
        self.sent += 1;
        DownlinkHeader {
            kind,
            epoch,
            generation,
            index: index.0,
            instance: self.instance,
            counter: self.sent,
        }
    }

    fn record(&self, index: NodeIndex) -> Option<&Record> {
        self.records.get(index.place())?.as_ref()
    }

    fn key(&self, record: &Record, epoch: u8) -> Option<SessionKey> {
        Some(self.secret(epoch)?.session_key(&record.uid, record.generation))
    }

    fn secret(&self, epoch: u8) -> Option<&ClusterSecret> {
        self.secrets.iter().find(|secret| secret.epoch() == epoch)
    }
}

fn seal<const BODY: usize>(
    key: &SessionKey,
    header: &DownlinkHeader,
    salt: u32,
    mut body: [u8; BODY],
) -> Datagram {
    let clear = header.encode();
    let nonce = downlink_nonce(header.counter, salt);
    let tag = key.downlink(header.instance).seal(nonce, &clear, &mut body);
    Datagram::assemble(&clear, &body, &tag)
}
