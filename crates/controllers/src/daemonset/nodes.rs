//! Which nodes run a daemon, and the pod that is made for one.

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{
        Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
        Pod as WholePod, PodSpec, PodTemplateSpec, Toleration,
    },
};
use toono_placement::{NodeView, PodView, admits, untolerated_effects};

use super::HASH_LABEL;
use crate::{kinds::pod::Pod, podcontrol::pod_from_template, pods::node_name};

/// Whether a node shall run a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Eligibility {
    /// It shall.
    Yes,
    /// It would not get one, but may keep the one it has.
    OnlyKeep,
    /// It shall not.
    No,
}

/// What every daemon tolerates besides what its template says, as Kubernetes documents it.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// And when it uses the host's network.
const TOLERATED_ON_HOST_NETWORK: (&str, &str) =
    ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// A daemon as it would be on any node, for asking which nodes admit it.
pub(super) fn probe(set: &DaemonSet) -> PodView {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = pod_from_template(set, &template);
    add_tolerations(pod.spec.get_or_insert_default());
    PodView::from_pod(&pod)
}

/// Whether `node` shall run the daemon that `probe` describes.
pub(super) fn eligibility(probe: &PodView, node: &NodeView) -> Eligibility {
    let named = probe.node_name.as_deref().is_none_or(|name| *name == *node.name);
    if !named || !admits(probe, node) {
        return Eligibility::No;
    }
    let untolerated = untolerated_effects(probe, node);
    if untolerated.no_execute {
        Eligibility::No
    } else if untolerated.no_schedule {
        Eligibility::OnlyKeep
    } else {
        Eligibility::Yes
    }
}

/// The node that a daemon is on or was made for.
pub(super) fn target(pod: &Pod) -> Option<&str> {
    node_name(pod).or_else(|| {
        let terms = pod.template().placement.required_affinity.as_ref()?;
        let mut fields = terms.iter().flat_map(|term| &term.fields);
        let field = fields.find(|field| &*field.key == "metadata.name")?;
        field.values.first().map(|name| &**name)
    })
}

/// The daemon for one node: its affinity names the node and nothing else, because what the
/// template asks of nodes was already decided here.
pub(super) fn pod_for(
    set: &DaemonSet,
    template: &PodTemplateSpec,
    hash: &str,
    node: &str,
) -> WholePod {
    let mut pod = pod_from_template(set, template);
    pod.metadata.labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.to_owned());
    let spec = pod.spec.get_or_insert_default();
    add_tolerations(spec);
    let affinity = spec.affinity.get_or_insert_default();
    let preferred = affinity
        .node_affinity
        .take()
        .and_then(|node| node.preferred_during_scheduling_ignored_during_execution);
    *affinity = Affinity {
        node_affinity: Some(NodeAffinity {
            preferred_during_scheduling_ignored_during_execution: preferred,
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                node_selector_terms: vec![NodeSelectorTerm {
                    match_fields: Some(vec![NodeSelectorRequirement {
                        key: "metadata.name".to_owned(),
                        operator: "In".to_owned(),
                        values: Some(vec![node.to_owned()]),
                    }]),
                    match_expressions: None,
                }],
            }),
        }),
        ..affinity.clone()
    };
    pod
}

fn add_tolerations(spec: &mut PodSpec) {
    let on_host = spec.host_network == Some(true);
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.into_iter().chain(on_host.then_some(TOLERATED_ON_HOST_NETWORK)) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::pod::cached;

    fn set() -> DaemonSet {
        serde_json::from_value(json!({
            "metadata": {"name": "d", "namespace": "ns", "uid": "u"},
            "spec": {"selector": {"matchLabels": {"app": "d"}}, "template": {
                "metadata": {"labels": {"app": "d"}},
                "spec": {"containers": [], "nodeSelector": {"disk": "ssd"}},
            }},
        }))
        .unwrap()
    }

    fn node(taints: serde_json::Value) -> NodeView {
        let node = json!({"metadata": {"name": "n", "labels": {"disk": "ssd"}}, "spec": {"taints": taints}});
        NodeView::from_node(&serde_json::from_value(node).unwrap())
    }

    #[test]
    fn daemons_ignore_a_nodes_troubles_but_not_its_owners_taints() {
        let probe = probe(&set());
        for (taints, expected) in [
            (json!([]), Eligibility::Yes),
            (
                json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]),
                Eligibility::Yes,
            ),
            (
                json!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]),
                Eligibility::Yes,
            ),
            (json!([{"key": "mine", "effect": "PreferNoSchedule"}]), Eligibility::Yes),
            (json!([{"key": "mine", "effect": "NoSchedule"}]), Eligibility::OnlyKeep),
            (json!([{"key": "mine", "effect": "NoExecute"}]), Eligibility::No),
        ] {
            assert_eq!(eligibility(&probe, &node(taints.clone())), expected, "{taints}");
        }
        assert_eq!(eligibility(&probe, &NodeView::default()), Eligibility::No, "no ssd");
    }

    #[test]
    fn a_daemon_names_its_node() {
        let set = set();
        let pod = pod_for(&set, &set.spec.as_ref().unwrap().template, "h", "n7");
        assert_eq!(target(&cached(&pod)), Some("n7"));
        let labels = pod.metadata.labels.unwrap();
        assert_eq!(labels.get(HASH_LABEL).map(String::as_str), Some("h"));
        assert_eq!(pod.spec.unwrap().tolerations.unwrap().len(), TOLERATED.len());
    }
}
