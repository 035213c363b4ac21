//! The host's devices, all of which a privileged container has.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use nix::sys::stat::{major, minor};
use serde_json::{Value, json};

/// What below `/dev` is a container's own, or no device.
const OWN: [&str; 6] = ["console", "fd", "mqueue", "ptmx", "pts", "shm"];
/// Those that the runtime makes in every container.
const USUAL: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];
/// Folders in folders: `/dev` has few.
const MAX_DEPTH: usize = 4;

/// As the runtime's configuration has them.
pub(super) fn of_host() -> Vec<Value> {
    let mut found = Vec::new();
    collect(Path::new("/dev"), 0, &mut found);
    found
}

fn collect(folder: &Path, depth: usize, found: &mut Vec<Value>) {
    let entries: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    for path in entries {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if depth == 0 && (OWN.contains(&name) || USUAL.contains(&name)) {
            continue;
        }
        // What goes meanwhile is not there.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let kind = metadata.file_type();
        if kind.is_dir() && depth < MAX_DEPTH {
            collect(&path, depth + 1, found);
        } else if kind.is_char_device() || kind.is_block_device() {
            let (device, mode) = (metadata.rdev(), metadata.mode());
            found.push(json!({
                "path": path,
                "type": if kind.is_block_device() { "b" } else { "c" },
                "major": major(device),
                "minor": minor(device),
                "fileMode": mode & 0o7777,
                "uid": metadata.uid(),
                "gid": metadata.gid(),
            }));
        }
    }
}
