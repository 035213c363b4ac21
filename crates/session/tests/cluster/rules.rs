//! What must never be, whatever happens. Everything that is sent is recorded, so that what is believed later can
//! be compared with what was said, when, and from where.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use toono_wire::datagram::{DownlinkHeader, SealedDownlink, UplinkHeader};

use crate::{
    bundles::{Held, Pods},
    world::GRACE,
};

pub(crate) const NONCE_TWICE: &str = "a nonce was used twice under one key";
pub(crate) const ALIVE_BY_REPLAY: &str = "a replay counted as a sign of life";
pub(crate) const ALIVE_WITHOUT_SENDING: &str = "a node counts as alive that sent nothing";
pub(crate) const DEAD_THOUGH_SENDING: &str = "a node counts as dead whose link works";
pub(crate) const OLD_ANSWER: &str = "a node took an old answer";
pub(crate) const FORGERY: &str = "a forged datagram was taken";
pub(crate) const WRONG_ADDRESS: &str = "an address moved without a heartbeat from there";
pub(crate) const WRONG_REVISION: &str = "an observed revision that the node did not send";
pub(crate) const NOT_BACK: &str = "a node was not heard again";
pub(crate) const OLD_KEY: &str = "a node still has an old key";
pub(crate) const NOT_TOLD: &str = "a node does not have what it should";
pub(crate) const AGREED_WRONGLY: &str = "a node counts as right that is not";
pub(crate) const ASKED_IN_VAIN: &str = "a node is asked again and again";

/// The network delivers nothing later than this.
pub(crate) const DELAY_MOST: Duration = Duration::from_secs(25);

/// What a server believes of a node.
#[derive(Clone, Copy)]
pub(crate) struct Belief {
    pub(crate) at: Duration,
    pub(crate) address: SocketAddr,
    pub(crate) observed: u64,
}

/// What a node said with one heartbeat.
struct Said {
    node: usize,
    at: Duration,
    from: SocketAddr,
    observed: u64,
    pods: Pods,
    /// The servers' instances at which it counted.
    counted_at: Vec<u64>,
}

/// Everything ever sent, and the first rule that was seen broken.
#[derive(Default)]
pub(crate) struct Ledger {
    said: HashMap<Vec<u8>, Said>,
    answers: HashMap<Vec<u8>, Duration>,
    taken: HashSet<(usize, u32, Vec<u8>)>,
    /// When the newest of the answers that each node took was made.
    newest_taken: HashMap<usize, Duration>,
    /// Key identity and nonce → what was sealed: a datagram may travel twice, a nonce may not.
    nonces: HashMap<(Vec<u8>, Vec<u8>), Vec<u8>>,
    /// When each node sent last.
    pub(crate) last_sent: HashMap<usize, Duration>,
    pub(crate) broken: Option<String>,
}

impl Ledger {
    pub(crate) fn broken(&mut self, rule: &str, detail: impl std::fmt::Display) {
        self.broken.get_or_insert_with(|| format!("{rule}: {detail}"));
    }

    /// A node sends.
    pub(crate) fn said(
        &mut self,
        node: usize,
        bytes: &[u8],
        at: Duration,
        from: SocketAddr,
        held: &Held,
    ) {
        let (header, ..) = UplinkHeader::split(bytes).unwrap();
        // Epoch, generation and index stand for the key, which heartbeats and probes share.
        self.sealed(&bytes[1..8], &bytes[8..20], &bytes[20..], header.index);
        let (observed, pods) = (held.revision, held.pods);
        let said = Said { node, at, from, observed, pods, counted_at: Vec::new() };
        self.said.entry(bytes.to_vec()).or_insert(said);
        self.last_sent.insert(node, at);
    }

    /// A server sends.
    pub(crate) fn answered(&mut self, bytes: &[u8], at: Duration) {
        let (header, _) = DownlinkHeader::split(bytes).unwrap();
        // The key depends on the instance; replies and pokes share it, and its nonces.
        self.sealed(&bytes[1..16], &bytes[16..24], &bytes[24..], header.index);
        self.answers.entry(bytes.to_vec()).or_insert(at);
    }

    fn sealed(&mut self, key: &[u8], nonce: &[u8], sealed: &[u8], index: u32) {
        let before = self.nonces.insert((key.to_vec(), nonce.to_vec()), sealed.to_vec());
        if before.is_some_and(|before| before != sealed) {
            self.broken(NONCE_TWICE, format_args!("node {index}"));
        }
    }

    /// A server takes a datagram as a sign of life.
    pub(crate) fn counted(&mut self, bytes: &[u8], instance: u64, belief: &Belief) {
        let Some(said) = self.said.get_mut(bytes) else {
            return self.broken(FORGERY, "at a server");
        };
        let (node, again) = (said.node, said.counted_at.contains(&instance));
        said.counted_at.push(instance);
        let (from, observed) = (said.from, said.observed);
        // From elsewhere it is one too: the node sent it from its own address.
        if again || said.at + DELAY_MOST < belief.at || belief.address != from {
            self.broken(ALIVE_BY_REPLAY, format_args!("node {node}"));
        }
        if belief.observed != observed {
            self.broken(WRONG_REVISION, format_args!("node {node}"));
        }
    }

    /// A server takes what the node holds for what it should hold.
    pub(crate) fn agreed(&mut self, bytes: &[u8], should: &Pods) {
        if let Some(said) = self.said.get(bytes).filter(|said| said.pods != *should) {
            let detail = format!("node {} holds {:?}, not {should:?}", said.node, said.pods);
            self.broken(AGREED_WRONGLY, detail);
        }
    }

    /// A node takes an answer or a poke in this start of its.
    pub(crate) fn took(&mut self, node: usize, start: u32, bytes: &[u8], now: Duration) {
        let Some(made) = self.answers.get(bytes).copied() else {
            return self.broken(FORGERY, format_args!("at node {node}"));
        };
        let again = !self.taken.insert((node, start, bytes.to_vec()));
        if again || made + DELAY_MOST < now {
            self.broken(OLD_ANSWER, format_args!("node {node}, {:?} old", now - made));
        }
        // A poke makes no answer old that a node waits for.
        if matches!(DownlinkHeader::split(bytes), Ok((_, SealedDownlink::Reply(..)))) {
            let newest = self.newest_taken.entry(node).or_default();
            *newest = made.max(*newest);
        }
    }

    /// Whether a node can have missed it: nothing newer has reached it.
    pub(crate) fn is_news_to(&self, node: usize, bytes: &[u8]) -> bool {
        let newest = self.newest_taken.get(&node).copied().unwrap_or_default();
        self.answers.get(bytes).is_some_and(|made| *made >= newest)
    }

    /// Whoever is believed to be alive has sent something lately.
    pub(crate) fn is_alive(&mut self, node: usize, now: Duration) {
        let sent = self.last_sent.get(&node).copied();
        if sent.is_none_or(|sent| sent + GRACE + DELAY_MOST < now) {
            self.broken(ALIVE_WITHOUT_SENDING, format_args!("node {node}"));
        }
    }

    /// A node with a faultless link, at a server that has run for `uptime`.
    pub(crate) fn is_heard(&mut self, node: usize, heard: bool, uptime: Duration) {
        if !heard && uptime > GRACE {
            self.broken(DEAD_THOUGH_SENDING, format_args!("node {node}"));
        }
    }
}
