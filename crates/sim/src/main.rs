//! Benchmarks of a running edge, and of the API server alone.
//!
//! They print figures and judge nothing; docs/benchmarks.md keeps figures with their commands.

mod access;
mod api;
mod fleet;
mod footprint;
mod hostile;
mod http_lease;
mod lists;
mod percentiles;
mod place;
mod server;
mod start;
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
    /// Thousands of nodes that need a TLS handshake at once.
    Storm(storm::StormArgs),
    /// Stock-shaped clients that renew the Leases of their nodes over HTTPS.
    HttpLease(http_lease::HttpLeaseArgs),
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
    /// Creates pods and times bind → running for each, and all of them together.
    Start {
        /// The administrator's kubeconfig.
        #[arg(long, default_value = "/var/lib/toono/admin.kubeconfig")]
        kubeconfig: PathBuf,
        /// How many pods, at once.
        #[arg(long, default_value_t = 20)]
        pods: usize,
        /// How often.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// An image that is present on every node.
        #[arg(long, default_value = "lab.toono.io/busybox:1")]
        image: String,
    },
}

/// Why a measurement ended early.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = match Cli::parse().command {
        Command::Api(args) => api::run(&args),
        Command::Fleet(args) => fleet::run(&args),
        Command::Hostile(args) => hostile::run(&args),
        Command::Storm(args) => storm::run(&args),
        Command::HttpLease(args) => http_lease::run(&args),
        Command::Footprint { data } => footprint::run(&data),
        Command::Place(args) => place::run(&args),
        Command::Start { kubeconfig, pods, rounds, image } => {
            runtime.block_on(start::run(&kubeconfig, pods, rounds, &image))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
