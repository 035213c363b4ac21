//! When a node runs short of what its pods share, what it says of that, and which pod is to make room.
//!
//! As <https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/> has it. What is left of what
//! is measured by others, and so is it others who end the pod.

mod thresholds;

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

pub use thresholds::{
    GracePeriods, Least, Rules, Soft, ThresholdError, Thresholds, period, written,
};

/// Pods of this priority and above are what the node itself needs.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// What may run short. The order is that in which it is taken care of: what harms most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// `memory.available`
    Memory,
    /// `nodefs.available`: the file system of logs, volumes and what containers write.
    Nodefs,
    /// `nodefs.inodesFree`
    NodefsInodes,
    /// `imagefs.available`: the file system of images.
    Imagefs,
    /// `imagefs.inodesFree`
    ImagefsInodes,
    /// `pid.available`
    Pids,
}

/// A condition of the Node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// `MemoryPressure`
    Memory,
    /// `DiskPressure`
    Disk,
    /// `PIDPressure`
    Pids,
}

/// How much there is left, and in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Level {
    /// What is left.
    pub available: u64,
    /// What there is in all.
    pub capacity: u64,
}

/// A threshold that is crossed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// Of what.
    pub signal: Signal,
    /// The least that is to be left, in units.
    pub least: u64,
    /// What is left.
    pub available: u64,
    /// The pod that is ended for it may take so long; none where there is no time left.
    pub grace: Option<Duration>,
}

/// What is known of a node's shortages.
#[derive(Debug, Clone, Default)]
pub struct Pressure {
    rules: Rules,
    last_seen: BTreeMap<Condition, Duration>,
    /// Since when each soft threshold has been crossed.
    crossed: BTreeMap<Signal, Duration>,
}

/// A pod that may be ended to make room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// `metadata.uid`
    pub uid: String,
    /// `spec.priority`
    pub priority: i32,
    /// Run from a file of the node, which would only start it again.
    pub is_static: bool,
    /// What it uses of what runs short.
    pub usage: u64,
    /// What it has asked for of that.
    pub request: u64,
    /// Its containers, for the message.
    pub containers: Vec<Share>,
}

/// One container's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The container's name.
    pub name: String,
    /// What it uses of what runs short.
    pub usage: u64,
    /// What it has asked for of that.
    pub request: u64,
}

impl Signal {
    const ALL: [Self; 6] = [
        Self::Memory,
        Self::Nodefs,
        Self::NodefsInodes,
        Self::Imagefs,
        Self::ImagefsInodes,
        Self::Pids,
    ];

    /// As it is called in the kubelet's settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory.available",
            Self::Nodefs => "nodefs.available",
            Self::NodefsInodes => "nodefs.inodesFree",
            Self::Imagefs => "imagefs.available",
            Self::ImagefsInodes => "imagefs.inodesFree",
            Self::Pids => "pid.available",
        }
    }

    /// What it is that runs short.
    #[must_use]
    pub fn resource(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Nodefs | Self::Imagefs => "ephemeral-storage",
            Self::NodefsInodes | Self::ImagefsInodes => "inodes",
            Self::Pids => "pids",
        }
    }

    /// What the Node says then.
    #[must_use]
    pub fn condition(self) -> Condition {
        match self {
            Self::Memory => Condition::Memory,
            Self::Pids => Condition::Pids,
            _ => Condition::Disk,
        }
    }
}

impl Condition {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Disk, Self::Pids];

    /// The condition's type.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "MemoryPressure",
            Self::Disk => "DiskPressure",
            Self::Pids => "PIDPressure",
        }
    }

    /// Reason and message while it holds, or does not.
    #[must_use]
    pub fn texts(self, holds: bool) -> (&'static str, &'static str) {
        match (self, holds) {
            (Self::Memory, true) => {
                ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available")
            }
            (Self::Memory, false) => {
                ("KubeletHasSufficientMemory", "kubelet has sufficient memory available")
            }
            (Self::Disk, true) => ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            (Self::Disk, false) => ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            (Self::Pids, true) => {
                ("KubeletHasInsufficientPID", "kubelet has insufficient PID available")
            }
            (Self::Pids, false) => {
                ("KubeletHasSufficientPID", "kubelet has sufficient PID available")
            }
        }
    }

    /// The reason of the event when it begins or ends to hold.
    #[must_use]
    pub fn event(self, holds: bool) -> &'static str {
        match (self, holds) {
            (Self::Memory, true) => "NodeHasInsufficientMemory",
            (Self::Memory, false) => "NodeHasSufficientMemory",
            (Self::Disk, true) => "NodeHasDiskPressure",
            (Self::Disk, false) => "NodeHasNoDiskPressure",
            (Self::Pids, true) => "NodeHasInsufficientPID",
            (Self::Pids, false) => "NodeHasSufficientPID",
        }
    }
}

impl Pressure {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// By what is judged.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Takes what is left now; what is to be done something about, the first to be taken care of first.
    pub fn observe(&mut self, levels: &[(Signal, Level)], now: Duration) -> Vec<Shortage> {
        let mut shortages = Vec::new();
        // What cannot be measured is not short.
        for (signal, level) in levels.iter().filter(|(_, level)| level.capacity > 0) {
            let soft = self.observe_soft(*signal, *level, now);
            let hard = below(&self.rules.hard, *signal, *level);
            if hard.is_some() {
                self.last_seen.insert(signal.condition(), now);
            }
            shortages.extend(hard.or(soft));
        }
        shortages.sort_by_key(|it: &Shortage| it.signal);
        shortages
    }

    /// The Node says at once that a soft threshold is crossed, and a pod is ended when it has been for a while.
    fn observe_soft(&mut self, signal: Signal, level: Level, now: Duration) -> Option<Shortage> {
        let soft = &self.rules.soft;
        let Some(short) = below(soft.thresholds(), signal, level) else {
            self.crossed.remove(&signal);
            return None;
        };
        self.last_seen.insert(signal.condition(), now);
        let since = *self.crossed.entry(signal).or_insert(now);
        let is_due = now.saturating_sub(since) >= soft.grace(signal);
        is_due.then_some(Shortage { grace: Some(soft.pod_grace), ..short })
    }

    /// Whether the Node says so: a condition that comes and goes would move pods to and fro, so it stays a while.
    #[must_use]
    pub fn holds(&self, condition: Condition, now: Duration) -> bool {
        let seen = self.last_seen.get(&condition);
        seen.is_some_and(|seen| now.saturating_sub(*seen) < self.rules.transition)
    }

    /// Whether a pod that has just come may run here; the error says why not.
    ///
    /// # Errors
    /// The message of the pod's status.
    pub fn admit(&self, pod: &Newcomer, now: Duration) -> Result<(), String> {
        let conditions = Condition::ALL.into_iter().filter(|it| self.holds(*it, now));
        let held: Vec<&str> = conditions.map(Condition::name).collect();
        let is_critical = pod.is_static || pod.priority >= CRITICAL_PRIORITY;
        let only_memory = held == [Condition::Memory.name()];
        let suits = only_memory && (!pod.is_best_effort || pod.tolerates_memory_pressure);
        if held.is_empty() || is_critical || suits {
            return Ok(());
        }
        Err(format!("The node had condition: [{}]. ", held.join(" ")))
    }
}

/// What is missing of a threshold.
fn below(thresholds: &Thresholds, signal: Signal, level: Level) -> Option<Shortage> {
    let (least, available) = (thresholds.least(signal, level.capacity), level.available);
    (available < least).then_some(Shortage { signal, least, available, grace: None })
}

/// What of a pod decides whether it may come to a node under pressure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Newcomer {
    /// `spec.priority`
    pub priority: i32,
    /// Run from a file of the node.
    pub is_static: bool,
    /// It asks for nothing.
    pub is_best_effort: bool,
    /// It tolerates the taint `node.kubernetes.io/memory-pressure`.
    pub tolerates_memory_pressure: bool,
}

impl Shortage {
    /// Brings those that are to go first to the front: who uses more than it asked for, who matters less, who
    /// uses most beyond what it asked for. Those that are never ended are left out.
    #[must_use]
    pub fn order(&self, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
        candidates.retain(|it| !it.is_static && it.priority < CRITICAL_PRIORITY);
        let asked = self.signal != Signal::Pids;
        candidates.sort_by_key(|it| {
            let excess = i128::from(it.usage) - i128::from(it.request);
            (Reverse(asked && excess > 0), it.priority, Reverse(excess))
        });
        candidates
    }

    /// What the status of a pod says that was ended for it.
    #[must_use]
    pub fn message(&self, pod: &Candidate) -> String {
        let resource = self.signal.resource();
        let mut text = format!(
            "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. ",
            quantity(self.least),
            quantity(self.available)
        );
        // The kubelet knows of no container's inodes or processes.
        let told = matches!(resource, "memory" | "ephemeral-storage");
        for share in pod.containers.iter().filter(|it| told && it.usage > it.request) {
            text.push_str(&format!(
                "Container {} was using {}, request is {}, has larger consumption of {resource}. ",
                share.name,
                quantity(share.usage),
                quantity(share.request)
            ));
        }
        text
    }
}

/// A number of bytes as a quantity in binary units, in Kubernetes' canonical form.
#[must_use]
pub fn quantity(amount: u64) -> String {
    const UNITS: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let whole = |unit: &usize| amount != 0 && amount.trailing_zeros() as usize >= 10 * unit;
    let unit = (0..UNITS.len()).rev().find(whole).unwrap_or(0);
    format!("{}{}", amount >> (10 * unit), UNITS.get(unit).copied().unwrap_or_default())
}
