//! Random nodes and pods, as a client would write them. Each is drawn from a seed, so that a case
//! is a short list of changes.

use serde_json::{Value, json};
use toono_placement::{NodeView, PodView};

const ZONE: &str = "topology.kubernetes.io/zone";
const POOL: &str = "apps.openyurt.io/nodepool";
const HOST: &str = "kubernetes.io/hostname";

/// Draws from a seed (SplitMix64).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (bits ^ (bits >> 31)) % limit
    }

    /// True once in so many times.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len() as u64) as usize]
    }

    fn node(&mut self) -> String {
        format!("n{}", self.below(8))
    }
}

/// A node in one of so many pools.
pub(crate) fn node(name: &str, seed: u64, pools: u64) -> NodeView {
    let dice = &mut Dice::new(seed);
    let mut labels = json!({});
    if !dice.once_in(8) {
        // Nothing keeps an owner from labelling a node with another's name.
        labels[HOST] = if dice.once_in(60) { dice.node() } else { name.to_owned() }.into();
    }
    if !dice.once_in(5) {
        labels[ZONE] = dice.of(&["z1", "z2"]).into();
    }
    if !dice.once_in(6) {
        labels[POOL] = format!("p{}", dice.below(pools)).into();
    }
    if dice.once_in(4) {
        labels["rank"] = dice.below(12).to_string().into();
    }
    let taints: Vec<Value> = (0..dice.below(3))
        .map(|_| {
            json!({"key": dice.of(&["t", "u"]), "value": dice.of(&["", "v"]),
                "effect": dice.of(&["PreferNoSchedule", "PreferNoSchedule", "NoSchedule", "NoExecute"])})
        })
        .collect();
    let taints = if dice.once_in(2) { taints } else { Vec::new() };
    let mut offer = json!({"cpu": dice.of(&["2", "4"]), "memory": dice.of(&["4Gi", "8Gi"]), "pods": dice.of(&["3", "110"])});
    if dice.once_in(3) {
        offer["example.com/gpu"] = dice.of(&["1", "2"]).into();
    }
    let images = if dice.once_in(2) { images(dice.below(32), dice.below(3)) } else { Vec::new() };
    view_node(json!({"metadata": {"name": name, "labels": labels},
        "spec": {"unschedulable": dice.once_in(8), "taints": taints},
        "status": {"allocatable": offer, "images": images}}))
}

/// A node like all others of its pool, without images.
pub(crate) fn plain_node(name: &str, pool: u8) -> NodeView {
    let labels = json!({HOST: name, ZONE: format!("z{}", pool % 3), POOL: format!("p{pool}")});
    view_node(json!({"metadata": {"name": name, "labels": labels},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "6"}}}))
}

/// The node with other images.
pub(crate) fn with_images(node: &NodeView, which: u64, builds: u64) -> NodeView {
    let status = json!({"status": {"images": images(which, builds)}});
    NodeView { images: view_node(status).images, ..node.clone() }
}

/// The images whose bits are set; one is of several sizes, as if its tag had moved.
fn images(which: u64, build: u64) -> Vec<Value> {
    const IMAGES: [(&str, u64); 5] =
        [("app:1", 400), ("app:2", 900), ("base:latest", 90), ("small:1", 9), ("huge:1", 5000)];
    let there = IMAGES.iter().enumerate().filter(|(bit, _)| which >> bit & 1 == 1);
    there
        .map(|(_, (name, mebibytes))| {
            let size = (mebibytes + if *name == "app:2" { 300 * build } else { 0 }) << 20;
            json!({"names": [format!("{name}@sha256:{build}"), name], "sizeBytes": size})
        })
        .collect()
}

fn view_node(node: Value) -> NodeView {
    NodeView::from_node(&serde_json::from_value(node).unwrap())
}

/// Pods of few templates, so that rankings are asked again.
pub(crate) fn pod(name: &str, seed: u64) -> PodView {
    let dice = &mut Dice::new(seed % 97);
    let app = dice.of(&["x", "y"]);
    let mut requests = json!({});
    if !dice.once_in(4) {
        requests["cpu"] = dice.of(&["100m", "250m", "1", "1500m"]).into();
    }
    if dice.once_in(2) {
        requests["memory"] = dice.of(&["100Mi", "1Gi", "3Gi"]).into();
    }
    if dice.once_in(10) {
        requests["example.com/gpu"] = "1".into();
    }
    let image = ["app:1", "app:1", "app:2", "base", "huge:1", "unheard:1"];
    let mut container =
        json!({"name": "c", "image": dice.of(&image), "resources": {"requests": requests}});
    if dice.once_in(6) {
        container["ports"] = json!([{"containerPort": 80, "hostPort": 80,
            "hostIP": dice.of(&["", "10.0.0.1", "10.0.0.2"])}]);
    }
    let mut spec = json!({"containers": [container]});
    if dice.once_in(4) {
        spec["initContainers"] =
            json!([{"name": "i", "image": dice.of(&["app:1", "app:2", "small:1"])}]);
    }
    if dice.once_in(4) {
        let beside = json!({"name": "d", "image": dice.of(&image)});
        spec["containers"] = json!([spec["containers"][0], beside]);
    }
    spec["priority"] = [0, 0, 10, -5, 1000][dice.below(5) as usize].into();
    if dice.once_in(10) {
        spec["preemptionPolicy"] = "Never".into();
    }
    let mut metadata = json!({"name": name, "namespace": if dice.once_in(4) { "ns1" } else { "ns0" }, "labels": {"app": app},
        "creationTimestamp": format!("2026-01-01T00:00:0{}Z", dice.below(4))});
    if dice.once_in(2) {
        metadata["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "name": app, "uid": app, "controller": true}]);
    }
    if dice.once_in(12) {
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    if dice.once_in(2) {
        spec["tolerations"] = tolerations(dice);
    }
    if dice.once_in(4) {
        let (key, value) = match dice.below(3) {
            0 => (HOST, dice.node()),
            1 => (ZONE, "z1".to_owned()),
            _ => (POOL, format!("p{}", dice.below(3))),
        };
        spec["nodeSelector"] = json!({key: value});
    }
    if dice.once_in(3) {
        spec["affinity"]["nodeAffinity"] = node_affinity(dice);
    }
    if dice.once_in(3) {
        spec["affinity"]["podAffinity"] = pod_affinity(dice);
    }
    if dice.once_in(3) {
        spec["affinity"]["podAntiAffinity"] = pod_affinity(dice);
    }
    if dice.once_in(3) {
        let constraints = 1 + dice.below(3);
        spec["topologySpreadConstraints"] =
            (0..constraints).map(|_| spread(dice)).collect::<Vec<_>>().into();
    }
    if dice.once_in(20) {
        spec["nodeName"] = dice.node().into();
    }
    PodView::from_pod(&serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
}

fn tolerations(dice: &mut Dice) -> Value {
    match dice.below(4) {
        0 => json!([{"operator": "Exists"}]),
        1 => json!([{"key": "t", "operator": "Exists", "effect": "NoSchedule"}]),
        2 => json!([{"key": "t", "value": "v"}, {"key": "u", "operator": "Exists"}]),
        _ => json!([{"key": "u", "value": "v", "effect": "PreferNoSchedule"}]),
    }
}

fn requirement(dice: &mut Dice) -> Value {
    match dice.below(8) {
        0 => json!({"key": HOST, "operator": "In", "values": [dice.node(), dice.node()]}),
        1 => json!({"key": HOST, "operator": "NotIn", "values": [dice.node()]}),
        2 => json!({"key": POOL, "operator": "In", "values": ["p0", "p1"]}),
        3 => json!({"key": POOL, "operator": "NotIn", "values": ["p0"]}),
        4 => json!({"key": "rank", "operator": "Gt", "values": ["5"]}),
        5 => json!({"key": "rank", "operator": "Lt", "values": ["9"]}),
        6 => json!({"key": ZONE, "operator": "Exists"}),
        _ => json!({"key": "rank", "operator": "DoesNotExist"}),
    }
}

fn term(dice: &mut Dice) -> Value {
    let mut term = json!({});
    if !dice.once_in(5) {
        let requirements: Vec<_> = (0..=dice.below(2)).map(|_| requirement(dice)).collect();
        term["matchExpressions"] = requirements.into();
    }
    if dice.once_in(4) {
        let operator = dice.of(&["In", "In", "NotIn"]);
        term["matchFields"] =
            json!([{"key": "metadata.name", "operator": operator, "values": [dice.node()]}]);
    }
    term
}

fn node_affinity(dice: &mut Dice) -> Value {
    let mut affinity = json!({});
    if dice.once_in(2) {
        let terms: Vec<_> = (0..=dice.below(2)).map(|_| term(dice)).collect();
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] =
            json!({"nodeSelectorTerms": terms});
    }
    if dice.once_in(2) {
        let terms: Vec<_> = (0..=dice.below(2))
            .map(|_| json!({"weight": 1 + dice.below(100), "preference": term(dice)}))
            .collect();
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = terms.into();
    }
    affinity
}

fn pod_term(dice: &mut Dice) -> Value {
    let mut term = json!({"topologyKey": dice.of(&[HOST, ZONE, POOL, "rank"])});
    match dice.below(8) {
        0 => {}
        1 => term["labelSelector"] = json!({}),
        2 => {
            term["labelSelector"] = json!({"matchExpressions": [
                {"key": "app", "operator": "NotIn", "values": ["x"]}]});
        }
        3 => {
            term["labelSelector"] = json!({"matchExpressions": [
                {"key": "app", "operator": "In", "values": ["x", "y"]}]});
        }
        _ => term["labelSelector"] = json!({"matchLabels": {"app": dice.of(&["x", "y"])}}),
    }
    match dice.below(6) {
        0 => term["namespaceSelector"] = json!({}),
        1 => term["namespaceSelector"] = json!({"matchLabels": {"team": "t1"}}),
        2 => term["namespaces"] = json!(["ns1"]),
        _ => {}
    }
    if dice.once_in(6) {
        term[dice.of(&["matchLabelKeys", "mismatchLabelKeys"])] = json!(["app"]);
    }
    term
}

fn pod_affinity(dice: &mut Dice) -> Value {
    let mut affinity = json!({});
    if dice.once_in(2) {
        let terms: Vec<_> = (0..=dice.below(2)).map(|_| pod_term(dice)).collect();
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = terms.into();
    } else {
        let terms: Vec<_> = (0..=dice.below(2))
            .map(|_| json!({"weight": 1 + dice.below(100), "podAffinityTerm": pod_term(dice)}))
            .collect();
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = terms.into();
    }
    affinity
}

fn spread(dice: &mut Dice) -> Value {
    let mut constraint = json!({
        "maxSkew": 1 + dice.below(3),
        "topologyKey": dice.of(&[HOST, ZONE, POOL, "rank"]),
        "whenUnsatisfiable": dice.of(&["DoNotSchedule", "ScheduleAnyway"]),
        "nodeTaintsPolicy": dice.of(&["Honor", "Ignore"]),
        "nodeAffinityPolicy": dice.of(&["Honor", "Ignore"]),
    });
    if !dice.once_in(8) {
        constraint["labelSelector"] = json!({"matchLabels": {"app": dice.of(&["x", "y"])}});
    }
    if dice.once_in(4) && constraint["whenUnsatisfiable"] == "DoNotSchedule" {
        constraint["minDomains"] = (1 + dice.below(4)).into();
    }
    if dice.once_in(4) {
        constraint["matchLabelKeys"] = json!(["app"]);
    }
    constraint
}
