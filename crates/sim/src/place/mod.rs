//! A million nodes and as many pods, placed by the scheduler's own logic on one core.
//!
//! What is true: every decision is made by `toono-placement` as the scheduler makes it, one pod after
//! the other, each counted before the next. What is left out: the API, the queue and the bindings. The
//! nodes are in pools and zones, of several sizes and architectures, some cordoned and some
//! tainted; the pods are those of rollouts, of which some are under way at once.
//!
//! What was placed is counted again afterwards, from the list of placements alone.

mod check;
mod scene;

use std::{
    error::Error,
    fs,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::json;
use toono_placement::{Cluster, Placement};

use self::scene::{Scene, Workload};
use crate::percentiles::Percentiles;

/// What to place.
#[derive(Debug, Args)]
pub(crate) struct PlaceArgs {
    /// How many nodes.
    #[arg(long, default_value_t = 1_000_000)]
    nodes: usize,
    /// How many pods.
    #[arg(long, default_value_t = 100_000)]
    pods: usize,
    /// How many pools the nodes are in.
    #[arg(long, default_value_t = 1_000)]
    pools: usize,
    /// Pods of each rollout.
    #[arg(long, default_value_t = 100)]
    replicas: usize,
    /// How many rollouts are under way at once, their pods in turn.
    #[arg(long, default_value_t = 10)]
    rollouts: usize,
    /// Only pods of this kind.
    #[arg(long, value_parser = scene::KINDS)]
    kind: Option<String>,
    /// Nodes have images, half of them that of the pods.
    #[arg(long)]
    images: bool,
    /// Prints all figures once more, as JSON on one line.
    #[arg(long)]
    json: bool,
}

/// Why a run is worth nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error("no node for pod {pod}: {reasons}")]
    NoFit { pod: String, reasons: String },
    #[error("wrong placement: {0}")]
    Wrong(String),
}

pub(crate) fn run(args: &PlaceArgs) -> Result<(), Box<dyn Error>> {
    let scene = Scene::new(args.nodes, args.pools, args.kind.clone(), args.images);
    let before = resident_bytes();
    let start = Instant::now();
    let mut cluster = Cluster::new();
    for number in 0..args.nodes {
        cluster.set_node(&scene.node(number));
    }
    let (loading, with_nodes) = (start.elapsed(), resident_bytes());
    let per_node = per(with_nodes.saturating_sub(before), args.nodes);
    println!("{} nodes in {} pools: {loading:.1?}, {per_node} bytes each", args.nodes, args.pools);
    let placed = Vec::with_capacity(args.pods);
    let mut run = Run { placed, times: Vec::new() };
    let start = on_processor();
    run.place_all(args, &scene, &mut cluster)?;
    let took = on_processor().saturating_sub(start);
    check::all(&scene, &run.placed)?;
    let per_pod = per(resident_bytes().saturating_sub(with_nodes), args.pods);
    run.tell(args, took, per_node, per_pod);
    Ok(())
}

/// A pod of a workload, and the number of its node.
struct Placed {
    workload: usize,
    node: usize,
}

struct Run {
    placed: Vec<Placed>,
    /// With the kind of each pod.
    times: Vec<(&'static str, Duration)>,
}

impl Run {
    fn place_all(
        &mut self,
        args: &PlaceArgs,
        scene: &Scene,
        cluster: &mut Cluster,
    ) -> Result<(), Box<dyn Error>> {
        let rollouts = args.rollouts.max(1);
        let mut workloads = Vec::new();
        for number in 0..args.pods {
            // So many rollouts have a pod placed in turn, until all are done.
            let (batch, turn) = (number / (rollouts * args.replicas.max(1)), number % rollouts);
            if number % (rollouts * args.replicas.max(1)) == 0 {
                let first = batch * rollouts;
                workloads =
                    (first..first + rollouts).map(|one| Workload::new(one, scene)).collect();
            }
            let Some(workload) = workloads.get(turn) else { continue };
            let (kind, pod) = workload.pod(number);
            let workload = batch * rollouts + turn;
            let start = Instant::now();
            let node = match cluster.place(&pod) {
                Placement::Node(node) => node,
                Placement::NoFit { reasons } => {
                    return Err(PlaceError::NoFit { pod: pod.key.name.into(), reasons }.into());
                }
            };
            cluster.assume(&pod, &node);
            self.times.push((kind, start.elapsed()));
            self.placed.push(Placed { workload, node: Scene::number_of(&node)? });
        }
        Ok(())
    }

    fn tell(&self, args: &PlaceArgs, took: Duration, per_node: usize, per_pod: usize) {
        let spent: Duration = self.times.iter().map(|(_, time)| *time).sum();
        let rate = self.times.len() as f64 / took.as_secs_f64();
        let all = Percentiles::of(self.times.iter().map(|(_, time)| *time).collect());
        println!(
            "{} pods: {took:.2?} of one core ({spent:.2?} by the clock), {rate:.0}/s; p50 {:.1?}, p99 {:.1?}, slowest {:.1?}; \
             {per_pod} bytes each",
            self.times.len(),
            all.at(50),
            all.at(99),
            all.at(100),
        );
        let mut kinds = serde_json::Map::new();
        for kind in scene::KINDS {
            let times = self.times.iter().filter(|(of, _)| *of == kind).map(|(_, time)| *time);
            let times = Percentiles::of(times.collect());
            println!("  {kind}: p50 {:.1?}, p99 {:.1?}", times.at(50), times.at(99));
            let figures = json!({"p50_us": micros(times.at(50)), "p99_us": micros(times.at(99))});
            kinds.insert(kind.to_owned(), figures);
        }
        if args.json {
            let figures = json!({
                "nodes": args.nodes, "pods": args.pods, "pools": args.pools,
                "seconds": took.as_secs_f64(), "clock_seconds": spent.as_secs_f64(), "placements_per_second": rate,
                "p50_us": micros(all.at(50)), "p99_us": micros(all.at(99)),
                "bytes_per_node": per_node, "bytes_per_pod": per_pod, "kinds": kinds,
            });
            println!("{figures}");
        }
    }
}

/// What the clock says is no measure on a machine that has other work: the processor's time that this thread has had so far.
fn on_processor() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let spent = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(spent.unwrap_or(0))
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn per(bytes: usize, count: usize) -> usize {
    bytes / count.max(1)
}

/// Memory of this process that is in RAM. Zero where the kernel does not tell.
fn resident_bytes() -> usize {
    const PAGE: usize = 4_096;
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * PAGE
}
