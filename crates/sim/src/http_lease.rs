//! Renewals of nodes' Leases over HTTPS, by clients of the shape of a stock kubelet: each has its node's
//! certificate and a connection of its own, registers its Node, makes its Lease, and from then on sends back
//! what it was last answered with a new time.
//!
//! What differs from kubelets is that they wait ten seconds in between. The load shares the machine with the
//! server. It is an error if a renewal is refused, or if a Lease does not show its last one.

use std::{
    error::Error,
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Args;
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use toono_http::client::Connection;
use toono_pki::{ClusterCa, Issued};

use crate::{
    Failure,
    access::{Access, ask},
    ending,
    percentiles::Percentiles,
    server::Server,
};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
/// What a renewal changes.
const RENEW_TIME: &str = r#""renewTime":""#;

/// A server that uses less does nothing.
const QUIET_CORES: f64 = 0.05;

/// What to simulate.
#[derive(Debug, Args)]
pub(crate) struct HttpLeaseArgs {
    /// The program.
    #[arg(long, default_value = "target/release/toono")]
    toono: PathBuf,
    /// Where its data goes; must not exist, and is removed at the end.
    #[arg(long, default_value = "/tmp/toono-http-lease")]
    data: PathBuf,
    /// What `toono server --store` gets.
    #[arg(long, default_value = "journal")]
    store: String,
    /// Nodes, each with a connection of its own.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// How long they renew.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Prints the figures once more, as JSON on one line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &HttpLeaseArgs) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    ending::run(&runtime, measure(args))
}

async fn measure(args: &HttpLeaseArgs) -> Result<(), Failure> {
    let mut server = Server::start(&args.toono, &args.data, &["--store", &args.store]).await?;
    let access = Access::read(&args.data, server.port)?;
    let ca = ClusterCa::load_or_create(&args.data.join("pki"))?;
    let mut kubelets = Vec::with_capacity(args.clients);
    for number in 0..args.clients {
        let name = format!("node-{number}");
        let own = ca.issue_client(&format!("system:node:{name}"), &["system:nodes"])?;
        kubelets.push(Kubelet::register(&access, name, &own).await?);
    }
    server.settle(QUIET_CORES).await?;
    let (written, cpu, began) = (revision(&access).await?, server.cpu_seconds()?, Instant::now());
    let ends = began + Duration::from_secs(args.seconds);
    let mut tasks = JoinSet::new();
    for kubelet in kubelets {
        tasks.spawn(kubelet.renew_until(ends));
    }
    let mut latencies = Vec::new();
    while let Some(done) = tasks.join_next().await {
        latencies.extend(done??);
    }
    let seconds = began.elapsed().as_secs_f64();
    let cores = (server.cpu_seconds()? - cpu) / seconds;
    let written = revision(&access).await? - written;
    let (requests, latencies) = (latencies.len(), Percentiles::of(latencies));
    let millis = |percent: usize| latencies.at(percent).as_secs_f64() * 1000.0;
    let (rate, clients) = (requests as f64 / seconds, args.clients);
    let (p50, p99, slowest, rss) = (millis(50), millis(99), millis(100), server.rss_mb()?);
    println!(
        "renewals of Leases, {clients} clients: {requests} in {seconds:.1} s, {rate:.0}/s, p50 {p50:.1} ms, \
         p99 {p99:.1} ms, slowest {slowest:.1} ms; {written} revisions written; server {cores:.2} cores, \
         RSS {rss:.1} MB"
    );
    if args.json {
        let figures = json!({"clients": clients, "requests": requests, "seconds": seconds, "rate": rate,
            "p50_ms": p50, "p99_ms": p99, "slowest_ms": slowest, "revisions": written,
            "server_cores": cores, "rss_mb": rss});
        println!("{figures}");
    }
    server.end().await?;
    Ok(std::fs::remove_dir_all(&args.data)?)
}

/// The store's newest revision.
async fn revision(access: &Access) -> Result<u64, Failure> {
    let mut connection = access.connect().await?;
    let path = format!("{LEASES}?limit=1");
    let list = expect(ask(&mut connection, Method::GET, &path, Bytes::new()).await?)?;
    let list: Value = serde_json::from_slice(&list)?;
    let revision = list.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    Ok(revision.ok_or("a list without a revision")?.parse()?)
}

/// One node.
struct Kubelet {
    connection: Connection,
    path: String,
    /// As it was last answered.
    lease: Bytes,
}

impl Kubelet {
    async fn register(access: &Access, name: String, own: &Issued) -> Result<Self, Failure> {
        let mut connection = access.with(own)?.connect().await?;
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        let asked = ask(&mut connection, Method::POST, "/api/v1/nodes", text(&node)).await?;
        let node: Value = serde_json::from_slice(&expect(asked)?)?;
        let uid = node.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}]},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now()}});
        let lease = expect(ask(&mut connection, Method::POST, LEASES, text(&lease)).await?)?;
        Ok(Self { connection, path: format!("{LEASES}/{name}"), lease })
    }

    async fn renew_until(mut self, ends: Instant) -> Result<Vec<Duration>, Failure> {
        let (mut latencies, mut time) = (Vec::new(), now());
        while Instant::now() < ends {
            time = now();
            let renewed = renewed(&self.lease, &time)?;
            let asked = Instant::now();
            let answer = ask(&mut self.connection, Method::PUT, &self.path, renewed).await?;
            latencies.push(asked.elapsed());
            self.lease = expect(answer)?;
        }
        let shown = ask(&mut self.connection, Method::GET, &self.path, Bytes::new()).await?;
        let shown: Value = serde_json::from_slice(&expect(shown)?)?;
        if shown.pointer("/spec/renewTime") != Some(&time.as_str().into()) {
            return Err(
                format!("{} does not show its renewal at {time}: {shown}", self.path).into()
            );
        }
        Ok(latencies)
    }
}

/// A Lease with another time. It is changed as text: the client is not what is to be measured.
fn renewed(lease: &[u8], time: &str) -> Result<Bytes, Failure> {
    let lease = std::str::from_utf8(lease)?;
    let (before, after) = lease.rsplit_once(RENEW_TIME).ok_or("a Lease without a renewal")?;
    let (_, after) = after.split_once('"').ok_or("a time without an end")?;
    Ok(Bytes::from(format!("{before}{RENEW_TIME}{time}\"{after}")))
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

fn text(object: &Value) -> Bytes {
    object.to_string().into()
}

fn expect((status, body): (StatusCode, Bytes)) -> Result<Bytes, Failure> {
    if status.is_success() {
        return Ok(body);
    }
    Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into())
}
