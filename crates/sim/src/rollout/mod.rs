//! A rollout of one Service: its endpoints move, one after another, and every node must know.
//!
//! What is true: every node joins, holds a session of its own, and fetches its pool's part over TLS connections
//! of its own, with its own certificate, whose bytes are counted at its socket. What is simulated: nodes are
//! tasks of one process and run nothing; what a hub tells its neighbours stays in the process, since it does not
//! leave the cloud. IP and TCP headers are reckoned: 40 bytes for each piece that arrives (or 1,460 bytes of a
//! longer one), for each acknowledgement, and for three empty segments of each end and connection; 28 bytes for
//! a datagram.

mod counted;
mod node;

use std::{
    collections::BTreeMap,
    error::Error,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    sync::broadcast,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use toono_http::client::Connection;
use toono_pki::NodeKey;

use self::{
    counted::OnLink,
    node::{Node, Shared, UPDATED},
};
use crate::{
    Failure,
    access::{Access, ask},
    fleet::{Figures, NETWORK, join},
    percentiles::Percentiles,
    server::Server,
};

/// Endpoints of one EndpointSlice: what the controller of Kubernetes puts into one.
const SLICE: usize = 100;
/// The first address of the endpoints that are there from the start.
const INITIAL: u32 = 0x0a40_0000;
/// Nodes that join at once.
const JOINS: usize = 32;
/// Frames that a neighbour may be behind its hub.
const TOLD: usize = 64;
/// Nothing that is waited for takes longer.
const LIMIT: Duration = Duration::from_secs(180);
const SERVICE: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// What to simulate.
#[derive(Debug, Args)]
pub(crate) struct RolloutArgs {
    /// The program.
    #[arg(long, default_value = "target/release/toono")]
    toono: PathBuf,
    /// Where its data goes; must not exist, and is removed at the end.
    #[arg(long, default_value = "/tmp/toono-rollout")]
    data: PathBuf,
    /// How many nodes.
    #[arg(long, default_value_t = 1_000)]
    nodes: usize,
    /// How many pools they are in.
    #[arg(long, default_value_t = 10)]
    pools: usize,
    /// How many endpoints the Service has.
    #[arg(long, default_value_t = 1_000)]
    endpoints: usize,
    /// How many of them move.
    #[arg(long, default_value_t = 1_000)]
    updates: u32,
    /// How many a second.
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// One node of each pool serves the part to its neighbours.
    #[arg(long)]
    hubs: bool,
    /// Prints all figures once more, as JSON on one line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &RolloutArgs) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(simulate(args)).map_err(|error| -> Box<dyn Error> { error })
}

async fn simulate(args: &RolloutArgs) -> Result<(), Failure> {
    let mut server = Server::start(&args.toono, &args.data, &NETWORK).await?;
    let access = Access::read(&args.data, server.port)?;
    let mut figures = Figures::default();
    let mut connection = access.connect().await?;
    let mut slices = Slices::create(&mut connection, args.endpoints).await?;

    let shared = Shared {
        digests: (0..args.nodes).map(|_| AtomicU64::new(0)).collect(),
        ..Shared::default()
    };
    let shared = Arc::new(shared);
    let nodes = nodes(args, &access, &mut connection, &shared).await?;
    let mut living = JoinSet::new();
    nodes.into_iter().for_each(|node| drop(living.spawn(node.live())));
    all_alike(&shared).await?;
    // The first heartbeats, and what joins left to do.
    sleep(Duration::from_secs(12)).await;
    server.settle(0.2).await?;
    let first = Sum::of(&shared);
    tell(&mut figures, "start", "every node has the whole part", &first);

    // Nothing was asked on the other one for so long that the server may have closed it.
    let mut connection = access.connect().await?;
    let (cpu, began) = (server.cpu_seconds()?, Instant::now());
    slices.update(&mut connection, args, &shared).await?;
    let updated = began.elapsed();
    all_have(args, &shared).await?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu = server.cpu_seconds()? - cpu;
    let what = format!(
        "{} updates of a Service with {} endpoints in {:.1} s, {} nodes in {} pools{}",
        args.updates,
        args.endpoints,
        updated.as_secs_f64(),
        args.nodes,
        args.pools,
        if args.hubs { " with hubs" } else { "" },
    );
    tell(&mut figures, "rollout", &what, &(Sum::of(&shared) - first));
    delays(&mut figures, &shared, args.updates);
    let stock = slices.stock_bytes() * f64::from(args.updates) * args.nodes as f64;
    figures.tell(
        "server",
        &format!(
            "{:.3} cores, RSS {:.1} MB; stock, where each node watches EndpointSlices of {:.1} KB: {:.1} GB",
            cpu / seconds,
            server.rss_mb()?,
            slices.stock_bytes() / 1e3,
            stock / 1e9,
        ),
        json!({"cores": cpu / seconds, "rss_mb": server.rss_mb()?, "stock_bytes": stock}),
    );
    if args.json {
        println!("{}", Value::Object(figures.0));
    }
    living.shutdown().await;
    server.end().await?;
    Ok(std::fs::remove_dir_all(&args.data)?)
}

/// Lets all join, and those be hubs that are to be.
async fn nodes(
    args: &RolloutArgs,
    access: &Access,
    admin: &mut Connection,
    shared: &Arc<Shared>,
) -> Result<Vec<Node>, Failure> {
    let token = std::fs::read_to_string(args.data.join("node-token"))?;
    let key = NodeKey::generate("sim")?;
    let size = args.nodes.div_ceil(args.pools.max(1));
    let mut joining = JoinSet::new();
    for first in 0..JOINS {
        let numbers = (first..args.nodes).step_by(JOINS);
        let (access, token, csr) = (access.clone(), token.trim().to_owned(), key.csr_pem.clone());
        joining.spawn(async move {
            let mut connection = access.connect_anonymously().await?;
            let mut joined = Vec::new();
            for number in numbers {
                let one = join::one_of(&mut connection, &token, number, size, &csr).await?;
                joined.push((number, one));
            }
            Ok::<_, Failure>(joined)
        });
    }
    let mut joined = BTreeMap::new();
    while let Some(some) = joining.join_next().await {
        joined.extend(some??);
    }
    let told: Vec<_> = (0..args.pools.max(1)).map(|_| broadcast::channel(TOLD).0).collect();
    let mut nodes = Vec::new();
    for (number, joined) in &joined {
        let name = join::name(*number);
        if args.hubs && number.is_multiple_of(size) {
            let label = json!({"metadata": {"labels": {"toono.io/pool-hub": "true"}}});
            merge(admin, &format!("/api/v1/nodes/{name}"), &label).await?;
        }
        let told = told.get(number / size).ok_or("no such pool")?.clone();
        let who = (*number, name);
        let node =
            Node::new(who, joined, &key.key_pem, access.endpoint.clone(), told, shared.clone());
        nodes.push(node.await?);
    }
    Ok(nodes)
}

async fn merge(connection: &mut Connection, path: &str, patch: &Value) -> Result<(), Failure> {
    let request = http::Request::patch(path)
        .header("content-type", "application/merge-patch+json")
        .body(toono_http::full(patch.to_string()))?;
    let status = connection.send(request).await?.status();
    if status.is_success() { Ok(()) } else { Err(format!("{path} answered {status}").into()) }
}

/// Until every node has the same, and something.
async fn all_alike(shared: &Shared) -> Result<u64, Failure> {
    let until = Instant::now() + LIMIT;
    loop {
        let mut digests = shared.digests.iter().map(|digest| digest.load(Ordering::Relaxed));
        let first = digests.next().unwrap_or_default();
        if first != 0 && digests.all(|digest| digest == first) {
            return Ok(first);
        }
        if Instant::now() > until {
            return Err("the nodes do not come to have the same part".into());
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Until every node has every update.
async fn all_have(args: &RolloutArgs, shared: &Shared) -> Result<(), Failure> {
    let wanted = args.nodes * usize::try_from(args.updates)?;
    let until = Instant::now() + LIMIT;
    loop {
        let seen = shared.delays.lock().unwrap_or_else(PoisonError::into_inner).len();
        if seen >= wanted {
            return all_alike(shared).await.map(drop);
        }
        if Instant::now() > until {
            return Err(format!("{seen} of {wanted} updates have arrived").into());
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// The bytes on the cloud's link, by what they were for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sum {
    fetches: OnLink,
    pokes: OnLink,
    heartbeats: OnLink,
    from_cloud: u64,
    from_hub: u64,
    compared: u64,
}

impl Sum {
    fn of(shared: &Shared) -> Self {
        Self {
            fetches: shared.fetches.as_streams(),
            pokes: shared.pokes.as_datagrams(),
            heartbeats: shared.heartbeats.as_datagrams(),
            from_cloud: shared.from_cloud.load(Ordering::Relaxed),
            from_hub: shared.from_hub.load(Ordering::Relaxed),
            compared: shared.compared.load(Ordering::Relaxed),
        }
    }
}

impl std::ops::Sub for Sum {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            fetches: self.fetches - before.fetches,
            pokes: self.pokes - before.pokes,
            heartbeats: self.heartbeats - before.heartbeats,
            from_cloud: self.from_cloud - before.from_cloud,
            from_hub: self.from_hub - before.from_hub,
            compared: self.compared - before.compared,
        }
    }
}

fn tell(figures: &mut Figures, name: &str, what: &str, sum: &Sum) {
    let Sum { fetches, pokes, heartbeats, from_cloud, from_hub, compared } = sum;
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let down = fetches.down + pokes.down + heartbeats.down;
    figures.tell(
        name,
        &format!(
            "{what}; {:.2} MB left the cloud: {:.2} MB in {from_cloud} fetches over {} connections, {:.2} MB \
             in {} pokes, {:.2} MB in replies to heartbeats; {:.2} MB came up; {from_hub} times a hub's \
             word was taken; {compared} times a node was asked to compare",
            mb(down),
            mb(fetches.down),
            fetches.count,
            mb(pokes.down),
            pokes.count,
            mb(heartbeats.down),
            mb(fetches.up + heartbeats.up),
        ),
        json!({"down_bytes": down, "fetches_down_bytes": fetches.down, "fetches": from_cloud,
            "connections": fetches.count, "pokes": pokes.count, "pokes_down_bytes": pokes.down,
            "heartbeats_down_bytes": heartbeats.down, "up_bytes": fetches.up + heartbeats.up,
            "from_hub": from_hub, "compared": compared}),
    );
}

fn delays(figures: &mut Figures, shared: &Shared, updates: u32) {
    let delays = shared.delays.lock().unwrap_or_else(PoisonError::into_inner);
    let mut last = vec![Duration::ZERO; usize::try_from(updates).unwrap_or_default()];
    for (update, delay) in delays.iter() {
        let place = usize::try_from(*update).ok().and_then(|update| last.get_mut(update));
        place.into_iter().for_each(|place| *place = (*place).max(*delay));
    }
    let each = Percentiles::of(delays.iter().map(|(_, delay)| *delay).collect());
    let last = Percentiles::of(last);
    figures.tell(
        "delay",
        &format!(
            "a node has an update after p50 {:.0?} p99 {:.0?}; the last node after p50 {:.0?} p99 {:.0?}",
            each.at(50),
            each.at(99),
            last.at(50),
            last.at(99)
        ),
        json!({"p50_ms": each.at(50).as_millis() as u64, "p99_ms": each.at(99).as_millis() as u64,
            "last_p50_ms": last.at(50).as_millis() as u64, "last_p99_ms": last.at(99).as_millis() as u64}),
    );
}

/// The Service's EndpointSlices, as they are written.
struct Slices {
    addresses: Vec<Vec<Ipv4Addr>>,
    /// Bytes of the first as the API tells it.
    told: usize,
}

impl Slices {
    async fn create(connection: &mut Connection, endpoints: usize) -> Result<Self, Failure> {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "rollout"},
            "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
        write(connection, Method::POST, SERVICE, &service).await?;
        let all: Vec<Ipv4Addr> = (INITIAL..).take(endpoints.max(1)).map(Ipv4Addr::from).collect();
        let addresses: Vec<Vec<Ipv4Addr>> = all.chunks(SLICE).map(<[_]>::to_vec).collect();
        let mut this = Self { addresses, told: 0 };
        for number in 0..this.addresses.len() {
            let told = write(connection, Method::POST, SLICES, &this.object(number)).await?;
            this.told = this.told.max(told);
        }
        Ok(this)
    }

    /// Moves one endpoint after another, each slice in turn.
    async fn update(
        &mut self,
        connection: &mut Connection,
        args: &RolloutArgs,
        shared: &Shared,
    ) -> Result<(), Failure> {
        let began = Instant::now();
        for update in 0..args.updates {
            sleep_until(began + Duration::from_secs_f64(f64::from(update) / args.rate)).await;
            let at = usize::try_from(update)? % args.endpoints.max(1);
            let slice = at % self.addresses.len();
            let place = at / self.addresses.len();
            let address = self.addresses.get_mut(slice).and_then(|slice| slice.get_mut(place));
            *address.ok_or("no such endpoint")? = Ipv4Addr::from(UPDATED + update);
            let path = format!("{SLICES}/rollout-{slice:03}");
            shared.asked.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
            write(connection, Method::PUT, &path, &self.object(slice)).await?;
        }
        Ok(())
    }

    /// What one event of a watch takes for each node of a stock cluster.
    fn stock_bytes(&self) -> f64 {
        self.told as f64
    }

    /// As the controller of Kubernetes writes them.
    fn object(&self, number: usize) -> Value {
        let endpoint = |address: &Ipv4Addr| {
            let [.., c, d] = address.octets();
            json!({"addresses": [address.to_string()],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": format!("sim-{:07}", usize::from(c) * 256 + usize::from(d)),
                "targetRef": {"kind": "Pod", "namespace": "default", "name": format!("rollout-7d9c5b6f8-{c:02x}{d:02x}x"),
                    "uid": format!("3f1c6a52-8f0e-4a7b-9d43-0000{:08x}", u32::from(*address))}})
        };
        let addresses = self.addresses.get(number).map(Vec::as_slice).unwrap_or_default();
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": format!("rollout-{number:03}"),
                "labels": {"kubernetes.io/service-name": "rollout"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>()})
    }
}

/// Writes an object; how long the answer is.
async fn write(
    connection: &mut Connection,
    method: Method,
    path: &str,
    object: &Value,
) -> Result<usize, Failure> {
    let (status, answer) = ask(connection, method, path, Bytes::from(object.to_string())).await?;
    if matches!(status, StatusCode::OK | StatusCode::CREATED) {
        return Ok(answer.len());
    }
    Err(format!("{path} answered {status}: {}", String::from_utf8_lossy(&answer)).into())
}
