//! `/metrics/resource` and the agent's own `/metrics`, by the kubelet's names, labels and help texts.

use std::fs;

use jiff::Timestamp;

use super::exposition::{Kind, Page, float, seconds};
use crate::stats::{ContainerMeasured, Measured, PodMeasured};

/// `/proc/self/stat` counts in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// `/metrics/resource`: what a metrics-server needs.
pub(super) fn resource(measured: &Measured) -> String {
    let mut page = Page::default();
    of_containers(&mut page, measured);
    of_node(&mut page, measured);
    of_pods(&mut page, measured);
    let help = "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise";
    page.metric("resource_scrape_error", Kind::Gauge, help).sample(&[], 0.0, None);
    let help = "[ALPHA] (Deprecated since 1.29.0) 1 if there was an error while getting container metrics, 0 otherwise";
    page.metric("scrape_error", Kind::Gauge, help).sample(&[], 0.0, None);
    page.finish()
}

fn of_containers(page: &mut Page, measured: &Measured) {
    type Value = fn(&ContainerMeasured) -> Option<f64>;
    let metrics: [(&'static str, Kind, &str, Value, bool); 5] = [
        (
            "container_cpu_usage_seconds_total",
            Kind::Counter,
            "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
            |it| Some(seconds(it.usage.cpu_nanos)),
            true,
        ),
        (
            "container_memory_working_set_bytes",
            Kind::Gauge,
            "[STABLE] Current working set of the container in bytes",
            |it| Some(float(it.usage.working_set_bytes)),
            true,
        ),
        (
            "container_start_time_seconds",
            Kind::Gauge,
            "[STABLE] Start time of the container since unix epoch in seconds",
            |it| it.started_at.map(since_epoch),
            false,
        ),
        (
            "container_swap_limit_bytes",
            Kind::Gauge,
            "[ALPHA] Current amount of the container swap limit in bytes. Reported only on non-windows systems",
            |_| Some(0.0),
            true,
        ),
        (
            "container_swap_usage_bytes",
            Kind::Gauge,
            "[ALPHA] Current amount of the container swap usage in bytes. Reported only on non-windows systems",
            |it| Some(float(it.usage.swap_bytes)),
            true,
        ),
    ];
    for (name, kind, help, value, timed) in metrics {
        let mut metric = page.metric(name, kind, help);
        for pod in &measured.pods {
            for container in &pod.containers {
                let Some(value) = value(container) else { continue };
                let labels = [
                    ("container", container.name.as_str()),
                    ("namespace", &pod.namespace),
                    ("pod", &pod.name),
                ];
                metric.sample(&labels, value, timed.then_some(measured.at));
            }
        }
    }
}

fn of_node(page: &mut Page, measured: &Measured) {
    let (machine, at) = (&measured.machine, Some(measured.at));
    let help = "[STABLE] Cumulative cpu time consumed by the node in core-seconds";
    page.metric("node_cpu_usage_seconds_total", Kind::Counter, help).sample(
        &[],
        seconds(machine.cpu_nanos),
        at,
    );
    let help = "[STABLE] Current working set of the node in bytes";
    page.metric("node_memory_working_set_bytes", Kind::Gauge, help).sample(
        &[],
        float(machine.memory.working_set),
        at,
    );
    let help =
        "[ALPHA] Current swap usage of the node in bytes. Reported only on non-windows systems";
    page.metric("node_swap_usage_bytes", Kind::Gauge, help).sample(
        &[],
        float(machine.memory.swap_used),
        at,
    );
}

fn of_pods(page: &mut Page, measured: &Measured) {
    type Value = fn(&PodMeasured) -> f64;
    let metrics: [(&'static str, Kind, &str, Value); 3] = [
        (
            "pod_cpu_usage_seconds_total",
            Kind::Counter,
            "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
            |it| seconds(it.usage.cpu_nanos),
        ),
        (
            "pod_memory_working_set_bytes",
            Kind::Gauge,
            "[STABLE] Current working set of the pod in bytes",
            |it| float(it.usage.working_set_bytes),
        ),
        (
            "pod_swap_usage_bytes",
            Kind::Gauge,
            "[ALPHA] Current amount of the pod swap usage in bytes. Reported only on non-windows systems",
            |it| float(it.usage.swap_bytes),
        ),
    ];
    for (name, kind, help, value) in metrics {
        let mut metric = page.metric(name, kind, help);
        for pod in &measured.pods {
            let labels = [("namespace", pod.namespace.as_str()), ("pod", &pod.name)];
            metric.sample(&labels, value(pod), Some(measured.at));
        }
    }
}

/// `/metrics`: the agent itself.
pub(super) fn own(measured: &Measured) -> String {
    let mut page = Page::default();
    let help = "[ALPHA] The node's name. The count is always 1.";
    page.metric("kubelet_node_name", Kind::Gauge, help).sample(
        &[("node", &measured.node)],
        1.0,
        None,
    );
    let help = "[ALPHA] Number of pods that have a running pod sandbox";
    page.metric("kubelet_running_pods", Kind::Gauge, help).sample(
        &[],
        float(measured.pods.len() as u64),
        None,
    );
    let running: usize = measured.pods.iter().map(|pod| pod.containers.len()).sum();
    let help = "[ALPHA] Number of containers currently running";
    page.metric("kubelet_running_containers", Kind::Gauge, help).sample(
        &[("container_state", "running")],
        float(running as u64),
        None,
    );
    of_process(&mut page, measured);
    page.finish()
}

/// As every program with a Prometheus client has it.
fn of_process(page: &mut Page, measured: &Measured) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field, the program's name, may contain anything, and ends with the last parenthesis.
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().map(|it| it.parse().unwrap_or(0.0)).collect())
        .unwrap_or_default();
    let field = |number: usize| fields.get(number.saturating_sub(3)).copied().unwrap_or(0.0);
    let help = "Total user and system CPU time spent in seconds.";
    page.metric("process_cpu_seconds_total", Kind::Counter, help).sample(
        &[],
        (field(14) + field(15)) / TICKS_PER_SECOND,
        None,
    );
    let help = "Number of open file descriptors.";
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    page.metric("process_open_fds", Kind::Gauge, help).sample(&[], float(open as u64), None);
    let help = "Resident memory size in bytes.";
    let page_bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    let page_bytes =
        page_bytes.ok().flatten().and_then(|it| i32::try_from(it).ok()).unwrap_or(4096);
    page.metric("process_resident_memory_bytes", Kind::Gauge, help).sample(
        &[],
        field(24) * f64::from(page_bytes),
        None,
    );
    let help = "Virtual memory size in bytes.";
    page.metric("process_virtual_memory_bytes", Kind::Gauge, help).sample(&[], field(23), None);
    let help = "Start time of the process since unix epoch in seconds.";
    let started = since_epoch(measured.machine.booted_at) + field(22) / TICKS_PER_SECOND;
    page.metric("process_start_time_seconds", Kind::Gauge, help).sample(&[], started, None);
}

pub(super) fn since_epoch(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}
