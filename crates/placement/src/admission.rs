//! Whether one node is meant for a pod, asked outside of any cluster: by its labels, its name and
//! its taints, whatever runs on it.

use crate::{
    node::NodeView,
    pod::{NodeTerm, PodView},
    requirement::Requirement,
    taints::Effect,
};

/// Effects of a node's taints that a pod does not tolerate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UntoleratedEffects {
    /// New pods stay away.
    pub no_schedule: bool,
    /// Running pods have to leave too.
    pub no_execute: bool,
}

/// Whether the pod's node selector and required node affinity allow the node.
#[must_use]
pub fn admits(pod: &PodView, node: &NodeView) -> bool {
    let label = |requirement: &Requirement| requirement.matches(&node.labels);
    let term = |term: &NodeTerm| {
        let named =
            |field: &Requirement| &*field.key == "metadata.name" && field.accepts(Some(&node.name));
        (!term.expressions.is_empty() || !term.fields.is_empty())
            && term.expressions.iter().all(label)
            && term.fields.iter().all(named)
    };
    pod.node_selector.iter().all(label)
        && pod.required_affinity.as_ref().is_none_or(|terms| terms.iter().any(term))
}

/// Which effects of the node's taints the pod does not tolerate.
#[must_use]
pub fn untolerated_effects(pod: &PodView, node: &NodeView) -> UntoleratedEffects {
    let mut effects = UntoleratedEffects::default();
    for taint in &node.taints {
        if pod.tolerations.iter().any(|toleration| toleration.tolerates(taint)) {
            continue;
        }
        match taint.effect {
            Effect::NoSchedule => effects.no_schedule = true,
            Effect::NoExecute => effects.no_execute = true,
            Effect::PreferNoSchedule => {}
        }
    }
    effects
}
