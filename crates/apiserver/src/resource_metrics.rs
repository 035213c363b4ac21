//! `metrics.k8s.io/v1beta1`: what nodes and pods use now, for `kubectl top` and for who scales by it.
//!
//! Nothing is gathered beforehand: who asks has the nodes asked that his answer needs, through the link that each
//! of them opened, some at once, each for a short time. A node that does not answer in time is left out, as is a
//! pod that has just started.
//!
//! <https://kubernetes.io/docs/tasks/debug/debug-cluster/resource-metrics-pipeline/>

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{
    FutureExt, StreamExt,
    future::{self, BoxFuture},
    stream,
};
use http::{Method, Response};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use toono_api::{
    ApiError, BuiltIn, GroupResource, LabelSelector, kinds,
    meta::{at, items_at, text_at},
};
use toono_http::Body;
use toono_mvcc::{Owner, Prefix};
use toono_wire::usage::{self, NodeUsage, PodUsage, Usage};

use crate::{
    encode,
    query::Query,
    remote::{NodeLink, node_request},
    respond,
    server::{ApiServer, expired},
};

/// The API's group.
pub(crate) const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";
/// Nodes that one question may be about: each costs a dial-back where it has no connection open, and who wants to
/// see more than this at once reads no table.
const MAX_NODES: usize = 500;
/// Nodes that are asked at once for one question.
const CONCURRENT: usize = 64;
/// A node's answer is waited for so long, its dial-back included.
const NODE_TIMEOUT: Duration = Duration::from_secs(4);
/// What a node may say: a hundred pods are some 20 KB.
const MAX_ANSWER: usize = 1 << 20;

/// What each node says that answers.
type Answers = BoxFuture<'static, BTreeMap<String, NodeUsage>>;

/// What a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked<'p> {
    pods: bool,
    /// Empty for all.
    namespace: &'p str,
    /// Empty for a list.
    name: &'p str,
}

impl<'p> Asked<'p> {
    fn parse(path: &'p str) -> Option<Self> {
        let rest = path.strip_prefix("/apis/metrics.k8s.io/v1beta1/")?;
        let segments: Vec<&str> = rest.split('/').collect();
        let (pods, namespace, name) = match *segments.as_slice() {
            ["nodes"] => (false, "", ""),
            ["nodes", name] => (false, "", name),
            ["pods"] => (true, "", ""),
            ["namespaces", namespace, "pods"] => (true, namespace, ""),
            ["namespaces", namespace, "pods", name] => (true, namespace, name),
            _ => return None,
        };
        Some(Self { pods, namespace, name })
    }
}

/// Whether [`answer`] answers this path.
pub(crate) fn handles(path: &str) -> bool {
    Asked::parse(path).is_some()
}

/// What discovery says of this API at a path; none for the paths of others.
pub(crate) fn discovery(segments: &[&str]) -> Option<Value> {
    let version = || json!({"groupVersion": format!("{GROUP}/{VERSION}"), "version": VERSION});
    let resource = |name: &str, namespaced: bool, kind: &str| {
        json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind,
            "verbs": ["get", "list"]})
    };
    match *segments {
        ["apis", GROUP] => Some(json!({"kind": "APIGroup", "apiVersion": "v1", "name": GROUP,
            "versions": [version()], "preferredVersion": version()})),
        ["apis", GROUP, VERSION] => Some(json!({"kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": format!("{GROUP}/{VERSION}"), "resources": [
                resource("nodes", false, "NodeMetrics"), resource("pods", true, "PodMetrics")]})),
        _ => None,
    }
}

/// The same for aggregated discovery.
pub(crate) fn aggregated() -> Value {
    let resource = |name: &str, scope: &str, kind: &str| {
        json!({"resource": name, "scope": scope, "singularResource": "", "verbs": ["get", "list"],
            "responseKind": {"group": GROUP, "version": VERSION, "kind": kind}})
    };
    json!({"metadata": {"name": GROUP}, "versions": [{"version": VERSION, "freshness": "Current",
        "resources": [resource("nodes", "Cluster", "NodeMetrics"),
            resource("pods", "Namespaced", "PodMetrics")]}]})
}

/// Answers a request for which [`handles`] is true, of a user who may make it.
///
/// # Errors
/// What does not exist, or more than may be asked for at once.
pub(crate) async fn answer(
    server: &ApiServer,
    method: &Method,
    path: &str,
    query: &Query,
    owner: Option<Owner>,
) -> Result<Response<Body>, ApiError> {
    let asked = Asked::parse(path).ok_or(ApiError::UnknownPath)?;
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(ApiError::MethodNotAllowed);
    }
    let objects = objects(server, asked, query, owner.as_ref())?;
    let items = if asked.pods {
        of_pods(server, objects).await?
    } else {
        of_nodes(server, objects).await?
    };
    let kind = if asked.pods { "PodMetrics" } else { "NodeMetrics" };
    let api_version = format!("{GROUP}/{VERSION}");
    if asked.name.is_empty() {
        let list = json!({"kind": format!("{kind}List"), "apiVersion": api_version,
            "metadata": {}, "items": items});
        return Ok(respond::value(&list));
    }
    let resource = if asked.pods { "pods" } else { "nodes" };
    let resource = GroupResource { group: GROUP.to_owned(), resource: resource.to_owned() };
    let missing = ApiError::NotFound { resource, name: asked.name.to_owned() };
    let mut one = items.into_iter().next().ok_or(missing)?;
    encode::set(&mut one, "kind", kind);
    encode::set(&mut one, "apiVersion", api_version);
    Ok(respond::value(&one))
}

/// The Nodes or Pods that are asked about.
fn objects(
    server: &ApiServer,
    asked: Asked<'_>,
    query: &Query,
    owner: Option<&Owner>,
) -> Result<Vec<Value>, ApiError> {
    let row: &'static BuiltIn = if asked.pods { &kinds::pod::POD } else { &kinds::core::NODE };
    let resource = server.built_in(row);
    let is_owned = |it: &Owner| owner.is_none_or(|owner| owner == it);
    if !asked.name.is_empty() {
        let entry = server.existing(&resource, asked.namespace, asked.name)?;
        let found = is_owned(&entry.owner).then(|| encode::decode(&resource, &entry));
        return found.into_iter().collect();
    }
    let selector = LabelSelector::parse(query.text("labelSelector").unwrap_or_default());
    let selector = selector.map_err(|error| ApiError::BadRequest(error.to_string()))?;
    let (group, plural) = (&resource.stored_group, &resource.stored_plural);
    let prefix = match asked.namespace {
        "" => Prefix::resource(group, plural),
        namespace => Prefix::namespace(group, plural, namespace),
    };
    let page = server.inner.store.list(&prefix, server.revision(), None, usize::MAX);
    let entries = page.map_err(expired)?.entries;
    let mut objects = Vec::new();
    for entry in entries.iter().filter(|entry| is_owned(&entry.owner)) {
        let object = encode::decode(&resource, entry)?;
        if selector.matches(|label| text_at(&object, &["metadata", "labels", label])) {
            objects.push(object);
        }
    }
    Ok(objects)
}

async fn of_nodes(server: &ApiServer, nodes: Vec<Value>) -> Result<Vec<Value>, ApiError> {
    let ready: Vec<String> = nodes.iter().filter(|node| is_ready(node)).map(name).collect();
    let told = ask(server, ready)?.await;
    let metrics = |node: &Value| {
        let used = told.get(&name(node))?;
        let (window, usage) = shown(&used.node)?;
        let mut metrics = frame(node, &window);
        encode::set(&mut metrics, "usage", usage);
        Some(metrics)
    };
    Ok(nodes.iter().filter_map(metrics).collect())
}

async fn of_pods(server: &ApiServer, pods: Vec<Value>) -> Result<Vec<Value>, ApiError> {
    let running = |pod: &&Value| text_at(pod, &["status", "phase"]) == Some("Running");
    let node = |pod: &Value| text_at(pod, &["spec", "nodeName"]).map(str::to_owned);
    let mut nodes: Vec<String> = pods.iter().filter(running).filter_map(node).collect();
    nodes.sort();
    nodes.dedup();
    let told = ask(server, nodes)?.await;
    let metrics = |pod: &Value| {
        let used = told.get(&node(pod)?)?;
        let namespace = text_at(pod, &["metadata", "namespace"]);
        let is_it =
            |it: &&PodUsage| it.name == name(pod) && Some(it.namespace.as_str()) == namespace;
        of_pod(pod, used.pods.iter().find(is_it)?)
    };
    Ok(pods.iter().filter(running).filter_map(metrics).collect())
}

/// None for one of whose containers nothing is known yet.
fn of_pod(pod: &Value, used: &PodUsage) -> Option<Value> {
    let mut window = String::new();
    let containers = used.containers.iter().filter_map(|(name, usage)| {
        let (over, usage) = shown(usage)?;
        window = over;
        Some(json!({"name": name, "usage": usage}))
    });
    let containers: Vec<Value> = containers.collect();
    if containers.is_empty() {
        return None;
    }
    let mut metrics = frame(pod, &window);
    encode::set(&mut metrics, "containers", containers);
    Some(metrics)
}

/// The window and the quantities, as a metrics-server writes them.
fn shown(usage: &Usage) -> Option<(String, Value)> {
    let nano_cores = usage.nano_cores?;
    let window = format!("{}.{:03}s", usage.window_ms / 1000, usage.window_ms % 1000);
    let usage = json!({"cpu": format!("{nano_cores}n"), "memory": format!("{}Ki", usage.memory_bytes / 1024)});
    Some((window, usage))
}

/// What metrics of nodes and of pods have in common.
fn frame(object: &Value, window: &str) -> Value {
    let now = Timestamp::now();
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
    let mut meta = json!({"name": name(object), "creationTimestamp": now});
    for field in ["namespace", "labels"] {
        if let Some(value) = at(object, &["metadata", field]).filter(|it| !it.is_null()) {
            encode::set(&mut meta, field, value.clone());
        }
    }
    json!({"metadata": meta, "timestamp": now, "window": window})
}

fn name(object: &Value) -> String {
    text_at(object, &["metadata", "name"]).unwrap_or_default().to_owned()
}

fn is_ready(node: &Value) -> bool {
    items_at(node, &["status", "conditions"]).any(|condition| {
        text_at(condition, &["type"]) == Some("Ready")
            && text_at(condition, &["status"]) == Some("True")
    })
}

/// Asks these nodes; those that do not answer in time are missing.
fn ask(server: &ApiServer, nodes: Vec<String>) -> Result<Answers, ApiError> {
    if nodes.len() > MAX_NODES {
        return Err(ApiError::BadRequest(format!(
            "metrics of {} nodes are asked for, and at most {MAX_NODES} are told at once: select fewer by labels, by namespace or by name",
            nodes.len()
        )));
    }
    let link = server.inner.remote.link.clone();
    let answers = stream::iter(nodes).map(move |node| ask_one(link.clone(), node).boxed());
    Ok(answers.buffer_unordered(CONCURRENT).filter_map(future::ready).collect().boxed())
}

async fn ask_one(link: Arc<dyn NodeLink>, node: String) -> Option<(String, NodeUsage)> {
    let request = node_request(Method::GET, &node, usage::PATH, toono_http::empty()).ok()?;
    let answer = async {
        let sent = link.send(&node, request).await;
        let response =
            sent.inspect_err(|error| tracing::debug!(node, %error, "no metrics")).ok()?;
        if !response.status().is_success() {
            return None;
        }
        serde_json::from_slice(&read(response.into_body()).await?).ok()
    };
    let told = tokio::time::timeout(NODE_TIMEOUT, answer).await.ok().flatten()?;
    Some((node, told))
}

/// A whole answer; none for one that breaks off, or is longer than any may be.
async fn read(mut body: Body) -> Option<Vec<u8>> {
    let mut read = Vec::new();
    while let Some(part) = body.frame().await {
        let Ok(data) = part.ok()?.into_data() else { continue };
        read.extend_from_slice(&data);
        if read.len() > MAX_ANSWER {
            return None;
        }
    }
    Some(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_metrics_api() {
        let asked =
            |path: &'static str| Asked::parse(path).map(|it| (it.pods, it.namespace, it.name));
        let base = "/apis/metrics.k8s.io/v1beta1";
        assert!(!handles(base));
        assert_eq!(asked("/apis/metrics.k8s.io/v1beta1/nodes"), Some((false, "", "")));
        assert_eq!(asked("/apis/metrics.k8s.io/v1beta1/nodes/n"), Some((false, "", "n")));
        assert_eq!(asked("/apis/metrics.k8s.io/v1beta1/pods"), Some((true, "", "")));
        assert_eq!(
            asked("/apis/metrics.k8s.io/v1beta1/namespaces/d/pods/p"),
            Some((true, "d", "p"))
        );
        assert_eq!(asked("/apis/metrics.k8s.io/v1beta1/namespaces/d"), None);
    }

    #[test]
    fn metrics_look_as_a_metrics_server_writes_them() {
        let pod = json!({"metadata": {"name": "p", "namespace": "d", "labels": {"a": "b"}}});
        let usage = Usage { nano_cores: Some(1_234_567), window_ms: 15_020, memory_bytes: 5 << 20 };
        let idle = Usage { nano_cores: None, ..Usage::default() };
        let used = |usage| PodUsage {
            namespace: "d".to_owned(),
            name: "p".to_owned(),
            containers: vec![("main".to_owned(), usage)],
        };
        let told = of_pod(&pod, &used(usage)).unwrap();
        assert_eq!(told["metadata"]["labels"]["a"], "b");
        assert_eq!(told["window"], "15.020s");
        let expected = json!([{"name": "main", "usage": {"cpu": "1234567n", "memory": "5120Ki"}}]);
        assert_eq!(told["containers"], expected);
        assert_eq!(of_pod(&pod, &used(idle)), None);
    }
}
