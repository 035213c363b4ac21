//! A server with some thousand nodes, and a flood of datagrams that no node sent, or not now, or not so.
//!
//! The nodes are those of `fleet`, and so is what is true of them. Replies to the flood, what it changed, what
//! it left in memory, and what became of the nodes' own heartbeats meanwhile are counted. Flood, nodes and
//! server share the machine.

mod flood;
mod forge;

use std::{
    error::Error,
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Args;
use http::Method;
use serde_json::{Value, json};
use toono_wire::{path, report::Overview};

use self::flood::Flood;
use crate::{
    Failure,
    access::{Access, ask},
    ending,
    fleet::{Figures, NETWORK, drive::Load, join, watch::Readiness},
    percentiles::Percentiles,
    server::Server,
};

/// Connections that nodes join through.
const CONNECTIONS: usize = 32;
/// Sockets of the nodes.
const SOCKETS: usize = 16;
/// What the joins left to do is done by then.
const QUIET_CORES: f64 = 0.1;
/// A round trip takes less, flood or not, or the heartbeat is lost.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// How often it is seen whether the flood is over.
const LOOK: Duration = Duration::from_millis(20);
/// All nodes are ready within this.
const READY: Duration = Duration::from_secs(300);

/// What to send.
#[derive(Debug, Args)]
pub(crate) struct HostileArgs {
    /// The program.
    #[arg(long, default_value = "target/release/toono")]
    toono: PathBuf,
    /// Where its data goes; must not exist, and is removed at the end.
    #[arg(long, default_value = "/tmp/toono-hostile")]
    data: PathBuf,
    /// How many nodes.
    #[arg(long, default_value_t = 5_000)]
    nodes: usize,
    /// Hostile datagrams a second.
    #[arg(long, default_value_t = 200_000)]
    rate: u64,
    /// How many in all.
    #[arg(long, default_value_t = 10_000_000)]
    count: u64,
    /// How long the nodes are watched alone, before.
    #[arg(long, default_value_t = 30)]
    alone: u64,
    /// Prints all figures once more, as JSON on one line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &HostileArgs) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    ending::run(&runtime, measure(args))
}

async fn measure(args: &HostileArgs) -> Result<(), Failure> {
    let mut server = Server::start(&args.toono, &args.data, &NETWORK).await?;
    let access = Access::read(&args.data, server.port)?;
    let token = std::fs::read_to_string(args.data.join("node-token"))?;
    let joined = join::all(&access, token.trim(), args.nodes, CONNECTIONS, 0).await?.nodes;
    let readiness = Readiness::follow(&access, args.nodes).await?;
    let load = Load::start(&joined, SOCKETS, None)?;
    let began = Instant::now();
    while readiness.ready()? < args.nodes {
        if began.elapsed() > READY {
            return Err(format!("{} of {} nodes are ready", readiness.ready()?, args.nodes).into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.settle(QUIET_CORES).await?;

    let mut figures = Figures::default();
    let run = Run { args, server: &server, access: &access, readiness: &readiness, load: &load };
    run.alone(&mut figures).await?;
    run.flooded(&mut figures).await?;
    if args.json {
        println!("{}", Value::Object(figures.0));
    }
    load.end()?;
    server.end().await?;
    Ok(std::fs::remove_dir_all(&args.data)?)
}

struct Run<'a> {
    args: &'a HostileArgs,
    server: &'a Server,
    access: &'a Access,
    readiness: &'a Readiness,
    load: &'a Load,
}

impl Run<'_> {
    async fn alone(&self, figures: &mut Figures) -> Result<(), Failure> {
        let (nodes, (_, seconds)) = self
            .genuine(async {
                tokio::time::sleep(Duration::from_secs(self.args.alone)).await;
                Ok(())
            })
            .await?;
        figures.tell("alone", &format!("{seconds:.0} s; {}", nodes.text), nodes.figures);
        Ok(())
    }

    async fn flooded(&self, figures: &mut Figures) -> Result<(), Failure> {
        let before = (self.overview().await?, self.server.rss_mb()?, dropped(self.server.port)?);
        let (nodes, ((flood, took), seconds)) = self.genuine(self.flood()).await?;
        let after = (self.overview().await?, self.server.rss_mb()?, dropped(self.server.port)?);
        let (grown, lost) = (after.1 - before.1, after.2 - before.2);
        let moved = moved(&before.0, &after.0);
        figures.tell("flooded", &format!("{seconds:.0} s; {}", nodes.text), nodes.figures);
        figures.tell(
            "flood",
            &format!(
                "{} hostile datagrams, {:.0}/s; replies {}; nodes changed {moved}; RSS {grown:+.1} MB; \
                 {lost} datagrams had no room in the server's socket",
                flood.sent,
                flood.sent as f64 / took.as_secs_f64(),
                flood.replies,
            ),
            json!({"sent": flood.sent, "seconds": took.as_secs_f64(), "replies": flood.replies, "changed": moved,
                "grown_mb": grown, "dropped_by_kernel": lost}),
        );
        Ok(())
    }

    /// The whole flood, and how long it was sent; its forge hears what the nodes send, a second later.
    async fn flood(&self) -> Result<(flood::Counts, Duration), Failure> {
        drop(self.load.tap());
        let interval = Duration::from_secs(11);
        tokio::time::sleep(interval).await;
        let port = self.server.port;
        let flood = Flood::start(port, self.args.nodes, self.args.rate, self.args.count)?;
        let mut told = 0;
        let (mut heard, began) = (self.load.tap(), Instant::now());
        while !flood.is_over() {
            tokio::time::sleep(LOOK).await;
            if began.elapsed().as_secs() > told {
                told = began.elapsed().as_secs();
                flood.hear(std::mem::replace(&mut heard, self.load.tap()));
            }
        }
        let took = began.elapsed();
        // Answers to the last ones.
        tokio::time::sleep(LAST_ANSWERS).await;
        Ok((flood.end()?, took))
    }

    /// What became of the nodes' own heartbeats during that.
    async fn genuine<T>(
        &self,
        during: impl Future<Output = Result<T, Failure>>,
    ) -> Result<(Genuine, (T, f64)), Failure> {
        let (before, cpu) = (self.load.counts(), self.server.cpu_seconds()?);
        let (not_ready, began) = (self.readiness.lost()?.len(), Instant::now());
        drop(self.load.round_trips());
        let result = during.await?;
        let seconds = began.elapsed().as_secs_f64();
        let cores = (self.server.cpu_seconds()? - cpu) / seconds;
        let trips = Percentiles::of(self.load.round_trips());
        tokio::time::sleep(LAST_ANSWERS).await;
        // Some are on their way at either end of this: a few milliseconds of heartbeats.
        let sent = self.load.counts().since(before);
        let answered = sent.answered.min(sent.sent);
        let not_ready = self.readiness.lost()?.len() - not_ready;
        let (p50, p99, lost) = (trips.at(50), trips.at(99), sent.sent - answered);
        let text = format!(
            "{} heartbeats of nodes, {lost} unanswered, round trip p50 {p50:.1?} p99 {p99:.1?}; false \
             NotReady: {not_ready}; server {cores:.2} cores",
            sent.sent
        );
        let figures = json!({"seconds": seconds, "sent": sent.sent, "unanswered": lost, "late": sent.late,
            "p50_us": p50.as_micros() as u64, "p99_us": p99.as_micros() as u64,
            "false_not_ready": not_ready, "cores": cores});
        Ok((Genuine { text, figures }, (result, seconds)))
    }

    async fn overview(&self) -> Result<Overview, Failure> {
        let mut connection = self.access.connect().await?;
        let (_, body) = ask(&mut connection, Method::GET, path::OVERVIEW, Bytes::new()).await?;
        Ok(serde_json::from_slice(&body)?)
    }
}

struct Genuine {
    text: String,
    figures: Value,
}

/// Nodes of which anything but the age of their heartbeat is other than it was.
fn moved(before: &Overview, after: &Overview) -> usize {
    let same = before.nodes.iter().zip(&after.nodes).filter(|(a, b)| {
        (&a.name, &a.ready, &a.session, &a.address, a.bundle_observed)
            == (&b.name, &b.ready, &b.session, &b.address, b.bundle_observed)
    });
    before.nodes.len().max(after.nodes.len()) - same.count()
}

/// Datagrams for which the socket at this port had no room, since it was opened (proc(5), `/proc/net/udp`).
fn dropped(port: u16) -> Result<u64, Failure> {
    let table = std::fs::read_to_string("/proc/net/udp")?;
    let place = format!(":{port:04X}");
    let line = table
        .lines()
        .find(|line| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&place)));
    let drops = line.and_then(|line| line.split_whitespace().last());
    Ok(drops.ok_or("the server has no socket")?.parse()?)
}
