//! The nodes and pods of the benchmark. Each is a function of its number, so that the check can
//! ask again.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use toono_openyurt::keys::NODE_POOL as POOL;
use toono_placement::{Image, NodeView, Offer, PodView};

use super::PlaceError;

pub(super) const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";
const ARCH: &str = "kubernetes.io/arch";

const BASE: &str = "registry.example/base:1";
const APP: &str = "registry.example/app:1";

/// Pods that ask for nothing special and belong to nobody; of a ReplicaSet; with a node selector;
/// with required and preferred node affinity; with constraints on how they spread.
pub(super) const KINDS: [&str; 5] = ["bare", "owned", "selector", "affinity", "spread"];

const ZONES: usize = 8;
/// One node in so many is cordoned, and one in so many is tainted.
const CORDONED: usize = 97;
const TAINTED: usize = 31;
/// What nodes offer: cores, and GiB.
const SIZES: [(i64, i64); 4] = [(4, 8), (8, 16), (8, 32), (16, 64)];
/// What pods ask for: thousandths of a core, and MiB.
const ASKED: [(i64, i64); 6] =
    [(100, 128), (250, 256), (500, 512), (500, 2048), (1000, 1024), (2000, 4096)];

pub(super) struct Scene {
    pub(super) pools: usize,
    /// All pods are of this kind.
    kind: Option<String>,
    /// What nodes of even and of odd numbers have.
    images: [Arc<[Image]>; 2],
    offers: Vec<Arc<Offer>>,
}

impl Scene {
    pub(super) fn new(nodes: usize, pools: usize, kind: Option<String>, images: bool) -> Self {
        let offers = SIZES.iter().map(|(cores, memory)| {
            let mut offer = Offer { pods: 110, ..Offer::default() };
            offer.resources.cpu_milli = cores * 1_000;
            offer.resources.memory_bytes = memory << 30;
            Arc::new(offer)
        });
        let (base, app) = ([BASE.to_owned()], [APP.to_owned()]);
        let all = [(&base[..], 300 << 20), (&app[..], 600 << 20)];
        let images = [1, 2].map(|count| all.into_iter().take(if images { count } else { 0 }));
        let images = images.map(|some| Image::reported(some).into());
        Self { pools: pools.clamp(1, nodes.max(1)), kind, images, offers: offers.collect() }
    }

    pub(super) fn node(&self, number: usize) -> NodeView {
        let name = format!("node-{number:07}");
        let pool = number % self.pools;
        let [few, more] = &self.images;
        let images = Arc::clone(if number.is_multiple_of(2) { few } else { more });
        let mut view = NodeView { offer: self.offer(number), images, ..NodeView::default() };
        let labels = [
            (HOST, name.clone()),
            (ZONE, zone(pool)),
            (POOL, pool_name(pool)),
            (ARCH, if pool.is_multiple_of(3) { "arm64" } else { "amd64" }.to_owned()),
        ];
        view.labels = labels.map(|(key, value)| (key.to_owned(), value)).into_iter().collect();
        view.name = name.into();
        view.unschedulable = number.is_multiple_of(CORDONED);
        if number.is_multiple_of(TAINTED) {
            view.taints.push(toono_placement::Taint {
                key: "example.com/reserved".into(),
                value: "".into(),
                effect: toono_placement::Effect::NoSchedule,
            });
        }
        view
    }

    /// What a node offers: each pool has nodes of two sizes.
    fn offer(&self, number: usize) -> Arc<Offer> {
        let pool = number % self.pools;
        let size = pool + (number / self.pools) % 2;
        self.offers.get(size % self.offers.len()).map(Arc::clone).unwrap_or_default()
    }

    pub(super) fn number_of(node: &str) -> Result<usize, PlaceError> {
        let number = node.strip_prefix("node-").and_then(|number| number.parse().ok());
        number.ok_or_else(|| PlaceError::Wrong(format!("there is no node {node}")))
    }
}

fn zone(pool: usize) -> String {
    format!("zone-{}", pool % ZONES)
}

fn pool_name(pool: usize) -> String {
    format!("pool-{pool}")
}

/// What is rolled out: pods that are alike.
pub(super) struct Workload {
    kind: &'static str,
    template: PodView,
}

impl Workload {
    pub(super) fn new(number: usize, scene: &Scene) -> Self {
        let turn = KINDS.get(number % KINDS.len()).copied();
        let only = KINDS.into_iter().find(|kind| scene.kind.as_deref() == Some(kind));
        let kind = only.or(turn).unwrap_or("bare");
        let (cpu, memory) = ASKED.get(number % ASKED.len()).copied().unwrap_or((100, 128));
        let app = format!("app-{number}");
        let owners = match kind {
            "bare" => json!([]),
            _ => json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": app, "uid": app,
                "controller": true}]),
        };
        let metadata =
            json!({"namespace": "default", "labels": {"app": app}, "ownerReferences": owners});
        let only = |of: &str, value: Value| if kind == of { value } else { Value::Null };
        let spec = json!({
            "containers": [{"name": "c", "image": APP, "resources": {"requests": {
                "cpu": format!("{cpu}m"), "memory": format!("{memory}Mi")}}}],
            "nodeSelector": only("selector", json!({POOL: pool_name(number * 7 % scene.pools)})),
            "affinity": only("affinity", affinity(number)),
            "topologySpreadConstraints": only("spread", spread(&app)),
        });
        let pod = serde_json::from_value(json!({"metadata": metadata, "spec": spec}));
        Self { kind, template: PodView::from_pod(&pod.unwrap_or_default()) }
    }

    pub(super) fn template(&self) -> &PodView {
        &self.template
    }

    /// A pod of this number, and its kind.
    pub(super) fn pod(&self, number: usize) -> (&'static str, PodView) {
        let mut pod = self.template.clone();
        pod.key.name = format!("pod-{number}").into();
        (self.kind, pod)
    }
}

fn affinity(number: usize) -> Value {
    json!({"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": ZONE, "operator": "In",
                "values": [zone(number), zone(number + 1)]}]}]},
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 50, "preference":
            {"matchExpressions": [{"key": ARCH, "operator": "In", "values": ["arm64"]}]}}],
    }})
}

fn spread(app: &str) -> Value {
    let over = |key: &str, when: &str| {
        json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": when,
            "labelSelector": {"matchLabels": {"app": app}}})
    };
    json!([over(ZONE, "DoNotSchedule"), over(HOST, "ScheduleAnyway")])
}

/// A label's value on a node, as far as the check needs to know it.
pub(super) fn labels(scene: &Scene, number: usize) -> BTreeMap<String, String> {
    scene.node(number).labels
}
