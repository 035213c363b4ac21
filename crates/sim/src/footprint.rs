//! What the processes of an edge weigh, by the kernel's own account
//! (`smaps_rollup` of <https://docs.kernel.org/filesystems/proc.html>).

use std::{collections::BTreeMap, error::Error, fs, ops::AddAssign, path::Path};

use crate::process::Process;

/// Memory of one process, or the sum of several, KiB.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) processes: u32,
    pub(crate) rss: u64,
    /// Each shared page counted in parts, so that sums are true.
    pub(crate) pss: u64,
    /// What ending the process would free.
    pub(crate) private: u64,
}

/// What a process is to its edge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    Server,
    /// The daemon of this node.
    Daemon(String),
    /// A keeper of this node.
    Keeper(String),
}

pub(crate) fn run(data: &Path) -> Result<(), Box<dyn Error>> {
    let mut groups: BTreeMap<Group, Memory> = BTreeMap::new();
    for (group, process) in processes(data) {
        // A process may end while we look at it.
        if let Some(memory) = Memory::of(process) {
            *groups.entry(group).or_default() += memory;
        }
    }
    println!(
        "{:<28} {:>9} {:>9} {:>9} {:>12}",
        "process", "count", "RSS KiB", "PSS KiB", "private KiB"
    );
    for (group, memory) in groups {
        let Memory { processes, rss, pss, private } = memory;
        let name = match group {
            Group::Server => "server".to_owned(),
            Group::Daemon(node) => format!("{node} daemon"),
            Group::Keeper(node) => format!("{node} keepers"),
        };
        println!("{name:<28} {processes:>9} {rss:>9} {pss:>9} {private:>12}");
    }
    Ok(())
}

/// Everything that runs for the edge with this data directory, but for what is in its containers.
pub(crate) fn processes(data: &Path) -> Vec<(Group, Process)> {
    let data = std::path::absolute(data).unwrap_or_else(|_| data.to_owned()).display().to_string();
    let ids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let found = ids.filter_map(|id| {
        let process = Process(id);
        Some((group(&command_line(process), &data)?, process))
    });
    let mut found: Vec<_> = found.collect();
    found.extend(keepers(&found));
    found
}

/// Those of the daemons found: a keeper is in a cgroup of its own, below the one that its daemon was given.
fn keepers(found: &[(Group, Process)]) -> Vec<(Group, Process)> {
    let roots: Vec<(&str, String)> = found
        .iter()
        .filter_map(|(group, process)| {
            let Group::Daemon(node) = group else { return None };
            let line = command_line(*process);
            let (_, after) = line.split_once("--cgroup-root ")?;
            Some((node.as_str(), format!(":{}/", after.split(' ').next()?)))
        })
        .collect();
    let ids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let keepers = ids.filter_map(|id| {
        let process = Process(id);
        let cgroups = fs::read_to_string(process.file("cgroup")).ok()?;
        let own = cgroups.lines().find(|line| line.ends_with("/keeper"))?;
        let (node, _) = roots.iter().find(|(_, root)| own.contains(root.as_str()))?;
        Some((Group::Keeper((*node).to_owned()), process))
    });
    keepers.collect()
}

fn command_line(process: Process) -> String {
    let line = fs::read(process.file("cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ")
}

/// Which one a command line belongs to.
fn group(line: &str, data: &str) -> Option<Group> {
    let command = line.split(' ').nth(1)?;
    match command {
        "server" if line.contains(data) => Some(Group::Server),
        "node" => Some(Group::Daemon(node_in(line, data)?)),
        _ => None,
    }
}

fn node_in(line: &str, data: &str) -> Option<String> {
    let (_, after) = line.split_once(&format!("{data}/nodes/"))?;
    after.split(['/', ' ', '"']).next().map(str::to_owned)
}

impl Memory {
    /// None when it has ended.
    pub(crate) fn of(process: Process) -> Option<Self> {
        let text = fs::read_to_string(process.file("smaps_rollup")).ok()?;
        let field = |name: &str| {
            text.lines()
                .find_map(|line| {
                    line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok()
                })
                .unwrap_or_default()
        };
        Some(Self {
            processes: 1,
            rss: field("Rss:"),
            pss: field("Pss:"),
            private: field("Private_Clean:") + field("Private_Dirty:"),
        })
    }
}

impl AddAssign for Memory {
    fn add_assign(&mut self, other: Self) {
        self.processes += other.processes;
        self.rss += other.rss;
        self.pss += other.pss;
        self.private += other.private;
    }
}
