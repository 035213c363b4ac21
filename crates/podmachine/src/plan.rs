//! The few fields of a `v1.Pod` that decide its life, read once and kept instead of the object.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

use crate::{
    probes::{self, ProbePlan},
    qos,
    restart::{RestartPolicy, Restarts},
    sysctls,
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
    /// Init containers first, ephemeral ones last, each list in the order of the pod.
    pub(crate) containers: Vec<ContainerPlan>,
    pub(crate) gates: Vec<Gate>,
    pub(crate) unsupported: Vec<Unsupported>,
    /// Why no pod of the kind may run here: a reason and a text.
    pub(crate) refusal: Option<(&'static str, String)>,
    pub(crate) scheduled_at: Option<Timestamp>,
    pub(crate) started_at: Option<Timestamp>,
    /// The grace period of a deletion under way.
    pub(crate) deletion: Option<Duration>,
}

/// A condition that must hold for the pod to be ready, which somebody else states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gate {
    pub(crate) kind: String,
    /// Its status as last seen in the pod.
    pub(crate) status: Option<String>,
}

/// What a container is in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container that starts in its turn and then runs beside the others.
    Sidecar,
    Main,
    /// Put into a running pod by a person, to look at it.
    Ephemeral,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContainerPlan {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) pull: PullPolicy,
    pub(crate) role: Role,
    pub(crate) restarts: Restarts,
    pub(crate) probes: Vec<ProbePlan>,
    pub(crate) post_start: bool,
    pub(crate) pre_stop: bool,
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
        let restart = RestartPolicy::read(spec.restart_policy.as_deref());
        let restart = restart.unwrap_or(RestartPolicy::Always);
        Ok(Self {
            generation: meta.generation,
            restart,
            grace,
            active_deadline: spec.active_deadline_seconds.map(seconds),
            qos_class: status
                .and_then(|status| status.qos_class.clone())
                .unwrap_or_else(|| qos::class(spec).to_owned()),
            containers: containers(spec, restart),
            gates: gates(pod),
            unsupported: unsupported(spec),
            refusal: sysctls::forbidden(spec).map(|text| ("SysctlForbidden", text)),
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
    fn read(container: &Container, role: Role, pod: RestartPolicy) -> Self {
        let lifecycle = container.lifecycle.as_ref();
        Self {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            pull: pull_policy(container.image.as_deref(), container.image_pull_policy.as_deref()),
            role,
            restarts: Restarts::read(container, policy(container, role, pod)),
            probes: if role == Role::Init { Vec::new() } else { probes::plans(container) },
            post_start: lifecycle.is_some_and(|it| it.post_start.is_some()),
            pre_stop: lifecycle.is_some_and(|it| it.pre_stop.is_some()),
        }
    }

    fn ephemeral(container: &EphemeralContainer) -> Self {
        let policy = container.image_pull_policy.as_deref();
        Self {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            pull: pull_policy(container.image.as_deref(), policy),
            role: Role::Ephemeral,
            restarts: Restarts::by(RestartPolicy::Never),
            probes: Vec::new(),
            post_start: false,
            pre_stop: false,
        }
    }

    /// Whether it is one of the pod's `initContainers`.
    pub(crate) fn is_init(&self) -> bool {
        matches!(self.role, Role::Init | Role::Sidecar)
    }

    /// The pod's list that it is in.
    pub(crate) fn list(&self) -> &'static str {
        match self.role {
            Role::Init | Role::Sidecar => "initContainers",
            Role::Main => "containers",
            Role::Ephemeral => "ephemeralContainers",
        }
    }
}

/// The container's own policy, or else the pod's.
fn policy(container: &Container, role: Role, pod: RestartPolicy) -> RestartPolicy {
    let own = RestartPolicy::read(container.restart_policy.as_deref());
    match (role, own) {
        (Role::Sidecar, _) => RestartPolicy::Always,
        (Role::Ephemeral, _) => RestartPolicy::Never,
        (_, Some(own)) => own,
        // One that has succeeded is done, whatever the pod's policy.
        (Role::Init, None) if pod == RestartPolicy::Always => RestartPolicy::OnFailure,
        (Role::Init | Role::Main, None) => pod,
    }
}

fn containers(spec: &PodSpec, restart: RestartPolicy) -> Vec<ContainerPlan> {
    let role = |it: &Container| match it.restart_policy.as_deref() {
        Some("Always") => Role::Sidecar,
        _ => Role::Init,
    };
    let init = spec.init_containers.iter().flatten();
    let init = init.map(|it| ContainerPlan::read(it, role(it), restart));
    let main = spec.containers.iter().map(|it| ContainerPlan::read(it, Role::Main, restart));
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(ContainerPlan::ephemeral);
    init.chain(main).chain(ephemeral).collect()
}

fn gates(pod: &Pod) -> Vec<Gate> {
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let stated = |kind: &str| {
        let conditions = pod.status.as_ref()?.conditions.as_ref()?;
        Some(conditions.iter().find(|it| it.type_ == kind)?.status.clone())
    };
    gates
        .map(|gate| Gate {
            status: stated(&gate.condition_type),
            kind: gate.condition_type.clone(),
        })
        .collect()
}

fn pull_policy(image: Option<&str>, policy: Option<&str>) -> PullPolicy {
    match policy {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        _ if is_floating(image.unwrap_or_default()) => PullPolicy::Always,
        _ => PullPolicy::IfNotPresent,
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
