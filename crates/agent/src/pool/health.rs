//! The node among its neighbours: what it sees of them decides, beside the cloud's word, which endpoints it uses.
//! What is seen and said is [`toono_neighbours`]' to know; here are the socket, the records and this node's own pods.
//!
//! It wakes up for its rounds only while the pool has endpoints on other nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use toono_neighbours::{Circle, Key, MAX_DATAGRAM, Neighbour, Standing, Word};
use toono_net::{
    Cidr,
    datagrams::{Inbox, Outbox as Datagrams},
};
use toono_wire::pool::{EndpointRecord, HUB_PORT, NodeRecord, Records};

use super::{Pool, Touch, sight::Sight};
use crate::{
    clock::Clock,
    disk::{self, Durability},
    join::chain,
    outbox::Outbox,
    retry,
};

/// Nothing is said of this node's pods before they had time to be taken up.
const TAKE_UP: Duration = Duration::from_secs(5);
/// After a return the cloud calls neighbours unready that it has not heard again, for as long as their links take
/// to come back. For so long what nodes say themselves goes before that.
const RETURN: Duration = Duration::from_secs(60);
/// How long changes of pods wait for each other.
const COALESCE: Duration = Duration::from_millis(100);
/// Before a port that is taken is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// Datagrams taken at once.
const BATCH: usize = 16;

/// What it is made of.
pub(crate) struct Health {
    pub(crate) pool: Pool,
    pub(crate) outbox: Outbox,
    pub(crate) link: watch::Receiver<bool>,
    pub(crate) clock: Clock,
    /// This node's own pods.
    pub(crate) cidr: Cidr,
    pub(crate) data: PathBuf,
}

/// What changes while it runs.
struct Running {
    health: Health,
    circle: Circle,
    /// Endpoints on neighbours, by their keys: on whom.
    places: BTreeMap<Arc<str>, Arc<str>>,
    heard: BTreeSet<String>,
    started: Instant,
}

impl Health {
    /// For as long as the agent lives.
    pub(crate) async fn run(self) {
        let seed = u64::from(retry::random_u32()) << 32 | u64::from(retry::random_u32());
        let heard = disk::read_checked(&self.heard_path()).ok().flatten();
        let heard = heard.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let circle = Circle::new(&*self.pool.inner.name, seed);
        let (places, started) = (BTreeMap::new(), Instant::now());
        Running { health: self, circle, places, heard, started }.run().await;
    }

    fn heard_path(&self) -> PathBuf {
        self.data.join("pool/heard")
    }
}

async fn listen() -> UdpSocket {
    loop {
        match bind().await {
            Ok(socket) => return socket,
            Err(error) => {
                tracing::warn!(port = HUB_PORT, %error, "the pool's nodes do not see this one");
                sleep(AGAIN).await;
            }
        }
    }
}

/// On all addresses, of both families where there are both.
async fn bind() -> io::Result<UdpSocket> {
    match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, HUB_PORT)).await {
        Ok(socket) => Ok(socket),
        Err(_) => UdpSocket::bind(("0.0.0.0", HUB_PORT)).await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Running {
    async fn run(mut self) {
        let socket = listen().await;
        let is_v6 = socket.local_addr().is_ok_and(|at| at.is_ipv6());
        let follower = self.health.pool.follow_cloud_alone();
        let mut statuses = self.health.outbox.changes();
        let mut link = self.health.link.clone();
        let mut inbox = Inbox::new(BATCH, MAX_DATAGRAM + 1);
        let mut says = Some(self.started + TAKE_UP);
        let mut believes_cloud = None;
        loop {
            let next = self.circle.next().map(|at| self.health.clock.instant(at));
            tokio::select! {
                touch = follower.changed() => self.read(&touch),
                ready = socket.readable() => if ready.is_ok() { self.receive(&socket, &mut inbox) },
                () = until(next) => {}
                () = until(says) => {
                    says = None;
                    self.say();
                }
                changed = statuses.changed() => if changed.is_ok() {
                    says = says.or_else(|| Some(Instant::now() + COALESCE));
                },
                changed = link.changed() => if changed.is_ok() {
                    believes_cloud = self.link_changed(*link.borrow_and_update());
                },
                () = until(believes_cloud) => {
                    believes_cloud = None;
                    self.health.pool.cut_off(false);
                }
            }
            let now = self.now();
            self.circle.wake(now);
            self.send(&socket, is_v6);
            self.show();
        }
    }

    /// When the cloud's word is to be the last again, where it is not.
    fn link_changed(&self, is_up: bool) -> Option<Instant> {
        let pool = &self.health.pool;
        if !is_up {
            pool.cut_off(true);
        }
        (is_up && pool.is_cut_off()).then(|| Instant::now() + RETURN)
    }

    fn now(&self) -> Duration {
        self.health.clock.now().elapsed
    }

    fn receive(&mut self, socket: &UdpSocket, inbox: &mut Inbox) {
        let now = self.now();
        let taken = socket.try_io(tokio::io::Interest::READABLE, || inbox.receive(socket));
        if taken.is_ok() {
            inbox.iter().for_each(|(bytes, _)| self.circle.receive(now, bytes));
        }
    }

    fn send(&mut self, socket: &UdpSocket, is_v6: bool) {
        let mut datagrams = Datagrams::default();
        for (to, bytes) in self.circle.take_datagrams() {
            let to = match to {
                IpAddr::V4(to) if is_v6 => to.to_ipv6_mapped().into(),
                to => to,
            };
            datagrams.push(&bytes, SocketAddr::new(to, HUB_PORT));
        }
        if !datagrams.is_empty() {
            datagrams.send(socket);
        }
    }

    /// Says which of this node's pods are ready, to whoever asks; and asks all to ask when the cloud cannot tell it.
    fn say(&mut self) {
        let cidr = self.health.cidr;
        if !*self.health.link.borrow() {
            self.health.pool.cut_off(true);
        }
        let ready = self.health.outbox.ready_addresses();
        let word = Word::new(ready.into_iter().filter(|it| cidr.contains(*it)).collect());
        let tells = self.health.pool.is_cut_off();
        self.circle.say(self.now(), word.clone(), tells);
        let own = self.health.pool.inner.name.clone();
        self.health
            .pool
            .see(&own, Some(Sight { standing: Standing::Alive, word, pods: vec![cidr] }));
    }

    /// What the cloud said of the pool.
    fn read(&mut self, touch: &Touch) {
        let now = self.now();
        let pool = self.health.pool.clone();
        self.circle.set_key(pool.key().map(|key| Key::new(&key)));
        pool.read_signed(|records| match touch {
            Touch::Keys(keys) if !keys.iter().any(|key| key.starts_with("node/")) => {
                let mut touched = false;
                for key in keys.iter().filter(|key| key.starts_with("endpoint/")) {
                    self.place(records, key, now);
                    touched = true;
                }
                if touched {
                    self.meet(records, now);
                }
            }
            _ => {
                self.places.clear();
                let endpoints = records.below("endpoint/").map(|(key, _)| key.clone());
                endpoints.for_each(|key| self.place(records, &key, now));
                self.meet(records, now);
            }
        });
    }

    fn place(&mut self, records: &Records, key: &Arc<str>, now: Duration) {
        let record = records.get(key).and_then(|text| serde_json::from_str(text).ok());
        let node = record.map(|record: EndpointRecord| record.node).unwrap_or_default();
        let is_neighbour = *node != *self.health.pool.inner.name
            && records.get(&toono_wire::pool::node_key(&node)).is_some();
        if is_neighbour {
            self.circle.doubt(now, &node);
            self.places.insert(key.clone(), node.into());
        } else {
            self.places.remove(key);
        }
    }

    /// The pool's nodes, and whose endpoints are there to be used.
    fn meet(&mut self, records: &Records, now: Duration) {
        let used: BTreeSet<&Arc<str>> = self.places.values().collect();
        let all: Vec<Neighbour> = records
            .below("node/")
            .filter_map(|(key, text)| {
                let name: Arc<str> = key.strip_prefix("node/")?.into();
                let record: NodeRecord = serde_json::from_str(text).ok()?;
                let address = record.addresses.first()?.parse().ok()?;
                let is_used = used.contains(&name);
                Some(Neighbour { name, address, is_used })
            })
            .collect();
        let heard = &self.heard;
        self.circle.set_members(now, all.into_iter(), |name| heard.contains(name));
    }

    /// Has the pool's records show what is seen.
    fn show(&mut self) {
        for name in self.circle.take_changed() {
            let sight = self.circle.view(&name).map(|(standing, word)| {
                let pods = self.health.pool.pods_of(&name);
                Sight { standing, word: word.cloned(), pods }
            });
            let standing = sight.as_ref().map(|sight| sight.standing);
            if self.health.pool.see(&name, sight) {
                match standing {
                    Some(Standing::Dead) => {
                        tracing::warn!(neighbour = %name, "it does not answer; its endpoints are not used");
                    }
                    standing => tracing::info!(neighbour = %name, ?standing, "seen"),
                }
            }
        }
        if let Some(heard) = self.circle.take_heard() {
            let heard: BTreeSet<String> = heard.iter().map(ToString::to_string).collect();
            if !heard.is_subset(&self.heard) {
                self.heard = heard;
                self.remember();
            }
        }
    }

    /// Who has answered once is known after a start in an outage, too.
    fn remember(&self) {
        let path = self.health.heard_path();
        let text = serde_json::to_vec(&self.heard).unwrap_or_default();
        if let Err(error) = disk::write_checked(&path, &text, Durability::Synced) {
            tracing::warn!(error = chain(&error), "who answered is not on disk");
        }
    }
}
