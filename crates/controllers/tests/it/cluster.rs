//! A cluster for one test.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use http::{Request, Response};
use jiff::Timestamp;
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Node, Pod},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    serde::{Serialize, de::DeserializeOwned},
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
    runtime::watcher,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::timeout};
use toono_api::UserInfo;
use toono_apiserver::{ApiConfig, ApiServer, LinkError, NodeLink};
use toono_controllers::{ControllersConfig, Signers};
use toono_http::Body;
use toono_openyurt::crd;
use toono_pki::{ClusterCa, TokenKey};
use toono_store::{Store, StoreConfig};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

struct NoNodes;

impl NodeLink for NoNodes {
    fn send(
        &self,
        node: &str,
        _: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, LinkError>> {
        let node = node.to_owned();
        async move { Err(LinkError::Unknown { node }) }.boxed()
    }
}

/// Names of nodes.
type Offline = Arc<Mutex<BTreeSet<String>>>;

/// Requests, each as its method and path.
type Requests = Arc<Mutex<Vec<String>>>;

/// A client whose requests are noted.
fn noted(client: Client, requests: &Requests) -> Client {
    let requests = Arc::clone(requests);
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let noted = format!("{} {}", request.method(), request.uri().path());
        requests.lock().unwrap().push(noted);
        let client = client.clone();
        async move { client.send(request).await }
    });
    Client::new(service, "default")
}

pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) ca: Arc<ClusterCa>,
    /// What the controllers ask of the API.
    requests: Requests,
    /// Nodes that do nothing with their pods now.
    offline: Offline,
    server: ApiServer,
    tasks: Vec<JoinHandle<()>>,
    _dir: TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Cluster {
    /// A cluster with these nodes, each in the pool that its name begins with.
    pub(crate) async fn start(nodes: &[&str]) -> Self {
        Self::with(ControllersConfig::default(), nodes).await
    }

    pub(crate) async fn with(config: ControllersConfig, nodes: &[&str]) -> Self {
        let ca = Arc::new(ClusterCa::generate().unwrap());
        let key = Arc::new(TokenKey::generate().unwrap());
        let signers =
            Signers { certificates: Some(Arc::clone(&ca)), tokens: Some(Arc::clone(&key)) };
        let dir = TempDir::new().unwrap();
        let (store, _) = Store::open(StoreConfig::new(dir.path().join("store"))).unwrap();
        let api = ApiConfig { token_key: Some(key), ..ApiConfig::default() };
        let server = ApiServer::start(store, api, Arc::new(NoNodes)).await.unwrap();
        let client = |name: &str| server.client(UserInfo::new(name, ["system:masters"]));
        // As the server does before its controllers start: they look for new kinds now and then only.
        install_kinds(client("system:kube-controller-manager")).await;
        let requests = Requests::default();
        let controllers = toono_controllers::run(
            noted(client("system:kube-controller-manager"), &requests),
            config,
            signers,
            std::future::pending(),
        );
        let offline = Offline::default();
        let kubelets = run_pods(client("system:node:any"), Arc::clone(&offline));
        let cluster = Self {
            client: client("kubernetes-admin"),
            ca,
            requests,
            offline,
            server: server.clone(),
            tasks: vec![tokio::spawn(controllers), tokio::spawn(kubelets)],
            _dir: dir,
        };
        for node in nodes {
            cluster.add_node(node).await;
        }
        cluster
    }

    /// The client of a user in these groups.
    pub(crate) fn client_of(&self, user: &str, groups: &[&str]) -> Client {
        self.server.client(UserInfo::new(user, groups.iter().copied()))
    }

    /// What the controllers asked of the API about one node.
    pub(crate) fn requests_of_node(&self, name: &str) -> Vec<String> {
        let path = format!(" /api/v1/nodes/{name}");
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|request| request.ends_with(&path)).cloned().collect()
    }

    /// What the controllers wrote below a path, so far.
    pub(crate) fn writes_below(&self, path: &str) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        let written = requests.iter().filter(|it| !it.starts_with("GET ") && it.contains(path));
        written.cloned().collect()
    }

    pub(crate) fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(crate) async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api().create(&PostParams::default(), &object).await.unwrap()
    }

    pub(crate) async fn patch<K>(&self, name: &str, patch: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + Debug,
    {
        self.api().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap()
    }

    pub(crate) async fn add_node(&self, name: &str) {
        let pool = &name[..1];
        let node = json!({
            "metadata": {"name": name, "labels": {
                "kubernetes.io/hostname": name, "apps.openyurt.io/nodepool": pool}},
        });
        self.nodes()
            .create(&PostParams::default(), &serde_json::from_value(node).unwrap())
            .await
            .unwrap();
        let status = json!({"status": {
            "allocatable": {"cpu": "8", "memory": "16Gi", "pods": "110"},
            "capacity": {"cpu": "8", "memory": "16Gi", "pods": "110"},
        }});
        self.nodes()
            .patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
            .await
            .unwrap();
        self.set_ready(name, "True").await;
    }

    /// A node whose link is cut: it is called not ready, and does nothing that is asked of it.
    pub(crate) async fn go_offline(&self, node: &str) {
        self.offline.lock().unwrap().insert(node.to_owned());
        self.set_ready(node, "Unknown").await;
    }

    /// Its link is back, and it does what was asked meanwhile.
    pub(crate) async fn come_back(&self, node: &str) {
        self.offline.lock().unwrap().remove(node);
        self.set_ready(node, "True").await;
        let mine = ListParams::default().fields(&format!("spec.nodeName={node}"));
        for pod in Api::<Pod>::all(self.client.clone()).list(&mine).await.unwrap() {
            run_pod(&self.client, pod, true).await;
        }
    }

    pub(crate) async fn set_ready(&self, node: &str, ready: &str) {
        let status = json!({"status": {"conditions": [
            {"type": "Ready", "status": ready, "reason": "Test", "lastTransitionTime": Timestamp::now()}]}});
        self.nodes()
            .patch_status(node, &PatchParams::default(), &Patch::Merge(&status))
            .await
            .unwrap();
    }
}

/// Defines OpenYurt's kinds.
async fn install_kinds(client: Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client);
    for crd in crd::ALL {
        let definition = serde_yaml_ng::from_str(crd.yaml).unwrap();
        api.create(&PostParams::default(), &definition).await.unwrap();
    }
    wait_for(api, "the kinds", |all| {
        all.iter().all(|one| {
            let conditions =
                one.status.iter().flat_map(|status| status.conditions.iter().flatten());
            let mut established = conditions.filter(|it| it.type_ == "Established");
            established.any(|it| it.status == "True")
        })
    })
    .await;
}

/// Waits until all objects of a kind together satisfy `test`; returns them.
pub(crate) async fn wait_for<K>(api: Api<K>, what: &str, test: impl Fn(&[K]) -> bool) -> Vec<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut known: BTreeMap<String, K> = BTreeMap::new();
    let mut listed = false;
    let found = async {
        let mut stream = pin!(watcher::watcher(api, watcher::Config::default()));
        while let Some(event) = stream.next().await {
            let name = |object: &K| object.meta().name.clone().unwrap();
            match event {
                Ok(watcher::Event::Init) => known.clear(),
                Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                    known.insert(name(&object), object);
                }
                Ok(watcher::Event::Delete(object)) => drop(known.remove(&name(&object))),
                Ok(watcher::Event::InitDone) => listed = true,
                Err(error) => panic!("{what}: {error}"),
            }
            if listed && test(&known.values().cloned().collect::<Vec<_>>()) {
                return;
            }
        }
    };
    if timeout(PATIENCE, found).await.is_err() {
        panic!("in vain waited for {what}; there is {known:#?}");
    }
    known.into_values().collect()
}

/// What nodes do: bound pods run and are ready, those that shall end are gone.
async fn run_pods(client: Client, offline: Offline) {
    let mut stream =
        pin!(watcher::watcher(Api::<Pod>::all(client.clone()), watcher::Config::default()));
    while let Some(event) = stream.next().await {
        let Ok(watcher::Event::InitApply(pod) | watcher::Event::Apply(pod)) = event else {
            continue;
        };
        let node = pod.spec.as_ref().unwrap().node_name.clone();
        if node.is_some_and(|node| !offline.lock().unwrap().contains(&node)) {
            run_pod(&client, pod, false).await;
        }
    }
}

/// What the node of a pod does with it. `anew`: what runs is told again.
async fn run_pod(client: &Client, pod: Pod, anew: bool) {
    let name = pod.metadata.name.clone().unwrap();
    let api: Api<Pod> = Api::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap());
    let spec = pod.spec.clone().unwrap();
    // An image of this name never starts.
    let starts =
        spec.containers.iter().all(|container| container.image.as_deref() != Some("broken"));
    if pod.metadata.deletion_timestamp.is_some() {
        let this = Preconditions { uid: pod.metadata.uid, resource_version: None };
        let _ =
            api.delete(&name, &DeleteParams::default().grace_period(0).preconditions(this)).await;
    } else if starts
        && pod.status.is_none_or(|status| match status.phase.as_deref() {
            None | Some("Pending") => true,
            phase => anew && phase == Some("Running"),
        })
    {
        let now = Timestamp::now();
        let containers: Vec<_> = spec
            .containers
            .iter()
            .map(|container| {
                json!({"name": container.name, "image": container.image, "imageID": "",
                "ready": true, "restartCount": 0, "state": {"running": {"startedAt": now}}})
            })
            .collect();
        let status = json!({"status": {"phase": "Running", "containerStatuses": containers, "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": now},
            {"type": "Ready", "status": "True", "lastTransitionTime": now}]}});
        // It may be gone by now.
        let _ = api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&status)).await;
    }
}
