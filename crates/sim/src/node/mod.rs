//! What a node costs: memory, processor, disk and wake-ups at rest, and how long pods take to run on it.
//!
//! What is true: `toono up` makes an edge of one node, which runs in a network namespace of its own with the program
//! that is to be measured; pods are made over the API and are real containers. The server shares the machine, so times
//! are those of a node whose cloud is near. Everything is removed at the end, also after a failure.
//!
//! Memory is counted by PSS: what processes share is counted in parts, so that sums are true. Containers' own
//! processes are not counted, neither for Toono nor for the peer.

mod copy;
mod peer;
mod starts;
mod weight;

use std::{
    error::Error,
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use kube::{Api, Client};
use serde_json::{Value, json};

use self::{
    starts::{Pods, Timed},
    weight::{Rest, Weight},
};
use crate::{
    Failure,
    fleet::Figures,
    real::{Edge, Scene},
};

pub(crate) use self::starts::{StartArgs, run as start};

/// From the start of the node until it is ready.
const READY: Duration = Duration::from_secs(60);
/// What starting left to do is done by then.
const SETTLE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// The pods of the common comparison, and as many more to tell what one more costs.
const PODS: usize = 10;
/// As many as a node takes by default, but for what the system may run.
const MANY: usize = 100;
/// What every pod runs, and where the lab's registry has it.
const IMAGE: &str = "lab.toono.io/busybox:1";

/// What to do.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// The program of the cloud side.
    #[arg(long, default_value = "target/release/toono")]
    toono: PathBuf,
    /// The program of the node: what `make edge` builds.
    #[arg(long, default_value = "target/edge/toono")]
    node: PathBuf,
    /// Where everything goes; must not exist, and is removed at the end.
    #[arg(long, default_value = "/tmp/toono-node")]
    data: PathBuf,
    /// The addresses of the imitated Internet, a /24 that is not in use here.
    #[arg(long, default_value = "100.126.0.0/24")]
    subnet: String,
    /// How many pods are started one after the other.
    #[arg(long, default_value_t = 50)]
    starts: usize,
    /// How long the node is looked at while it has nothing to do.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// How much is copied into a pod and back by the `kubectl` of the PATH, MB; nothing with 0.
    #[arg(long, default_value_t = 1000)]
    copy: usize,
    /// Does the same with containerd and runc, which must be installed (Debian: `containerd`, `runc`).
    #[arg(long)]
    peer: bool,
    /// Prints all figures once more, as JSON on one line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &NodeArgs) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(with_edge(args)).map_err(|error| -> Box<dyn Error> { error })
}

/// Makes the edge, measures, and removes the edge, also after a failure or when asked to end.
async fn with_edge(args: &NodeArgs) -> Result<(), Failure> {
    let scene = Scene { sites: 1, per_site: 1 };
    let edge = Edge::plan(&args.toono, &args.data, &args.subnet, scene)?;
    let edge = edge.with_nodes(Some(&args.node));
    edge.during(measure(args, &edge)).await
}

async fn measure(args: &NodeArgs, edge: &Edge) -> Result<(), Failure> {
    let node = edge.names.first().ok_or("an edge without a node")?;
    let client = until_ready(edge, node).await?;
    let mut figures = Figures::default();
    let size = std::fs::metadata(&args.node)?.len() as f64 / 1e6;
    figures.tell("program", &format!("{size:.1} MB"), json!({"mb": size}));
    let run = Run { args, edge, pods: Pods::new(client, IMAGE), node };
    run.all(&mut figures).await?;
    if args.peer {
        peer::measure(args.seconds, edge, &mut figures).await?;
    }
    if args.json {
        println!("{}", Value::Object(figures.0));
    }
    Ok(())
}

/// A client, once the server answers and the node is ready.
async fn until_ready(edge: &Edge, node: &str) -> Result<Client, Failure> {
    let began = Instant::now();
    loop {
        if let Ok(client) = starts::client(&edge.data().join("admin.kubeconfig")).await
            && let Ok(found) =
                Api::<k8s_openapi::api::core::v1::Node>::all(client.clone()).get(node).await
            && found
                .status
                .into_iter()
                .flat_map(|status| status.conditions)
                .flatten()
                .any(|it| it.type_ == "Ready" && it.status == "True")
        {
            return Ok(client);
        }
        if began.elapsed() > READY {
            return Err(format!("{node} is not ready after {READY:?}").into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

struct Run<'a> {
    args: &'a NodeArgs,
    edge: &'a Edge,
    pods: Pods,
    node: &'a str,
}

impl Run<'_> {
    async fn all(&self, figures: &mut Figures) -> Result<(), Failure> {
        tokio::time::sleep(SETTLE).await;
        self.tell_weight("alone", figures)?;
        self.tell_starts("one by one", self.args.starts, 1, figures).await?;
        tokio::time::sleep(SETTLE).await;
        self.tell_weight("alone, after pods", figures)?;

        self.pods.create(PODS).await?;
        tokio::time::sleep(SETTLE).await;
        let ten = self.tell_weight("10 pods", figures)?;
        self.tell_rest("at rest with 10 pods", figures).await?;
        self.pods.create(PODS).await?;
        tokio::time::sleep(SETTLE).await;
        let twenty = self.tell_weight("20 pods", figures)?;
        let one = (twenty - ten) / PODS as f64;
        figures.tell("one more pod", &format!("{one:.2} MB"), json!({"pss_mb": one}));
        if self.args.copy > 0 {
            let kubeconfig = self.edge.data().join("admin.kubeconfig");
            let pod = self.pods.newest();
            copy::measure(&kubeconfig, self.edge.data(), &pod, self.args.copy, figures).await?;
        }
        self.pods.remove().await?;

        self.tell_starts("100 at once", 1, MANY, figures).await
    }

    /// The PSS of all, MB.
    fn tell_weight(&self, name: &str, figures: &mut Figures) -> Result<f64, Failure> {
        let Weight { daemon, keepers } = weight::of(self.edge.data(), self.node)?;
        let all = (daemon.pss + keepers.pss) as f64 / 1e3;
        let text = format!(
            "{all:.1} MB PSS; daemon {:.1} MB, of which private {:.1}; {} keepers {:.1} MB",
            daemon.pss as f64 / 1e3,
            daemon.private as f64 / 1e3,
            keepers.processes,
            keepers.pss as f64 / 1e3
        );
        let figure = json!({"pss_mb": all, "daemon_kb": daemon.pss, "daemon_private_kb": daemon.private, "daemon_rss_kb": daemon.rss,
            "keepers": keepers.processes, "keepers_kb": keepers.pss});
        figures.tell(name, &text, figure);
        Ok(all)
    }

    async fn tell_rest(&self, name: &str, figures: &mut Figures) -> Result<(), Failure> {
        let before = Rest::look(&weight::processes(self.edge.data(), self.node))?;
        tokio::time::sleep(Duration::from_secs(self.args.seconds)).await;
        let after = Rest::look(&weight::processes(self.edge.data(), self.node))?;
        after.since(&before, self.args.seconds as f64).tell(name, figures);
        Ok(())
    }

    async fn tell_starts(
        &self,
        name: &str,
        rounds: usize,
        pods: usize,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        let Timed { each, all } = self.pods.time(rounds, pods).await?;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let [p50, p99, most] = [50, 99, 100].map(|percent| ms(each.at(percent)));
        let whole = ms(all.at(100));
        figures.tell(
            name,
            &format!("bind to running p50 {p50:.0} ms, p99 {p99:.0} ms, slowest {most:.0} ms; all after {whole:.0} ms at most"),
            json!({"pods": rounds * pods, "p50_ms": p50, "p99_ms": p99, "max_ms": most, "all_ms": whole}),
        );
        Ok(())
    }
}
