//! The API server alone, on this machine: starts the built program in a directory of its own, asks it
//! over HTTPS as any client would, and tells rates, latencies and the memory that it took.
//!
//! Clients and server share the machine, so that a rate is what both together reach.

mod fan_out;
pub(crate) mod writes;

use std::{error::Error, path::PathBuf, time::Duration};

use clap::Args;

use crate::{Failure, access::Access, ending, lists, server::Server};

/// A server that does nothing uses less.
const QUIET_CORES: f64 = 0.05;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct ApiArgs {
    /// The program.
    #[arg(long, default_value = "target/release/toono")]
    toono: PathBuf,
    /// Where its data goes; must not exist, and is removed at the end.
    #[arg(long, default_value = "/tmp/toono-bench")]
    data: PathBuf,
    /// What `toono server --store` gets.
    #[arg(long, default_value = "journal")]
    store: String,
    /// Clients that write, each with a connection of its own.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// How long each kind of write is measured.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Pods for the long list, the memory and the restart; 0 leaves these out.
    #[arg(long, default_value_t = 100_000)]
    pods: usize,
    /// Watchers of one collection; 0 leaves them out.
    #[arg(long, default_value_t = 10_000)]
    watchers: usize,
}

pub(crate) fn run(args: &ApiArgs) -> Result<(), Box<dyn Error>> {
    // One thread: what wakes another costs the machine more than what it does in parallel.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    ending::run(&runtime, measure(args))
}

async fn measure(args: &ApiArgs) -> Result<(), Failure> {
    measure_requests(args).await?;
    if args.pods > 0 {
        measure_pods(args).await?;
    }
    Ok(())
}

/// Starts an empty server.
async fn begin(args: &ApiArgs) -> Result<(Server, Access), Failure> {
    let server = Server::start(&args.toono, &args.data, &["--store", &args.store]).await?;
    println!("cold start, empty: {} ms", server.started_in.as_millis());
    let access = Access::read(&args.data, server.port)?;
    server.settle(QUIET_CORES).await?;
    println!("RSS idle: {:.1} MB", server.rss_mb()?);
    Ok((server, access))
}

async fn measure_requests(args: &ApiArgs) -> Result<(), Failure> {
    let (mut server, access) = begin(args).await?;
    let duration = Duration::from_secs(args.seconds);
    for work in [writes::Work::LeaseUpdates, writes::Work::ConfigMapCreates] {
        let cpu = server.cpu_seconds()?;
        let figures = writes::measure(&access, work, args.clients, duration).await?;
        let cores = (server.cpu_seconds()? - cpu) / figures.elapsed.as_secs_f64();
        println!("{figures}; server {cores:.2} cores, RSS {:.1} MB", server.rss_mb()?);
    }
    if args.watchers > 0 {
        let figures = fan_out::measure(&access, args.watchers).await?;
        println!("{figures}; RSS {:.1} MB", server.rss_mb()?);
    }
    server.end().await?;
    Ok(std::fs::remove_dir_all(&args.data)?)
}

/// On a server of its own, so that its memory is that of the pods.
async fn measure_pods(args: &ApiArgs) -> Result<(), Failure> {
    let (mut server, access) = begin(args).await?;
    let figures =
        writes::create_pods(&access, args.pods, args.clients, |_, _| {}, |_, _| {}).await?;
    println!("{figures}");
    server.settle(QUIET_CORES).await?;
    println!("RSS with {} pods: {:.1} MB", args.pods, server.rss_mb()?);
    for compressed in [false, true] {
        server.reset_peak()?;
        let before = server.rss_mb()?;
        let figures = lists::whole(&access, lists::PODS, compressed).await?;
        println!("{figures}; peak RSS +{:.1} MB", server.peak_mb()? - before);
    }
    server.end().await?;
    server = Server::start(&args.toono, &args.data, &["--store", &args.store]).await?;
    println!("cold start, {} pods: {} ms", args.pods, server.started_in.as_millis());
    server.settle(QUIET_CORES).await?;
    println!("RSS after it: {:.1} MB", server.rss_mb()?);
    server.end().await?;
    Ok(std::fs::remove_dir_all(&args.data)?)
}
