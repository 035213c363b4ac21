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
/// The tree of version 1 that a keeper is tracked in; it costs nothing to be in a group of it.
const TRACKING_CONTROLLER: &str = "pids";
/// The keeper's own group in its pod's.
const KEEPER_GROUP: &str = "keeper";
/// The file that lists a group's processes, and takes new ones.
const PROCESSES: &str = "cgroup.procs";
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
    let trees = trees()?;
    let deadline = Instant::now() + EMPTYING_TIMEOUT;
    // A process that is in one tree's group may be about to make the next tree's, so only a look at
    // all of them that finds none is the end.
    loop {
        let groups: Vec<PathBuf> =
            trees.iter().map(|tree| tree.join(path)).filter(|group| group.exists()).collect();
        if groups.is_empty() {
            return Ok(());
        }
        let mut busy = None;
        for group in &groups {
            if !remove_or_kill(group)? {
                busy = Some(group);
            }
        }
        let Some(busy) = busy else { continue };
        if Instant::now() > deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{} still has processes", busy.display()),
            ));
        }
        sleep(EMPTYING_PAUSE);
    }
}

/// The calling process in a group of its pod, with all that it forks: whatever becomes of them, they
/// are found and killed with the pod's group.
#[derive(Debug)]
pub(crate) struct Membership {
    tree: PathBuf,
    /// Where the process was before, in that tree.
    before: PathBuf,
}

impl Membership {
    /// Moves the calling process into `<pod>/keeper`, in one tree: one is enough to find it.
    ///
    /// # Errors
    /// A tree that cannot be written, or that there is none.
    pub(crate) fn enter(pod: &Path) -> io::Result<Self> {
        let trees = trees()?;
        let tracked = trees.iter().find(|tree| tree.ends_with(TRACKING_CONTROLLER));
        let tree = tracked.or(trees.first()).ok_or(io::ErrorKind::NotFound)?.clone();
        let before = own_group(&tree)?;
        let group = tree.join(pod).join(KEEPER_GROUP);
        fs::create_dir_all(&group)?;
        fs::write(group.join(PROCESSES), "0")?;
        Ok(Self { tree, before })
    }

    /// Moves the calling process back, so that the pod's group can be removed.
    ///
    /// # Errors
    /// A tree that cannot be written.
    pub(crate) fn leave(&self) -> io::Result<()> {
        let back = self.tree.join(&self.before).join(PROCESSES);
        // The agent's group may be gone, the root never is.
        fs::write(back, "0").or_else(|_| fs::write(self.tree.join(PROCESSES), "0"))
    }
}

/// The calling process' group in this tree, relative to the tree's root.
fn own_group(tree: &Path) -> io::Result<PathBuf> {
    let name = tree.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let find = |wanted: &str| {
        text.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            controllers.split(',').any(|controller| controller == wanted).then_some(path)
        })
    };
    // Version 2 names no controller.
    let found = find(name).or_else(|| find("")).unwrap_or_default();
    Ok(PathBuf::from(found.trim_start_matches('/')))
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
        Err(error) if is_gone(&error) => Ok(true),
        Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => Ok(false),
        Err(error) => Err(error),
    }
}

fn children(group: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(group) {
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
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
    match fs::read_to_string(group.join(PROCESSES)) {
        Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
        Err(error) if is_gone(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(pids)
}

/// Someone else removed the group; the second is what an open file of a removed group says.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ENODEV as i32)
}
