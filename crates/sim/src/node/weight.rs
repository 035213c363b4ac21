//! Which processes a node has, what they weigh, and what they do while nothing happens.

use std::{fs, path::Path};

use serde_json::json;

use crate::{
    Failure,
    fleet::Figures,
    footprint::{self, Group, Memory},
    process::Process,
};

/// The processes of one node, but for those of its containers.
pub(super) struct Weight {
    pub(super) daemon: Memory,
    pub(super) keepers: Memory,
}

/// What they weigh now.
pub(super) fn of(data: &Path, node: &str) -> Result<Weight, Failure> {
    let mut weight = Weight { daemon: Memory::default(), keepers: Memory::default() };
    for (group, process) in footprint::processes(data) {
        // A process may end while we look at it.
        let Some(memory) = Memory::of(process) else { continue };
        match group {
            Group::Daemon(of) if of == node => weight.daemon += memory,
            Group::Keeper(of) if of == node => weight.keepers += memory,
            _ => {}
        }
    }
    if weight.daemon.processes == 0 {
        Err(format!("{node} does not run").into())
    } else {
        Ok(weight)
    }
}

/// The ids of all of them.
pub(super) fn processes(data: &Path, node: &str) -> Vec<Process> {
    let all = footprint::processes(data).into_iter();
    let own = all
        .filter(|(group, _)| matches!(group, Group::Daemon(of) | Group::Keeper(of) if of == node));
    own.map(|(_, process)| process).collect()
}

/// What processes did, summed.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Rest {
    cpu_seconds: f64,
    /// Bytes that went to the block layer, and calls that write anything to anywhere.
    written: f64,
    writes: f64,
    /// How often one of them was scheduled.
    wakeups: f64,
    /// For how long that was.
    seconds: f64,
}

impl Rest {
    pub(super) fn look(processes: &[Process]) -> Result<Self, Failure> {
        let mut sum = Self::default();
        for process in processes {
            sum.cpu_seconds += process.cpu_seconds()?;
            let io = fs::read_to_string(process.file("io"))?;
            sum.written += number(&io, "write_bytes:");
            sum.writes += number(&io, "syscw:");
            let status = fs::read_to_string(process.file("status"))?;
            sum.wakeups += number(&status, "voluntary_ctxt_switches:");
        }
        Ok(sum)
    }

    pub(super) fn since(self, before: &Self, seconds: f64) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            written: self.written - before.written,
            writes: self.writes - before.writes,
            wakeups: self.wakeups - before.wakeups,
            seconds,
        }
    }

    pub(super) fn tell(self, name: &str, figures: &mut Figures) {
        let percent = self.cpu_seconds / self.seconds * 100.0;
        let minute = |count: f64| count / self.seconds * 60.0;
        let text = format!(
            "{percent:.3} % of a core; in a minute {:.0} bytes to disk, {:.1} calls that write, {:.1} wake-ups",
            minute(self.written),
            minute(self.writes),
            minute(self.wakeups)
        );
        figures.tell(
            name,
            &text,
            json!({"core_percent": percent, "disk_bytes_per_minute": minute(self.written), "writes_per_minute": minute(self.writes),
                "wakeups_per_minute": minute(self.wakeups), "seconds": self.seconds}),
        );
    }
}

/// The first number after a name at the start of a line.
fn number(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.trim().parse().ok()).unwrap_or_default()
}
