//! What the processes of an edge weigh, by the kernel's own account
//! (`smaps_rollup` of <https://docs.kernel.org/filesystems/proc.html>).

use std::{collections::BTreeMap, error::Error, fs, path::Path};

/// Memory of one process, or the sum of several, KiB.
#[derive(Debug, Default, Clone, Copy)]
struct Memory {
    processes: u32,
    rss: u64,
    /// Each shared page counted in parts, so that sums are true.
    pss: u64,
    /// What ending the process would free.
    private: u64,
}

pub(crate) fn run(data: &Path) -> Result<(), Box<dyn Error>> {
    let data = std::path::absolute(data)?.display().to_string();
    let mut groups: BTreeMap<String, Memory> = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let Some(group) = group(&line, &data) else { continue };
        // A process may end while we look at it.
        let Some(memory) = memory(&entry.path()) else { continue };
        let sum = groups.entry(group).or_default();
        sum.processes += memory.processes;
        sum.rss += memory.rss;
        sum.pss += memory.pss;
        sum.private += memory.private;
    }
    println!(
        "{:<28} {:>9} {:>9} {:>9} {:>12}",
        "process", "count", "RSS KiB", "PSS KiB", "private KiB"
    );
    for (name, memory) in groups {
        let Memory { processes, rss, pss, private } = memory;
        println!("{name:<28} {processes:>9} {rss:>9} {pss:>9} {private:>12}");
    }
    Ok(())
}

/// Which row a command line belongs to: the server, a node's daemon, or a node's keepers.
fn group(line: &str, data: &str) -> Option<String> {
    let command = line.split(' ').nth(1)?;
    match command {
        "server" if line.contains(data) => Some("server".to_owned()),
        "node" => Some(format!("{} daemon", node_in(line, data)?)),
        "keeper" => Some(format!("{} keepers", node_in(line, data)?)),
        _ => None,
    }
}

fn node_in(line: &str, data: &str) -> Option<String> {
    let (_, after) = line.split_once(&format!("{data}/nodes/"))?;
    after.split(['/', ' ', '"']).next().map(str::to_owned)
}

fn memory(process: &Path) -> Option<Memory> {
    let text = fs::read_to_string(process.join("smaps_rollup")).ok()?;
    let field = |name: &str| {
        text.lines()
            .find_map(|line| {
                line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok()
            })
            .unwrap_or_default()
    };
    Some(Memory {
        processes: 1,
        rss: field("Rss:"),
        pss: field("Pss:"),
        private: field("Private_Clean:") + field("Private_Dirty:"),
    })
}
