//! Creates bare pods and times what a watcher of the API sees: from the binding to the running
//! container's status.

use std::{
    cell::Cell,
    collections::BTreeMap,
    error::Error,
    path::{Path, PathBuf},
    pin::pin,
    time::{Duration, Instant},
};

use clap::Args;
use futures::{TryStreamExt as _, future::try_join_all};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;

use crate::{Failure, percentiles::Percentiles};

const LABEL: &str = "toono.io/benchmark=start";
/// Nothing takes this long on a working edge.
const LIMIT: Duration = Duration::from_secs(120);
/// Between two looks at pods that are going.
const LOOK: Duration = Duration::from_millis(100);

/// What to do.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
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
}

pub(crate) fn run(args: &StartArgs) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let timed = runtime.block_on(async {
        let pods = Pods::new(client(&args.kubeconfig).await?, &args.image);
        pods.time(args.rounds, args.pods).await
    });
    let Timed { each, all } = timed.map_err(|error| -> Box<dyn Error> { error })?;
    println!("pods {}, rounds {}", args.pods, args.rounds);
    println!(
        "bind to running    p50 {:?}  p99 {:?}  max {:?}",
        each.at(50),
        each.at(99),
        each.at(100)
    );
    println!("create to all run  p50 {:?}  max {:?}", all.at(50), all.at(100));
    Ok(())
}

pub(super) async fn client(kubeconfig: &Path) -> Result<Client, Failure> {
    let file = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// The benchmark's pods, of the default namespace.
pub(super) struct Pods {
    api: Api<Pod>,
    image: String,
    /// How many were ever made: no name comes twice.
    made: Cell<usize>,
}

/// From the binding of each pod until it runs, and from the first creation of a round until all of its pods do.
pub(super) struct Timed {
    pub(super) each: Percentiles,
    pub(super) all: Percentiles,
}

impl Pods {
    pub(super) fn new(client: Client, image: &str) -> Self {
        Self { api: Api::default_namespaced(client), image: image.to_owned(), made: Cell::new(0) }
    }

    /// Makes so many at once, so often, and removes them after each round.
    pub(super) async fn time(&self, rounds: usize, pods: usize) -> Result<Timed, Failure> {
        let (mut each, mut all) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let round = tokio::time::timeout(LIMIT, self.round(pods)).await;
            self.remove().await?;
            let (durations, whole) = round??;
            each.extend(durations);
            all.push(whole);
        }
        Ok(Timed { each: Percentiles::of(each), all: Percentiles::of(all) })
    }

    /// Makes so many more and waits until they run.
    pub(super) async fn create(&self, pods: usize) -> Result<(), Failure> {
        tokio::time::timeout(LIMIT, self.round(pods)).await??;
        Ok(())
    }

    /// The name of the one made last.
    pub(super) fn newest(&self) -> String {
        name(self.made.get().saturating_sub(1))
    }

    /// Removes all of them.
    pub(super) async fn remove(&self) -> Result<(), Failure> {
        let ours = ListParams::default().labels(LABEL);
        self.api.delete_collection(&DeleteParams::default().grace_period(1), &ours).await?;
        let start = Instant::now();
        while !self.api.list(&ours).await?.items.is_empty() {
            if start.elapsed() > LIMIT {
                return Err("the benchmark's pods do not go away".into());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn round(&self, pods: usize) -> Result<(Vec<Duration>, Duration), Failure> {
        let newest = self.api.list(&ListParams::default().limit(1)).await?.metadata;
        let parameters = WatchParams::default().labels(LABEL);
        let watch =
            self.api.watch(&parameters, &newest.resource_version.unwrap_or_default()).await?;
        let mut watch = pin!(watch);
        let start = Instant::now();
        let first = self.made.replace(self.made.get() + pods);
        let created = (first..first + pods).map(|number| self.pod(&name(number)));
        let created: Vec<Pod> = created.collect::<Result<_, _>>()?;
        let parameters = PostParams::default();
        try_join_all(created.iter().map(|pod| self.api.create(&parameters, pod))).await?;
        let mut bound: BTreeMap<String, Instant> = BTreeMap::new();
        let mut running = BTreeMap::new();
        while running.len() < pods {
            let Some(event) = watch.try_next().await? else { return Err("the watch ended".into()) };
            let (WatchEvent::Added(pod) | WatchEvent::Modified(pod)) = event else { continue };
            let name = pod.metadata.name.clone().unwrap_or_default();
            let now = Instant::now();
            if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) {
                bound.entry(name.clone()).or_insert(now);
            }
            if pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running")
                && let Some(at) = bound.get(&name)
            {
                running.entry(name).or_insert_with(|| now.duration_since(*at));
            }
        }
        Ok((running.into_values().collect(), start.elapsed()))
    }

    fn pod(&self, name: &str) -> Result<Pod, serde_json::Error> {
        let (key, value) = LABEL.split_once('=').unwrap_or_default();
        serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { key: value } },
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "sleep", "image": self.image, "command": ["/bin/sleep", "100000"]}],
            },
        }))
    }
}

fn name(number: usize) -> String {
    format!("bench-{number}")
}
