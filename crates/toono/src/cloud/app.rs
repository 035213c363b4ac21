//! `toono app`: workloads that run in many pools (YurtAppSets), how they fare in each, and the way back.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::apps::v1::{ControllerRevision, Deployment, StatefulSet},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource,
    api::{ListParams, PostParams},
};
use toono_openyurt::{
    YurtAppSet,
    keys::{CONTROLLER_REVISION_HASH, POOL_NAME, REF_YURT_APP_SET},
};

use crate::{
    cli::Output,
    cloud::{
        cli::{AppArgs, AppCommand, AppName},
        kubeconfig::{self, unreachable},
    },
    failure::Failure,
    table::Table,
};

pub(crate) async fn run(args: &AppArgs) -> Result<(), Failure> {
    match &args.command {
        AppCommand::Ls { client, namespace, all_namespaces, output } => {
            let client = kubeconfig::client(client).await?;
            let api =
                if *all_namespaces { Api::all(client) } else { Api::namespaced(client, namespace) };
            list(api, *output).await
        }
        AppCommand::Show { app, output } => show(app, *output).await,
        AppCommand::Rollback { app, to_revision } => rollback(app, *to_revision).await,
    }
}

async fn list(api: Api<YurtAppSet>, output: Output) -> Result<(), Failure> {
    let sets = api.list(&ListParams::default()).await.map_err(|error| unreachable(&error))?;
    if output != Output::Table {
        return print(&sets.items, output);
    }
    let mut table =
        Table::new(["NAMESPACE", "NAME", "KIND", "POOLS", "READY", "UPDATED", "REVISION"]);
    for set in &sets.items {
        let status = set.status.clone().unwrap_or_default();
        table.row([
            text(&set.metadata.namespace),
            text(&set.metadata.name),
            kind(set).to_owned(),
            status.total_workloads.to_string(),
            status.ready_workloads.to_string(),
            status.updated_workloads.to_string(),
            status.current_revision,
        ]);
    }
    print!("{}", table.render());
    Ok(())
}

async fn show(app: &AppName, output: Output) -> Result<(), Failure> {
    let client = kubeconfig::client(&app.client).await?;
    let set = find(&client, app).await?;
    if output != Output::Table {
        return print(&set, output);
    }
    let status = set.status.clone().unwrap_or_default();
    println!("Name      {}/{}, a {} in each pool", app.namespace, app.name, kind(&set));
    println!(
        "Pools     {}, {} ready, {} updated",
        status.total_workloads, status.ready_workloads, status.updated_workloads
    );
    println!("Revision  {}\n", status.current_revision);
    let mut table = Table::new(["CONDITION", "STATUS", "REASON", "MESSAGE"]);
    for condition in &status.conditions {
        let (reason, message) = (text(&condition.reason), text(&condition.message));
        table.row([condition.type_.clone(), condition.status.clone(), reason, message]);
    }
    println!("{}", table.render());
    let mut table = Table::new(["POOL", "WORKLOAD", "READY", "IMAGES", "WRITTEN FOR"]);
    for workload in workloads(&client, app, &set).await? {
        table.row(workload.row());
    }
    println!("{}", table.render());
    let mut table = Table::new(["NUMBER", "REVISION", "MADE"]);
    for revision in revisions(&client, app, &set).await? {
        let made = revision.metadata.creation_timestamp.as_ref();
        table.row([
            revision.revision.to_string(),
            text(&revision.metadata.name),
            made.map_or_else(|| "-".into(), |made| made.0.to_string()),
        ]);
    }
    print!("{}", table.render());
    Ok(())
}

async fn rollback(app: &AppName, number: Option<i64>) -> Result<(), Failure> {
    let client = kubeconfig::client(&app.client).await?;
    let set = find(&client, app).await?;
    let revisions = revisions(&client, app, &set).await?;
    let name = format!("{}/{}", app.namespace, app.name);
    let target = match number {
        Some(number) => revisions.iter().find(|revision| revision.revision == number),
        None => revisions.iter().rev().nth(1),
    };
    let target = target.ok_or_else(|| {
        let what = match number {
            Some(number) => format!("{name} has no revision {number}"),
            None => format!("{name} has no revision before its present one"),
        };
        Failure::new("no-such-revision", what, "toono app show lists those that are kept")
    })?;
    let kept = target.data.as_ref().and_then(|data| data.0.pointer("/spec/workload"));
    let mut workload = kept.cloned().ok_or_else(|| {
        let what = format!("revision {} keeps no workload", text(&target.metadata.name));
        Failure::new("bad-revision", what, "go back to another one with --to-revision")
    })?;
    if let Some(fields) = workload.as_object_mut() {
        fields.remove("$patch");
    }
    if serde_json::to_value(&set.spec.workload).is_ok_and(|present| present == workload) {
        println!("{name} is at revision {} already", target.revision);
        return Ok(());
    }
    let number = target.revision;
    let mut set = set;
    set.spec.workload = serde_json::from_value(workload).map_err(|error| {
        Failure::caused("bad-revision", &error, "go back to another one with --to-revision")
    })?;
    // The whole object with its version, so that somebody else's change meanwhile is not lost.
    let api = Api::<YurtAppSet>::namespaced(client, &app.namespace);
    api.replace(&app.name, &PostParams::default(), &set).await.map_err(|error| {
        Failure::caused("rollback-refused", &error, "look at it, and try again")
    })?;
    println!("{name} goes back to revision {number}");
    Ok(())
}

async fn find(client: &Client, app: &AppName) -> Result<YurtAppSet, Failure> {
    let api = Api::<YurtAppSet>::namespaced(client.clone(), &app.namespace);
    let found = api.get_opt(&app.name).await.map_err(|error| unreachable(&error))?;
    found.ok_or_else(|| {
        let what = format!("there is no app {} in namespace {}", app.name, app.namespace);
        Failure::new("no-such-app", what, "toono app ls -A shows those that exist")
    })
}

/// The revisions of a set, the newest last.
async fn revisions(
    client: &Client,
    app: &AppName,
    set: &YurtAppSet,
) -> Result<Vec<ControllerRevision>, Failure> {
    let api = Api::<ControllerRevision>::namespaced(client.clone(), &app.namespace);
    let all = api.list(&of(app)).await.map_err(|error| unreachable(&error))?;
    let mut own: Vec<_> =
        all.items.into_iter().filter(|one| is_owned(&one.metadata, set)).collect();
    own.sort_by_key(|revision| revision.revision);
    Ok(own)
}

/// What is there of a set in one pool.
struct Workload {
    metadata: ObjectMeta,
    ready: i32,
    wanted: i32,
    images: Vec<String>,
}

impl Workload {
    fn row(&self) -> [String; 5] {
        let label = |key: &str| {
            let labels = self.metadata.labels.as_ref();
            text(&labels.and_then(|labels| labels.get(key)).cloned())
        };
        [
            label(POOL_NAME),
            text(&self.metadata.name),
            format!("{}/{}", self.ready, self.wanted),
            self.images.join(","),
            label(CONTROLLER_REVISION_HASH),
        ]
    }
}

/// The workloads of a set, by pool.
async fn workloads(
    client: &Client,
    app: &AppName,
    set: &YurtAppSet,
) -> Result<Vec<Workload>, Failure> {
    let mut all = BTreeMap::new();
    let mut add = |workload: Workload| {
        if is_owned(&workload.metadata, set) {
            let [pool, name, ..] = workload.row();
            all.insert((pool, name), workload);
        }
    };
    let deployments = Api::<Deployment>::namespaced(client.clone(), &app.namespace);
    let found = deployments.list(&of(app)).await.map_err(|error| unreachable(&error))?;
    for one in found {
        let (spec, status) = (one.spec.unwrap_or_default(), one.status.unwrap_or_default());
        let (ready, wanted) = (status.ready_replicas.unwrap_or(0), spec.replicas.unwrap_or(1));
        add(Workload { metadata: one.metadata, ready, wanted, images: images(spec.template.spec) });
    }
    let stateful_sets = Api::<StatefulSet>::namespaced(client.clone(), &app.namespace);
    let found = stateful_sets.list(&of(app)).await.map_err(|error| unreachable(&error))?;
    for one in found {
        let (spec, status) = (one.spec.unwrap_or_default(), one.status.unwrap_or_default());
        let (ready, wanted) = (status.ready_replicas.unwrap_or(0), spec.replicas.unwrap_or(1));
        add(Workload { metadata: one.metadata, ready, wanted, images: images(spec.template.spec) });
    }
    Ok(all.into_values().collect())
}

fn images(pod: Option<k8s_openapi::api::core::v1::PodSpec>) -> Vec<String> {
    let containers = pod.into_iter().flat_map(|pod| pod.containers);
    containers.filter_map(|container| container.image).collect()
}

fn of(app: &AppName) -> ListParams {
    ListParams::default().labels(&format!("{REF_YURT_APP_SET}={}", app.name))
}

fn is_owned(metadata: &ObjectMeta, set: &YurtAppSet) -> bool {
    let owners = metadata.owner_references.iter().flatten();
    let uid = set.meta().uid.as_deref();
    owners.into_iter().any(|owner| Some(owner.uid.as_str()) == uid)
}

fn kind(set: &YurtAppSet) -> &'static str {
    let template = &set.spec.workload.workload_template;
    if template.stateful_set_template.is_some() { "StatefulSet" } else { "Deployment" }
}

fn text(value: &Option<String>) -> String {
    value.clone().unwrap_or_else(|| "-".into())
}

fn print(value: &impl serde::Serialize, output: Output) -> Result<(), Failure> {
    let unprintable = |error: &(dyn std::error::Error + 'static)| {
        Failure::caused("internal", error, "this is a defect: please report it")
    };
    let text = match output {
        Output::Yaml => serde_yaml_ng::to_string(value).map_err(|error| unprintable(&error))?,
        Output::Table | Output::Json => {
            serde_json::to_string_pretty(value).map_err(|error| unprintable(&error))? + "\n"
        }
    };
    print!("{text}");
    Ok(())
}
