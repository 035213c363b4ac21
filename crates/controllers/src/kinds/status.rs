//! What a pod reports of itself, as far as controllers read it. Pods that fare alike share it.

use jiff::Timestamp;

use toono_wire::upgrade;

use super::watched::{ContainerStatus, Status};

/// Conditions whose messages are read.
const TOLD_IN_FULL: [&str; 3] = ["PodScheduled", upgrade::IMAGE_READY, upgrade::APPROVED_HERE];

/// What a pod reports, without what differs between pods that fare alike.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Report {
    /// `None` before anybody has said anything.
    pub(crate) phase: Option<Box<str>>,
    pub(crate) conditions: Box<[PodCondition]>,
    pub(crate) containers: Box<[ContainerReport]>,
    pub(crate) init_containers: Box<[ContainerReport]>,
}

/// A condition of a pod. When it changed is only kept of `Ready`, with the pod.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct PodCondition {
    pub(crate) type_: Box<str>,
    pub(crate) status: Box<str>,
    pub(crate) reason: Option<Box<str>>,
    /// Only of some: others may differ from pod to pod.
    pub(crate) message: Option<Box<str>>,
}

/// What is reported of a container.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct ContainerReport {
    pub(crate) name: Box<str>,
    pub(crate) ready: bool,
    pub(crate) restarts: i32,
    pub(crate) terminated: Option<Terminated>,
}

/// How a container ended.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Terminated {
    pub(crate) exit_code: i32,
    pub(crate) at: Option<Timestamp>,
}

impl Report {
    pub(super) fn of(status: &Status) -> Self {
        let text = |text: &Option<String>| text.as_deref().map(Into::into);
        let conditions = status.conditions.iter().flatten().map(|condition| PodCondition {
            type_: condition.type_.as_str().into(),
            status: condition.status.as_str().into(),
            reason: text(&condition.reason),
            message: text(&condition.message)
                .filter(|_| TOLD_IN_FULL.contains(&condition.type_.as_str())),
        });
        let containers = |all: &Option<Vec<ContainerStatus>>| {
            all.iter().flatten().map(ContainerReport::of).collect()
        };
        Self {
            phase: text(&status.phase),
            conditions: conditions.collect(),
            containers: containers(&status.container_statuses),
            init_containers: containers(&status.init_container_statuses),
        }
    }
}

impl ContainerReport {
    fn of(status: &ContainerStatus) -> Self {
        let state = status.state.as_ref().and_then(|state| state.terminated.as_ref());
        Self {
            name: status.name.as_str().into(),
            ready: status.ready,
            restarts: status.restart_count,
            terminated: state.map(|end| Terminated {
                exit_code: end.exit_code,
                at: end.finished_at.as_ref().map(|time| time.0),
            }),
        }
    }
}
