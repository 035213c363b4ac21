//! What placement needs to know of a pod.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{self as core, NodeSelectorTerm, Pod, PodSpec};

use crate::{
    company::Company,
    images,
    requirement::Requirement,
    resources::{Resources, pod_requests, pod_weight},
    taints::Toleration,
};

/// A pod's namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodKey {
    /// The namespace.
    pub namespace: Box<str>,
    /// The name.
    pub name: Box<str>,
}

/// A term of a node affinity: all its requirements must be met. A term without any matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeTerm {
    /// On labels.
    pub expressions: Vec<Requirement>,
    /// On fields; Kubernetes knows `metadata.name` alone.
    pub fields: Vec<Requirement>,
}

/// A port of the host that a container takes for itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Box<str>,
    /// The address; `0.0.0.0` means all.
    pub address: Box<str>,
    /// The port.
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be on one node.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        const ANY: &str = "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (&*self.address == ANY || &*other.address == ANY || self.address == other.address)
    }
}

/// A constraint on how pods spread over the values of a node label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpreadConstraint {
    /// The label whose values are the domains.
    pub topology_key: Box<str>,
    /// How far a domain may be above the emptiest.
    pub max_skew: i32,
    /// With fewer domains than this the emptiest counts as zero.
    pub min_domains: Option<i32>,
    /// `DoNotSchedule`: filter nodes; otherwise only prefer.
    pub required: bool,
    /// Which pods count; `None` counts none.
    pub selector: Option<Vec<Requirement>>,
    /// Count only nodes that the pod's node affinity allows.
    pub honor_affinity: bool,
    /// Count only nodes whose taints the pod tolerates.
    pub honor_taints: bool,
}

/// What placement needs to know of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodView {
    /// Its namespace and name.
    pub key: PodKey,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The uid of its controller: pods of the same one spread.
    pub owner: Option<Box<str>>,
    /// Its priority.
    pub priority: i32,
    /// It may not push others out.
    pub never_preempts: bool,
    /// When it was created, in seconds of the epoch: the older of two pods is the more important.
    pub created: i64,
    /// The node that it is bound to, or asks for by name.
    pub node_name: Option<Box<str>>,
    /// It is being deleted: it still takes resources but does not count for spreading.
    pub terminating: bool,
    /// What it asks for.
    pub requests: Resources,
    /// What it counts as when nodes are scored.
    pub weight: Resources,
    /// Labels that its node must have.
    pub node_selector: Vec<Requirement>,
    /// Terms of which one must match its node.
    pub required_affinity: Option<Vec<NodeTerm>>,
    /// Terms that raise a node's score, with their weights.
    pub preferred_affinity: Vec<(i64, NodeTerm)>,
    /// What it tolerates.
    pub tolerations: Vec<Toleration>,
    /// Ports of the host it takes.
    pub host_ports: Vec<HostPort>,
    /// The images of its containers, one for each, as nodes name them.
    pub images: Vec<Box<str>>,
    /// How it wants to spread.
    pub spread: Vec<SpreadConstraint>,
    /// What it wants of other pods, if anything.
    pub company: Option<Arc<Company>>,
}

impl PodView {
    /// Reads the API's object.
    #[must_use]
    pub fn from_pod(pod: &Pod) -> Self {
        let metadata = &pod.metadata;
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let labels = metadata.labels.clone().unwrap_or_default();
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        Self {
            key: PodKey {
                namespace: metadata.namespace.as_deref().unwrap_or_default().into(),
                name: metadata.name.as_deref().unwrap_or_default().into(),
            },
            owner: metadata
                .owner_references
                .iter()
                .flatten()
                .find(|reference| reference.controller == Some(true))
                .map(|reference| reference.uid.as_str().into()),
            priority: spec.priority.unwrap_or(0),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            created: metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            node_name: spec.node_name.as_deref().filter(|name| !name.is_empty()).map(Into::into),
            terminating: metadata.deletion_timestamp.is_some(),
            requests: pod_requests(spec),
            weight: pod_weight(spec),
            node_selector: spec
                .node_selector
                .iter()
                .flatten()
                .map(|(key, value)| Requirement::equals(key, value))
                .collect(),
            required_affinity: affinity
                .and_then(|affinity| {
                    affinity.required_during_scheduling_ignored_during_execution.as_ref()
                })
                .map(|required| {
                    required.node_selector_terms.iter().map(NodeTerm::from_core).collect()
                }),
            preferred_affinity: affinity
                .and_then(|affinity| {
                    affinity.preferred_during_scheduling_ignored_during_execution.as_ref()
                })
                .into_iter()
                .flatten()
                .map(|term| (i64::from(term.weight), NodeTerm::from_core(&term.preference)))
                .collect(),
            tolerations: spec
                .tolerations
                .iter()
                .flatten()
                .filter_map(Toleration::from_core)
                .collect(),
            host_ports: host_ports(spec),
            images: images::of_pod(spec),
            spread: spec
                .topology_spread_constraints
                .iter()
                .flatten()
                .map(|constraint| SpreadConstraint::from_core(constraint, &labels))
                .collect(),
            company: Company::of(spec, metadata.namespace.as_deref().unwrap_or_default(), &labels),
            labels,
        }
    }
}

impl NodeTerm {
    fn from_core(term: &NodeSelectorTerm) -> Self {
        Self {
            expressions: term
                .match_expressions
                .iter()
                .flatten()
                .map(Requirement::of_node)
                .collect(),
            fields: term.match_fields.iter().flatten().map(Requirement::of_node).collect(),
        }
    }
}

impl SpreadConstraint {
    fn from_core(
        constraint: &core::TopologySpreadConstraint,
        labels: &BTreeMap<String, String>,
    ) -> Self {
        let mut selector = constraint.label_selector.as_ref().map(Requirement::of_selector);
        if let Some(requirements) = &mut selector {
            let keys = constraint.match_label_keys.iter().flatten();
            requirements
                .extend(keys.filter_map(|key| Some(Requirement::equals(key, labels.get(key)?))));
        }
        Self {
            topology_key: constraint.topology_key.as_str().into(),
            max_skew: constraint.max_skew,
            min_domains: constraint.min_domains,
            required: constraint.when_unsatisfiable != "ScheduleAnyway",
            selector,
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }

    /// Whether it looks at the same nodes in the same way, whichever pods it counts.
    pub(crate) fn looks_as(&self, other: &Self) -> bool {
        self.topology_key == other.topology_key
            && self.required == other.required
            && self.honor_affinity == other.honor_affinity
            && self.honor_taints == other.honor_taints
    }

    /// Whether a pod with these labels counts.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector
            .as_ref()
            .is_some_and(|all| all.iter().all(|requirement| requirement.matches(labels)))
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let restartable = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(restartable)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            Some(HostPort {
                protocol: port.protocol.as_deref().unwrap_or("TCP").into(),
                address: port
                    .host_ip
                    .as_deref()
                    .filter(|ip| !ip.is_empty())
                    .unwrap_or("0.0.0.0")
                    .into(),
                port: number,
            })
        })
        .collect()
}
