//! Random changes to a cluster, each placement checked against a reference that recomputes
//! everything from the lists of nodes and pods.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;
use toono_placement::{Cluster, NodeView, Placement, PodView};

#[derive(Clone, Debug)]
enum Change {
    Node { name: u8, pool: u8, cpu: u8, cordoned: bool, tainted: bool },
    DropNode(u8),
    Pod { name: u8, cpu: u8, pool: Option<u8>, tolerates: bool, spread: bool },
    DropPod(u8),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (0..6_u8, 0..3_u8, 1..5_u8, prop::bool::weighted(0.2), prop::bool::weighted(0.3)).prop_map(
            |(name, pool, cpu, cordoned, tainted)| Change::Node { name, pool, cpu, cordoned, tainted }),
        1 => (0..6_u8).prop_map(Change::DropNode),
        6 => (0..20_u8, 0..4_u8, prop::option::weighted(0.3, 0..3_u8), any::<bool>(), any::<bool>()).prop_map(
            |(name, cpu, pool, tolerates, spread)| Change::Pod { name, cpu, pool, tolerates, spread }),
        2 => (0..20_u8).prop_map(Change::DropPod),
    ]
}

fn node_view(name: u8, pool: u8, cpu: u8, cordoned: bool, tainted: bool) -> NodeView {
    let taints = if tainted { json!([{"key": "t", "effect": "NoSchedule"}]) } else { json!([]) };
    NodeView::from_node(
        &serde_json::from_value(json!({
            "metadata": {"name": format!("n{name}"), "labels": {
                "kubernetes.io/hostname": format!("n{name}"), "pool": format!("p{pool}")}},
            "spec": {"unschedulable": cordoned, "taints": taints},
            "status": {"allocatable": {"cpu": cpu.to_string(), "memory": "8Gi", "pods": "6"}},
        }))
        .unwrap(),
    )
}

fn pod_view(name: u8, cpu: u8, pool: Option<u8>, tolerates: bool, spread: bool) -> PodView {
    let selector = pool.map(|pool| json!({"pool": format!("p{pool}")}));
    let tolerations = if tolerates { json!([{"operator": "Exists"}]) } else { json!([]) };
    let spread = if spread {
        json!([{"maxSkew": 1, "topologyKey": "pool", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "x"}}}])
    } else {
        json!([])
    };
    PodView::from_pod(
        &serde_json::from_value(json!({
            "metadata": {"name": format!("pod{name}"), "namespace": "ns", "labels": {"app": "x"}, "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs", "controller": true}]},
            "spec": {
                "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu.to_string()}}}],
                "nodeSelector": selector, "tolerations": tolerations, "topologySpreadConstraints": spread,
            },
        }))
        .unwrap(),
    )
}

/// The truth, as lists.
#[derive(Default)]
struct Reference {
    nodes: BTreeMap<String, NodeView>,
    pods: BTreeMap<String, (PodView, String)>,
}

impl Reference {
    fn selected(pod: &PodView, node: &NodeView) -> bool {
        pod.node_selector.iter().all(|requirement| requirement.matches(&node.labels))
    }

    fn fits(&self, pod: &PodView, node: &NodeView) -> bool {
        let here = || self.pods.values().filter(|(_, on)| **on == *node.name).map(|(pod, _)| pod);
        let used: i64 = here().map(|pod| pod.requests.cpu_milli).sum();
        let everything = pod.tolerations.iter().any(|toleration| toleration.exists);
        (everything || (!node.unschedulable && node.taints.is_empty()))
            && Self::selected(pod, node)
            && (pod.requests.cpu_milli == 0
                || used + pod.requests.cpu_milli <= node.offer.resources.cpu_milli)
            && (here().count() as i64) < node.offer.pods
            && (pod.spread.is_empty() || self.keeps_skew(pod, node))
    }

    fn keeps_skew(&self, pod: &PodView, node: &NodeView) -> bool {
        let mut pools: BTreeMap<&str, usize> = BTreeMap::new();
        for other in self.nodes.values().filter(|other| Self::selected(pod, other)) {
            let count = self.pods.values().filter(|(_, on)| **on == *other.name).count();
            *pools.entry(&other.labels["pool"]).or_default() += count;
        }
        let least = pools.values().min().copied().unwrap_or(0);
        pools.get(node.labels["pool"].as_str()).copied().unwrap_or(0) + 1 - least <= 1
    }
}

proptest! {
    #[test]
    fn placements_fit_and_refusals_are_true(changes in prop::collection::vec(change(), 1..120)) {
        let (mut cluster, mut truth) = (Cluster::new(), Reference::default());
        for change in changes {
            match change {
                Change::Node { name, pool, cpu, cordoned, tainted } => {
                    let view = node_view(name, pool, cpu, cordoned, tainted);
                    cluster.set_node(&view);
                    truth.nodes.insert(view.name.to_string(), view);
                }
                Change::DropNode(name) => {
                    cluster.remove_node(&format!("n{name}"));
                    truth.nodes.remove(&format!("n{name}"));
                }
                Change::DropPod(name) => {
                    let view = pod_view(name, 0, None, false, false);
                    cluster.remove_pod(&view.key);
                    truth.pods.remove(&*view.key.name);
                }
                Change::Pod { name, cpu, pool, tolerates, spread } => {
                    let view = pod_view(name, cpu, pool, tolerates, spread);
                    cluster.remove_pod(&view.key);
                    truth.pods.remove(&*view.key.name);
                    let fitting: Vec<_> = truth.nodes.values().filter(|node| truth.fits(&view, node)).collect();
                    match cluster.place(&view) {
                        Placement::Node(node) => {
                            prop_assert!(fitting.iter().any(|fits| fits.name == node), "{node} does not fit");
                            cluster.assume(&view, &node);
                            truth.pods.insert(view.key.name.to_string(), (view, node.to_string()));
                        }
                        Placement::NoFit { reasons } => {
                            prop_assert!(fitting.is_empty(), "{reasons}, but {} nodes fit", fitting.len());
                        }
                    }
                }
            }
            prop_assert_eq!(cluster.node_count(), truth.nodes.len());
        }
    }
}
