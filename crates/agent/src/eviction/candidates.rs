//! The pods that may be ended to make room, with what each takes of what is short.

use k8s_openapi::api::core::v1::{Container, Pod};
use toono_podmachine::pressure::{Candidate, Share, Signal};

use crate::{
    admission::Amounts,
    bundles, statics,
    stats::{ContainerMeasured, Measured, PodMeasured},
};

pub(super) fn of(measured: &Measured, signal: Signal) -> Vec<Candidate> {
    measured.pods.iter().filter_map(|pod| candidate(pod, signal)).collect()
}

fn candidate(measured: &PodMeasured, signal: Signal) -> Option<Candidate> {
    let pod = bundles::read_pod(&measured.dir)?;
    let share = |container: &ContainerMeasured| Share {
        name: container.name.clone(),
        usage: usage_of(container, signal),
        request: find(&pod, &container.name)
            .map_or(0, |it| request(Amounts::of_container(it), signal)),
    };
    Some(Candidate {
        uid: measured.uid.clone(),
        priority: pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0),
        is_static: statics::is_static(&pod),
        usage: usage(measured, signal),
        request: request(Amounts::of(&pod), signal),
        containers: measured.containers.iter().map(share).collect(),
    })
}

fn find<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    all.into_iter().find(|it| it.name == name)
}

fn request(amounts: Amounts, signal: Signal) -> u64 {
    let amount = match signal.resource() {
        "memory" => amounts.memory,
        "ephemeral-storage" => amounts.storage,
        // Of the others nothing can be asked for.
        _ => 0,
    };
    u64::try_from(amount).unwrap_or(0)
}

fn usage_of(container: &ContainerMeasured, signal: Signal) -> u64 {
    let (root, logs) = container.files.unwrap_or_default();
    match signal {
        Signal::Memory => container.usage.working_set_bytes,
        Signal::Nodefs | Signal::Imagefs => root.bytes.saturating_add(logs.bytes),
        Signal::NodefsInodes | Signal::ImagefsInodes => root.inodes.saturating_add(logs.inodes),
        Signal::Pids => container.usage.processes,
    }
}

fn usage(pod: &PodMeasured, signal: Signal) -> u64 {
    let files: u64 = pod.containers.iter().map(|it| usage_of(it, signal)).sum();
    let volumes = || pod.volumes.iter().filter(|it| !it.in_memory).map(|it| it.used);
    match signal {
        Signal::Memory => pod.usage.working_set_bytes,
        Signal::Pids => pod.usage.processes,
        Signal::Nodefs | Signal::Imagefs => {
            files.saturating_add(volumes().map(|it| it.bytes).sum())
        }
        Signal::NodefsInodes | Signal::ImagefsInodes => {
            files.saturating_add(volumes().map(|it| it.inodes).sum())
        }
    }
}
