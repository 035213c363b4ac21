//! A container's root file system: an overlay over its image's layers, mounted in the keeper's own
//! mount namespace.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{Mode, mkdirat},
};

use super::users::open_in;
use crate::{
    layout::{LAYERS, UPPER},
    spec::SandboxSpec,
};

/// What a pod's `/dev/shm` may hold; Docker's and containerd's default.
const SHARED_MEMORY_OPTIONS: &str = "mode=1777,size=65536k";
const SHARED_MEMORY: &str = "shm";
/// The host's own.
const HOST_SHARED_MEMORY: &str = "/dev/shm";

/// The memory that a pod's containers share as `/dev/shm`.
pub(super) fn shared_memory(sandbox: &SandboxSpec) -> PathBuf {
    if sandbox.host_ipc { HOST_SHARED_MEMORY.into() } else { sandbox.dir.join(SHARED_MEMORY) }
}

pub(super) fn mount_shared_memory(sandbox: &SandboxSpec) -> io::Result<()> {
    if sandbox.host_ipc {
        return Ok(());
    }
    let path = shared_memory(sandbox);
    fs::create_dir_all(&path)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("shm"), &path, Some("tmpfs"), flags, Some(SHARED_MEMORY_OPTIONS))?;
    Ok(())
}

pub(super) fn unmount_shared_memory(sandbox: &SandboxSpec) -> io::Result<()> {
    if sandbox.host_ipc {
        return Ok(());
    }
    let path = shared_memory(sandbox);
    unmount(&path)?;
    crate::layout::ignore_missing(fs::remove_dir(path))
}

/// Mounts the overlay at `<bundle>/rootfs`. Changes the working directory: mount options have one
/// page, so the layers are named by short links relative to the bundle.
pub(super) fn mount_overlay(bundle: &Path, layers: &[PathBuf]) -> io::Result<PathBuf> {
    std::env::set_current_dir(bundle)?;
    for name in [LAYERS, UPPER, "work", "rootfs"] {
        fs::create_dir(name)?;
    }
    let mut lower = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let link = format!("{LAYERS}/{number}");
        symlink(layer, &link)?;
        lower.push(link);
    }
    // The first named is the uppermost.
    lower.reverse();
    if lower.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the image has no layers"));
    }
    let options = format!("lowerdir={},upperdir={UPPER},workdir=work", lower.join(":"));
    mount(Some("overlay"), "rootfs", Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
    std::env::set_current_dir("/")?;
    Ok(bundle.join("rootfs"))
}

pub(super) fn unmount_overlay(bundle: &Path) -> io::Result<()> {
    unmount(&bundle.join("rootfs"))
}

/// Creates a directory and those above it inside of a root file system.
pub(super) fn make_directory(root: &Path, path: &Path) -> io::Result<()> {
    let mut prefix = PathBuf::from("/");
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    if open_in(root, path, flags).is_ok() {
        return Ok(());
    }
    for component in path.components() {
        let Component::Normal(name) = component else { continue };
        let parent = open_in(root, &prefix, flags)?;
        match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        prefix.push(name);
    }
    Ok(())
}

/// No error when nothing is mounted there.
fn unmount(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
