//! What the controllers keep of a pod and of a node: the difference that many more of them make to
//! the memory of all controllers together, each watching an API that serves nothing else.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests fail by panicking, and a figure is of use even when it is within the bound"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use toono_controllers::{ControllersConfig, Signers};

/// Most bytes that a pod may cost: 100,000 of them have to fit beside the store, with room to spare.
const MOST_BYTES_PER_POD: usize = 750;
/// Pods that are there anyway: what grows in steps has grown.
const FEW: usize = 1000;
/// Pods whose cost is measured.
const MORE: usize = 10_000;
/// Nodes that they run on.
const NODES: usize = 200;
/// Most bytes that a node may cost: 1,000,000 of them have to fit beside the store.
const MOST_BYTES_PER_NODE: usize = 500;
/// The same for one that is silent: not all are at once.
const MOST_BYTES_PER_SILENT_NODE: usize = 600;
/// The same for one whose memory no other has.
const MOST_BYTES_PER_OWN_MEMORY_NODE: usize = 900;
/// The same for one with a label that no other has, too.
const MOST_BYTES_PER_OWN_LABEL_NODE: usize = 1200;
/// Nodes that are there anyway, and all of them: tables are as full with both as with 1,000,000.
const FEW_NODES: usize = 1_000_000 / 512;
const MANY_NODES: usize = 1_000_000 / 64;
/// The informer and the garbage collector.
const WATCHERS: usize = 2;
/// Longer than a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(120);

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// What an allocator takes for so many bytes, roughly: sizes in steps of sixteen.
fn taken(layout: Layout) -> usize {
    layout.size().next_multiple_of(16)
}

#[expect(unsafe_code, reason = "an allocator is unsafe; this one only counts for the system's")]
// SAFETY: each call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(taken(layout), Ordering::Relaxed);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(taken(layout), Ordering::Relaxed);
        // SAFETY: as above; the pointer came from there.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Makes the object of a number.
type Make = fn(usize) -> Value;

/// So many objects of a kind.
#[derive(Clone, Copy)]
struct Objects(usize, Make);

/// An API that has pods and nodes and never changes.
struct Api {
    pods: Objects,
    nodes: Objects,
    watches_of_pods: watch::Sender<usize>,
    watches_of_nodes: watch::Sender<usize>,
}

impl Api {
    async fn answer(self: Arc<Self>, request: Request<Body>) -> Response<Body> {
        let query = request.uri().query().unwrap_or_default();
        let parameter = |name: &str| {
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
        };
        let path = request.uri().path();
        if parameter("watch") == Some("true") {
            match path {
                "/api/v1/pods" => self.watches_of_pods.send_modify(|watches| *watches += 1),
                "/api/v1/nodes" => self.watches_of_nodes.send_modify(|watches| *watches += 1),
                _ => {}
            }
            return std::future::pending().await;
        }
        if path == "/api/v1/pods" {
            // Nodes own pods, and a pod whose owner is not known yet is looked at.
            both(&self.watches_of_nodes).await;
        }
        let from: usize = parameter("continue").and_then(|from| from.parse().ok()).unwrap_or(0);
        let page = parameter("limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
        let to = from.saturating_add(page);
        let list = |Objects(count, of): Objects| {
            let next = (to < count).then(|| to.to_string());
            let items: Vec<_> = (from..to.min(count)).map(of).collect();
            json!({"apiVersion": "v1", "kind": "List", "items": items,
                "metadata": {"resourceVersion": "7", "continue": next}})
        };
        let (status, answer) = match path {
            "/api" => (200, json!({"versions": ["v1"], "serverAddressByClientCIDRs": []})),
            "/apis" => (200, json!({"apiVersion": "v1", "kind": "APIGroupList", "groups": []})),
            "/api/v1" => (200, resources()),
            "/api/v1/pods" => (200, list(self.pods)),
            "/api/v1/nodes" => (200, list(self.nodes)),
            _ if request.method() == http::Method::GET => (200, list(Objects(0, |_| Value::Null))),
            _ => (
                404,
                json!({"apiVersion": "v1", "kind": "Status", "status": "Failure",
                "reason": "NotFound", "code": 404, "message": "nothing is written here"}),
            ),
        };
        let mut response = Response::new(Body::from(serde_json::to_vec(&answer).unwrap()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    }
}

/// Waits until both the informer and the garbage collector have listed a kind.
async fn both(watches: &watch::Sender<usize>) {
    watches.subscribe().wait_for(|watches| *watches == WATCHERS).await.unwrap();
}

fn resources() -> Value {
    let verbs = ["list", "watch", "delete", "get"];
    json!({"apiVersion": "v1", "kind": "APIResourceList", "groupVersion": "v1", "resources": [
        {"name": "pods", "singularName": "pod", "kind": "Pod", "namespaced": true, "verbs": verbs},
        {"name": "nodes", "singularName": "node", "kind": "Node", "namespaced": false, "verbs": verbs}]})
}

fn node(number: usize) -> Value {
    json!({"metadata": {"name": format!("node-{number:04}"), "uid": uid("node", number)},
        "status": {"allocatable": {"cpu": "64", "memory": "256Gi", "pods": "1000"}}})
}

fn uid(kind: &str, number: usize) -> String {
    format!("00000000-0000-4000-{:04x}-{number:012x}", kind.len())
}

/// A node as those that join are, among many like it.
fn edge_node(number: usize) -> Value {
    let name = format!("edge-{number:06}");
    let condition = |type_: &str, status: &str, reason: &str| {
        json!({"type": type_, "status": status, "reason": reason,
            "message": "a sentence about how the node is",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z",
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    json!({
        "metadata": {"name": name, "uid": uid("edge", number),
            "resourceVersion": (number + 100).to_string(),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "arm64", "openyurt.io/is-edge-worker": "true",
                "apps.openyurt.io/nodepool": format!("pool-{}", number / 1000)},
            "annotations": {"toono.io/node-index": number.to_string(),
                "toono.io/session-generation": "1"}},
        "spec": {"podCIDR": format!("10.{}.{}.0/26", number / 250, number % 250)},
        "status": {
            "capacity": {"cpu": "4", "memory": "3884280Ki", "ephemeral-storage": "31147819008",
                "pods": "110"},
            "allocatable": {"cpu": "4", "memory": "3781880Ki",
                "ephemeral-storage": "28033037100", "pods": "110"},
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID"),
                condition("Ready", "True", "KubeletReady")],
            "nodeInfo": {"architecture": "arm64", "bootID": uid("boot", number),
                "machineID": uid("machine", number), "kernelVersion": "6.1.0-18-arm64"},
        },
    })
}

/// A node whose memory differs from all others'.
fn own_memory_node(number: usize) -> Value {
    let mut node = edge_node(number);
    if let Some(memory) = node.pointer_mut("/status/allocatable/memory") {
        *memory = format!("{}Ki", 3_700_000 + number).into();
    }
    node
}

/// A node that has a label of its own, too.
fn own_label_node(number: usize) -> Value {
    let mut node = own_memory_node(number);
    if let Some(labels) = node.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.insert("example.com/serial".to_owned(), format!("serial-{number:08}").into());
    }
    node
}

/// A silent node, tainted as such.
fn silent_node(number: usize) -> Value {
    let mut node = edge_node(number);
    if let Some(ready) = node.pointer_mut("/status/conditions/3/status") {
        *ready = "Unknown".into();
    }
    if let Some(spec) = node.pointer_mut("/spec").and_then(Value::as_object_mut) {
        let taint = |effect: &str| {
            json!({"key": "node.kubernetes.io/unreachable", "effect": effect,
                "timeAdded": format!("2026-01-01T00:{:02}:{:02}Z", number / 60 % 60, number % 60)})
        };
        spec.insert("taints".to_owned(), json!([taint("NoSchedule"), taint("NoExecute")]));
    }
    node
}

/// A pod that no scheduler takes.
fn waiting(number: usize) -> Value {
    json!({
        "metadata": {"name": format!("bench-{number:06}"), "namespace": "default",
            "uid": uid("pod", number), "resourceVersion": (number + 100).to_string(),
            "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "bench", "tier": "edge", "pod-template-hash": "5f6b7c8d9"},
            "annotations": {"bench.toono.io/note": "a pod among many"},
            "managedFields": [{"manager": "bench", "operation": "Update", "apiVersion": "v1",
                "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:labels": {".": {}}}}}]},
        "spec": {
            "schedulerName": "nobody", "automountServiceAccountToken": false,
            "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "priority": 0,
            "preemptionPolicy": "PreemptLowerPriority", "enableServiceLinks": true,
            "serviceAccountName": "default", "terminationGracePeriodSeconds": 30,
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists",
                    "effect": "NoExecute", "tolerationSeconds": 300},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists",
                    "effect": "NoExecute", "tolerationSeconds": 300}],
            "containers": [{
                "name": "main", "image": "registry.example/shop/till:1.24.3",
                "args": ["--listen=:8080", "--log-level=info"],
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "env": [{"name": "POOL", "value": "shop-7"}],
                "resources": {"requests": {"cpu": "50m", "memory": "64Mi"},
                    "limits": {"memory": "128Mi"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}},
            }],
        },
        "status": {"phase": "Pending", "qosClass": "Burstable"},
    })
}

/// A pod that the scheduler finds no node for.
fn homeless(number: usize) -> Value {
    let mut pod = waiting(number);
    if let Some(spec) = pod.pointer_mut("/spec").and_then(Value::as_object_mut) {
        spec.insert("nodeSelector".to_owned(), json!({"zone": "nowhere"}));
        spec.insert("schedulerName".to_owned(), "default-scheduler".into());
    }
    pod
}

/// A pod that runs, of an owner that has many.
fn running(number: usize) -> Value {
    let mut pod = waiting(number);
    let owner = number % NODES;
    let ip = format!("10.{}.{}.{}", number / 62_500, number / 250 % 250, number % 250 + 1);
    let since =
        format!("2026-01-01T{:02}:{:02}:{:02}Z", number / 3600 % 24, number / 60 % 60, number % 60);
    let condition = |type_: &str| {
        json!({"type": type_, "status": "True", "lastProbeTime": null,
        "lastTransitionTime": since})
    };
    if let Some(metadata) = pod.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        let references = json!([{"apiVersion": "v1", "kind": "Node", "controller": true,
            "name": format!("node-{owner:04}"), "uid": uid("node", owner)}]);
        metadata.insert("ownerReferences".to_owned(), references);
        let labels = json!({"app": format!("till-{owner:04}"), "tier": "edge",
            "pod-template-hash": "5f6b7c8d9"});
        metadata.insert("labels".to_owned(), labels);
    }
    if let Some(spec) = pod.pointer_mut("/spec").and_then(Value::as_object_mut) {
        spec.insert("nodeName".to_owned(), format!("node-{owner:04}").into());
        spec.insert("schedulerName".to_owned(), "default-scheduler".into());
    }
    if let Some(fields) = pod.as_object_mut() {
        fields.insert(
            "status".to_owned(),
            json!({
                "phase": "Running", "qosClass": "Burstable", "podIP": ip, "podIPs": [{"ip": ip}],
                "hostIP": "192.0.2.1", "hostIPs": [{"ip": "192.0.2.1"}], "startTime": since,
                "conditions": [condition("PodReadyToStartContainers"), condition("Initialized"),
                    condition("Ready"), condition("ContainersReady"), condition("PodScheduled")],
                "containerStatuses": [{"name": "main", "ready": true, "started": true,
                    "restartCount": 0, "image": "registry.example/shop/till:1.24.3",
                    "imageID": "registry.example/shop/till@sha256:0123456789abcdef0123456789abcdef",
                    "containerID": format!("toono://{number:064x}"),
                    "state": {"running": {"startedAt": since}}}],
            }),
        );
    }
    pod
}

/// The bytes that the controllers keep of so many objects. Each call has a runtime of its own, so that
/// nothing is left of the one before.
fn kept(pods: Objects, nodes: Objects) -> usize {
    let before = LIVE.load(Ordering::Relaxed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(live_with(pods, nodes)).saturating_sub(before)
}

/// The bytes that are in use while the controllers know so many objects.
async fn live_with(pods: Objects, nodes: Objects) -> usize {
    let api = Arc::new(Api {
        pods,
        nodes,
        watches_of_pods: watch::Sender::new(0),
        watches_of_nodes: watch::Sender::new(0),
    });
    let serving = Arc::clone(&api);
    let service = tower::service_fn(move |request: Request<Body>| {
        let api = Arc::clone(&serving);
        async move { Ok::<_, Infallible>(api.answer(request).await) }
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let controllers = tokio::spawn(toono_controllers::run(
        kube::Client::new(service, "default"),
        ControllersConfig::default(),
        Signers::default(),
        async move { drop(stopped.await) },
    ));
    tokio::time::timeout(PATIENCE, both(&api.watches_of_pods)).await.unwrap();
    let live = LIVE.load(Ordering::Relaxed);
    drop(stop);
    controllers.await.unwrap();
    live
}

/// Prints what each of so many more objects costs, and says whether that is too much.
fn is_costly(what: &str, few: usize, many: usize, more: usize, most: usize) -> bool {
    let each = many.saturating_sub(few) / more;
    eprintln!("{each} bytes of each {what}");
    each > most
}

/// One test: whatever else the process did at the same time would count.
#[test]
fn pods_and_nodes_cost_little() {
    let mut costly = Vec::new();
    let nodes = Objects(NODES, node);
    let pods: [(&str, Make); 3] =
        [("waiting pod", waiting), ("homeless pod", homeless), ("running pod", running)];
    for (what, pod) in pods {
        let few = kept(Objects(FEW, pod), nodes);
        let many = kept(Objects(FEW + MORE, pod), nodes);
        costly.extend(is_costly(what, few, many, MORE, MOST_BYTES_PER_POD).then_some(what));
    }
    let none = Objects(0, waiting);
    let nodes: [(&str, Make, usize); 4] = [
        ("node", edge_node, MOST_BYTES_PER_NODE),
        ("silent node", silent_node, MOST_BYTES_PER_SILENT_NODE),
        ("node with memory of its own", own_memory_node, MOST_BYTES_PER_OWN_MEMORY_NODE),
        ("node with a label of its own", own_label_node, MOST_BYTES_PER_OWN_LABEL_NODE),
    ];
    for (what, node, most) in nodes {
        let few = kept(none, Objects(FEW_NODES, node));
        let many = kept(none, Objects(MANY_NODES, node));
        let more = MANY_NODES - FEW_NODES;
        costly.extend(is_costly(what, few, many, more, most).then_some(what));
    }
    assert!(costly.is_empty(), "too many bytes of each {costly:?}");
}
