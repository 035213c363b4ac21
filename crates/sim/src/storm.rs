//! A storm of handshakes: nodes that all need a TLS connection of their own at once, and what others notice.
//!
//! What is true: each connection is a TCP connection with a full handshake in which both ends show
//! certificates, and carries one request of a node. What is simulated: all show the certificate of one node. The
//! load shares the machine with the server, and pays for its end of each handshake.

use std::{
    error::Error,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Args;
use http::Method;
use rustls::{ClientConfig, client::Resumption};
use serde_json::json;
use tokio::{sync::Semaphore, task::JoinSet};
use toono_http::client::Connection;
use toono_pki::{Issued, NodeKey};
use toono_wire::path;

use crate::{
    Failure,
    access::{Access, ask},
    ending,
    fleet::join,
    percentiles::Percentiles,
    server::Server,
};

/// How often the other client asks.
const LOOK: Duration = Duration::from_millis(20);
/// A node whose connection failed tries again after half of this to all of it, as nodes do first.
const AGAIN: Duration = Duration::from_secs(2);
/// Nothing is waited for longer.
const LIMIT: Duration = Duration::from_secs(600);

/// What to simulate.
#[derive(Debug, Args)]
pub(crate) struct StormArgs {
    /// The program.
    #[arg(long, default_value = "target/release/toono")]
    toono: PathBuf,
    /// Where its data goes; must not exist, and is removed at the end.
    #[arg(long, default_value = "/tmp/toono-storm")]
    data: PathBuf,
    /// How many nodes.
    #[arg(long, default_value_t = 50_000)]
    nodes: usize,
    /// How many of them have a socket at once: a process has so many descriptors and no more.
    #[arg(long, default_value_t = 10_000)]
    at_once: usize,
    /// Prints all figures once more, as JSON on one line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &StormArgs) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    ending::run(&runtime, simulate(args))
}

async fn simulate(args: &StormArgs) -> Result<(), Failure> {
    let mut server = Server::start(&args.toono, &args.data, &[]).await?;
    let access = Access::read(&args.data, server.port)?;
    let token = std::fs::read_to_string(args.data.join("node-token"))?;
    let tls = node_config(&access, token.trim()).await?;

    let other = Other::start(access.clone());
    let before = server.cpu_seconds()?;
    let (elapsed, attempts) = connect_all(args, &access, tls).await?;
    let (cpu, peak) = (server.cpu_seconds()? - before, server.peak_mb()?);
    let asked = Percentiles::of(other.end()?);
    let (p50, p99, slowest) = (asked.at(50), asked.at(99), asked.at(100));
    let seconds = elapsed.as_secs_f64();
    println!(
        "storm: {} nodes served in {seconds:.1} s, {attempts} connections; server {:.2} cores, peak RSS \
         {peak:.1} MB; another client's GET meanwhile: p50 {p50:.1?} p99 {p99:.1?} slowest {slowest:.1?}",
        args.nodes,
        cpu / seconds,
    );
    if args.json {
        let figures = json!({"nodes": args.nodes, "seconds": seconds, "connections": attempts,
            "server_cpu_seconds": cpu, "peak_mb": peak, "get_p50_ms": p50.as_secs_f64() * 1e3,
            "get_p99_ms": p99.as_secs_f64() * 1e3});
        println!("{figures}");
    }
    server.end().await?;
    Ok(std::fs::remove_dir_all(&args.data)?)
}

/// The TLS of a node that has joined, and that has no earlier connection to resume.
async fn node_config(access: &Access, token: &str) -> Result<Arc<ClientConfig>, Failure> {
    let key = NodeKey::generate("sim")?;
    let mut connection = access.connect_anonymously().await?;
    let joined = join::one(&mut connection, token, 0, &key.csr_pem).await?;
    let own = Issued { cert_pem: joined.certificate_pem, key_pem: key.key_pem };
    let mut tls = ClientConfig::clone(&*toono_pki::client_config(&joined.ca_pem, Some(&own))?);
    tls.resumption = Resumption::disabled();
    Ok(Arc::new(tls))
}

/// Until every node was served; how long it took, and how many connections.
async fn connect_all(
    args: &StormArgs,
    access: &Access,
    tls: Arc<ClientConfig>,
) -> Result<(Duration, usize), Failure> {
    let slots = Arc::new(Semaphore::new(args.at_once));
    let attempts = Arc::new(AtomicUsize::new(0));
    let (began, mut tasks) = (Instant::now(), JoinSet::new());
    for _ in 0..args.nodes {
        let (slots, attempts) = (Arc::clone(&slots), Arc::clone(&attempts));
        let (access, tls) = (access.clone(), Arc::clone(&tls));
        tasks.spawn(async move {
            while began.elapsed() < LIMIT {
                let slot = slots.acquire().await?;
                attempts.fetch_add(1, Ordering::Relaxed);
                if be_served(&access, &tls).await.is_ok() {
                    return Ok::<_, Failure>(());
                }
                drop(slot);
                tokio::time::sleep(AGAIN.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            }
            Err("a node was not served".into())
        });
    }
    while let Some(served) = tasks.join_next().await {
        served??;
    }
    Ok((began.elapsed(), attempts.load(Ordering::Relaxed)))
}

async fn be_served(access: &Access, tls: &Arc<ClientConfig>) -> Result<(), Failure> {
    let mut connection = Connection::open(&access.endpoint, tls).await?;
    let (status, _) = ask(&mut connection, Method::GET, path::SESSION, Bytes::new()).await?;
    if status.is_success() { Ok(()) } else { Err(format!("answered {status}").into()) }
}

/// Another client, on a thread of its own, that asks for an object over a connection that stands.
pub(crate) struct Other {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Duration>, Failure>>,
}

impl Other {
    pub(crate) fn start(access: Access) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let ends = Arc::clone(&ends);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(look(&access, &ends))
            }
        });
        Self { ends, thread }
    }

    pub(crate) fn end(self) -> Result<Vec<Duration>, Failure> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the other client failed")?
    }
}

async fn look(access: &Access, ends: &AtomicBool) -> Result<Vec<Duration>, Failure> {
    let mut connection = access.connect().await?;
    let mut latencies = Vec::new();
    while !ends.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let path = "/api/v1/namespaces/default";
        let (status, _) = ask(&mut connection, Method::GET, path, Bytes::new()).await?;
        if !status.is_success() {
            return Err(format!("{path} answered {status}").into());
        }
        latencies.push(asked.elapsed());
        tokio::time::sleep(LOOK).await;
    }
    Ok(latencies)
}
