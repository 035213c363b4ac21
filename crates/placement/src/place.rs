//! The decision: filter, score, choose.

use crate::{
    cluster::Cluster,
    filter::{Affinity, named_nodes, refusals},
    node::{Node, NodeIndex},
    pod::PodView,
    reasons::{Reason, Tally},
    score, spread,
};

/// Where a pod goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// To the node of this name.
    Node(Box<str>),
    /// Nowhere for now.
    NoFit {
        /// Why, in Kubernetes' words: `0/4 nodes are available: 1 Insufficient cpu, …`.
        reasons: String,
    },
}

impl Cluster {
    /// Chooses a node for `pod`. Nothing is counted until [`Cluster::assume`] is called.
    pub fn place(&mut self, pod: &PodView) -> Placement {
        self.ensure_groups(pod);
        let affinity = Affinity::new(pod, self);
        let mut tally = Tally::default();
        let feasible = self.feasible(pod, &affinity, &mut tally);
        let best = match feasible.as_slice() {
            [] => None,
            [(_, only)] => Some(*only),
            _ => self.best(pod, &affinity, &feasible),
        };
        match best {
            Some(node) => Placement::Node(self.symbols.text(node.name).into()),
            None => Placement::NoFit { reasons: tally.sentence(self.node_count()) },
        }
    }

    fn feasible(
        &self,
        pod: &PodView,
        affinity: &Affinity<'_>,
        tally: &mut Tally,
    ) -> Vec<(NodeIndex, &Node)> {
        let required = spread::required(pod, affinity, self);
        let mut fits = |node: &Node| {
            let mut reasons = refusals(pod, affinity, node, self);
            if reasons.is_empty() {
                reasons.extend(required.iter().find_map(|constraint| constraint.refusal(node)));
            }
            let fits = reasons.is_empty();
            reasons.into_iter().for_each(|reason| tally.count(reason));
            fits
        };
        let Some(names) = named_nodes(pod) else {
            return self.known_nodes().filter(|(_, node)| fits(node)).collect();
        };
        let named: Vec<_> = names.into_iter().filter_map(|name| self.node_named(name)).collect();
        let outside = self.node_count() - named.len();
        let feasible = named.into_iter().filter(|(_, node)| fits(node)).collect();
        tally.count_many(Reason::OutsideNodeAffinity, outside);
        feasible
    }

    /// The highest score; among equals the node with the fewest pods, then the first by index.
    fn best<'a>(
        &'a self,
        pod: &PodView,
        affinity: &Affinity<'_>,
        feasible: &[(NodeIndex, &'a Node)],
    ) -> Option<&'a Node> {
        let totals = score::totals(pod, affinity, feasible, self);
        let ranked = feasible.iter().zip(totals);
        ranked
            .max_by_key(|((index, node), total)| {
                (*total, std::cmp::Reverse((node.load().pods, *index)))
            })
            .map(|((_, node), _)| *node)
    }
}
