//! DNS for this node's pods, on the pod bridge: the cluster's names from the pool's part as it is on this node, all
//! others from the node's own resolvers.
//!
//! What a question means is `toono_names`' to say; here are sockets, the clock and the node's files. Everything runs
//! on the agent's one thread, and nothing of it waits for anything but a socket.

mod admission;
mod datagrams;
pub(crate) mod resolvers;
mod streams;
mod upstream;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpListener, UdpSocket},
    sync::mpsc,
    time::{Instant, sleep},
};
use toono_names::{Ask, BadName, Cache, Counters, Name, Reaction, Server, Way, Whom, Zone};
use toono_net::{Cidr, datagrams::Outbox};
use toono_wire::{
    join::ClusterDns,
    pool::{Records, service_key},
};

use self::{admission::Admission, resolvers::Resolvers};
use crate::{
    pool::{Pool, Touch},
    retry,
    services::{ServicePort, Services},
};

/// Where it listens on the bridge. Services' rules lead the cluster's DNS address here: on port 53 of all addresses
/// some hosts have a server of their own.
pub(crate) const PORT: u16 = 10_272;
/// The ports of the cluster's DNS, by the names that its Service has for them.
const SERVICE_PORTS: [&str; 2] = ["dns", "dns-tcp"];
/// What is kept of what resolvers said.
const CACHE_BYTES: usize = 512 * 1024;
/// Questions that wait to be asked: as many as are asked at once.
const MOST_WAITING: usize = 512;
/// A client is told what is kept beyond its time when resolvers take longer (RFC 8767, 5).
const LATE: Duration = Duration::from_millis(1_800);
/// Before a port that is taken, or an address that is not there yet, is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// The kind of record that finds out whether resolvers lead back here; nobody has such records.
const PROBE_KIND: u16 = 13;

/// A node's DNS. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Dns {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    at: SocketAddr,
    server: Mutex<Server>,
    resolvers: Mutex<Resolvers>,
    admission: Mutex<Admission>,
    pool: Pool,
    origin: Instant,
    /// Where answers to a connection's questions go.
    streams: Mutex<BTreeMap<u64, mpsc::Sender<Vec<u8>>>>,
    asks: mpsc::Sender<Asking>,
}

/// A question on its way to the resolvers.
#[derive(Debug)]
enum Asking {
    /// Somebody waits for its answer.
    For(Ask),
    /// Nobody does: it is to come back here, or not.
    Probe(Ask),
}

/// What listens, and what is to be asked.
#[derive(Debug)]
pub(crate) struct Questions(mpsc::Receiver<Asking>);

impl Dns {
    /// DNS at an address of the bridge, for these pods. It listens when it [runs](Self::run).
    ///
    /// # Errors
    /// When the cluster's domain is none.
    pub(crate) fn new(
        bridge: IpAddr,
        pods: Cidr,
        resolv_conf: &Path,
        cluster: &ClusterDns,
        pool: Pool,
    ) -> Result<(Self, Questions), BadName> {
        let zone = Zone::new(&cluster.domain, cluster.addresses.clone())?;
        let own = cluster.addresses.iter().copied().chain([bridge]).collect();
        let (asks, questions) = mpsc::channel(MOST_WAITING);
        let inner = Inner {
            at: SocketAddr::new(bridge, PORT),
            server: Mutex::new(Server::new(zone, Cache::new(CACHE_BYTES))),
            resolvers: Mutex::new(Resolvers::new(resolv_conf, own)),
            admission: Mutex::new(Admission::new(pods)),
            pool,
            origin: Instant::now(),
            streams: Mutex::default(),
            asks,
        };
        Ok((Self { inner: Arc::new(inner) }, Questions(questions)))
    }

    /// What is sent to the Service of the cluster's DNS comes here.
    pub(crate) fn serve_as_service(&self, services: &Services) {
        let (namespace, name) = ClusterDns::SERVICE;
        for port in SERVICE_PORTS {
            services.serve_here(ServicePort { namespace, name, port }, self.inner.at);
        }
    }

    /// What it has done so far.
    #[expect(dead_code, reason = "the node's metrics will tell it")]
    pub(crate) fn counters(&self) -> Counters {
        self.inner.server().counters()
    }

    /// For as long as the agent lives.
    pub(crate) async fn run(self, questions: Questions) {
        let (datagrams, listener) = self.inner.listen().await;
        tracing::info!(at = %self.inner.at, "DNS for this node's pods");
        tokio::join!(
            self.inner.follow_records(),
            self.inner.serve_datagrams(&datagrams),
            self.inner.serve_streams(&listener),
            ask_resolvers(&self.inner, questions, &datagrams),
        );
    }
}

impl Inner {
    async fn listen(&self) -> (UdpSocket, TcpListener) {
        loop {
            let sockets = async {
                Ok::<_, std::io::Error>((
                    UdpSocket::bind(self.at).await?,
                    TcpListener::bind(self.at).await?,
                ))
            };
            match sockets.await {
                Ok(sockets) => return sockets,
                Err(error) => {
                    tracing::error!(at = %self.at, %error, "no DNS for this node's pods yet");
                    sleep(AGAIN).await;
                }
            }
        }
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resolvers(&self) -> MutexGuard<'_, Resolvers> {
        self.resolvers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admits(&self, address: IpAddr) -> bool {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner).admits(address)
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Keeps the zone's index as the records are.
    async fn follow_records(&self) {
        let follower = self.pool.follow();
        loop {
            let touch = follower.changed().await;
            self.server().zone().set_vantage(self.pool.vantage());
            self.pool.read(|records| self.index(records, &touch));
        }
    }

    fn index(&self, records: &Records, touch: &Touch) {
        let mut server = self.server();
        let zone = server.zone();
        match touch {
            Touch::All => zone.replace(records),
            Touch::Keys(keys) => {
                for key in keys {
                    match records.get(key) {
                        Some(text) => zone.put(key, text),
                        None => zone.remove(key),
                    }
                }
            }
        }
    }

    /// Takes one message; whether an answer is in `out`.
    fn take(&self, records: &Records, message: &[u8], whom: Whom, out: &mut Vec<u8>) -> bool {
        let reaction = self.server().receive(records, message, whom, self.now(), out);
        match reaction {
            Reaction::Answer => return true,
            Reaction::Nothing => {}
            Reaction::Loop => self.resolvers().turn_off(),
            // It has room for all that the server asks at once.
            Reaction::Ask(ask) => drop(self.asks.try_send(Asking::For(ask))),
        }
        false
    }

    /// Sends answers that somebody waited for.
    fn deliver(&self, outbox: &mut Outbox, whom: Whom, bytes: &[u8]) {
        match whom.way {
            Way::Udp => outbox.push(bytes, whom.address),
            Way::Tcp(stream) => {
                let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(stream) = streams.get(&stream) {
                    // Who reads no answers gets none.
                    let _ = stream.try_send(bytes.to_vec());
                }
            }
        }
    }

    /// Asks the resolvers, and tells who waits.
    async fn ask(&self, ask: Ask, socket: &UdpSocket) {
        let servers = {
            let mut resolvers = self.resolvers();
            if resolvers.refresh() {
                self.probe();
            }
            resolvers.in_order()
        };
        let asking = upstream::ask(&servers, &ask);
        tokio::pin!(asking);
        let mut outbox = Outbox::default();
        let answer = tokio::select! {
            answer = &mut asking => answer,
            () = sleep(LATE) => {
                let now = self.now();
                self.server().late(&ask, now, |whom, it| self.deliver(&mut outbox, whom, it));
                outbox.send(socket);
                asking.await
            }
        };
        let now = self.now();
        let mut server = self.server();
        let send = |whom, bytes: &[u8]| self.deliver(&mut outbox, whom, bytes);
        match &answer {
            Some((said, _)) => server.said(&ask, said, now, send),
            None => server.failed(&ask, now, send),
        }
        drop(server);
        if let Some((_, by)) = answer {
            self.resolvers().prefer(by);
        }
        outbox.send(socket);
    }

    /// Asks the resolvers for a name that nobody else can know: if it comes back here, they lead here.
    fn probe(&self) {
        let words: [u32; 4] = std::array::from_fn(|_| retry::random_u32());
        let [a, b, c, d] = words;
        let name = Name::of(&format!("{a:08x}{b:08x}.{c:08x}{d:08x}"));
        self.server().set_probe(name.clone().ok());
        if let Ok(name) = name {
            let _ = self.asks.try_send(Asking::Probe(Ask::of(name, PROBE_KIND)));
        }
    }
}

/// The cluster's DNS: as its Service is now, else as the cloud said when the node joined.
pub(crate) fn cluster(records: &Records, known: Option<&ClusterDns>) -> ClusterDns {
    let domain = known.map_or(ClusterDns::DOMAIN, |known| &known.domain);
    let (namespace, name) = ClusterDns::SERVICE;
    let record = records.get(&service_key(namespace, name));
    let now = record.and_then(|text| ClusterDns::of_record(domain, text));
    now.or_else(|| known.cloned())
        .unwrap_or_else(|| ClusterDns { domain: domain.to_owned(), addresses: Vec::new() })
}

/// Asks what is to be asked, all at the same time; how much that is the server bounds.
async fn ask_resolvers(inner: &Arc<Inner>, mut questions: Questions, socket: &UdpSocket) {
    use futures::{StreamExt, stream::FuturesUnordered};
    let mut asked = FuturesUnordered::new();
    loop {
        tokio::select! {
            question = questions.0.recv() => match question {
                Some(Asking::For(ask)) => asked.push(futures::future::Either::Left(inner.ask(ask, socket))),
                Some(Asking::Probe(ask)) => asked.push(futures::future::Either::Right(async move {
                    let servers = inner.resolvers().in_order();
                    for server in servers {
                        let _ = upstream::ask(&[server], &ask).await;
                    }
                })),
                None => return,
            },
            Some(()) = asked.next() => {}
        }
    }
}
