//! Waiting until what was started works; a process that ended meanwhile is told with its last words.

use std::{
    fs,
    time::{Duration, Instant},
};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Node};
use kube::{Api, Client, api::ListParams};
use toono_lab::Daemon;

use crate::{
    cloud::{
        kubeconfig::{self, unreachable},
        up::{application, plan::Plan, processes::daemon_failure},
    },
    failure::Failure,
};

/// A server starts within a second; a busy machine may need more.
const SERVER_LIMIT: Duration = Duration::from_secs(30);
/// Joining takes a second, and the heartbeat's interval where a node was known before.
const NODES_LIMIT: Duration = Duration::from_secs(60);
/// Pulling the image and starting the pods.
const APPLICATION_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Until the server answers that it is ready.
pub(crate) async fn server(plan: &Plan) -> Result<(), Failure> {
    let daemons = [plan.server()];
    until("the server to answer", SERVER_LIMIT, &daemons, async || {
        let Ok(client) = kubeconfig::client_from(&plan.kubeconfig()).await else { return false };
        let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
        client.request_text(request).await.is_ok()
    })
    .await
}

/// Until every node of the plan is Ready.
pub(crate) async fn nodes(plan: &Plan, client: &Client) -> Result<(), Failure> {
    let daemons: Vec<Daemon> = plan.nodes().map(|node| plan.node(&node.name)).collect();
    let api = Api::<Node>::all(client.clone());
    until("every node to be Ready", NODES_LIMIT, &daemons, async || {
        let Ok(nodes) = api.list(&ListParams::default()).await else { return false };
        plan.nodes().all(|planned| {
            nodes
                .items
                .iter()
                .any(|node| node.metadata.name.as_ref() == Some(&planned.name) && is_ready(node))
        })
    })
    .await
}

fn is_ready(node: &Node) -> bool {
    node.status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Until as many pods of the application are available as it wants.
pub(crate) async fn application(plan: &Plan, client: &Client) -> Result<(), Failure> {
    let daemons = [plan.server(), plan.registry()];
    let api = Api::<Deployment>::default_namespaced(client.clone());
    until("the application to run", APPLICATION_LIMIT, &daemons, async || {
        let Ok(deployment) = api.get(application::NAME).await else { return false };
        let wanted = deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1);
        deployment.status.is_some_and(|status| {
            status.observed_generation == deployment.metadata.generation
                && status.available_replicas.unwrap_or(0) >= wanted
                && status.updated_replicas.unwrap_or(0) >= wanted
        })
    })
    .await
    .map_err(|failure| {
        failure.with_hint(format!(
            "KUBECONFIG={} kubectl describe pods tells why",
            plan.kubeconfig().display()
        ))
    })
}

async fn until(
    what: &str,
    limit: Duration,
    daemons: &[Daemon],
    mut reached: impl AsyncFnMut() -> bool,
) -> Result<(), Failure> {
    let start = Instant::now();
    while !reached().await {
        for daemon in daemons {
            if daemon.running().map_err(daemon_failure)?.is_none() {
                return Err(last_words(daemon));
            }
        }
        if start.elapsed() > limit {
            let logs: Vec<String> =
                daemons.iter().map(|d| d.log_path().display().to_string()).collect();
            return Err(Failure::new(
                "lab-failed",
                format!("waited {} s in vain for {what}", limit.as_secs()),
                format!("see {}", logs.join(", ")),
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

fn last_words(daemon: &Daemon) -> Failure {
    let log = fs::read_to_string(daemon.log_path()).unwrap_or_default();
    let error = log.lines().rev().find(|line| line.starts_with("error["));
    let said = error.or_else(|| log.lines().next_back()).unwrap_or("nothing");
    Failure::new(
        "lab-failed",
        format!("{} ended; its last words: {said}", daemon.name()),
        format!("see {}", daemon.log_path().display()),
    )
}

/// Says what to do when the API does not answer while the edge is shown.
pub(crate) async fn pods(client: &Client) -> Result<Vec<k8s_openapi::api::core::v1::Pod>, Failure> {
    Api::default_namespaced(client.clone())
        .list(&ListParams::default().labels(application::SELECTOR))
        .await
        .map(|list| list.items)
        .map_err(|error| unreachable(&error))
}
