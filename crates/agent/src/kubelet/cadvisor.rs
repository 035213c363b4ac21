//! `/metrics/cadvisor`: those of cAdvisor's metrics that dashboards and alerts are made of.
//!
//! A pod's own series have no `container`; the machine's have the id `/`.

use std::thread::available_parallelism;

use jiff::Timestamp;
use toono_sandbox::Usage;

use super::{
    exposition::{Kind, Metric, Page, float, seconds},
    metrics::since_epoch,
};
use crate::{
    bundles,
    stats::{Interface, Measured, PodMeasured},
};

/// The labels that all series have.
#[derive(Debug, Clone, Default)]
struct Labels {
    container: String,
    id: String,
    image: String,
    name: String,
    namespace: String,
    pod: String,
}

/// One group of processes.
struct Group {
    labels: Labels,
    usage: Usage,
    started_at: Option<Timestamp>,
    /// Bytes and files written.
    written: Option<(u64, u64)>,
}

pub(super) fn page(measured: &Measured) -> String {
    let mut page = Page::default();
    let mut groups = vec![machine(measured)];
    for pod in &measured.pods {
        groups.extend(of_pod(pod));
    }
    processors(&mut page, &groups, measured.at);
    memory(&mut page, &groups, measured.at);
    files(&mut page, &groups, measured);
    others(&mut page, &groups, measured);
    network(&mut page, measured);
    page.finish()
}

fn machine(measured: &Measured) -> Group {
    let machine = &measured.machine;
    let usage = Usage {
        cpu_nanos: machine.cpu_nanos,
        memory_bytes: machine.memory.usage,
        working_set_bytes: machine.memory.working_set,
        rss_bytes: machine.memory.rss,
        page_faults: machine.page_faults,
        major_page_faults: machine.major_page_faults,
        swap_bytes: machine.memory.swap_used,
        processes: machine.processes.running,
        ..Usage::default()
    };
    let labels = Labels { id: "/".to_owned(), ..Labels::default() };
    let written = Some((
        machine.space.used(),
        machine.space.inodes - machine.space.inodes_free.min(machine.space.inodes),
    ));
    Group { labels, usage, started_at: Some(machine.booted_at), written }
}

fn of_pod(pod: &PodMeasured) -> Vec<Group> {
    let status = bundles::read_status(&pod.dir).unwrap_or_default();
    let lists = [status.container_statuses, status.init_container_statuses];
    let statuses: Vec<_> = lists.into_iter().flatten().flatten().collect();
    let image = |name: &str| statuses.iter().find(|it| it.name == name).map(|it| it.image.clone());
    let labels = Labels {
        id: format!("/{}", pod.group.display()),
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        ..Labels::default()
    };
    let own = Group {
        labels: labels.clone(),
        usage: pod.usage,
        started_at: pod.started_at,
        written: None,
    };
    let containers = pod.containers.iter().map(|it| Group {
        labels: Labels {
            container: it.name.clone(),
            id: format!("/{}", it.group.display()),
            image: image(&it.name).unwrap_or_default(),
            name: format!("{}_{}_{}", pod.uid, it.name, it.attempt),
            ..labels.clone()
        },
        usage: it.usage,
        started_at: it.started_at,
        written: it.files.map(|(root, logs)| (root.bytes + logs.bytes, root.inodes + logs.inodes)),
    });
    std::iter::once(own).chain(containers).collect()
}

impl Labels {
    /// One sample, with more labels after those that all have.
    fn sample(
        &self,
        metric: &mut Metric<'_>,
        more: &[(&str, &str)],
        value: f64,
        at: Option<Timestamp>,
    ) {
        let own = [
            ("container", self.container.as_str()),
            ("id", &self.id),
            ("image", &self.image),
            ("name", &self.name),
            ("namespace", &self.namespace),
            ("pod", &self.pod),
        ];
        metric.sample(&[&own, more].concat(), value, at);
    }
}

fn processors(page: &mut Page, groups: &[Group], at: Timestamp) {
    type Value = fn(&Usage) -> u64;
    type More = &'static [(&'static str, &'static str)];
    let metrics: [(&'static str, &str, Value, More); 3] = [
        (
            "container_cpu_usage_seconds_total",
            "Cumulative cpu time consumed in seconds.",
            |it| it.cpu_nanos,
            &[("cpu", "total")],
        ),
        (
            "container_cpu_user_seconds_total",
            "Cumulative user cpu time consumed in seconds.",
            |it| it.cpu_user_nanos,
            &[],
        ),
        (
            "container_cpu_system_seconds_total",
            "Cumulative system cpu time consumed in seconds.",
            |it| it.cpu_system_nanos,
            &[],
        ),
    ];
    for (name, help, value, more) in metrics {
        let mut metric = page.metric(name, Kind::Counter, help);
        for group in groups {
            group.labels.sample(&mut metric, more, seconds(value(&group.usage)), Some(at));
        }
    }
}

fn memory(page: &mut Page, groups: &[Group], at: Timestamp) {
    type Value = fn(&Usage) -> u64;
    let metrics: [(&'static str, &str, Value); 7] = [
        ("container_memory_working_set_bytes", "Current working set in bytes.", |it| {
            it.working_set_bytes
        }),
        ("container_memory_rss", "Size of RSS in bytes.", |it| it.rss_bytes),
        (
            "container_memory_usage_bytes",
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
            |it| it.memory_bytes,
        ),
        ("container_memory_cache", "Number of bytes of page cache memory.", |it| it.cache_bytes),
        ("container_memory_mapped_file", "Size of memory mapped files in bytes.", |it| {
            it.mapped_bytes
        }),
        ("container_memory_swap", "Container swap usage in bytes.", |it| it.swap_bytes),
        ("container_spec_memory_limit_bytes", "Memory limit for the container.", |it| {
            it.memory_limit_bytes.unwrap_or(0)
        }),
    ];
    for (name, help, value) in metrics {
        let mut metric = page.metric(name, Kind::Gauge, help);
        for group in groups {
            group.labels.sample(&mut metric, &[], float(value(&group.usage)), Some(at));
        }
    }
    let help = "Cumulative count of memory allocation failures.";
    let mut metric = page.metric("container_memory_failures_total", Kind::Counter, help);
    for group in groups {
        for (kind, count) in
            [("pgfault", group.usage.page_faults), ("pgmajfault", group.usage.major_page_faults)]
        {
            let more = [("failure_type", kind), ("scope", "hierarchy")];
            group.labels.sample(&mut metric, &more, float(count), Some(at));
        }
    }
}

fn files(page: &mut Page, groups: &[Group], measured: &Measured) {
    let device = [("device", "")];
    let at = Some(measured.at);
    let help = "Number of bytes that are consumed by the container on this filesystem.";
    let mut metric = page.metric("container_fs_usage_bytes", Kind::Gauge, help);
    for group in groups {
        if let Some((bytes, _)) = group.written {
            group.labels.sample(&mut metric, &device, float(bytes), at);
        }
    }
    let help = "Number of bytes that can be consumed by the container on this filesystem.";
    let mut metric = page.metric("container_fs_limit_bytes", Kind::Gauge, help);
    for group in groups.iter().filter(|it| it.written.is_some()) {
        group.labels.sample(&mut metric, &device, float(measured.machine.space.capacity), at);
    }
    let help = "Number of Inodes";
    let mut metric = page.metric("container_fs_inodes_total", Kind::Gauge, help);
    for group in groups {
        if let Some((_, inodes)) = group.written {
            group.labels.sample(&mut metric, &device, float(inodes), at);
        }
    }
}

fn others(page: &mut Page, groups: &[Group], measured: &Measured) {
    let at = Some(measured.at);
    let help = "Last time a container was seen by the exporter";
    let mut metric = page.metric("container_last_seen", Kind::Gauge, help);
    for group in groups {
        group.labels.sample(&mut metric, &[], since_epoch(measured.at).floor(), at);
    }
    let help = "Number of processes running inside the container.";
    let mut metric = page.metric("container_processes", Kind::Gauge, help);
    for group in groups {
        group.labels.sample(&mut metric, &[], float(group.usage.processes), at);
    }
    let help = "Start time of the container since unix epoch in seconds.";
    let mut metric = page.metric("container_start_time_seconds", Kind::Gauge, help);
    for group in groups {
        if let Some(started_at) = group.started_at {
            group.labels.sample(&mut metric, &[], since_epoch(started_at), at);
        }
    }
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    page.metric("container_scrape_error", Kind::Gauge, help).sample(&[], 0.0, None);
    let cores = available_parallelism().map_or(1, std::num::NonZero::get);
    page.metric("machine_cpu_cores", Kind::Gauge, "Number of logical CPU cores.").sample(
        &[],
        float(cores as u64),
        at,
    );
    page.metric("machine_memory_bytes", Kind::Gauge, "Amount of memory installed on the machine.")
        .sample(&[], float(measured.machine.memory.capacity), at);
}

fn network(page: &mut Page, measured: &Measured) {
    type Value = fn(&Interface) -> u64;
    let metrics: [(&'static str, &str, Value); 8] = [
        ("container_network_receive_bytes_total", "Cumulative count of bytes received", |it| {
            it.received.bytes
        }),
        ("container_network_receive_packets_total", "Cumulative count of packets received", |it| {
            it.received.packets
        }),
        (
            "container_network_receive_errors_total",
            "Cumulative count of errors encountered while receiving",
            |it| it.received.errors,
        ),
        (
            "container_network_receive_packets_dropped_total",
            "Cumulative count of packets dropped while receiving",
            |it| it.received.dropped,
        ),
        ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |it| {
            it.sent.bytes
        }),
        (
            "container_network_transmit_packets_total",
            "Cumulative count of packets transmitted",
            |it| it.sent.packets,
        ),
        (
            "container_network_transmit_errors_total",
            "Cumulative count of errors encountered while transmitting",
            |it| it.sent.errors,
        ),
        (
            "container_network_transmit_packets_dropped_total",
            "Cumulative count of packets dropped while transmitting",
            |it| it.sent.dropped,
        ),
    ];
    let root = Labels { id: "/".to_owned(), ..Labels::default() };
    for (name, help, value) in metrics {
        let mut metric = page.metric(name, Kind::Counter, help);
        let mut tell = |labels: &Labels, interfaces: &[Interface]| {
            for interface in interfaces {
                let more = [("interface", interface.name.as_str())];
                labels.sample(&mut metric, &more, float(value(interface)), Some(measured.at));
            }
        };
        tell(&root, &measured.machine.interfaces);
        for pod in &measured.pods {
            let labels = Labels {
                id: format!("/{}", pod.group.display()),
                namespace: pod.namespace.clone(),
                pod: pod.name.clone(),
                ..Labels::default()
            };
            tell(&labels, &pod.network);
        }
    }
}
