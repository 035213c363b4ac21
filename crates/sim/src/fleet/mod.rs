//! A server and up to a million nodes of its own, on this machine.
//!
//! What is true: every node joins over HTTPS with the cluster's token, has a session key of its own, sends
//! its heartbeats from the agent's own session code, and judges what comes back by it. What is simulated: the
//! nodes share one key pair, some sockets and one thread; they run nothing; the revision of a bundle that the
//! cloud names is taken as fetched, and a request for a full report as answered. The load shares the machine
//! with the server.

pub(crate) mod drive;
pub(crate) mod join;
pub(crate) mod watch;

use std::{
    error::Error,
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::{Value, json};

use self::{drive::Load, watch::Readiness};
use crate::{
    Failure, access::Access, api::writes, lists, percentiles::Percentiles, server::Server,
};

/// Room for a million nodes with 13 pods each.
pub(crate) const NETWORK: [&str; 4] =
    ["--cluster-cidr", "10.0.0.0/8", "--node-cidr-mask-size", "28"];
/// Nothing that is waited for takes this long on a working server.
const LIMIT: Duration = Duration::from_secs(3_600);
/// Longer than a node may be silent.
const AFTER_RESTART: Duration = Duration::from_secs(60);
/// What the joins left to do is done by then.
const SETTLE: Duration = Duration::from_secs(10);
/// What `kubectl` asks for at once.
const PAGE: usize = 500;
/// Cores that the server uses when it has done what creations left to do; the heartbeats go on.
const PODS_SETTLED: f64 = 0.9;
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
    /// Creates so many pods, each bound to a node, one node after another.
    #[arg(long, default_value_t = 0)]
    pods: usize,
    /// Lists all nodes, in pages of 500 and as one stream.
    #[arg(long)]
    list: bool,
    /// Then kills the server and starts it again, with all nodes sending.
    #[arg(long)]
    restart: bool,
    /// Prints all figures once more, as JSON on one line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &FleetArgs) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(simulate(args)).map_err(|error| -> Box<dyn Error> { error })
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
        let load = Load::start(&joined, self.args.sockets)?;
        self.until_ready(&readiness, figures).await?;
        self.steady(&readiness, &load, figures).await?;
        if self.args.pods > 0 {
            self.pods(figures).await?;
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
        load.end()
    }

    async fn join(
        &self,
        figures: &mut Figures,
    ) -> Result<Vec<toono_wire::join::JoinResponse>, Failure> {
        let (nodes, began) = (self.args.nodes, Instant::now());
        let token = std::fs::read_to_string(self.args.data.join("node-token"))?;
        let joining = join::all(&self.access, token.trim(), nodes, self.args.connections);
        let joined = joining.await?;
        let (seconds, rss) = (began.elapsed().as_secs_f64(), self.server.rss_mb()?);
        let rate = joined.len() as f64 / seconds;
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

    /// Nothing but heartbeats.
    async fn steady(
        &self,
        readiness: &Readiness,
        load: &Load,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        tokio::time::sleep(SETTLE).await;
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

    /// Pods that are bound from the start: what placing them takes is not the question here.
    async fn pods(&self, figures: &mut Figures) -> Result<(), Failure> {
        let nodes = self.args.nodes;
        let bind = move |number: usize, pod: &mut Value| {
            if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
                spec.insert("nodeName".to_owned(), join::name(number % nodes).into());
            }
        };
        let (pods, connections) = (self.args.pods, self.args.connections);
        let created = writes::create_pods(&self.access, pods, connections, bind).await?;
        self.server.settle(PODS_SETTLED).await?;
        let (rss, peak) = (self.server.rss_mb()?, self.server.peak_mb()?);
        figures.tell(
            "pods",
            &format!("{created}; RSS {rss:.1} MB, peak {peak:.1} MB"),
            json!({"pods": pods, "seconds": created.elapsed.as_secs_f64(), "rss_mb": rss, "peak_mb": peak}),
        );
        Ok(())
    }

    /// All nodes, as stock clients ask for them.
    async fn list(&self, figures: &mut Figures) -> Result<(), Failure> {
        self.server.reset_peak()?;
        let before = self.server.rss_mb()?;
        let (paged, pages) = lists::paged(&self.access, lists::NODES, PAGE).await?;
        let extra = self.server.peak_mb()? - before;
        let p99 = pages.at(99);
        figures.tell(
            "list",
            &format!("{paged}, p99 of a page {p99:.1?}; peak RSS +{extra:.1} MB"),
            json!({"seconds": paged.elapsed.as_secs_f64(), "objects": paged.objects, "bytes": paged.bytes,
                "page_p99_ms": p99.as_secs_f64() * 1e3, "extra_mb": extra}),
        );
        self.server.reset_peak()?;
        let before = self.server.rss_mb()?;
        let whole = lists::whole(&self.access, lists::NODES, false).await?;
        let extra = self.server.peak_mb()? - before;
        figures.tell(
            "stream",
            &format!("{whole}; peak RSS +{extra:.1} MB"),
            json!({"seconds": whole.elapsed.as_secs_f64(), "objects": whole.objects, "bytes": whole.bytes,
                "extra_mb": extra}),
        );
        Ok(())
    }

    /// Some fall silent: those are found, and no others.
    async fn silence(
        &self,
        readiness: &Readiness,
        load: &Load,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        let lost_before = readiness.lost()?.len();
        let silent = load.silence(self.args.silent);
        let began = Instant::now();
        let found = loop {
            let lost = readiness.lost()?;
            let lost = lost.get(lost_before..).unwrap_or_default();
            if lost.iter().filter(|number| silent.contains(number)).count() == silent.len() {
                break began.elapsed();
            }
            if began.elapsed() > LIMIT {
                return Err(format!("{} of {} were found", lost.len(), silent.len()).into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        // Whoever is wrongly found is found soon after.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let others = readiness.lost()?.len() - lost_before - silent.len();
        figures.tell(
            "silent",
            &format!("{} found in {found:.1?}, and {others} others", silent.len()),
            json!({"nodes": silent.len(), "seconds": found.as_secs_f64(), "others": others}),
        );
        Ok(())
    }

    /// The server is killed and comes back; nobody may be called silent for that.
    async fn restart(
        &mut self,
        readiness: &Readiness,
        load: &Load,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        let (lost, began) = (readiness.lost()?.len(), Instant::now());
        self.server.kill().await?;
        let Self { args, server, .. } = self;
        *server = Server::start_on(server.port, &args.toono, &args.data, &NETWORK).await?;
        let serving = began.elapsed();
        // Past the grace that the server gives who was ready before.
        tokio::time::sleep(AFTER_RESTART).await;
        let before = load.counts();
        tokio::time::sleep(PROGRESS).await;
        let counts = load.counts().since(before);
        let (lost, rss) = (readiness.lost()?.len() - lost, self.server.rss_mb()?);
        figures.tell(
            "restart",
            &format!(
                "serving after {serving:.1?}; false NotReady: {lost}; {} of {} heartbeats answered, \
                 RSS {rss:.1} MB",
                counts.answered, counts.sent
            ),
            json!({"seconds": serving.as_secs_f64(), "false_not_ready": lost, "sent": counts.sent,
                "answered": counts.answered, "rss_mb": rss}),
        );
        Ok(())
    }
}
