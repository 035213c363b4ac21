//! Several servers on one etcd, nodes that are spread over them, and the loss of a server.
//!
//! What is true: the servers and etcd are processes of their own, every node joins over HTTPS, has its own session,
//! and chooses its server by the agent's own code. What is simulated: the nodes share one key pair, some sockets
//! and one thread, run nothing, and use UDP alone. All of it shares one machine, which is not how servers stand.

mod drive;

use std::{
    error::Error,
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use self::drive::Load;
use crate::{
    Failure,
    access::Access,
    ending,
    fleet::{Figures, NETWORK, join, watch::Readiness},
    percentiles::Percentiles,
    server::Server,
};

/// What the servers share.
const TOKEN: &str = "a secret of simulated servers";
/// Nothing that is waited for takes this long on working servers.
const LIMIT: Duration = Duration::from_secs(1_800);
/// Longer than a node may be silent, after the nodes have moved.
const WATCHED: Duration = Duration::from_secs(60);
/// All nodes of a server that is back have returned by then, and some more: five minutes and an interval.
const RETURNED: Duration = Duration::from_secs(330);
const POLL: Duration = Duration::from_millis(100);

/// What to simulate.
#[derive(Debug, Args)]
pub(crate) struct ReplicasArgs {
    /// The program.
    #[arg(long, default_value = "target/release/toono")]
    toono: PathBuf,
    /// The program of etcd.
    #[arg(long, default_value = "etcd")]
    etcd: PathBuf,
    /// Where their data goes; must not exist, and is removed at the end.
    #[arg(long, default_value = "/tmp/toono-replicas")]
    data: PathBuf,
    /// How many nodes.
    #[arg(long, default_value_t = 10_000)]
    nodes: usize,
    /// How many servers.
    #[arg(long, default_value_t = 3)]
    servers: usize,
    /// Connections that nodes join through.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Sockets that heartbeats leave from, each at an address of its own.
    #[arg(long, default_value_t = 64)]
    sockets: usize,
    /// How long the fleet is watched while nothing happens.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Then also starts the lost server again and watches its nodes return, which takes some minutes.
    #[arg(long)]
    back: bool,
    /// Prints all figures once more, as JSON on one line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &ReplicasArgs) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    ending::run(&runtime, simulate(args))
}

async fn simulate(args: &ReplicasArgs) -> Result<(), Failure> {
    if args.servers < 2 {
        return Err("give at least two servers".into());
    }
    std::fs::create_dir(&args.data)?;
    let (_etcd, url) = start_etcd(&args.etcd, &args.data.join("etcd"))?;
    let store = format!("etcd={url}");
    let mut servers = Vec::new();
    for number in 0..args.servers {
        let options = [&["--store", &store, "--token", TOKEN][..], &NETWORK].concat();
        servers.push(Server::start(&args.toono, &dir(args, number), &options).await?);
    }
    let mut run = Run { args, store, servers, figures: Figures::default() };
    run.all().await?;
    if args.json {
        println!("{}", Value::Object(run.figures.0));
    }
    for server in &mut run.servers {
        server.end().await?;
    }
    Ok(std::fs::remove_dir_all(&args.data)?)
}

/// One member, which ends with the handle.
fn start_etcd(program: &Path, data: &Path) -> Result<(Child, String), Failure> {
    std::fs::create_dir(data)?;
    let free = || TcpListener::bind("127.0.0.1:0")?.local_addr().map(|address| address.port());
    let (client, peer) =
        (format!("http://127.0.0.1:{}", free()?), format!("http://127.0.0.1:{}", free()?));
    let log = File::create(data.join("log"))?;
    let child = Command::new(program)
        .arg("--data-dir")
        .arg(data.join("member"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .args(["--quota-backend-bytes", "8589934592"])
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()?;
    Ok((child, client))
}

fn dir(args: &ReplicasArgs, number: usize) -> PathBuf {
    args.data.join(format!("server-{number}"))
}

struct Run<'a> {
    args: &'a ReplicasArgs,
    store: String,
    servers: Vec<Server>,
    figures: Figures,
}

impl Run<'_> {
    async fn all(&mut self) -> Result<(), Failure> {
        let joined = self.join().await?;
        // What the last server says: it is not the one that dies.
        let last = self.servers.len() - 1;
        let port = self.servers.last().map_or(0, |server| server.port);
        let access = Access::read(&dir(self.args, last), port)?;
        let readiness = Readiness::follow(&access, self.args.nodes).await?;
        let ports: Vec<u16> = self.servers.iter().map(|server| server.port).collect();
        let load = Load::start(&joined.nodes, &ports, self.args.sockets)?;
        let began = Instant::now();
        until("all nodes to be ready", || Ok(readiness.ready()? == self.args.nodes)).await?;
        let seconds = began.elapsed().as_secs_f64();
        self.figures.tell("ready", &format!("all in {seconds:.1} s"), json!({"seconds": seconds}));
        self.steady(&readiness, &load).await?;
        self.lose(&readiness, &load).await?;
        if self.args.back {
            self.regain(&readiness, &load).await?;
        }
        Ok(())
    }

    /// Every server takes a part of the joins.
    async fn join(&mut self) -> Result<join::Joined, Failure> {
        let (nodes, connections) = (self.args.nodes, self.args.connections);
        let began = Instant::now();
        let first = self.servers.first().ok_or("no server")?;
        let access = Access::read(&dir(self.args, 0), first.port)?;
        let token = std::fs::read_to_string(dir(self.args, 0).join("node-token"))?;
        let joined = join::all(&access, token.trim(), nodes, connections, 0).await?;
        let seconds = began.elapsed().as_secs_f64();
        let rate = nodes as f64 / seconds;
        let text = format!("{nodes} nodes in {seconds:.1} s, {rate:.0}/s");
        self.figures.tell("join", &text, json!({"nodes": nodes, "seconds": seconds}));
        Ok(joined)
    }

    /// Nothing but heartbeats.
    async fn steady(&mut self, readiness: &Readiness, load: &Load) -> Result<(), Failure> {
        let (lost, late) = (readiness.lost()?.len(), load.late());
        let duration = Duration::from_secs(self.args.seconds);
        let cores = self.cores_during(tokio::time::sleep(duration)).await?;
        let spread = self.spread(load);
        let (lost, late) = (readiness.lost()?.len() - lost, load.late() - late);
        let text = format!(
            "nodes {spread:?}; server cores {}; false NotReady: {lost}; {late} turns of nodes were late",
            list(&cores)
        );
        let figures =
            json!({"nodes": spread, "cores": cores, "false_not_ready": lost, "late": late});
        self.figures.tell("steady", &text, figures);
        Ok(())
    }

    /// The first server dies as in a power cut.
    async fn lose(&mut self, readiness: &Readiness, load: &Load) -> Result<(), Failure> {
        let lost = readiness.lost()?.len();
        let theirs: Vec<usize> =
            (0..self.args.nodes).filter(|node| at(load, *node) == Some(0)).collect();
        let died = load.began.elapsed();
        let last_heard: Vec<Duration> = theirs.iter().map(|node| heard(load, *node)).collect();
        self.servers.first_mut().ok_or("no server")?.kill().await?;
        until("its nodes to be heard by others", || {
            Ok(theirs.iter().all(|node| at(load, *node).is_some_and(|server| server != 0)))
        })
        .await?;
        let since = |node: &usize| load.seen.get(*node).map_or(Duration::ZERO, |seen| seen.since());
        let moves =
            Percentiles::of(theirs.iter().map(|node| since(node).saturating_sub(died)).collect());
        let gaps =
            theirs.iter().zip(&last_heard).map(|(node, last)| since(node).saturating_sub(*last));
        let gaps = Percentiles::of(gaps.collect());
        let cores = self.cores_during(tokio::time::sleep(WATCHED)).await?;
        let lost = readiness.lost()?.len() - lost;
        let [p50, p99, max] = [50, 99, 100].map(|percent| moves.at(percent).as_secs_f64());
        let gap = gaps.at(100).as_secs_f64();
        let text = format!(
            "{} nodes heard by others p50 {p50:.1} s p99 {p99:.1} s max {max:.1} s after it died; longest \
             silence {gap:.1} s; false NotReady: {lost}; server cores in the minute after {}; nodes {:?}",
            theirs.len(),
            list(&cores),
            self.spread(load),
        );
        let figures = json!({"nodes": theirs.len(), "p50_s": p50, "p99_s": p99, "max_s": max,
            "longest_silence_s": gap, "false_not_ready": lost, "cores": cores});
        self.figures.tell("lost", &text, figures);
        Ok(())
    }

    /// It comes back, and so do its nodes.
    async fn regain(&mut self, readiness: &Readiness, load: &Load) -> Result<(), Failure> {
        let lost = readiness.lost()?.len();
        let options = [&["--store", &self.store, "--token", TOKEN][..], &NETWORK].concat();
        let first = self.servers.first_mut().ok_or("no server")?;
        let data = self.args.data.join("server-0");
        *first = Server::start_on(first.port, &self.args.toono, &data, &options).await?;
        let back = load.began.elapsed();
        let cores = self.cores_during(tokio::time::sleep(RETURNED)).await?;
        let nodes = 0..self.args.nodes;
        let returned = nodes.filter(|node| at(load, *node) == Some(0));
        let mut times: Vec<Duration> = returned
            .filter_map(|node| Some(load.seen.get(node)?.since().saturating_sub(back)))
            .collect();
        times.sort();
        let mut seconds = std::collections::HashMap::<u64, usize>::new();
        times.iter().for_each(|time| *seconds.entry(time.as_secs()).or_default() += 1);
        let most = seconds.values().copied().max().unwrap_or(0);
        let (count, lost) = (times.len(), readiness.lost()?.len() - lost);
        let times = Percentiles::of(times);
        let [p50, max] = [50, 100].map(|percent| times.at(percent).as_secs_f64());
        let text = format!(
            "{count} nodes returned p50 {p50:.0} s max {max:.0} s after it was ready again, at most {most} in a \
             second; false NotReady: {lost}; server cores {}; nodes {:?}",
            list(&cores),
            self.spread(load),
        );
        let figures = json!({"nodes": count, "p50_s": p50, "max_s": max, "most_in_a_second": most,
            "false_not_ready": lost, "cores": cores});
        self.figures.tell("back", &text, figures);
        Ok(())
    }

    /// Nodes by server.
    fn spread(&self, load: &Load) -> Vec<usize> {
        let mut spread = vec![0; self.servers.len()];
        for server in (0..self.args.nodes).filter_map(|node| at(load, node)) {
            if let Some(count) = spread.get_mut(server) {
                *count += 1;
            }
        }
        spread
    }

    /// Cores that each server uses meanwhile; none for one that is not there.
    async fn cores_during(&self, during: impl Future<Output = ()>) -> Result<Vec<f64>, Failure> {
        let used = || self.servers.iter().map(|server| server.cpu_seconds().unwrap_or(0.0));
        let (before, began): (Vec<f64>, _) = (used().collect(), Instant::now());
        during.await;
        let seconds = began.elapsed().as_secs_f64();
        Ok(used().zip(before).map(|(after, before)| (after - before).max(0.0) / seconds).collect())
    }
}

fn at(load: &Load, node: usize) -> Option<usize> {
    load.seen.get(node)?.server()
}

fn heard(load: &Load, node: usize) -> Duration {
    load.seen.get(node).map_or(Duration::ZERO, |seen| seen.heard())
}

fn list(cores: &[f64]) -> String {
    let cores: Vec<_> = cores.iter().map(|cores| format!("{cores:.2}")).collect();
    cores.join(", ")
}

async fn until(what: &str, fact: impl Fn() -> Result<bool, Failure>) -> Result<(), Failure> {
    let began = Instant::now();
    while !fact()? {
        if began.elapsed() > LIMIT {
            return Err(format!("waited {LIMIT:?} in vain for {what}").into());
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
