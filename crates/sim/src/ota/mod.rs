//! An upgrade that waits for approvals, over real nodes of which a part is away at any time.
//!
//! What is true: as in `edge`, each node is a `toono node` in a namespace behind the NAT of its site, and runs its pod
//! of a DaemonSet whose strategy is `OTA`. Half of the approvals are given from the cloud's side by `toono ota approve`,
//! half on the node by `toono node ota approve`, also on nodes that are cut off and had heard of the upgrade before.
//! Sites come and go all the time. What is judged, and fails the run: a node that is upgraded without an approval, or
//! twice, or not soon after the last return.

mod seen;

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Args;
use fastrand::Rng;
use http::Method;
use serde_json::{Value, json};
use toono_lab::Loss;

use self::seen::{PODS, Seen};
use crate::{
    Failure,
    access::{Access, ask},
    events::{Event, Watch},
    fleet::Figures,
    real::{Edge, Gauge, Place, Scene},
};

const DAEMON_SETS: &str = "/apis/apps/v1/namespaces/default/daemonsets";
const NAME: &str = "daemon";
/// The versions before and after.
const OLD: &str = "one";
const NEW: &str = "two";
/// Until every node is there and runs the old version.
const STARTED: Duration = Duration::from_secs(300);
/// Longer than the 40 s after which a node is silent.
const SILENT: Duration = Duration::from_secs(50);
/// Until the upgrade is offered on every pod.
const OFFERED: Duration = Duration::from_secs(120);
/// From one round of approvals, returns and departures to the next. A site is away for three.
const ROUND: Duration = Duration::from_secs(15);
const ROUNDS_AWAY: usize = 3;
/// Approvals of one round.
const APPROVALS: usize = 20;
/// From the last return until all that were approved are upgraded: what is judged, and what is waited for.
const SOON: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(300);
/// What nobody approved would show within this.
const AFTER: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(100);

/// What to do.
#[derive(Debug, Args)]
pub(crate) struct OtaArgs {
    /// The program.
    #[arg(long, default_value = "target/release/toono")]
    toono: PathBuf,
    /// Where everything goes; must not exist, and is removed at the end.
    #[arg(long, default_value = "/tmp/toono-ota")]
    data: PathBuf,
    /// How many nodes.
    #[arg(long, default_value_t = 200)]
    nodes: usize,
    /// In how many sites, at most 26, all of the same size.
    #[arg(long, default_value_t = 20)]
    sites: usize,
    /// How many of a hundred sites are away at any time.
    #[arg(long, default_value_t = 30)]
    away: usize,
    /// How many nodes nobody approves.
    #[arg(long, default_value_t = 10)]
    unasked: usize,
    /// What decides who is away when, and who is approved when, and where.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The addresses of the imitated Internet, a /24 that is not in use here.
    #[arg(long, default_value = "100.127.1.0/24")]
    subnet: String,
    /// Prints all figures once more, as JSON on one line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &OtaArgs) -> Result<(), Box<dyn Error>> {
    if args.sites == 0 || args.nodes == 0 || !args.nodes.is_multiple_of(args.sites) {
        return Err(format!("{} nodes are not {} sites of one size", args.nodes, args.sites).into());
    }
    if args.away >= 100 || args.unasked >= args.nodes {
        return Err("somebody must be there, and somebody be approved".into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(with_edge(args)).map_err(|error| -> Box<dyn Error> { error })
}

async fn with_edge(args: &OtaArgs) -> Result<(), Failure> {
    let scene = Scene { sites: args.sites, per_site: args.nodes / args.sites };
    let edge = Edge::plan(&args.toono, &args.data, &args.subnet, scene)?;
    edge.during(async {
        let access = Access::read(edge.data(), edge.port)?;
        let take = |seen: &mut Seen, _: &str, event: &Event| seen.take(event);
        let watch = Watch::begin(&access, &[PODS], Seen::default(), take).await?;
        let dice = Rng::with_seed(args.seed);
        let mut run = Run { args, edge: &edge, access, watch, dice, away: Vec::new() };
        let mut figures = Figures::default();
        let faults = run.all(&mut figures).await?;
        if args.json {
            println!("{}", Value::Object(figures.0));
        }
        if faults.is_empty() { Ok(()) } else { Err(faults.join("\n").into()) }
    })
    .await
}

struct Run<'a> {
    args: &'a OtaArgs,
    edge: &'a Edge,
    access: Access,
    watch: Watch<Seen>,
    dice: Rng,
    /// Sites that are cut off, those first that have been for longest.
    away: Vec<usize>,
}

/// How approvals were given.
#[derive(Debug, Default)]
struct Approvals {
    by_cloud: usize,
    at_node: usize,
    /// Of these, how many while the node was cut off.
    at_node_away: usize,
    rounds: usize,
}

impl Run<'_> {
    /// All of it; what should not have been.
    async fn all(&mut self, figures: &mut Figures) -> Result<Vec<String>, Failure> {
        let nodes = self.args.nodes;
        self.write(Method::POST, DAEMON_SETS, OLD).await?;
        self.until("nodes run the old version", STARTED, |seen| seen.count(OLD) >= nodes).await?;
        self.leave(self.args.sites * self.args.away / 100)?;
        tokio::time::sleep(SILENT).await;

        let gauge = self.gauge()?;
        let first = gauge.sample()?;
        self.write(Method::PUT, &format!("{DAEMON_SETS}/{NAME}"), NEW).await?;
        self.until_offered().await?;
        let mut names = self.edge.names.clone();
        self.dice.shuffle(&mut names);
        let asked = names.split_off(self.args.unasked);
        let approvals = self.rounds(asked.iter().cloned().collect()).await?;
        while let Some(site) = self.away.pop() {
            self.edge.heal(Place::Site(site))?;
        }
        let back = Instant::now();
        let all = asked.len();
        self.until("nodes run the new version", LIMIT, |seen| seen.count(NEW) >= all).await?;
        let took = back.elapsed();
        tokio::time::sleep(AFTER).await;
        let used = gauge.between(&first, &gauge.sample()?);
        figures.tell(
            "upgraded",
            &format!(
                "{all} of {nodes} nodes in {} sites, {}% of them away at any time, all {:.1} s after the last return; \
                 {} approved from the cloud, {} at the node, {} of these without a link; {} rounds",
                self.args.sites, self.args.away, took.as_secs_f64(),
                approvals.by_cloud, approvals.at_node, approvals.at_node_away, approvals.rounds
            ),
            json!({"upgraded": all, "nodes": nodes, "seconds_after_return": took.as_secs_f64(),
                "by_cloud": approvals.by_cloud, "at_node": approvals.at_node,
                "at_node_away": approvals.at_node_away, "rounds": approvals.rounds}),
        );
        figures.tell(
            "used",
            &format!(
                "{:.0} s; a node {:.0} + {:.0} bytes up and down, heartbeats included; server {:.3} cores",
                used.seconds, used.up_bytes, used.down_bytes, used.server_cores
            ),
            json!({"seconds": used.seconds, "up_bytes": used.up_bytes, "down_bytes": used.down_bytes,
                "server_cores": used.server_cores}),
        );
        let unasked: BTreeSet<String> = names.into_iter().collect();
        let mut faults = self.watch.seen()?.faults(&self.edge.names, &unasked);
        if took > SOON {
            faults.push(format!("the last was upgraded {took:?} after the last return"));
        }
        Ok(faults)
    }

    /// Approves all of these, some at a time, while sites come and go.
    async fn rounds(&mut self, mut waiting: BTreeSet<String>) -> Result<Approvals, Failure> {
        let mut given = Approvals::default();
        while !waiting.is_empty() {
            let mut these: Vec<String> = waiting.iter().cloned().collect();
            self.dice.shuffle(&mut these);
            for node in these.into_iter().take(APPROVALS) {
                if self.approve(&node, &mut given).await? {
                    waiting.remove(&node);
                }
            }
            tokio::time::sleep(ROUND).await;
            let some = self.away.len().div_ceil(ROUNDS_AWAY);
            self.leave(some)?;
            for site in self.away.drain(..some) {
                self.edge.heal(Place::Site(site))?;
            }
            given.rounds += 1;
        }
        Ok(given)
    }

    /// Cuts so many more sites off.
    fn leave(&mut self, count: usize) -> Result<(), Failure> {
        let mut here: Vec<usize> =
            (0..self.args.sites).filter(|site| !self.away.contains(site)).collect();
        self.dice.shuffle(&mut here);
        for site in here.into_iter().take(count) {
            self.edge.cut(Place::Site(site), Loss::All)?;
            self.away.push(site);
        }
        Ok(())
    }

    /// Approves a node's upgrade here or there; whether it was, since a node does not know what it never heard of.
    async fn approve(&mut self, node: &str, given: &mut Approvals) -> Result<bool, Failure> {
        // What follows may be seen before the command ends.
        self.watch.seen()?.approve(node);
        if self.dice.bool() {
            self.edge.toono(&["ota", "approve", "--node", node]).await?;
            given.by_cloud += 1;
            return Ok(true);
        }
        let pod = self.watch.seen()?.pod(node).ok_or_else(|| format!("{node} has no pod"))?;
        let done = self.edge.toono_at(node, &["node", "ota", "approve", &pod]).await?;
        if done {
            given.at_node += 1;
            given.at_node_away += usize::from(self.is_away(node));
        } else {
            self.watch.seen()?.withdraw(node);
        }
        Ok(done)
    }

    fn is_away(&self, node: &str) -> bool {
        let number = self.edge.names.iter().position(|name| name == node);
        number.is_some_and(|number| self.away.contains(&(number / self.edge.scene.per_site)))
    }

    /// Until every pod has the offer, also those of nodes that are away: it is the cloud that writes it.
    async fn until_offered(&self) -> Result<(), Failure> {
        let began = Instant::now();
        loop {
            let rows = self.edge.toono(&["ota", "status", "-o", "json"]).await?;
            let rows: Vec<BTreeMap<String, Value>> = serde_json::from_str(&rows)?;
            if rows.len() >= self.args.nodes {
                return Ok(());
            }
            if began.elapsed() > OFFERED {
                return Err(format!("offered to {} nodes after {OFFERED:?}", rows.len()).into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn write(&self, method: Method, path: &str, version: &str) -> Result<(), Failure> {
        let body = Bytes::from(serde_json::to_vec(&daemon_set(version))?);
        let mut connection = self.access.connect().await?;
        let (status, body) = ask(&mut connection, method, path, body).await?;
        if status.is_success() {
            return Ok(());
        }
        Err(format!("the daemon set: {status} {}", String::from_utf8_lossy(&body)).into())
    }

    async fn until(
        &self,
        what: &str,
        limit: Duration,
        is: impl Fn(&Seen) -> bool,
    ) -> Result<(), Failure> {
        let began = Instant::now();
        while !is(&*self.watch.seen()?) {
            if began.elapsed() > limit {
                return Err(
                    format!("not all {what} after {limit:?}: {}", *self.watch.seen()?).into()
                );
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    fn gauge(&self) -> Result<Gauge, Failure> {
        let nodes = self.edge.names.iter().map(|name| self.edge.process(name));
        let server = self.edge.process("server")?;
        Ok(Gauge { server, nodes: nodes.collect::<Result<_, _>>()?, began: Instant::now() })
    }
}

fn daemon_set(version: &str) -> Value {
    let labels = json!({"app": NAME});
    json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": NAME, "annotations": {"apps.openyurt.io/update-strategy": "OTA"}},
        "spec": {"selector": {"matchLabels": labels}, "updateStrategy": {"type": "OnDelete"},
            "template": {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 0,
                "containers": [{"name": "main", "image": "lab.toono.io/busybox:1",
                    "command": ["/bin/sleep", "100000"], "env": [{"name": "VERSION", "value": version}]}]}}}})
}
