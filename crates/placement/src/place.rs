//! The decision: where a pod goes, or why it can go nowhere.

use std::sync::Arc;

use crate::{
    census::Censuses,
    cluster::Cluster,
    company::Company,
    filter::{self, Affinity, Named, only_nodes, refusals},
    images::Locality,
    node::NodeIndex,
    pod::PodView,
    ranking::{Asker, Rankings},
    reasons::Reason,
    score,
    search::{Scope, Search},
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
        let mut kept = (std::mem::take(&mut self.rankings), std::mem::take(&mut self.censuses));
        let placement = self.decide(pod, &mut kept.0, &mut kept.1);
        (self.rankings, self.censuses) = kept;
        placement
    }

    fn decide(&self, pod: &PodView, rankings: &mut Rankings, censuses: &mut Censuses) -> Placement {
        let affinity = Affinity::new(pod, &self.symbols);
        let (named, scope) = match only_nodes(pod, self) {
            _ if pod.node_name.is_some() => {
                let name = pod.node_name.as_deref().unwrap_or_default();
                (self.node_named(name).into_iter().collect(), Scope::Named)
            }
            Some(only) => (only, Scope::Prefiltered),
            None => match filter::named(pod, self) {
                Named::Some(named) => (named, Scope::All),
                Named::All => (self.known_nodes().collect(), Scope::Named),
            },
        };
        let names = !named.is_empty();
        let locality = Locality::of(pod, &self.images, self.node_count(), &self.symbols);
        let asker = Asker { pod, affinity: &affinity, locality, cluster: self, names };
        let census = match scope {
            Scope::Named | Scope::Prefiltered if named.len() <= 1 => {
                censuses.take(&refusing(pod), &affinity, self)
            }
            _ => censuses.take(pod, &affinity, self),
        };
        let mut search = Search::new(asker, named, census);
        match scope {
            Scope::Named | Scope::Prefiltered => search.among_the_named(),
            Scope::All => search.among_all(rankings),
        }
        let placement = match score::choose(&search.candidates) {
            Some(node) => Placement::Node(self.name_of(node).into()),
            None => Placement::NoFit { reasons: search.reasons(scope) },
        };
        search.finish().into_iter().for_each(|census| censuses.keep(census));
        placement
    }
}

impl Cluster {
    /// Why the pod cannot go to this node, in the order of filters; empty when it can.
    pub(crate) fn refusals_on(
        &self,
        pod: &PodView,
        node: NodeIndex,
        censuses: &mut Censuses,
    ) -> Vec<Reason> {
        let affinity = Affinity::new(pod, &self.symbols);
        let Some(node) = self.see(node) else { return Vec::new() };
        let mut reasons = refusals(pod, &affinity, &node, &self.symbols);
        if reasons.is_empty() {
            let names = !matches!(filter::named(pod, self), Named::Some(named) if named.is_empty());
            let locality = Locality::default();
            let asker = Asker { pod, affinity: &affinity, locality, cluster: self, names };
            let census = censuses.take(&refusing(pod), &affinity, self);
            let mut search = Search::new(asker, Vec::new(), census);
            search.count(&search.asker.eligible(None));
            reasons.extend(search.topology.judge(&node.place.site, node.name).err());
            search.finish().into_iter().for_each(|census| censuses.keep(census));
        }
        reasons
    }
}

/// The pod without wishes that no node is refused for: what counts when there are no nodes to compare.
/// So the pods of a DaemonSet need not count each other.
fn refusing(pod: &PodView) -> PodView {
    let mut pod = PodView { owner: None, ..pod.clone() };
    if !pod.spread.iter().any(|constraint| constraint.required) {
        pod.spread.clear();
        pod.node_selector.clear();
        pod.required_affinity = None;
        pod.tolerations.clear();
    }
    let refuses = |company: &Arc<Company>| !(company.near.is_empty() && company.apart.is_empty());
    pod.company = pod.company.filter(refuses);
    pod
}
