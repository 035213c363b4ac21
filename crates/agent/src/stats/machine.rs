//! What the machine as a whole uses and has, by the kernel's own account.

use std::{fs, path::Path};

use jiff::Timestamp;

use super::{
    disk::Space,
    network::{self, Interface},
};

/// `/proc/stat` counts in hundredths of a second.
const TICK_NANOS: u64 = 10_000_000;
const KIB: u64 = 1024;

/// One reading.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) booted_at: Timestamp,
    /// Processor time since the boot, of all processors.
    pub(crate) cpu_nanos: u64,
    pub(crate) memory: Memory,
    pub(crate) page_faults: u64,
    pub(crate) major_page_faults: u64,
    pub(crate) processes: Processes,
    pub(crate) interfaces: Vec<Interface>,
    /// The file system of the node's data, its images among them.
    pub(crate) space: Space,
}

/// In bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) capacity: u64,
    pub(crate) usage: u64,
    /// Usage but for files that nobody has used lately.
    pub(crate) working_set: u64,
    pub(crate) rss: u64,
    pub(crate) swap_used: u64,
    pub(crate) swap_free: u64,
}

/// How many there are, and may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Processes {
    pub(crate) running: u64,
    pub(crate) most: u64,
}

impl Machine {
    pub(crate) fn read(data: &Path) -> Self {
        let stat = text("/proc/stat");
        let faults = text("/proc/vmstat");
        let booted = field(&stat, "btime ").and_then(|it| i64::try_from(it).ok());
        Self {
            booted_at: booted.and_then(|it| Timestamp::from_second(it).ok()).unwrap_or_default(),
            cpu_nanos: busy_ticks(&stat).saturating_mul(TICK_NANOS),
            memory: Memory::read(),
            page_faults: field(&faults, "pgfault ").unwrap_or(0),
            major_page_faults: field(&faults, "pgmajfault ").unwrap_or(0),
            processes: Processes::read(),
            interfaces: network::own(),
            space: Space::of(data),
        }
    }
}

impl Memory {
    pub(crate) fn read() -> Self {
        Self::of(&text("/proc/meminfo"))
    }

    /// As the kubelet has it: what is neither free nor a file that nobody has used lately is needed.
    fn of(meminfo: &str) -> Self {
        let bytes = |name: &str| field(meminfo, name).unwrap_or(0).saturating_mul(KIB);
        let capacity = bytes("MemTotal:");
        let usage = capacity.saturating_sub(bytes("MemFree:"));
        let swap_free = bytes("SwapFree:");
        Self {
            capacity,
            usage,
            working_set: usage.saturating_sub(bytes("Inactive(file):")),
            rss: bytes("AnonPages:"),
            swap_used: bytes("SwapTotal:").saturating_sub(swap_free),
            swap_free,
        }
    }

    pub(crate) fn available(&self) -> u64 {
        self.capacity.saturating_sub(self.working_set)
    }
}

impl Processes {
    pub(crate) fn read() -> Self {
        let limit = |path: &str| text(path).trim().parse::<u64>().unwrap_or(0);
        let most = limit("/proc/sys/kernel/pid_max").min(limit("/proc/sys/kernel/threads-max"));
        Self { running: tasks(&text("/proc/loadavg")).unwrap_or(0), most }
    }
}

/// The fourth field is `RUNNABLE/ALL`.
fn tasks(loadavg: &str) -> Option<u64> {
    loadavg.split(' ').nth(3)?.split_once('/')?.1.parse().ok()
}

/// The sum of all that is not idling, nor waiting for a disk.
fn busy_ticks(stat: &str) -> u64 {
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    // user nice system idle iowait irq softirq steal; guests are in user already.
    let numbers = line.split_whitespace().take(8).enumerate();
    numbers
        .filter(|(at, _)| !matches!(at, 3 | 4))
        .filter_map(|(_, it)| it.parse::<u64>().ok())
        .sum()
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let memory = Memory::of(
            "MemTotal: 1000 kB\nMemFree: 400 kB\nInactive(file):  100 kB\nAnonPages: 200 kB\nSwapTotal: 50 kB\nSwapFree: 20 kB\n",
        );
        assert_eq!((memory.usage, memory.working_set), (600 * KIB, 500 * KIB));
        assert_eq!(
            (memory.available(), memory.rss, memory.swap_used),
            (500 * KIB, 200 * KIB, 30 * KIB)
        );
        assert_eq!(busy_ticks("cpu  1 2 4 1000 1000 8 16 32 64 128\ncpu0 9 9 9\n"), 63);
        assert_eq!(tasks("0.16 0.31 0.49 4/213 9187\n"), Some(213));
    }

    #[test]
    fn this_machine_is_measured() {
        let machine = Machine::read(Path::new("/"));
        assert!(machine.booted_at < Timestamp::now() && machine.booted_at > Timestamp::UNIX_EPOCH);
        assert!(machine.cpu_nanos > 0 && machine.memory.working_set <= machine.memory.usage);
        assert!(
            machine.processes.running > 0 && machine.processes.most > machine.processes.running
        );
    }
}
