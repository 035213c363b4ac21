//! Nodes without a session, as a stock kubelet's: ready as their kubelet says, for as long as their Leases
//! or their status say that it lives.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, NodeCondition},
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::task::JoinHandle;
use toono_linear::etcd_server::EtcdServer;

use crate::server::{Server, answers};

const GRACE: Duration = Duration::from_secs(20);
const ARGUMENTS: [&str; 4] =
    ["--node-monitor-grace-period", "20s", "--pool-monitor-grace-period", "far=5m"];
/// How often a kubelet of this test says that it lives.
const RENEWAL: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(60);

struct Kubelet {
    name: &'static str,
    nodes: Api<Node>,
    leases: Api<Lease>,
}

impl Kubelet {
    /// Registers its Node in a pool, ready.
    async fn register(client: &Client, name: &'static str, pool: &str) -> Self {
        let leases = Api::namespaced(client.clone(), "kube-node-lease");
        let kubelet = Self { name, nodes: Api::all(client.clone()), leases };
        let node =
            json!({"metadata": {"name": name, "labels": {"apps.openyurt.io/nodepool": pool}}});
        let node = serde_json::from_value(node).unwrap();
        kubelet.nodes.create(&PostParams::default(), &node).await.unwrap();
        kubelet.report().await.unwrap();
        let lease = json!({"metadata": {"name": name}, "spec": {"holderIdentity": name,
            "leaseDurationSeconds": 40, "renewTime": MicroTime(Timestamp::now())}});
        let lease = serde_json::from_value(lease).unwrap();
        kubelet.leases.create(&as_kubelet(), &lease).await.unwrap();
        kubelet
    }

    async fn report(&self) -> Result<Node, kube::Error> {
        let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True",
            "reason": "KubeletReady", "message": "kubelet is posting ready status",
            "lastHeartbeatTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}]}});
        self.nodes
            .patch_status(self.name, &PatchParams::default(), &Patch::Strategic(&status))
            .await
    }

    async fn renew(&self) -> Result<Lease, kube::Error> {
        let mut lease = self.leases.get(self.name).await?;
        if let Some(spec) = &mut lease.spec {
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        self.leases.replace(self.name, &as_kubelet(), &lease).await
    }

    /// Lives by its Lease alone, whatever the server does.
    fn live(self) -> JoinHandle<()> {
        tokio::spawn(async move {
            loop {
                let _ = self.renew().await;
                tokio::time::sleep(RENEWAL).await;
            }
        })
    }
}

/// A kubelet says who it is in its `User-Agent`; this client has none.
fn as_kubelet() -> PostParams {
    PostParams { field_manager: Some("kubelet".to_owned()), ..PostParams::default() }
}

fn condition(node: &Node, kind: &str) -> Option<NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind).cloned()
}

/// Waits until a Node says this of its readiness.
async fn until_ready(nodes: &Api<Node>, name: &str, status: &str) -> NodeCondition {
    let start = Instant::now();
    loop {
        let node = nodes.get(name).await.unwrap();
        if let Some(ready) = condition(&node, "Ready").filter(|ready| ready.status == status) {
            return ready;
        }
        assert!(start.elapsed() < PATIENCE, "{name} does not become {status}");
        tokio::time::sleep(RETRY).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_kubelet_that_says_nothing_is_silent_and_a_restart_blames_nobody() {
    let mut server = Server::start(&ARGUMENTS, None);
    let client = server.ready().await;
    let dies = Kubelet::register(&client, "dies", "near").await;
    let _far = Kubelet::register(&client, "far", "far").await;
    let lives = Kubelet::register(&client, "lives", "near").await;
    let (nodes, began) = (lives.nodes.clone(), Timestamp::now());
    let living = lives.live();
    let before = until_ready(&nodes, "lives", "True").await;

    // Most of its grace is over when the server is killed; it has it anew.
    tokio::time::sleep(GRACE * 3 / 4).await;
    assert_eq!(until_ready(&nodes, "dies", "True").await.reason.as_deref(), Some("KubeletReady"));
    server.restart();
    answers(&client).await;
    let restarted = Instant::now();
    let unknown = until_ready(&nodes, "dies", "Unknown").await;
    let found = restarted.elapsed();
    assert!(found >= GRACE - Duration::from_secs(1) && found < GRACE * 3 / 2, "{found:?}");
    assert_eq!(unknown.reason.as_deref(), Some("NodeStatusUnknown"));
    assert_eq!(unknown.message.as_deref(), Some("Kubelet stopped posting node status."));
    let pressure = condition(&nodes.get("dies").await.unwrap(), "MemoryPressure").unwrap();
    assert_eq!(pressure.reason.as_deref(), Some("NodeStatusNeverUpdated"));

    // Who lives by its Lease alone was ready all the while, and its Node shows that it was heard.
    let after = until_ready(&nodes, "lives", "True").await;
    assert_eq!(after.last_transition_time, before.last_transition_time);
    let heard = after.last_heartbeat_time.unwrap().0;
    assert!(heard.duration_since(began).as_secs() >= 30, "{heard} after {began}");
    until_ready(&nodes, "far", "True").await;

    // A kubelet says itself that it is back, and is believed.
    dies.report().await.unwrap();
    dies.renew().await.unwrap();
    until_ready(&nodes, "dies", "True").await;
    let back = Instant::now();
    until_ready(&nodes, "dies", "Unknown").await;
    assert!(back.elapsed() >= GRACE - Duration::from_secs(2), "{:?}", back.elapsed());
    living.abort();
}

/// The version and the renewal of a Lease as a server shows it.
async fn shown(leases: &Api<Lease>, name: &str) -> (Option<String>, Timestamp) {
    let lease = leases.get(name).await.unwrap();
    let renewed = lease.spec.and_then(|spec| spec.renew_time).unwrap();
    (lease.metadata.resource_version, renewed.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_another_server_hears_is_not_silent() {
    let etcd = EtcdServer::start();
    let store = format!("etcd={}", etcd.url());
    let arguments = ["--store", &store, "--token", "a secret that nobody guesses"];
    let arguments = [&arguments[..], &ARGUMENTS[..2]].concat();
    let hears = Server::start(&arguments, None);
    let client = hears.ready().await;
    let hears_nothing = Server::start(&arguments, None);
    let other = hears_nothing.ready().await;
    let kubelet = Kubelet::register(&client, "lives", "near").await;
    let nodes = kubelet.nodes.clone();
    let before = until_ready(&nodes, "lives", "True").await;
    let _living = kubelet.live();

    // Renewals reach the other server when they are written, which is seldom; before it calls a node silent
    // it waits for that, too.
    let leases: Api<Lease> = Api::namespaced(other, "kube-node-lease");
    let (mut version, mut written, start) = (None, 0, Instant::now());
    while written < 4 {
        let (now, renewed) = shown(&leases, "lives").await;
        let late = Timestamp::now().duration_since(renewed);
        assert!(late.as_secs() < 30, "{late:?}");
        written += i32::from(version.replace(now.clone()) != Some(now));
        assert!(start.elapsed() < 2 * PATIENCE, "it is not written");
        tokio::time::sleep(RETRY).await;
    }
    assert!(start.elapsed() > 2 * GRACE, "it was written often: {:?}", start.elapsed());
    let after = until_ready(&nodes, "lives", "True").await;
    assert_eq!(after.last_transition_time, before.last_transition_time);
}
