//! The few fields of a `v1.Pod` that decide its life, read once and kept instead of the object.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::{
    qos,
    unsupported::{Unsupported, unsupported},
};

/// The API's default of `spec.terminationGracePeriodSeconds`.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// The object cannot be run, whatever the node offers.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("pod {pod} has no {field}")]
pub struct NotRunnable {
    /// `namespace/name` as far as known.
    pub pod: String,
    /// The path of the missing field.
    pub field: &'static str,
}

/// Whether an image is asked of its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// Only when the node does not have it.
    IfNotPresent,
    /// Not at all.
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    /// Whether a container of the pod runs again after this exit code.
    pub(crate) fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) generation: Option<i64>,
    pub(crate) restart: RestartPolicy,
    pub(crate) grace: Duration,
    pub(crate) active_deadline: Option<Duration>,
    pub(crate) qos_class: String,
    pub(crate) init: Vec<ContainerPlan>,
    pub(crate) main: Vec<ContainerPlan>,
    pub(crate) unsupported: Vec<Unsupported>,
    pub(crate) scheduled_at: Option<Timestamp>,
    pub(crate) started_at: Option<Timestamp>,
    /// The grace period of a deletion under way.
    pub(crate) deletion: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContainerPlan {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) pull: PullPolicy,
    pub(crate) init: bool,
}

impl Plan {
    pub(crate) fn read(pod: &Pod) -> Result<Self, NotRunnable> {
        let meta = &pod.metadata;
        let name = meta.name.clone().unwrap_or_default();
        let namespace = meta.namespace.clone().unwrap_or_default();
        let missing = |field| NotRunnable { pod: format!("{namespace}/{name}"), field };
        let uid = meta.uid.clone().ok_or_else(|| missing("metadata.uid"))?;
        let spec = pod.spec.as_ref().ok_or_else(|| missing("spec"))?;
        if name.is_empty() {
            return Err(missing("metadata.name"));
        }
        if namespace.is_empty() {
            return Err(missing("metadata.namespace"));
        }
        let status = pod.status.as_ref();
        let grace = spec.termination_grace_period_seconds.map_or(DEFAULT_GRACE, seconds);
        let init = spec.init_containers.iter().flatten();
        Ok(Self {
            generation: meta.generation,
            restart: match spec.restart_policy.as_deref() {
                Some("Never") => RestartPolicy::Never,
                Some("OnFailure") => RestartPolicy::OnFailure,
                _ => RestartPolicy::Always,
            },
            grace,
            active_deadline: spec.active_deadline_seconds.map(seconds),
            qos_class: status
                .and_then(|status| status.qos_class.clone())
                .unwrap_or_else(|| qos::class(spec).to_owned()),
            init: init.map(|container| ContainerPlan::read(container, true)).collect(),
            main: spec.containers.iter().map(|it| ContainerPlan::read(it, false)).collect(),
            unsupported: unsupported(spec),
            scheduled_at: status.and_then(|status| {
                let conditions = status.conditions.iter().flatten();
                let mut scheduled =
                    conditions.filter(|condition| condition.type_ == "PodScheduled");
                scheduled.next_back()?.last_transition_time.as_ref().map(|time| time.0)
            }),
            started_at: status.and_then(|status| status.start_time.as_ref().map(|time| time.0)),
            deletion: meta
                .deletion_timestamp
                .as_ref()
                .map(|_| meta.deletion_grace_period_seconds.map_or(grace, seconds)),
            namespace,
            name,
            uid,
        })
    }

    /// How the kubelet names a pod in messages.
    pub(crate) fn full_name(&self) -> String {
        format!("{}_{}({})", self.name, self.namespace, self.uid)
    }

    /// The first field without which no container of the pod may run.
    pub(crate) fn blocker(&self) -> Option<&Unsupported> {
        self.unsupported.iter().find(|field| field.blocks)
    }
}

impl ContainerPlan {
    fn read(container: &Container, init: bool) -> Self {
        let image = container.image.clone().unwrap_or_default();
        let pull = match container.image_pull_policy.as_deref() {
            Some("Always") => PullPolicy::Always,
            Some("Never") => PullPolicy::Never,
            Some("IfNotPresent") => PullPolicy::IfNotPresent,
            _ if is_floating(&image) => PullPolicy::Always,
            _ => PullPolicy::IfNotPresent,
        };
        Self { name: container.name.clone(), image, pull, init }
    }
}

/// Whether the reference may name another image tomorrow: the tag `latest`, or none and no digest.
fn is_floating(image: &str) -> bool {
    let name = image.rsplit('/').next().unwrap_or(image);
    !name.contains('@') && name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn seconds(value: i64) -> Duration {
    Duration::from_secs(u64::try_from(value).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_or_latest_tag_floats() {
        for (image, floating) in [
            ("busybox", true),
            ("busybox:latest", true),
            ("host:5000/busybox", true),
            ("host:5000/busybox:1.36", false),
            ("busybox:1.36", false),
            ("busybox@sha256:0123", false),
            ("host:5000/a/b:latest", true),
        ] {
            assert_eq!(is_floating(image), floating, "{image}");
        }
    }
}
