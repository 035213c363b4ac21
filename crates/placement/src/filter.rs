//! Which nodes can take a pod at all. Spreading is in `spread`: it looks at all nodes together.

use crate::{
    cluster::Cluster,
    node::Node,
    pod::{NodeTerm, PodView},
    reasons::Reason,
    requirement::{Compiled, Operator},
    taints::{Effect, Taint},
};

/// A pod's node selector and node affinity, with labels resolved once.
pub(crate) struct Affinity<'a> {
    selector: Vec<Compiled<'a>>,
    required: Option<Vec<Term<'a>>>,
}

/// A node affinity term with labels resolved once.
pub(crate) struct Term<'a> {
    expressions: Vec<Compiled<'a>>,
    source: &'a NodeTerm,
}

impl<'a> Term<'a> {
    pub(crate) fn new(source: &'a NodeTerm, cluster: &Cluster) -> Self {
        let compile = |requirement| Compiled::new(requirement, &cluster.symbols);
        Self { expressions: source.expressions.iter().map(compile).collect(), source }
    }

    pub(crate) fn matches(&self, node: &Node, cluster: &Cluster) -> bool {
        let fields = &self.source.fields;
        if self.expressions.is_empty() && fields.is_empty() {
            return false;
        }
        let name = || Some(cluster.symbols.text(node.name));
        self.expressions.iter().all(|expression| on(expression, node, cluster))
            && fields.iter().all(|field| &*field.key == "metadata.name" && field.accepts(name()))
    }
}

impl<'a> Affinity<'a> {
    pub(crate) fn new(pod: &'a PodView, cluster: &Cluster) -> Self {
        let required = pod.required_affinity.as_ref();
        Self {
            selector: pod
                .node_selector
                .iter()
                .map(|label| Compiled::new(label, &cluster.symbols))
                .collect(),
            required: required
                .map(|terms| terms.iter().map(|term| Term::new(term, cluster)).collect()),
        }
    }

    pub(crate) fn matches(&self, node: &Node, cluster: &Cluster) -> bool {
        self.selector.iter().all(|label| on(label, node, cluster))
            && self
                .required
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|term| term.matches(node, cluster)))
    }
}

/// Whether the node's labels meet a requirement.
fn on(requirement: &Compiled<'_>, node: &Node, cluster: &Cluster) -> bool {
    requirement.accepts(node.label(requirement.key), &cluster.symbols)
}

/// The only nodes that a pod's affinity can mean, when each of its terms names them: so it is
/// with the pods of a DaemonSet, which then need no look at any other node.
pub(crate) fn named_nodes(pod: &PodView) -> Option<Vec<&str>> {
    let terms = pod.required_affinity.as_ref().filter(|terms| !terms.is_empty())?;
    let mut names = Vec::new();
    for term in terms {
        let field = term
            .fields
            .iter()
            .find(|field| &*field.key == "metadata.name" && field.operator == Operator::In)?;
        names.extend(field.values.iter().map(|name| &**name));
    }
    names.sort_unstable();
    names.dedup();
    Some(names)
}

/// The first taint that keeps the pod away.
pub(crate) fn untolerated<'n>(pod: &PodView, node: &'n Node) -> Option<&'n Taint> {
    node.taints()
        .iter()
        .filter(|taint| taint.effect != Effect::PreferNoSchedule)
        .find(|taint| !pod.tolerations.iter().any(|toleration| toleration.tolerates(taint)))
}

/// Why the node cannot take the pod: the reasons of the first filter that refuses, in
/// Kubernetes' order of filters; empty when all pass.
pub(crate) fn refusals(
    pod: &PodView,
    affinity: &Affinity<'_>,
    node: &Node,
    cluster: &Cluster,
) -> Vec<Reason> {
    if node.is_unschedulable() && !tolerates_cordon(pod) {
        return vec![Reason::Unschedulable];
    }
    if pod.node_name.as_deref().is_some_and(|name| *name != *cluster.symbols.text(node.name)) {
        return vec![Reason::NodeName];
    }
    if let Some(taint) = untolerated(pod, node) {
        return vec![Reason::UntoleratedTaint {
            key: taint.key.clone(),
            value: taint.value.clone(),
        }];
    }
    if !affinity.matches(node, cluster) {
        return vec![Reason::NodeAffinity];
    }
    if pod.host_ports.iter().any(|port| node.load().ports.iter().any(|held| held.conflicts(port))) {
        return vec![Reason::HostPorts];
    }
    insufficient(pod, node)
}

fn tolerates_cordon(pod: &PodView) -> bool {
    let cordon = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        value: "".into(),
        effect: Effect::NoSchedule,
    };
    pod.tolerations.iter().any(|toleration| toleration.tolerates(&cordon))
}

fn insufficient(pod: &PodView, node: &Node) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let (load, offer) = (node.load(), node.offer());
    let (used, offered) = (&load.used, &offer.resources);
    if load.pods + 1 > offer.pods {
        reasons.push(Reason::TooManyPods);
    }
    let requests = &pod.requests;
    for (name, asked, taken, there) in [
        ("cpu", requests.cpu_milli, used.cpu_milli, offered.cpu_milli),
        ("memory", requests.memory_bytes, used.memory_bytes, offered.memory_bytes),
        (
            "ephemeral-storage",
            requests.ephemeral_bytes,
            used.ephemeral_bytes,
            offered.ephemeral_bytes,
        ),
    ] {
        if asked > 0 && asked > there - taken {
            reasons.push(Reason::Insufficient(name.into()));
        }
    }
    for (name, asked) in &requests.extended {
        if *asked > 0 && *asked > offered.extended(name) - used.extended(name) {
            reasons.push(Reason::Insufficient(name.clone()));
        }
    }
    reasons
}
