//! Why nodes were refused, counted, and the sentence that Kubernetes makes of it.

use std::collections::HashMap;

/// Why one node was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    Unschedulable,
    NodeName,
    UntoleratedTaint { key: Box<str>, value: Box<str> },
    NodeAffinity,
    OutsideNodeAffinity,
    HostPorts,
    TooManyPods,
    Insufficient(Box<str>),
    Spread,
    SpreadMissingLabel,
    PodAffinity,
    PodAntiAffinity,
    ExistingAntiAffinity,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unschedulable => f.write_str("node(s) were unschedulable"),
            Self::NodeName => f.write_str("node(s) didn't match the requested node name"),
            Self::UntoleratedTaint { key, value } => {
                write!(f, "node(s) had untolerated taint {{{key}: {value}}}")
            }
            Self::NodeAffinity => f.write_str("node(s) didn't match Pod's node affinity/selector"),
            Self::OutsideNodeAffinity => {
                f.write_str("node(s) didn't satisfy plugin(s) [NodeAffinity]")
            }
            Self::HostPorts => {
                f.write_str("node(s) didn't have free ports for the requested pod ports")
            }
            Self::TooManyPods => f.write_str("Too many pods"),
            Self::Insufficient(resource) => write!(f, "Insufficient {resource}"),
            Self::Spread => f.write_str("node(s) didn't match pod topology spread constraints"),
            Self::PodAffinity => f.write_str("node(s) didn't match pod affinity rules"),
            Self::PodAntiAffinity => f.write_str("node(s) didn't match pod anti-affinity rules"),
            Self::ExistingAntiAffinity => {
                f.write_str("node(s) didn't satisfy existing pods anti-affinity rules")
            }
            Self::SpreadMissingLabel => f.write_str(
                "node(s) didn't match pod topology spread constraints (missing required label)",
            ),
        }
    }
}

/// How many nodes each reason refused.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: HashMap<Reason, usize>,
}

impl Tally {
    pub(crate) fn count_many(&mut self, reason: Reason, nodes: usize) {
        if nodes > 0 {
            *self.counts.entry(reason).or_default() += nodes;
        }
    }

    /// `0/4 nodes are available: 1 Insufficient cpu, 3 node(s) were unschedulable.`; the parts are
    /// sorted as text, as Kubernetes does.
    pub(crate) fn sentence(&self, nodes: usize) -> String {
        if nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut parts: Vec<_> =
            self.counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        parts.sort_unstable();
        if parts.is_empty() {
            return format!("0/{nodes} nodes are available:");
        }
        format!("0/{nodes} nodes are available: {}.", parts.join(", "))
    }
}
