//! Benchmarks of a running edge, and of the API server alone.
//!
//! They print figures and, but for `edge` and `ota`, judge nothing; docs/benchmarks.md keeps figures with their commands.

mod access;
mod api;
mod appset;
mod ending;
mod events;
mod fleet;
mod footprint;
mod hostile;
mod http_lease;
mod lists;
mod node;
mod ota;
mod percentiles;
mod place;
mod process;
mod real;
mod replicas;
mod rollout;
mod server;
mod storm;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// As the server: what the clients cost is part of each rate on a shared machine.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures a running edge.
#[derive(Debug, Parser)]
#[command(name = "toono-sim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The API server alone: writes, lists, watches, memory, starts.
    Api(api::ApiArgs),
    /// A server and its simulated nodes, which speak the true protocol.
    Fleet(fleet::FleetArgs),
    /// As `fleet --seconds 0 --changes 1000`: changes of desired state, and when the nodes have them.
    Change(fleet::FleetArgs),
    /// As `fleet --seconds 0 --restart`: the server killed and started again, with all nodes sending.
    Restart(fleet::FleetArgs),
    /// As `fleet --seconds 0 --list`: all nodes, in pages and as one stream.
    List(fleet::FleetArgs),
    /// Several servers on one etcd, over which nodes are spread, and the loss of one.
    Replicas(replicas::ReplicasArgs),
    /// Thousands of nodes that need a TLS handshake at once.
    Storm(storm::StormArgs),
    /// Stock-shaped clients that renew the Leases of their nodes over HTTPS.
    HttpLease(http_lease::HttpLeaseArgs),
    /// Real nodes in namespaces of this machine, cut off and healed in groups at random.
    Edge(real::EdgeArgs),
    /// A Service whose endpoints move, and what leaves the cloud until every node knows.
    Rollout(rollout::RolloutArgs),
    /// A YurtAppSet over many pools: until it settles, what it writes, one pool among many.
    Appset(appset::AppsetArgs),
    /// An upgrade that waits for approvals, over real nodes that come and go.
    Ota(ota::OtaArgs),
    /// A server, its nodes, and a flood of datagrams that mean it no good.
    Hostile(hostile::HostileArgs),
    /// Memory of the server, and of each node daemon with its keepers.
    Footprint {
        /// The data directory that `toono up` was given.
        #[arg(long, default_value = "/var/lib/toono")]
        data: PathBuf,
    },
    /// The scheduler's decisions alone, on one core: pods onto up to a million nodes.
    Place(place::PlaceArgs),
    /// A node by itself: memory, processor and disk at rest, starts of pods; beside containerd and runc if asked.
    Node(node::NodeArgs),
    /// Creates pods and times bind → running for each, and all of them together.
    Start(node::StartArgs),
}

/// Why a measurement ended early.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Api(args) => api::run(&args),
        Command::Appset(args) => appset::run(&args),
        Command::Fleet(args) => fleet::run(&args),
        Command::Change(args) => fleet::run(&args.for_changes()),
        Command::Restart(args) => fleet::run(&args.for_restart()),
        Command::List(args) => fleet::run(&args.for_lists()),
        Command::Edge(args) => real::run(&args),
        Command::Hostile(args) => hostile::run(&args),
        Command::Ota(args) => ota::run(&args),
        Command::Replicas(args) => replicas::run(&args),
        Command::Rollout(args) => rollout::run(&args),
        Command::Storm(args) => storm::run(&args),
        Command::HttpLease(args) => http_lease::run(&args),
        Command::Footprint { data } => footprint::run(&data),
        Command::Place(args) => place::run(&args),
        Command::Node(args) => node::run(&args),
        Command::Start(args) => node::start(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
