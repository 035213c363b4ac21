//! Random changes to a cluster: after each, a pod is placed, and both the node and the reasons for
//! having none are exactly those of the plain reference.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use proptest::prelude::*;
use toono_placement::{Budget, Cluster, NodeView, Placement, PodView, Preemption, Requirement};

use crate::{naive::Naive, random};

#[derive(Clone, Debug)]
enum Change {
    Node {
        name: u8,
        seed: u64,
    },
    DropNode(u8),
    /// A node pulled images or dropped some.
    Images {
        name: u8,
        which: u64,
        build: u64,
    },
    Pod {
        name: u8,
        seed: u64,
    },
    /// A pod that the API says is on a node, known or not.
    Bound {
        name: u8,
        seed: u64,
        node: u8,
    },
    DropPod {
        name: u8,
        seed: u64,
    },
    Namespace {
        name: u8,
        team: u8,
    },
}

/// Changes among so many nodes.
fn change(nodes: u8) -> impl Strategy<Value = Change> {
    let seed = || 0..1_000_000_u64;
    prop_oneof![
        4 => (0..nodes, seed()).prop_map(|(name, seed)| Change::Node { name, seed }),
        1 => (0..nodes).prop_map(Change::DropNode),
        3 => images(nodes),
        12 => (0..30_u8, seed()).prop_map(|(name, seed)| Change::Pod { name, seed }),
        1 => (0..30_u8, seed(), 0..=nodes)
            .prop_map(|(name, seed, node)| Change::Bound { name, seed, node }),
        2 => (0..30_u8, seed()).prop_map(|(name, seed)| Change::DropPod { name, seed }),
        1 => (0..2_u8, 0..3_u8).prop_map(|(name, team)| Change::Namespace { name, team }),
    ]
}

fn images(nodes: u8) -> impl Strategy<Value = Change> {
    (0..nodes, 0..32_u64, 0..3_u64).prop_map(|(name, which, build)| Change::Images {
        name,
        which,
        build,
    })
}

/// The crate's cluster and the reference, in step.
struct Both {
    cluster: Cluster,
    naive: Naive,
    pools: u64,
}

impl Both {
    fn new(pools: u64) -> Self {
        Self { cluster: Cluster::new(), naive: Naive::default(), pools }
    }

    fn set(&mut self, node: &NodeView) {
        self.cluster.set_node(node);
        self.naive.set_node(node);
    }

    fn apply(&mut self, change: Change) -> Result<(), TestCaseError> {
        let Self { cluster, naive, pools } = self;
        match change {
            Change::Node { name, seed } => {
                let view = random::node(&format!("n{name}"), seed, *pools);
                self.set(&view);
            }
            Change::DropNode(name) => {
                cluster.remove_node(&format!("n{name}"));
                naive.remove_node(&format!("n{name}"));
            }
            Change::Images { name, which, build } => {
                if let Some(node) = naive.nodes.get(&format!("n{name}")).cloned() {
                    self.set(&random::with_images(&node, which, build));
                }
            }
            Change::Namespace { name, team: 0 } => {
                cluster.remove_namespace(&format!("ns{name}"));
                naive.namespaces.remove(&format!("ns{name}"));
            }
            Change::Namespace { name, team } => {
                let labels: BTreeMap<_, _> = [("team".to_owned(), format!("t{team}"))].into();
                cluster.set_namespace(&format!("ns{name}"), labels.clone());
                naive.namespaces.insert(format!("ns{name}"), labels);
            }
            Change::DropPod { name, seed } => {
                let view = random::pod(&format!("pod{name}"), seed);
                cluster.remove_pod(&view.key);
                naive.remove_pod(&view);
            }
            Change::Bound { name, seed, node } => {
                let view = random::pod(&format!("pod{name}"), seed);
                cluster.assume(&view, &format!("n{node}"));
                naive.assume(&view, &format!("n{node}"));
            }
            Change::Pod { name, seed } => {
                let view = random::pod(&format!("pod{name}"), seed);
                cluster.remove_pod(&view.key);
                naive.remove_pod(&view);
                let decision = match cluster.place(&view) {
                    Placement::Node(node) => Ok(node.to_string()),
                    Placement::NoFit { reasons } => Err(reasons),
                };
                prop_assert_eq!(&decision, &naive.decide(&view), "{:?}", view);
                match decision {
                    Ok(node) => {
                        cluster.assume(&view, &node);
                        naive.assume(&view, &node);
                    }
                    Err(_) => self.preempt(&view)?,
                }
            }
        }
        let Self { cluster, naive, .. } = self;
        prop_assert_eq!(cluster.node_count(), naive.nodes.len());
        Ok(())
    }

    /// Frees a node for a pod that fits nowhere: both must push out the same pods.
    fn preempt(&mut self, pod: &PodView) -> Result<(), TestCaseError> {
        let Self { cluster, naive, .. } = self;
        let expected = naive.preempt(pod, &budgets());
        let chosen = cluster.preempt(pod, &budgets());
        let chosen = chosen.map(|Preemption { node, victims }| (node.to_string(), victims));
        prop_assert_eq!(&chosen, &expected, "{:?}", pod);
        let Some((node, victims)) = chosen else { return Ok(()) };
        for key in victims {
            cluster.remove_pod(&key);
            let (victim, _) = naive.pods[&key].clone();
            naive.remove_pod(&victim);
        }
        prop_assert!(matches!(cluster.place(pod), Placement::Node(_)), "{node} is not free");
        Ok(())
    }
}

/// One has room for one pod, the other for none.
fn budgets() -> [Budget; 2] {
    let app = LabelSelector {
        match_labels: Some([("app".to_owned(), "x".to_owned())].into()),
        ..LabelSelector::default()
    };
    let budget = |namespace: &str, selector: &LabelSelector, allowed| Budget {
        namespace: namespace.into(),
        selector: Requirement::of_selector(selector),
        allowed,
    };
    [budget("ns0", &app, 1), budget("ns1", &LabelSelector::default(), 0)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn placements_and_reasons_are_those_of_the_reference(
        changes in prop::collection::vec(change(8), 1..100),
    ) {
        let mut both = Both::new(3);
        changes.into_iter().try_for_each(|change| both.apply(change))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// So many pools that their domains are told apart one by one, not by groups.
    #[test]
    fn the_same_with_many_pools(
        nodes in prop::collection::vec(0..1_000_000_u64, 120),
        changes in prop::collection::vec(change(120), 1..60),
    ) {
        let mut both = Both::new(40);
        for (name, seed) in (0..).zip(nodes) {
            both.apply(Change::Node { name, seed })?;
        }
        changes.into_iter().try_for_each(|change| both.apply(change))?;
    }
    /// An image comes to nodes that are alike, in any order, while pods with it are placed.
    #[test]
    fn the_same_while_an_image_is_rolled_out(
        pools in 1..4_u8,
        steps in prop::collection::vec((0..40_u8, 0..4_u64, 0..40_u8), 40..120),
        seeds in prop::collection::vec(0..1_000_000_u64, 3),
    ) {
        let mut both = Both::new(1);
        for name in 0..40 {
            both.set(&random::plain_node(&format!("n{name}"), name % pools));
        }
        for (node, which, pod) in steps {
            both.apply(Change::Images { name: node, which, build: 0 })?;
            let seed = seeds[usize::from(pod) % seeds.len()];
            both.apply(Change::Pod { name: pod, seed })?;
        }
    }
    /// One template after the other has many pods, which its rules count again and again while others
    /// come and go.
    #[test]
    fn the_same_while_a_template_has_many_pods(
        pools in 1..30_u8,
        seeds in prop::collection::vec(0..1_000_000_u64, 2),
        steps in prop::collection::vec((0..12_u8, 0..90_u8), 60..150),
    ) {
        let mut both = Both::new(1);
        for name in 0..30 {
            both.set(&random::plain_node(&format!("n{name}"), name % pools));
        }
        for (what, name) in steps {
            // The same name has the same seed again, or a pod would be of several templates.
            let seed = seeds[usize::from(name) % seeds.len()];
            both.apply(match what {
                0 => Change::DropPod { name, seed },
                1 => Change::DropNode(name % 30),
                2 => Change::Node { name: name % 30, seed: u64::from(name) },
                3 => Change::Bound { name, seed, node: name % 31 },
                4 => Change::Namespace { name: name % 2, team: name % 3 },
                _ => Change::Pod { name, seed },
            })?;
        }
    }
}
