//! The `v1.PodStatus` that a machine's state amounts to.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, HostIP, PodIP, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use crate::{
    conditions::{Verdict, whole_seconds},
    container::{Container, Ended},
    machine::PodMachine,
    phase::{Phase, is_pending},
    plan::{ContainerPlan, Gate, Role},
};

/// Every condition that [`verdicts`] may state.
pub(crate) const KINDS: [&str; 7] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    UNSUPPORTED,
    DISRUPTION,
];
/// True once the node ends the pod for want of room.
pub(crate) const DISRUPTION: &str = "DisruptionTarget";
/// True while fields of the pod are left unapplied; the message names them.
const UNSUPPORTED: &str = "toono.io/FieldsUnsupported";

/// The whole status.
pub(crate) fn render(machine: &PodMachine) -> PodStatus {
    let uid = &machine.plan.uid;
    let has_init = machine.containers.iter().any(|it| it.plan.is_init());
    let statuses = |of: fn(&ContainerPlan) -> bool| -> Option<Vec<ContainerStatus>> {
        let mine = machine.containers.iter().filter(|it| of(&it.plan));
        let list: Vec<_> = mine.map(|it| container_status(it, uid, has_init)).collect();
        (!list.is_empty()).then_some(list)
    };
    let ip = machine.ip.map(|ip| ip.to_string());
    let host_ip = machine.host_ip.map(|ip| ip.to_string());
    PodStatus {
        phase: Some(machine.phase().as_str().to_owned()),
        conditions: Some(machine.conditions.render(machine.plan.generation)),
        container_statuses: statuses(|it| it.role == Role::Main),
        init_container_statuses: statuses(ContainerPlan::is_init),
        ephemeral_container_statuses: statuses(|it| it.role == Role::Ephemeral),
        pod_ips: ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip: ip,
        host_ips: host_ip.clone().map(|ip| vec![HostIP { ip }]),
        host_ip,
        start_time: Some(time(machine.started_at)),
        qos_class: Some(machine.plan.qos_class.clone()),
        observed_generation: machine.plan.generation,
        reason: machine.failure.as_ref().map(|it| it.reason.clone()),
        message: machine.failure.as_ref().map(|it| it.message.clone()),
        ..PodStatus::default()
    }
}

/// What the conditions say of the machine's state.
pub(crate) fn verdicts(machine: &PodMachine) -> Vec<Verdict> {
    let phase = machine.phase();
    let verdict = |kind, holds, why| Verdict { kind, holds, why };
    let named = |filter: &dyn Fn(&&Container) -> bool| -> String {
        let names: Vec<_> = machine
            .containers
            .iter()
            .filter(filter)
            .map(|container| container.plan.name.as_str())
            .collect();
        names.join(" ")
    };
    let initialized = machine.initialized;
    let incomplete = named(&|it| is_pending(it));
    let unready = named(&|it| matches!(it.plan.role, Role::Sidecar | Role::Main) && !it.is_ready());
    let not_ready = || match phase {
        Phase::Succeeded => Some(("PodCompleted", String::new())),
        Phase::Failed => Some(("PodFailed", String::new())),
        _ => Some(("ContainersNotReady", format!("containers with unready status: [{unready}]"))),
    };
    let containers_ready = unready.is_empty() && initialized && !phase.is_terminal();
    let closed: Vec<_> = machine.plan.gates.iter().filter_map(closed).collect();
    let ready = containers_ready && closed.is_empty();
    let why = if !containers_ready {
        not_ready()
    } else if ready {
        None
    } else {
        Some(("ReadinessGatesNotReady", closed.join(", ")))
    };
    let init_why = match phase {
        Phase::Succeeded => Some(("PodCompleted", String::new())),
        _ if !initialized => Some((
            "ContainersNotInitialized",
            format!("containers with incomplete status: [{incomplete}]"),
        )),
        _ => None,
    };
    let mut list = vec![
        verdict("PodReadyToStartContainers", machine.sandbox.is_ready(), None),
        verdict("Initialized", initialized, init_why),
        verdict("Ready", ready, why),
        verdict(
            "ContainersReady",
            containers_ready,
            if containers_ready { None } else { not_ready() },
        ),
        verdict("PodScheduled", true, None),
    ];
    let unsupported: Vec<_> = machine.plan.unsupported.iter().map(|it| it.field.as_str()).collect();
    if !unsupported.is_empty() {
        let message = format!("this node does not apply {}", unsupported.join(", "));
        list.push(verdict(UNSUPPORTED, true, Some(("UnsupportedFields", message))));
    }
    if let Some(failure) = machine.failure.as_ref().filter(|it| it.disrupts) {
        let why = ("TerminationByKubelet", failure.message.clone());
        list.push(verdict(DISRUPTION, true, Some(why)));
    }
    list
}

/// What keeps a gate closed, in the kubelet's words.
fn closed(gate: &Gate) -> Option<String> {
    let kind = &gate.kind;
    match gate.status.as_deref() {
        Some("True") => None,
        Some(status) => Some(format!(
            "the status of pod readiness gate \"{kind}\" is not \"True\", but {status}"
        )),
        None => Some(format!(
            "corresponding condition of pod readiness gate \"{kind}\" does not exist."
        )),
    }
}

fn container_status(container: &Container, uid: &str, has_init: bool) -> ContainerStatus {
    let name = &container.plan.name;
    let id = |attempt: u32| format!("toono://{uid}_{name}_{attempt}");
    let terminated = |ended: &Ended| ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(id(ended.attempt)),
            exit_code: ended.exit.code,
            signal: ended.exit.signal,
            reason: Some(ended.reason.clone()),
            message: ended.exit.message.clone(),
            started_at: ended.exit.started_at.map(time),
            finished_at: Some(time(ended.exit.finished_at)),
        }),
        ..ContainerState::default()
    };
    let waiting = |reason: &str, message: Option<String>| ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ContainerState::default()
    };
    let running = container.is_up();
    let (state, last) = match (&container.waiting, &container.ended) {
        _ if running => {
            let started_at = container.started_at.map(time);
            let state = ContainerState {
                running: Some(ContainerStateRunning { started_at }),
                ..ContainerState::default()
            };
            (state, container.ended.as_ref())
        }
        (Some(why), ended) => (waiting(why.reason, Some(why.message.clone())), ended.as_ref()),
        (None, Some(ended)) => (terminated(ended), container.previous.as_ref()),
        (None, None) => {
            let reason = if has_init { "PodInitializing" } else { "ContainerCreating" };
            (waiting(reason, None), None)
        }
    };
    let shown = if running {
        Some(container.attempt)
    } else {
        container.ended.as_ref().map(|it| it.attempt)
    };
    ContainerStatus {
        name: name.clone(),
        image: container.plan.image.clone(),
        image_id: container.image_id.clone(),
        container_id: shown.map(id),
        ready: match container.plan.role {
            Role::Init => container.has_succeeded(),
            Role::Sidecar | Role::Main => container.is_ready(),
            Role::Ephemeral => false,
        },
        started: Some(container.is_started()),
        restart_count: i32::try_from(container.attempt).unwrap_or(i32::MAX),
        state: Some(state),
        last_state: Some(last.map(terminated).unwrap_or_default()),
        ..ContainerStatus::default()
    }
}

fn time(at: Timestamp) -> Time {
    Time(whole_seconds(at))
}
