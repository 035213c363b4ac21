//! What a machine has of the things that Toono makes, to compare before and after.

use toono_net::nft::Nftables;

use std::{collections::BTreeSet, fs, path::Path, process::Command};

/// Links, namespaces, nft tables, mounts and cgroups, each as a line of text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Machine(BTreeSet<String>);

impl Machine {
    pub(crate) fn now() -> Self {
        let mut lines = BTreeSet::new();
        for entry in fs::read_dir("/sys/class/net").unwrap().flatten() {
            lines.insert(format!("link {}", entry.file_name().to_string_lossy()));
        }
        for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            lines.insert(format!("netns {}", entry.file_name().to_string_lossy()));
        }
        for line in fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
            let point = line.split(' ').nth(4).unwrap();
            // The mount that holds named namespaces stays once made, as with `ip netns`.
            if point != "/run/netns" {
                lines.insert(format!("mount {point}"));
            }
        }
        for (family, table) in Nftables::current().unwrap().tables().unwrap() {
            lines.insert(format!("nft table {family:?} {table}"));
        }
        let output = Command::new("ip").args(["-o", "route"]).output().expect("iproute2");
        for route in String::from_utf8_lossy(&output.stdout).lines() {
            lines.insert(format!("route {}", route.trim()));
        }
        cgroups(Path::new("/sys/fs/cgroup"), 0, &mut lines);
        Self(lines)
    }

    /// What `later` has that this has not, but for what other edges on this machine call theirs.
    pub(crate) fn added_in(&self, later: &Self, lab: &str) -> Vec<String> {
        let added = later.0.difference(&self.0);
        added.filter(|line| !names_another_lab(line, lab)).take(20).cloned().collect()
    }
}

/// Whether the line has `toono-` and four characters in it, the name of a lab, and it is not ours.
fn names_another_lab(line: &str, lab: &str) -> bool {
    let names = line.match_indices("toono-").filter_map(|(at, _)| line.get(at..at + 10));
    let mut names = names.filter(|name| name[6..].bytes().all(|b| b.is_ascii_alphanumeric()));
    names.any(|name| name != lab && name != "toono-edge" && name != "toono-clou")
}

fn cgroups(folder: &Path, depth: usize, lines: &mut BTreeSet<String>) {
    const DEEPEST: usize = 6;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && depth < DEEPEST {
            lines.insert(format!("cgroup {}", entry.path().display()));
            cgroups(&entry.path(), depth + 1, lines);
        }
    }
}
