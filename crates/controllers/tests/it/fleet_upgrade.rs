//! A daemon set with `OTA` over 200 nodes, of which 30 % are away at any time: no node is upgraded without an approval,
//! none twice, and all that were approved are done soon after the last one is back.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Pod};
use kube::{Api, Client, runtime::watcher};
use serde_json::json;
use toono_wire::upgrade;

use crate::{
    cluster::{Cluster, wait_for},
    upgrades::{annotate, daemon_set, images, node_of, report, set_image, wait_offered},
};

const NODES: usize = 200;
const AWAY: usize = 60;
/// Nodes that nobody approves.
const REFUSED: usize = 10;
/// How many change places in one round.
const STEP: usize = 20;
/// What the acceptance grants after the last return.
const SOON: Duration = Duration::from_secs(30);

/// What was seen on each node: the pods, in their order, each with its image.
type Seen = Arc<Mutex<BTreeMap<String, Vec<(String, String)>>>>;

/// A small generator of numbers, so that a seed gives the same run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }

    /// Takes some out.
    fn take(&mut self, from: &mut BTreeSet<String>, count: usize) -> Vec<String> {
        let mut taken = Vec::new();
        for _ in 0..count.min(from.len()) {
            let chosen = from.iter().nth(self.below(from.len())).unwrap().clone();
            from.remove(&chosen);
            taken.push(chosen);
        }
        taken
    }
}

async fn look(client: Client, seen: Seen, approved: Arc<Mutex<BTreeSet<String>>>) {
    let mut stream = pin!(watcher::watcher(Api::<Pod>::all(client), watcher::Config::default()));
    while let Some(event) = stream.next().await {
        let Ok(watcher::Event::InitApply(pod) | watcher::Event::Apply(pod)) = event else {
            continue;
        };
        let (node, uid) = (node_of(&pod), pod.metadata.uid.clone().unwrap());
        let image = pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
        if node.is_empty() {
            continue;
        }
        let mut seen = seen.lock().unwrap();
        let pods = seen.entry(node.clone()).or_default();
        if pods.iter().all(|(known, _)| *known != uid) {
            let may = image == "one" || approved.lock().unwrap().contains(&node);
            let image = if may { image } else { format!("{image} without an approval") };
            pods.push((uid, image));
        }
    }
}

#[tokio::test]
async fn two_hundred_nodes_that_come_and_go_are_upgraded_once_each_and_none_unasked() {
    let seed: u64 = std::env::var("SEED").ok().and_then(|it| it.parse().ok()).unwrap_or(20_261_128);
    eprintln!("SEED={seed}");
    let mut dice = Dice(seed);
    let names: Vec<String> = (0..NODES).map(|number| format!("a{number:03}")).collect();
    let all: BTreeSet<String> = names.iter().cloned().collect();
    let cluster = Cluster::start(&[]).await;
    stream::iter(&names).for_each_concurrent(16, |name| cluster.add_node(name)).await;
    let (seen, approved) = (Seen::default(), Arc::new(Mutex::new(BTreeSet::new())));
    let looking = tokio::spawn(look(cluster.client.clone(), seen.clone(), approved.clone()));
    cluster.create::<DaemonSet>(daemon_set("OTA", "1")).await;
    wait_for(cluster.api::<Pod>(), "a daemon on each", |pods| images(pods).len() == NODES).await;

    let mut here = all.clone();
    let refused: BTreeSet<String> = dice.take(&mut here, REFUSED).into_iter().collect();
    let mut unapproved = here.clone();
    here.extend(refused.iter().cloned());
    let mut away: BTreeSet<String> = dice.take(&mut here, AWAY).into_iter().collect();
    stream::iter(&away).for_each_concurrent(16, |node| cluster.go_offline(node)).await;
    set_image(&cluster, "two").await;
    let everyone: Vec<&str> = names.iter().map(String::as_str).collect();
    let revision = wait_offered(&cluster, &everyone, "two").await;

    // Said on nodes whose link is cut; it is told when they are back.
    let mut kept: BTreeSet<String> = BTreeSet::new();
    while !unapproved.is_empty() {
        for node in dice.take(&mut unapproved, STEP) {
            approved.lock().unwrap().insert(node.clone());
            if dice.below(2) == 0 {
                annotate(&cluster, &node, json!({upgrade::APPROVED: revision})).await;
            } else if away.contains(&node) {
                kept.insert(node);
            } else {
                report(&cluster, &node, upgrade::APPROVED_HERE, "True", &revision).await;
            }
        }
        let leave = dice.take(&mut here, STEP);
        stream::iter(&leave).for_each_concurrent(16, |node| cluster.go_offline(node)).await;
        for node in dice.take(&mut away, STEP) {
            come_back(&cluster, &node, &mut kept, &revision).await;
            here.insert(node);
        }
        away.extend(leave);
        assert_eq!(away.len(), AWAY);
    }
    for node in std::mem::take(&mut away) {
        come_back(&cluster, &node, &mut kept, &revision).await;
    }
    let back = Instant::now();
    wait_for(cluster.api::<Pod>(), "all that were approved", |pods| {
        let now = images(pods);
        let done = |node: &String| now.get(node).is_some_and(|image| image == "two");
        now.len() == NODES && all.difference(&refused).all(done)
    })
    .await;
    let took = back.elapsed();
    let writes = cluster.writes_of_pods() as f64 / NODES as f64;
    eprintln!("done {took:?} after the last return; {writes:.1} writes of pods a node");
    assert!(took < SOON, "{took:?}");

    for (node, pods) in seen.lock().unwrap().iter() {
        let images: Vec<&str> = pods.iter().map(|(_, image)| image.as_str()).collect();
        let expected: &[&str] = if refused.contains(node) { &["one"] } else { &["one", "two"] };
        assert_eq!(images, expected, "{node}");
    }
    looking.abort();
}

async fn come_back(cluster: &Cluster, node: &str, kept: &mut BTreeSet<String>, revision: &str) {
    cluster.come_back(node).await;
    if kept.remove(node) {
        report(cluster, node, upgrade::APPROVED_HERE, "True", revision).await;
    }
}
