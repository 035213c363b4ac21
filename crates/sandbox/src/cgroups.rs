//! The control groups of pods: where they are, who is in them, how they go away.
//!
//! Version 1 (one tree per controller), version 2 and both mounted side by side. Containers' own
//! groups are made by libcontainer; it leaves their parents behind, so removal is here. Groups
//! outside of the paths given are never touched.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::signal::{SIGKILL, kill},
    unistd::Pid,
};

/// A killed process leaves its group when it is reaped, which is soon but not at once.
const EMPTYING_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a group is looked at while it empties; the kernel has no event for it in version 1.
const EMPTYING_PAUSE: Duration = Duration::from_millis(2);

/// The path, within every tree, of a pod's group: `<parent>/pod<uid>`.
#[must_use]
pub fn pod_path(parent: &str, pod_uid: &str) -> PathBuf {
    PathBuf::from(parent.trim_matches('/')).join(format!("pod{pod_uid}"))
}

/// Removes the empty groups of pods below `parent`, and `parent` itself if nothing is left in it.
/// A group with processes stays.
///
/// # Errors
/// A tree that cannot be read.
pub fn prune_cgroups(parent: &str) -> io::Result<()> {
    let parent = Path::new(parent.trim_matches('/'));
    if parent.as_os_str().is_empty() {
        return Ok(());
    }
    for tree in trees()? {
        remove_empty(&tree.join(parent))?;
    }
    Ok(())
}

/// Kills every process in the group and below, and removes it in all trees.
///
/// # Errors
/// A group that did not empty within [`EMPTYING_TIMEOUT`].
pub(crate) fn kill_and_remove(path: &Path) -> io::Result<()> {
    let groups: Vec<PathBuf> =
        trees()?.into_iter().map(|tree| tree.join(path)).filter(|group| group.exists()).collect();
    let deadline = Instant::now() + EMPTYING_TIMEOUT;
    for group in &groups {
        while !remove_or_kill(group)? {
            if Instant::now() > deadline {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("{} still has processes", group.display()),
                ));
            }
            sleep(EMPTYING_PAUSE);
        }
    }
    Ok(())
}

/// Whether the kernel has killed a process of this group because its memory ran out.
pub(crate) fn oom_killed(path: &Path) -> bool {
    let Ok(trees) = trees() else { return false };
    trees.iter().any(|tree| {
        ["memory.events", "memory.oom_control"].iter().any(|file| {
            fs::read_to_string(tree.join(path).join(file)).is_ok_and(|text| {
                text.lines().any(|line| {
                    line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0")
                })
            })
        })
    })
}

/// The mount points of all trees.
pub(crate) fn trees() -> io::Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    Ok(mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (path, kind) = (fields.next()?, fields.next()?);
            matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(path))
        })
        .collect())
}

/// Whether there is one tree, of version 2.
pub(crate) fn unified_only() -> bool {
    fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| {
        mounts.lines().any(|line| {
            line.split(' ').nth(1) == Some("/sys/fs/cgroup")
                && line.split(' ').nth(2) == Some("cgroup2")
        })
    })
}

/// Whether the group and all below it are gone now.
fn remove_or_kill(group: &Path) -> io::Result<bool> {
    if remove_empty(group)? {
        return Ok(true);
    }
    for pid in processes(group)? {
        // A pid of 0 is a process outside of our own pid namespace.
        if pid > 0 {
            let _ = kill(Pid::from_raw(pid), SIGKILL);
        }
    }
    Ok(false)
}

/// Removes what is empty, deepest first; whether nothing is left.
fn remove_empty(group: &Path) -> io::Result<bool> {
    let mut empty = true;
    for child in children(group)? {
        empty &= remove_empty(&child)?;
    }
    if !empty {
        return Ok(false);
    }
    match fs::remove_dir(group) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => Ok(false),
        Err(error) => Err(error),
    }
}

fn children(group: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut children = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            children.push(entry.path());
        }
    }
    Ok(children)
}

fn processes(group: &Path) -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for child in children(group)? {
        pids.extend(processes(&child)?);
    }
    match fs::read_to_string(group.join("cgroup.procs")) {
        Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(pids)
}
