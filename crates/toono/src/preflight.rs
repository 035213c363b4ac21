//! Whether this machine can run pods: asked before anything is made, answered in words.

use std::{fs, path::Path, process::Command};

use toono_net::nft::Nftables;

use crate::failure::{Failure, chain};

const FILESYSTEMS: &str = "/proc/filesystems";
const CGROUPS: &str = "/sys/fs/cgroup";

/// Everything that `toono node` needs of the kernel and of its user.
pub(crate) fn node() -> Result<(), Failure> {
    root()?;
    overlayfs()?;
    cgroups()?;
    nftables()
}

/// Whether this process is root's.
pub(crate) fn root() -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::new(
        "not-root",
        "this needs root: it makes namespaces, mounts and cgroups",
        "run it again with sudo",
    ))
}

fn overlayfs() -> Result<(), Failure> {
    if knows_overlay() {
        return Ok(());
    }
    // Where the filesystem is a module, nobody may have asked for it yet; a failure shows below.
    let _ = Command::new("modprobe").args(["--quiet", "overlay"]).status();
    if knows_overlay() {
        return Ok(());
    }
    Err(Failure::new(
        "no-overlayfs",
        format!("the kernel has no overlay filesystem ({FILESYSTEMS} does not name it)"),
        "use a kernel with CONFIG_OVERLAY_FS, or load its module: modprobe overlay",
    ))
}

fn knows_overlay() -> bool {
    fs::read_to_string(FILESYSTEMS).is_ok_and(|text| {
        text.lines().any(|line| line.split_whitespace().next_back() == Some("overlay"))
    })
}

/// Version 2 in one tree, or version 1 with the controllers that limits need.
fn cgroups() -> Result<(), Failure> {
    let root = Path::new(CGROUPS);
    if root.join("cgroup.controllers").exists() {
        return Ok(());
    }
    let missing: Vec<&str> =
        ["memory", "cpu", "pids"].into_iter().filter(|name| !root.join(name).is_dir()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        "no-cgroups",
        format!("no cgroup controller for {} below {CGROUPS}", missing.join(", ")),
        "mount cgroup2 at /sys/fs/cgroup, or boot with these controllers enabled",
    ))
}

fn nftables() -> Result<(), Failure> {
    Nftables::current().and_then(|mut nft| nft.tables()).map(|_| ()).map_err(|error| {
        Failure::new(
            "no-nftables",
            format!("nftables does not answer: {}", chain(&error)),
            "use a kernel with CONFIG_NF_TABLES, or load its module: modprobe nf_tables",
        )
    })
}
