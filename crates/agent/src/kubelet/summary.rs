//! `/stats/summary`: what the node and its pods use, as `stats/v1alpha1` of the kubelet has it.

use jiff::Timestamp;
use serde_json::{Value, json};
use toono_sandbox::Usage;

use crate::stats::{
    ContainerMeasured, Interface, Measured, PodMeasured, Rate, VolumeMeasured,
    disk::{Space, Used},
};

pub(super) fn render(measured: &Measured, image_bytes: u64) -> Value {
    let pods: Vec<Value> = measured.pods.iter().map(|it| pod(it, measured)).collect();
    json!({"node": node(measured, image_bytes), "pods": pods})
}

fn node(measured: &Measured, image_bytes: u64) -> Value {
    let (machine, time) = (&measured.machine, text(measured.at));
    let memory = &machine.memory;
    let space = machine.space;
    let disk =
        |used: u64, inodes: u64| filesystem(measured.at, space, Used { bytes: used, inodes });
    let inodes = space.inodes.saturating_sub(space.inodes_free);
    json!({
        "nodeName": measured.node,
        "systemContainers": [],
        "startTime": text(machine.booted_at),
        "cpu": processors(measured.at, machine.cpu_nanos, measured.rate),
        "memory": {
            "time": time,
            "availableBytes": memory.available(),
            "usageBytes": memory.usage,
            "workingSetBytes": memory.working_set,
            "rssBytes": memory.rss,
            "pageFaults": machine.page_faults,
            "majorPageFaults": machine.major_page_faults,
        },
        "swap": {"time": time, "swapAvailableBytes": memory.swap_free, "swapUsageBytes": memory.swap_used},
        "network": network(measured.at, &machine.interfaces),
        "fs": disk(space.used(), inodes),
        "runtime": {"imageFs": disk(image_bytes, 0), "containerFs": disk(0, 0)},
        "rlimit": {"time": time, "maxpid": machine.processes.most, "curproc": machine.processes.running},
    })
}

fn pod(pod: &PodMeasured, measured: &Measured) -> Value {
    let (at, space) = (measured.at, measured.machine.space);
    let containers: Vec<Value> = pod.containers.iter().map(|it| container(it, at, space)).collect();
    let volumes: Vec<Value> = pod.volumes.iter().map(|it| volume(it, at)).collect();
    let mut value = json!({
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": pod.started_at.map(text),
        "containers": containers,
        "cpu": processors(at, pod.usage.cpu_nanos, pod.rate),
        "memory": memory(at, &pod.usage),
        "process_stats": {"process_count": pod.usage.processes},
        "swap": {"time": text(at), "swapUsageBytes": pod.usage.swap_bytes},
    });
    if !pod.network.is_empty() {
        set(&mut value, "network", network(at, &pod.network));
    }
    if pod.containers.iter().any(|it| it.files.is_some()) {
        let mut used = Used::default();
        for (root, logs) in pod.containers.iter().filter_map(|it| it.files) {
            used += root;
            used += logs;
        }
        pod.volumes.iter().filter(|it| !it.in_memory).for_each(|it| used += it.used);
        set(&mut value, "ephemeral-storage", filesystem(at, space, used));
        set(&mut value, "volume", volumes.into());
    }
    value
}

fn container(container: &ContainerMeasured, at: Timestamp, space: Space) -> Value {
    let mut value = json!({
        "name": container.name,
        "startTime": container.started_at.map(text),
        "cpu": processors(at, container.usage.cpu_nanos, container.rate),
        "memory": memory(at, &container.usage),
        "swap": {"time": text(at), "swapUsageBytes": container.usage.swap_bytes},
    });
    if let Some((root, logs)) = container.files {
        set(&mut value, "rootfs", filesystem(at, space, root));
        set(&mut value, "logs", filesystem(at, space, logs));
    }
    value
}

fn volume(volume: &VolumeMeasured, at: Timestamp) -> Value {
    let mut value = filesystem(at, volume.space, volume.used);
    set(&mut value, "name", volume.name.as_str().into());
    value
}

fn processors(at: Timestamp, nanos: u64, rate: Option<Rate>) -> Value {
    let mut value = json!({"time": text(at), "usageCoreNanoSeconds": nanos});
    if let Some(rate) = rate {
        set(&mut value, "usageNanoCores", rate.nano_cores.into());
    }
    value
}

fn memory(at: Timestamp, usage: &Usage) -> Value {
    let mut value = json!({
        "time": text(at),
        "usageBytes": usage.memory_bytes,
        "workingSetBytes": usage.working_set_bytes,
        "rssBytes": usage.rss_bytes,
        "pageFaults": usage.page_faults,
        "majorPageFaults": usage.major_page_faults,
    });
    if let Some(limit) = usage.memory_limit_bytes {
        let available = limit.saturating_sub(usage.working_set_bytes);
        set(&mut value, "availableBytes", available.into());
    }
    value
}

/// The first interface stands for all, as with the kubelet, where `eth0` is there it.
fn network(at: Timestamp, interfaces: &[Interface]) -> Value {
    let interface = |it: &Interface| {
        json!({
            "name": it.name,
            "rxBytes": it.received.bytes, "rxErrors": it.received.errors,
            "txBytes": it.sent.bytes, "txErrors": it.sent.errors,
        })
    };
    let first = interfaces.iter().find(|it| it.name == "eth0").or(interfaces.first());
    let mut value = first.map_or_else(|| json!({}), interface);
    set(&mut value, "time", text(at).into());
    set(&mut value, "interfaces", interfaces.iter().map(interface).collect());
    value
}

fn filesystem(at: Timestamp, space: Space, used: Used) -> Value {
    json!({
        "time": text(at),
        "availableBytes": space.available,
        "capacityBytes": space.capacity,
        "usedBytes": used.bytes,
        "inodesFree": space.inodes_free,
        "inodes": space.inodes,
        "inodesUsed": used.inodes,
    })
}

fn set(value: &mut Value, field: &str, content: Value) {
    if let Some(fields) = value.as_object_mut() {
        fields.insert(field.to_owned(), content);
    }
}

/// Kubernetes' times have no fraction.
fn text(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}
