//! What the node and its pods use of the machine, measured when somebody asks.
//!
//! Nothing is measured beforehand and nothing is cached but, of each group, two earlier readings of its
//! processor time, since a rate needs one. How it is told is the callers' matter.

pub(crate) mod disk;
pub(crate) mod machine;
mod network;
mod rates;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use jiff::Timestamp;
use toono_sandbox::{ContainerId, Trees, Usage, pod_path, writable_layer};

use crate::{
    views::{PodView, Views},
    worker::Node,
};
use disk::{Space, Used};
use machine::Machine;
pub(crate) use network::Interface;
pub(crate) use rates::Rate;
use rates::Rates;

/// Measures.
#[derive(Debug, Clone)]
pub(crate) struct Stats {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    data: PathBuf,
    cgroup_parent: String,
    views: Views,
    trees: Trees,
    rates: Mutex<Rates>,
}

/// All at one time.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) node: String,
    pub(crate) at: Timestamp,
    pub(crate) machine: Machine,
    /// Of the whole machine's processors.
    pub(crate) rate: Option<Rate>,
    pub(crate) pods: Vec<PodMeasured>,
}

/// One pod that has containers running.
#[derive(Debug)]
pub(crate) struct PodMeasured {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) started_at: Option<Timestamp>,
    /// The pod's group, below the hierarchy's root.
    pub(crate) group: PathBuf,
    pub(crate) usage: Usage,
    pub(crate) rate: Option<Rate>,
    /// Empty for one in the node's own network.
    pub(crate) network: Vec<Interface>,
    pub(crate) containers: Vec<ContainerMeasured>,
    /// Its volumes that are on this node, when files were asked for.
    pub(crate) volumes: Vec<VolumeMeasured>,
    pub(crate) dir: PathBuf,
}

/// One running container.
#[derive(Debug)]
pub(crate) struct ContainerMeasured {
    pub(crate) name: String,
    pub(crate) attempt: u32,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) group: PathBuf,
    pub(crate) usage: Usage,
    pub(crate) rate: Option<Rate>,
    /// What it has written in its root file system, and its logs, when files were asked for.
    pub(crate) files: Option<(Used, Used)>,
}

/// One volume of a pod.
#[derive(Debug)]
pub(crate) struct VolumeMeasured {
    pub(crate) name: String,
    pub(crate) used: Used,
    pub(crate) space: Space,
    /// It is memory, not disk.
    pub(crate) in_memory: bool,
}

/// Whether files are counted too, which takes a look at each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    Kernel,
    Files,
}

impl Stats {
    pub(crate) fn new(node: &Node) -> Self {
        let trees = Trees::find().unwrap_or_default();
        let inner = Inner {
            name: node.name.clone(),
            data: node.data.clone(),
            cgroup_parent: node.cgroup_parent.clone(),
            views: node.views.clone(),
            trees,
            rates: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Everything, off the agent's thread: files may be many, and disks slow.
    pub(crate) async fn measure(&self, depth: Depth) -> Option<Measured> {
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || inner.measure(depth)).await.ok()
    }
}

impl Inner {
    fn measure(&self, depth: Depth) -> Measured {
        let (now, at) = (Instant::now(), Timestamp::now());
        let machine = Machine::read(&self.data);
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let age = std::time::Duration::try_from(at.duration_since(machine.booted_at)).ok();
        let rate = rates.of(Path::new(""), now, machine.cpu_nanos, age);
        let pods = self.views.all().into_iter().filter_map(|((namespace, name), view)| {
            self.pod((namespace, name), view, (now, at), &mut rates, depth)
        });
        let pods = pods.collect();
        rates.forget_others(now);
        Measured { node: self.name.clone(), at, machine, rate, pods }
    }

    fn pod(
        &self,
        (namespace, name): (String, String),
        view: PodView,
        (now, at): (Instant, Timestamp),
        rates: &mut Rates,
        depth: Depth,
    ) -> Option<PodMeasured> {
        let group = pod_path(&self.cgroup_parent, &view.uid);
        let usage = self.trees.usage(&group)?;
        let age = |since: Option<Timestamp>| {
            std::time::Duration::try_from(at.duration_since(since?)).ok()
        };
        let running = view.containers.iter().filter(|(_, it)| it.running);
        let containers = running.filter_map(|(container, state)| {
            let attempt = state.newest?;
            let id = ContainerId::new(container, attempt);
            let group = group.join(id.as_str());
            let usage = self.trees.usage(&group)?;
            let files = || {
                let logs = disk::used(&view.dir.join("logs").join(container));
                (disk::used(&writable_layer(&view.dir, &id)), logs)
            };
            Some(ContainerMeasured {
                name: container.clone(),
                attempt,
                started_at: state.started_at,
                rate: rates.of(&group, now, usage.cpu_nanos, age(state.started_at)),
                group,
                usage,
                files: (depth == Depth::Files).then(files),
            })
        });
        let containers: Vec<_> = containers.collect();
        if containers.is_empty() {
            return None;
        }
        let own_network = view.keeper.as_ref().filter(|_| !view.host_network);
        Some(PodMeasured {
            namespace,
            name,
            started_at: Some(view.started_at),
            rate: rates.of(&group, now, usage.cpu_nanos, age(Some(view.started_at))),
            group,
            usage,
            network: own_network
                .map(|it| network::of_process(it.pid().as_raw()))
                .unwrap_or_default(),
            containers,
            volumes: if depth == Depth::Files { volumes(&view.dir) } else { Vec::new() },
            uid: view.uid,
            dir: view.dir,
        })
    }
}

/// What a container has written in its root file system and as logs.
pub(crate) fn written(dir: &Path, container: &str) -> Used {
    let mut used = disk::used(&dir.join("logs").join(container));
    for layer in toono_sandbox::writable_layers(dir, container) {
        used += disk::used(&layer);
    }
    used
}

/// What a pod's volumes hold, but for those that are directories of the host.
pub(crate) fn volumes(dir: &Path) -> Vec<VolumeMeasured> {
    let entries = std::fs::read_dir(dir.join("volumes")).into_iter().flatten().flatten();
    let measure = |entry: std::fs::DirEntry| {
        let path = entry.path();
        Some(VolumeMeasured {
            name: entry.file_name().into_string().ok()?,
            used: disk::used(&path),
            space: Space::of(&path),
            in_memory: crate::container::volumes::is_mount_point(&path),
        })
    };
    entries.filter_map(measure).collect()
}
