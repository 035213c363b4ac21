//! Creates bare pods and times what a watcher of the API sees: from the binding to the running
//! container's status.

use std::{
    collections::BTreeMap,
    error::Error,
    path::Path,
    pin::pin,
    time::{Duration, Instant},
};

use futures::{TryStreamExt as _, future::try_join_all};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;

use crate::percentiles::Percentiles;

const LABEL: &str = "toono.io/benchmark=start";
/// Nothing takes this long on a working edge.
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) async fn run(
    kubeconfig: &Path,
    pods: usize,
    rounds: usize,
    image: &str,
) -> Result<(), Box<dyn Error>> {
    let file = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    let api = Api::<Pod>::default_namespaced(Client::try_from(config)?);
    let (mut each, mut all) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let timed = tokio::time::timeout(LIMIT, one_round(&api, round, pods, image)).await?;
        remove(&api).await?;
        let (durations, whole) = timed?;
        each.extend(durations);
        all.push(whole);
    }
    let (each, all) = (Percentiles::of(each), Percentiles::of(all));
    println!("pods {pods}, rounds {rounds}");
    println!(
        "bind to running    p50 {:?}  p99 {:?}  max {:?}",
        each.at(50),
        each.at(99),
        each.at(100)
    );
    println!("create to all run  p50 {:?}  max {:?}", all.at(50), all.at(100));
    Ok(())
}

/// Bind → running of each pod, and creation → running of all.
async fn one_round(
    api: &Api<Pod>,
    round: usize,
    pods: usize,
    image: &str,
) -> Result<(Vec<Duration>, Duration), Box<dyn Error>> {
    let since = api.list(&ListParams::default().limit(1)).await?.metadata.resource_version;
    let watch =
        api.watch(&WatchParams::default().labels(LABEL), &since.unwrap_or_default()).await?;
    let mut watch = pin!(watch);
    let start = Instant::now();
    let created = (0..pods).map(|number| pod(&format!("bench-{round}-{number}"), image));
    let created: Vec<Pod> = created.collect::<Result<_, _>>()?;
    let parameters = PostParams::default();
    try_join_all(created.iter().map(|pod| api.create(&parameters, pod))).await?;
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

async fn remove(api: &Api<Pod>) -> Result<(), Box<dyn Error>> {
    let ours = ListParams::default().labels(LABEL);
    api.delete_collection(&DeleteParams::default().grace_period(1), &ours).await?;
    let start = Instant::now();
    while !api.list(&ours).await?.items.is_empty() {
        if start.elapsed() > LIMIT {
            return Err("the benchmark's pods do not go away".into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

fn pod(name: &str, image: &str) -> Result<Pod, serde_json::Error> {
    let (key, value) = LABEL.split_once('=').unwrap_or_default();
    serde_json::from_value(json!({
        "metadata": { "name": name, "labels": { key: value } },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "sleep", "image": image, "command": ["/bin/sleep", "3600"] }],
        },
    }))
}
