//! What the node does when it runs short: it says so, deletes what nobody uses, and ends pods.
//!
//! It looks when the agent is awake for a heartbeat anyway, and when the kernel says that processes wait
//! for memory. What is short, and who goes first, `toono_podmachine::pressure` decides.

mod candidates;
mod limits;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use toono_podmachine::{
    Moment,
    pressure::{Condition, Level, Shortage, Signal},
};
use toono_sandbox::Stalls;
use toono_wire::report::EventReport;

use crate::{
    images, node_status,
    stats::{
        Depth, Stats,
        disk::Space,
        machine::{Memory, Processes},
    },
    worker::Node,
};
pub(crate) use limits::is_bounded;

/// A pod that was told to end is waited for so long, as with the kubelet, before the next one is.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is seen whether it has ended.
const CLEANUP_PAUSE: Duration = Duration::from_secs(1);
/// Counting the files of pods that may take only so much costs a look at each of them.
const LIMITS_PERIOD: Duration = Duration::from_secs(60);

/// A pod that is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Evict {
    pub(crate) uid: String,
    pub(crate) message: String,
    /// It has kept to its limits.
    pub(crate) disrupts: bool,
    /// It may take so long; none where there is no time left.
    pub(crate) grace: Option<Duration>,
}

/// Where they are told to.
pub(crate) type Evictions = mpsc::UnboundedSender<Evict>;

/// The one that looks.
#[derive(Debug)]
pub(crate) struct Eviction {
    node: Arc<Node>,
    stats: Stats,
    evictions: Evictions,
    /// When the files of bounded pods were counted.
    counted: Option<Instant>,
    /// What was short at the last look.
    short: Option<Signal>,
}

impl Eviction {
    pub(crate) fn new(node: Arc<Node>, stats: Stats, evictions: Evictions) -> Self {
        Self { node, stats, evictions, counted: None, short: None }
    }

    /// Looks for as long as the agent lives.
    pub(crate) async fn run(mut self) {
        let mut stalls = Stalls::listen();
        loop {
            tokio::select! {
                () = self.node.awake.notified() => {}
                () = stalls.next() => {}
            }
            while let Some(evicted) = self.look().await {
                if !self.until_over(&evicted).await {
                    break;
                }
            }
        }
    }

    /// One look; the pod that it ended.
    async fn look(&mut self) -> Option<Evict> {
        let shortages = self.observe();
        // All of them: each has only itself to blame.
        let mut told = None;
        for evict in self.over_limits().await {
            told = Some(self.evict(evict));
        }
        if told.is_some() {
            return told;
        }
        let first = shortages.first();
        let is_new = first.map(|it| it.signal) != self.short;
        self.short = first.map(|it| it.signal);
        let shortage = *first?;
        let resource = shortage.signal.resource();
        if is_new {
            self.tell("EvictionThresholdMet", &format!("Attempting to reclaim {resource}"));
        }
        let signal = shortage.signal;
        if signal.condition() == Condition::Disk && self.free_disk(signal).await {
            tracing::info!(resource, "images were deleted, and there is room again");
            return None;
        }
        let depth = if matches!(signal, Signal::Memory | Signal::Pids) {
            Depth::Kernel
        } else {
            Depth::Files
        };
        let measured = self.stats.measure(depth).await?;
        let ordered = shortage.order(candidates::of(&measured, signal));
        let Some(pod) = ordered.first() else {
            tracing::warn!(resource, "the node is short of it, and there is no pod to end");
            return None;
        };
        let (uid, message) = (pod.uid.clone(), shortage.message(pod));
        Some(self.evict(Evict { uid, message, disrupts: true, grace: shortage.grace }))
    }

    /// Takes what is left, and tells the cloud what changed.
    fn observe(&self) -> Vec<Shortage> {
        let now = self.node.clock.now();
        let (shortages, changed) = {
            let mut pressure = self.node.pressure();
            let held = |pressure: &toono_podmachine::pressure::Pressure| {
                Condition::ALL.map(|it| pressure.holds(it, now.elapsed))
            };
            let shortages = pressure.observe(&levels(&self.node.data), now.elapsed);
            (shortages, held(&pressure))
        };
        self.show(changed, now);
        shortages
    }

    fn show(&self, held: [bool; 3], _now: Moment) {
        let mut news = Vec::new();
        self.node.outbox.change_node(|status| {
            for (condition, holds) in Condition::ALL.into_iter().zip(held) {
                if node_status::set_condition(status, condition, holds) {
                    news.push(condition.event(holds));
                }
            }
            !news.is_empty()
        });
        for reason in news {
            self.tell(reason, &format!("Node {} status is now: {reason}", self.node.name));
        }
    }

    fn tell(&self, reason: &str, message: &str) {
        let is_warning = reason == "EvictionThresholdMet";
        self.node.outbox.events(vec![EventReport {
            namespace: "default".to_owned(),
            pod: String::new(),
            pod_uid: String::new(),
            field_path: String::new(),
            kind: if is_warning { "Warning" } else { "Normal" }.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            at: self.node.clock.now().wall.to_string(),
        }]);
    }

    fn evict(&self, evict: Evict) -> Evict {
        tracing::warn!(uid = evict.uid, message = evict.message, "a pod is evicted");
        // The supervisor ends with the agent, as this does.
        let _ = self.evictions.send(evict.clone());
        evict
    }

    /// Whether it has ended in time.
    async fn until_over(&self, evicted: &Evict) -> bool {
        let patience = CLEANUP_TIMEOUT.saturating_add(evicted.grace.unwrap_or_default());
        let deadline = tokio::time::Instant::now() + patience;
        while tokio::time::Instant::now() < deadline {
            tokio::time::sleep(CLEANUP_PAUSE).await;
            if self.node.views.has_ended(&evicted.uid) {
                return true;
            }
        }
        false
    }

    /// Whether nothing is short of it any more once the images are gone that no pod names.
    async fn free_disk(&self, signal: Signal) -> bool {
        let node = self.node.clone();
        let freed = tokio::task::spawn_blocking(move || images::delete_unused(&node)).await;
        if let Ok(Err(error)) = freed {
            tracing::warn!(error, "unused images are not deleted");
        }
        self.observe().iter().all(|it| it.signal != signal)
    }

    /// The pods that take more of the disk than they may, looked for now and then.
    async fn over_limits(&mut self) -> Vec<Evict> {
        let is_due = self.counted.is_none_or(|at| at.elapsed() >= LIMITS_PERIOD);
        if !is_due {
            return Vec::new();
        }
        let bounded = self.node.views.bounded();
        self.counted = (!bounded.is_empty()).then(Instant::now);
        if bounded.is_empty() {
            return Vec::new();
        }
        let look = move || {
            let judge = |(uid, dir): (String, PathBuf)| {
                let message = limits::exceeded(&dir)?;
                Some(Evict { uid, message, disrupts: false, grace: None })
            };
            bounded.into_iter().filter_map(judge).collect::<Vec<_>>()
        };
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }
}

/// What is left of everything that may run short.
fn levels(data: &Path) -> Vec<(Signal, Level)> {
    let memory = Memory::read();
    let processes = Processes::read();
    let space = Space::of(data);
    let bytes = Level { available: space.available, capacity: space.capacity };
    let inodes = Level { available: space.inodes_free, capacity: space.inodes };
    vec![
        (Signal::Memory, Level { available: memory.available(), capacity: memory.capacity }),
        (Signal::Nodefs, bytes),
        (Signal::NodefsInodes, inodes),
        // Images are below the same directory.
        (Signal::Imagefs, bytes),
        (Signal::ImagefsInodes, inodes),
        (
            Signal::Pids,
            Level {
                available: processes.most.saturating_sub(processes.running),
                capacity: processes.most,
            },
        ),
    ]
}
