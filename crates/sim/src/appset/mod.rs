//! One YurtAppSet over many pools: how long until it knows that all are ready, what it writes for that, what a change
//! for one pool writes, and how long one pool takes among many.
//!
//! What is true: the server with all its controllers, nodes that joined, pools, every object. What is simulated: nodes
//! run nothing, and a task says for all of them that their pods are ready. Writes are those of the server's audit log.

mod kubelets;
mod scene;

use std::{collections::BTreeMap, error::Error, path::PathBuf, time::Duration};

use clap::Args;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use toono_openyurt::{YurtAppSet, keys::POOL_NAME};

use self::scene::{AUDIT, SET, Scene};
use crate::{Failure, fleet::Figures, percentiles::Percentiles};

/// Nothing that is waited for takes longer.
const LIMIT: Duration = Duration::from_secs(300);
/// How often the set's status and a workload are looked at.
const LOOK: Duration = Duration::from_millis(5);
/// Until everything that a change brings about is written.
const QUIET: Duration = Duration::from_secs(5);

/// What to simulate.
#[derive(Debug, Args)]
pub(crate) struct AppsetArgs {
    /// The program.
    #[arg(long, default_value = "target/release/toono")]
    pub(super) toono: PathBuf,
    /// Where its data goes; must not exist, and is removed at the end.
    #[arg(long, default_value = "/tmp/toono-appset")]
    pub(super) data: PathBuf,
    /// How many pools.
    #[arg(long, default_value_t = 100)]
    pub(super) pools: usize,
    /// How many nodes each of them has.
    #[arg(long, default_value_t = 10)]
    pub(super) nodes: usize,
    /// How many pods each of them is to run.
    #[arg(long, default_value_t = 10)]
    pub(super) replicas: usize,
    /// How often one pool's workload is changed by hand, and put back.
    #[arg(long, default_value_t = 50)]
    edits: usize,
    /// Prints all figures once more, as JSON on one line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &AppsetArgs) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(simulate(args)).map_err(|error| -> Box<dyn Error> { error })
}

async fn simulate(args: &AppsetArgs) -> Result<(), Failure> {
    let mut scene = Scene::set_up(args).await?;
    let mut figures = Figures::default();
    let ready = kubelets::start(scene.client.clone());
    rollout(args, &scene, &ready, &mut figures).await?;
    one_tweak(args, &scene, &mut figures).await?;
    edits(args, &scene, &mut figures).await?;
    ready.end();
    if args.json {
        println!("{}", Value::Object(figures.0));
    }
    scene.load.end()?;
    scene.server.end().await?;
    Ok(std::fs::remove_dir_all(&args.data)?)
}

async fn rollout(
    args: &AppsetArgs,
    scene: &Scene,
    ready: &kubelets::Kubelets,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let began = Instant::now();
    scene.create_set(args).await?;
    settled(&scene.client, args.pools).await?;
    let settled = Instant::now();
    let last = ready.last().unwrap_or(began);
    let after = settled.saturating_duration_since(last);
    sleep(QUIET).await;
    let writes = writes(args)?;
    figures.tell(
        "rollout",
        &format!(
            "{} pools, {} nodes, {} pods: all {:.1} s after the set, settled {:.2} s after the last pod; {writes}",
            args.pools,
            args.pools * args.nodes,
            args.pools * args.replicas,
            (settled - began).as_secs_f64(),
            after.as_secs_f64(),
        ),
        json!({"seconds": (settled - began).as_secs_f64(), "after_last_pod_s": after.as_secs_f64(),
            "deployments": writes.workloads, "statuses": writes.statuses, "revisions": writes.revisions}),
    );
    Ok(())
}

async fn one_tweak(args: &AppsetArgs, scene: &Scene, figures: &mut Figures) -> Result<(), Failure> {
    let (before, counted) = (versions(&scene.client).await?, writes(args)?);
    scene.tweak_first(args).await?;
    sleep(QUIET).await;
    settled(&scene.client, args.pools).await?;
    let after = versions(&scene.client).await?;
    let touched = after.iter().filter(|(pool, version)| before.get(*pool) != Some(version));
    let touched = touched.count();
    let now = writes(args)?;
    let (workloads, statuses) =
        (now.workloads - counted.workloads, now.statuses - counted.statuses);
    figures.tell(
        "tweak",
        &format!(
            "another image for one of {} pools: {touched} workload changed; {workloads} written to its \
             spec, {statuses} statuses of the set",
            args.pools
        ),
        json!({"touched": touched, "workloads": workloads, "statuses": statuses}),
    );
    Ok(())
}

/// Changes one workload by hand, again and again, and waits until it is as before.
async fn edits(args: &AppsetArgs, scene: &Scene, figures: &mut Figures) -> Result<(), Failure> {
    let api: Api<Deployment> = Api::namespaced(scene.client.clone(), "default");
    let all = api.list(&ListParams::default()).await?.items;
    let one =
        all.first().and_then(|one| one.metadata.name.clone()).ok_or("there is no workload")?;
    let mut times = Vec::new();
    for _ in 0..args.edits {
        let edit = Patch::Merge(json!({"spec": {"minReadySeconds": 1}}));
        api.patch(&one, &PatchParams::default(), &edit).await?;
        let began = Instant::now();
        loop {
            let now = api.get(&one).await?;
            if now.spec.is_some_and(|spec| spec.min_ready_seconds.unwrap_or(0) == 0) {
                break;
            }
            if began.elapsed() > LIMIT {
                return Err("an edit by hand is not put back".into());
            }
            tokio::task::yield_now().await;
        }
        times.push(began.elapsed());
    }
    let times = Percentiles::of(times);
    let ms = |percent| times.at(percent).as_secs_f64() * 1e3;
    figures.tell(
        "edit",
        &format!(
            "one workload of {} changed by hand is put back after p50 {:.1} ms, p99 {:.1} ms",
            args.pools,
            ms(50),
            ms(99)
        ),
        json!({"p50_ms": ms(50), "p99_ms": ms(99)}),
    );
    Ok(())
}

/// Until the set says that all is as it should be.
async fn settled(client: &Client, pools: usize) -> Result<(), Failure> {
    let api: Api<YurtAppSet> = Api::namespaced(client.clone(), "default");
    let until = Instant::now() + LIMIT;
    loop {
        let set = api.get(SET).await?;
        let status = set.status.unwrap_or_default();
        let counts = [status.total_workloads, status.ready_workloads, status.updated_workloads];
        let seen = status.observed_generation == set.metadata.generation;
        if seen && counts.iter().all(|count| usize::try_from(*count).is_ok_and(|it| it == pools)) {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(format!("the set does not settle: {counts:?} of {pools}").into());
        }
        sleep(LOOK).await;
    }
}

/// By pool, how often the spec of its workload changed, and what it is labelled with.
async fn versions(client: &Client) -> Result<BTreeMap<String, String>, Failure> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), "default");
    let all = api.list(&ListParams::default()).await?.items;
    let of = |one: Deployment| {
        let labels = one.metadata.labels.unwrap_or_default();
        let pool = labels.get(POOL_NAME).cloned().unwrap_or_default();
        (pool, format!("{:?} {labels:?}", one.metadata.generation))
    };
    Ok(all.into_iter().map(of).collect())
}

/// What the controllers wrote so far.
#[derive(Default)]
struct Writes {
    /// Deployments that were made, and changes of others than their status by whoever.
    workloads: usize,
    statuses: usize,
    revisions: usize,
}

impl std::fmt::Display for Writes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { workloads, statuses, revisions } = self;
        write!(
            f,
            "written: {workloads} Deployments, {statuses} statuses of the set, {revisions} revisions"
        )
    }
}

fn writes(args: &AppsetArgs) -> Result<Writes, Failure> {
    let log = std::fs::read_to_string(args.data.join(AUDIT))?;
    let mut writes = Writes::default();
    for line in log.lines() {
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let written = matches!(text("/verb"), "create" | "update" | "patch" | "delete");
        let done = text("/stage") == "ResponseComplete";
        let own = text("/user/username").contains("kube-controller-manager");
        if !(written && done && own) {
            continue;
        }
        match (text("/objectRef/resource"), text("/objectRef/subresource")) {
            ("deployments", "") => writes.workloads += 1,
            ("yurtappsets", "status") => writes.statuses += 1,
            ("controllerrevisions", "") => writes.revisions += 1,
            _ => {}
        }
    }
    Ok(writes)
}
