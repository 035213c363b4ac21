//! What a stateful set asks for, with Kubernetes' defaults, and what its pods' names say.

use k8s_openapi::{
    api::apps::v1::{StatefulSet, StatefulSetSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::{kinds::pod::Pod, object::Metadata, pods::phase};

/// The pod's revision: the name of the ControllerRevision.
pub(super) const REVISION_LABEL: &str = "controller-revision-hash";
/// The pod's own name, so that a Service can select it.
pub(super) const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
/// The pod's ordinal.
pub(super) const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// What the set asks for.
#[derive(Clone, Debug)]
pub(super) struct View<'a> {
    pub(super) name: &'a str,
    pub(super) spec: &'a StatefulSetSpec,
    pub(super) replicas: i32,
    pub(super) start: i32,
    /// One pod at a time, in order.
    pub(super) ordered: bool,
    pub(super) rolling: bool,
    /// Ordinals below this keep the current revision.
    pub(super) partition: i32,
    /// Pods that may be unavailable during an update.
    pub(super) max_unavailable: i32,
    pub(super) min_ready: i32,
}

impl<'a> View<'a> {
    pub(super) fn new(set: &'a StatefulSet, spec: &'a StatefulSetSpec) -> Self {
        let replicas = spec.replicas.unwrap_or(1);
        let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
        let strategy = spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let on_delete = strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete");
        let max_unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        Self {
            name: set.metadata.name.as_deref().unwrap_or_default(),
            spec,
            replicas,
            start,
            ordered: spec.pod_management_policy.as_deref() != Some("Parallel"),
            rolling: !on_delete,
            partition: start
                .saturating_add(rolling.and_then(|rolling| rolling.partition).unwrap_or(0)),
            max_unavailable: max_unavailable.map_or(1, |most| resolve(most, replicas)).max(1),
            min_ready: spec.min_ready_seconds.unwrap_or(0),
        }
    }

    /// The first ordinal that the set does not ask for any more.
    pub(super) fn end(&self) -> i32 {
        self.start.saturating_add(self.replicas)
    }

    /// The ordinal of a pod of this name, if it is one of the set's.
    pub(super) fn ordinal(&self, pod: &Pod) -> Option<i32> {
        ordinal(self.name, pod)
    }

    pub(super) fn pod_name(&self, ordinal: i32) -> String {
        format!("{}-{ordinal}", self.name)
    }
}

/// The ordinal of a pod of the set of this name.
pub(super) fn ordinal(set: &str, pod: &Pod) -> Option<i32> {
    let digits = pod.metadata.name().strip_prefix(set)?.strip_prefix('-')?;
    let number: i32 = digits.parse().ok()?;
    // Neither signs nor leading zeros: two names must not mean one ordinal.
    (number.to_string() == digits).then_some(number)
}

/// A number, or a share of the replicas, rounded down.
fn resolve(value: &IntOrString, replicas: i32) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let share = text.strip_suffix('%').and_then(|share| share.parse::<i64>().ok());
            let number = share.unwrap_or(0).saturating_mul(replicas.into()) / 100;
            i32::try_from(number).unwrap_or(i32::MAX)
        }
    }
}

pub(super) fn revision(pod: &Pod) -> &str {
    pod.metadata.label(REVISION_LABEL).unwrap_or_default()
}

pub(super) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.is_leaving()
}

pub(super) fn is_running_and_ready(pod: &Pod) -> bool {
    phase(pod) == "Running" && crate::pods::is_ready(pod)
}
