//! Real nodes on one machine, cut off and healed in groups at random, and what became of them.
//!
//! What is true: `toono up` makes the edge; each node is a `toono node` process in a network namespace of its own,
//! behind the NAT of its site, with its own disk and, with `--pods`, one container. Links lose everything, UDP only,
//! or one direction only, at the sites' routers, where nobody is told. What is simulated is distance: links have no
//! delay, and all share the machine. Nodes and pods are watched over the API all the time and judged at the end; a
//! fault fails the run. Everything is removed, whatever happens but SIGKILL; `toono down --purge --data` does it then.

mod edge;
mod gauge;
mod judge;
mod links;
mod plan;
mod report;
mod watch;

use std::{
    error::Error,
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use http::Method;
use serde_json::{Value, json};

pub(crate) use self::{
    edge::Edge,
    gauge::Gauge,
    plan::{Place, Scene},
};
use self::{
    gauge::Sample,
    links::Links,
    plan::Cut,
    report::{Course, Phase},
    watch::{POD_PREFIX, PODS, Seen},
};
use crate::{
    Failure,
    access::{Access, ask},
    events::Watch,
    fleet::Figures,
};

/// From the start of all nodes until the last is ready.
const READY: Duration = Duration::from_secs(300);
/// From the creation of all pods until the last is ready: each node pulls the image.
const PODS_READY: Duration = Duration::from_secs(300);
/// What starting left to say is said by then.
const SETTLE: Duration = Duration::from_secs(20);
/// After the last link is healed; what is to be ready after 60 s is, and stays so.
const AFTER: Duration = Duration::from_secs(75);
/// Between two looks at what is awaited, and two samples.
const LOOK: Duration = Duration::from_millis(100);
const SAMPLES: Duration = Duration::from_secs(60);
/// Requests under way at once.
const CREATE_AT_ONCE: usize = 8;

/// What to do.
#[derive(Debug, Args)]
pub(crate) struct EdgeArgs {
    /// The program.
    #[arg(long, default_value = "target/release/toono")]
    toono: PathBuf,
    /// Where everything goes; must not exist, and is removed at the end.
    #[arg(long, default_value = "/tmp/toono-real")]
    data: PathBuf,
    /// How many nodes.
    #[arg(long, default_value_t = 200)]
    nodes: usize,
    /// In how many sites, at most 26, all of the same size; one for each ten nodes unless given.
    #[arg(long)]
    sites: Option<usize>,
    /// How long links are cut and healed.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// How long nothing is cut, before.
    #[arg(long, default_value_t = 60)]
    quiet: u64,
    /// What decides which links are cut when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Gives each node a pod.
    #[arg(long)]
    pods: bool,
    /// The addresses of the imitated Internet, a /24 that is not in use here.
    #[arg(long, default_value = "100.127.0.0/24")]
    subnet: String,
    /// Writes every cut and every change of a node or a pod there, one line each.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Prints all figures once more, as JSON on one line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &EdgeArgs) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(with_edge(args)).map_err(|error| -> Box<dyn Error> { error })
}

/// Makes the edge, measures, and removes the edge, also after a failure or when asked to end.
async fn with_edge(args: &EdgeArgs) -> Result<(), Failure> {
    let edge = Edge::plan(&args.toono, &args.data, &args.subnet, scene(args)?)?;
    edge.during(measure(args, &edge)).await
}

fn scene(args: &EdgeArgs) -> Result<Scene, Failure> {
    let sites = args.sites.unwrap_or(args.nodes.div_ceil(10)).max(1);
    if args.nodes == 0 || !args.nodes.is_multiple_of(sites) {
        return Err(format!("{} nodes are not {sites} sites of one size", args.nodes).into());
    }
    Ok(Scene { sites, per_site: args.nodes / sites })
}

async fn measure(args: &EdgeArgs, edge: &Edge) -> Result<(), Failure> {
    let began = Instant::now();
    let access = Access::read(edge.data(), edge.port)?;
    let watch = watch::begin(&access, &edge.names, began).await?;
    let run = Run { args, edge, access, watch, began };
    let mut figures = Figures::default();
    let measured = run.all(&mut figures).await;
    if let (Some(path), Ok(seen)) = (&args.history, run.watch.seen()) {
        std::fs::write(path, seen.history.join("\n") + "\n")?;
    }
    let faults = measured?;
    if args.json {
        println!("{}", Value::Object(figures.0));
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n").into()) }
}

struct Run<'a> {
    args: &'a EdgeArgs,
    edge: &'a Edge,
    access: Access,
    watch: Watch<Seen>,
    began: Instant,
}

impl Run<'_> {
    /// All of it; what should not have been.
    async fn all(&self, figures: &mut Figures) -> Result<Vec<String>, Failure> {
        self.start(figures).await?;
        tokio::time::sleep(SETTLE).await;
        let gauge = self.gauge()?;
        let first = gauge.sample()?;
        tokio::time::sleep(Duration::from_secs(self.args.quiet)).await;
        let quiet = gauge.sample()?;
        report::quiet(&Phase { gauge: &gauge, from: &first, to: &quiet }, figures)?;

        let length = Duration::from_secs(self.args.minutes * 60);
        let cuts = plan::cuts(self.edge.scene, length, self.args.seed);
        let mut links = Links::new(self.edge.names.len());
        let samples = self.cut_and_heal(&cuts, length, &gauge, &mut links).await?;
        let healed = self.began.elapsed();
        self.until_ready(healed, figures).await?;
        let course = Course {
            names: &self.edge.names,
            cuts: &cuts,
            links: &links,
            seen: &*self.watch.seen()?,
            time: quiet.at..self.began.elapsed(),
            has_pods: self.args.pods,
        };
        let mut faults = report::nodes(&course, figures);
        faults.extend(report::pods(&course, figures));
        faults.extend(report::used(&gauge, &quiet, &samples, figures));
        Ok(faults)
    }

    /// Until all nodes are ready, and their pods run.
    async fn start(&self, figures: &mut Figures) -> Result<(), Failure> {
        self.until("nodes are not ready", READY, || Ok(self.watch.seen()?.not_ready())).await?;
        let seconds = self.began.elapsed().as_secs_f64();
        let nodes = self.edge.names.len();
        figures.tell(
            "nodes",
            &format!(
                "{nodes} in {} sites, ready {seconds:.1} s after their start",
                self.edge.scene.sites
            ),
            json!({"nodes": nodes, "sites": self.edge.scene.sites, "seconds": seconds}),
        );
        if !self.args.pods {
            return Ok(());
        }
        let created = Instant::now();
        stream::iter(&self.edge.names)
            .map(|node| self.create_pod(node))
            .buffer_unordered(CREATE_AT_ONCE)
            .try_collect::<()>()
            .await?;
        self.until("pods are not ready", PODS_READY, || Ok(self.watch.seen()?.pods_not_ready()))
            .await?;
        let seconds = created.elapsed().as_secs_f64();
        figures.tell(
            "started",
            &format!("all pods in {seconds:.1} s"),
            json!({"seconds": seconds}),
        );
        Ok(())
    }

    async fn create_pod(&self, node: &str) -> Result<(), Failure> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("{POD_PREFIX}{node}")},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [{
                "name": "sleep", "image": "lab.toono.io/busybox:1", "command": ["/bin/sleep", "100000"]}]},
        });
        let mut connection = self.access.connect().await?;
        let body = Bytes::from(serde_json::to_vec(&pod)?);
        let (status, body) = ask(&mut connection, Method::POST, PODS, body).await?;
        if status.is_success() {
            return Ok(());
        }
        Err(format!("the pod of {node}: {status} {}", String::from_utf8_lossy(&body)).into())
    }

    fn gauge(&self) -> Result<Gauge, Failure> {
        let nodes = self.edge.names.iter().map(|name| self.edge.process(name));
        let server = self.edge.process("server")?;
        Ok(Gauge { server, nodes: nodes.collect::<Result<_, _>>()?, began: self.began })
    }

    /// Carries the plan out; a sample each minute.
    async fn cut_and_heal(
        &self,
        cuts: &[Cut],
        length: Duration,
        gauge: &Gauge,
        links: &mut Links,
    ) -> Result<Vec<Sample>, Failure> {
        let (began, mut samples, mut due) = (Instant::now(), Vec::new(), Vec::new());
        for cut in cuts {
            due.extend([(cut.from, Some((cut, true))), (cut.until, Some((cut, false)))]);
        }
        let minutes = length.as_secs() / SAMPLES.as_secs();
        due.extend((1..=minutes).map(|minute| (SAMPLES * minute as u32, None)));
        due.sort_by_key(|(at, _)| *at);
        for (at, what) in due {
            tokio::time::sleep((began + at).saturating_duration_since(Instant::now())).await;
            match what {
                Some((cut, begins)) => self.turn(cut, begins, links)?,
                None => samples.push(gauge.sample()?),
            }
        }
        Ok(samples)
    }

    /// Cuts or heals a group. What is told of a link errs to the side of a longer cut.
    fn turn(&self, cut: &Cut, begins: bool, links: &mut Links) -> Result<(), Failure> {
        for place in &cut.places {
            let behind = self.edge.scene.behind(*place);
            let name = self.edge.name(*place)?;
            let mut at = self.began.elapsed();
            if begins {
                links.cut(behind, *place, cut.loss, at);
                self.edge.cut(*place, cut.loss)?;
                self.watch.seen()?.note(at, &format!("{name} loses {:?}", cut.loss));
            } else {
                self.edge.heal(*place)?;
                at = self.began.elapsed();
                links.heal(behind, *place, at);
                self.watch.seen()?.note(at, &format!("{name} is whole"));
            }
        }
        Ok(())
    }

    /// After the last link was healed: when all were ready, and that they stay so.
    async fn until_ready(&self, healed: Duration, figures: &mut Figures) -> Result<(), Failure> {
        let (mut nodes, mut pods) = (None, None);
        while self.began.elapsed() < healed + AFTER {
            let since = || (self.began.elapsed() - healed).as_secs_f64();
            for (all, count) in [&mut nodes, &mut pods].into_iter().zip(self.not_ready()?) {
                *all = if count > 0 { None } else { all.or_else(|| Some(since())) };
            }
            tokio::time::sleep(LOOK).await;
        }
        let told =
            |all: Option<f64>| all.map_or("never".to_owned(), |all| format!("after {all:.1} s"));
        figures.tell(
            "healed",
            &format!("all nodes ready {}, all pods {}", told(nodes), told(pods)),
            json!({"nodes_seconds": nodes, "pods_seconds": pods}),
        );
        Ok(())
    }

    /// Nodes and pods that are not ready now.
    fn not_ready(&self) -> Result<[usize; 2], Failure> {
        let seen = self.watch.seen()?;
        let pods = if self.args.pods { seen.pods_not_ready() } else { 0 };
        Ok([seen.not_ready(), pods])
    }

    /// Until the count of what is not so is zero.
    async fn until(
        &self,
        what: &str,
        limit: Duration,
        count: impl Fn() -> Result<usize, Failure>,
    ) -> Result<(), Failure> {
        let began = Instant::now();
        while count()? > 0 {
            if began.elapsed() > limit {
                return Err(format!("{} {what} after {limit:?}", count()?).into());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}
