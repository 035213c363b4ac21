//! A server and up to a million nodes of its own, on this machine.
//!
//! What is true: every node joins over HTTPS with the cluster's token, has a session key of its own, sends
//! its heartbeats from the agent's own session code, and judges what comes back by it. What is simulated: the
//! nodes share one key pair, some sockets and one thread; they run nothing; the revision of a bundle that the
//! cloud names is taken as fetched (but see `change`), with the digest of the pods as they were created, and a
//! request for a full report as answered. The load shares the machine with the server.

mod change;
mod digests;
pub(crate) mod drive;
pub(crate) mod join;
mod outage;
mod steps;
pub(crate) mod watch;

use std::{
    error::Error,
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::{Value, json};

use self::{
    change::Fetchers,
    drive::{Fetching, Load},
    join::Joined,
    watch::Readiness,
};
use crate::{Failure, access::Access, ending, percentiles::Percentiles, server::Server};

/// Room for a million nodes with 13 pods each.
pub(crate) const NETWORK: [&str; 4] =
    ["--cluster-cidr", "10.0.0.0/8", "--node-cidr-mask-size", "28"];
/// Nothing that is waited for takes this long on a working server.
const LIMIT: Duration = Duration::from_secs(3_600);
/// Cores that the server uses when it has done what joins and creations left to do (taints to take away, events
/// to write): so many, and so many for each node, whose heartbeats go on.
const SETTLED: (f64, f64) = (0.1, 0.7e-6);
/// How often progress is printed.
const PROGRESS: Duration = Duration::from_secs(10);

/// What to simulate.
#[derive(Debug, Args)]
pub(crate) struct FleetArgs {
    /// The program.
    #[arg(long, default_value = "target/release/toono")]
    toono: PathBuf,
    /// Where its data goes; must not exist, and is removed at the end.
    #[arg(long, default_value = "/tmp/toono-fleet")]
    data: PathBuf,
    /// How many nodes.
    #[arg(long, default_value_t = 10_000)]
    nodes: usize,
    /// Connections that nodes join through.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Sockets that heartbeats leave from, each at an address of its own.
    #[arg(long, default_value_t = 64)]
    sockets: usize,
    /// How long the fleet is watched while nothing happens.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many nodes then fall silent at once; 0 leaves this out.
    #[arg(long, default_value_t = 0)]
    silent: usize,
    /// Changes so many desired states a second, each by a pod bound to a node; 0 leaves this out.
    #[arg(long, default_value_t = 0)]
    changes: usize,
    /// For how many seconds.
    #[arg(long, default_value_t = 60)]
    change_seconds: u64,
    /// How many nodes keep their identities: those that changes go to, and that fetch their bundles themselves.
    #[arg(long, default_value_t = 20_000)]
    changing: usize,
    /// Creates so many pods, each bound to a node, one node after another.
    #[arg(long, default_value_t = 0)]
    pods: usize,
    /// Lists all nodes, in pages of 500 and as one stream.
    #[arg(long)]
    list: bool,
    /// Then kills the server and starts it again, with all nodes sending.
    #[arg(long)]
    restart: bool,
    /// Then stops the server for so many seconds, with all nodes sending; 0 leaves this out.
    #[arg(long, default_value_t = 0)]
    outage: u64,
    /// The outage kills the server instead, and starts it again.
    #[arg(long)]
    outage_kills: bool,
    /// Prints all figures once more, as JSON on one line.
    #[arg(long)]
    json: bool,
}

impl FleetArgs {
    /// Nothing but changes of desired state.
    pub(crate) fn for_changes(mut self) -> Self {
        self.seconds = 0;
        if self.changes == 0 {
            self.changes = 1_000;
        }
        self
    }

    /// Nothing but a restart.
    pub(crate) fn for_restart(mut self) -> Self {
        (self.seconds, self.restart) = (0, true);
        self
    }

    /// Nothing but lists.
    pub(crate) fn for_lists(mut self) -> Self {
        (self.seconds, self.list) = (0, true);
        self
    }
}

pub(crate) fn run(args: &FleetArgs) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    ending::run(&runtime, simulate(args))
}

async fn simulate(args: &FleetArgs) -> Result<(), Failure> {
    let server = Server::start(&args.toono, &args.data, &NETWORK).await?;
    let mut figures = Figures::default();
    let access = Access::read(&args.data, server.port)?;
    let mut run = Run { args, server, access };
    run.all(&mut figures).await?;
    if args.json {
        println!("{}", Value::Object(figures.0));
    }
    run.server.end().await?;
    Ok(std::fs::remove_dir_all(&args.data)?)
}

/// Figures by name, as they were printed.
#[derive(Default)]
pub(crate) struct Figures(pub(crate) serde_json::Map<String, Value>);

impl Figures {
    pub(crate) fn tell(&mut self, name: &str, text: &str, figures: Value) {
        println!("{name}: {text}");
        self.0.insert(name.to_owned(), figures);
    }
}

struct Run<'a> {
    args: &'a FleetArgs,
    server: Server,
    access: Access,
}

impl Run<'_> {
    async fn all(&mut self, figures: &mut Figures) -> Result<(), Failure> {
        let joined = self.join(figures).await?;
        let readiness = Readiness::follow(&self.access, self.args.nodes).await?;
        let (fetchers, fetching) = self.fetchers(&joined)?.unzip();
        let load = Load::start(&joined.nodes, self.args.sockets, fetching)?;
        drop(joined);
        self.until_ready(&readiness, figures).await?;
        self.settle().await?;
        if self.args.seconds > 0 {
            self.steady(&readiness, &load, figures).await?;
        }
        if let Some(fetchers) = fetchers {
            self.change(&fetchers, &load, figures).await?;
        }
        if self.args.pods > 0 {
            self.pods(&load, figures).await?;
        }
        if self.args.list {
            self.list(figures).await?;
        }
        if self.args.silent > 0 {
            self.silence(&readiness, &load, figures).await?;
        }
        if self.args.restart {
            self.restart(&readiness, &load, figures).await?;
        }
        if self.args.outage > 0 {
            self.outage(&readiness, &load, figures).await?;
        }
        load.end()
    }

    fn fetchers(&self, joined: &Joined) -> Result<Option<(Fetchers, Fetching)>, Failure> {
        if self.args.changes == 0 {
            return Ok(None);
        }
        Ok(Some(Fetchers::start(&self.access, &joined.identities)?))
    }

    async fn join(&self, figures: &mut Figures) -> Result<Joined, Failure> {
        let (nodes, began) = (self.args.nodes, Instant::now());
        let token = std::fs::read_to_string(self.args.data.join("node-token"))?;
        let keep = if self.args.changes > 0 { self.args.changing } else { 0 };
        let joining = join::all(&self.access, token.trim(), nodes, self.args.connections, keep);
        let joined = joining.await?;
        let (seconds, rss) = (began.elapsed().as_secs_f64(), self.server.rss_mb()?);
        let rate = joined.nodes.len() as f64 / seconds;
        figures.tell(
            "join",
            &format!("{nodes} nodes in {seconds:.1} s, {rate:.0}/s; RSS {rss:.1} MB"),
            json!({"nodes": nodes, "seconds": seconds, "rss_mb": rss}),
        );
        Ok(joined)
    }

    /// Until the API calls every node ready.
    async fn until_ready(
        &self,
        readiness: &Readiness,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        let (nodes, began, mut told) = (self.args.nodes, Instant::now(), Instant::now());
        while readiness.ready()? < nodes {
            if began.elapsed() > LIMIT {
                return Err(format!("{} of {nodes} nodes are ready", readiness.ready()?).into());
            }
            if told.elapsed() > PROGRESS {
                println!("  {} of {nodes} are ready", readiness.ready()?);
                told = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (seconds, rss) = (began.elapsed().as_secs_f64(), self.server.rss_mb()?);
        figures.tell(
            "ready",
            &format!("all in {seconds:.1} s; RSS {rss:.1} MB"),
            json!({"seconds": seconds, "rss_mb": rss}),
        );
        Ok(())
    }

    async fn settle(&self) -> Result<(), Failure> {
        let (some, each) = SETTLED;
        let began = Instant::now();
        self.server.settle(some + each * self.args.nodes as f64).await?;
        println!("  (settled after {:.0} s)", began.elapsed().as_secs_f64());
        Ok(())
    }

    /// Nothing but heartbeats.
    async fn steady(
        &self,
        readiness: &Readiness,
        load: &Load,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        let (before, cpu) = (load.counts(), self.server.cpu_seconds()?);
        let (lost, began) = (readiness.lost()?.len(), Instant::now());
        drop(load.round_trips());
        tokio::time::sleep(Duration::from_secs(self.args.seconds)).await;
        let seconds = began.elapsed().as_secs_f64();
        let counts = load.counts().since(before);
        let cores = (self.server.cpu_seconds()? - cpu) / seconds;
        let (rss, peak) = (self.server.rss_mb()?, self.server.peak_mb()?);
        let lost = readiness.lost()?.len() - lost;
        let round_trips = Percentiles::of(load.round_trips());
        let (p50, p99) = (round_trips.at(50), round_trips.at(99));
        let micros = cores * seconds * 1e6 / counts.sent.max(1) as f64;
        figures.tell(
            "steady",
            &format!(
                "{seconds:.0} s, {:.0} heartbeats/s, {} unanswered, round trip p50 {p50:?} p99 {p99:?}; \
                 false NotReady: {lost}; server {cores:.3} cores ({micros:.1} µs a heartbeat), \
                 RSS {rss:.1} MB, peak {peak:.1} MB",
                counts.sent as f64 / seconds,
                counts.sent.saturating_sub(counts.answered),
            ),
            json!({"seconds": seconds, "sent": counts.sent, "answered": counts.answered,
                "late": counts.late, "refused": counts.refused, "p50_us": p50.as_micros() as u64,
                "p99_us": p99.as_micros() as u64, "false_not_ready": lost, "cores": cores,
                "rss_mb": rss, "peak_mb": peak}),
        );
        if counts.late > 0 {
            println!("  (the load itself was late with {} heartbeats)", counts.late);
        }
        Ok(())
    }
}
