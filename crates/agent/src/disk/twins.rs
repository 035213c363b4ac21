//! Files that can be written anew on a disk that is full: each has a twin whose place on the disk is taken already.
//!
//! The new content goes into the twin, and the two exchange their names. What must work when there is no room left
//! depends on it: a node that starts takes a boot number, and a pod that is deleted, perhaps to make room, is on
//! disk before it is ended. A file system that never writes in place, such as btrfs, makes no such promise.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, RenameFlags, posix_fallocate, renameat2},
};

use super::{Durability, MODE, sync_parent};

/// What a file system gives at least.
const BLOCK: usize = 4096;
/// A file may grow by as much as it has, and this, before its twin has to: a pod comes without a status at first,
/// and a status gets the reason why its pod was ended.
const SLACK: usize = 1024;
/// Fills a file up to its length. No reader of ours minds: JSON may have it at its end, and what has a header says
/// how long it is.
const PADDING: u8 = b'\n';

/// Replaces a file by these bytes and padding.
pub(super) fn rewrite(path: &Path, mut bytes: Vec<u8>, durability: Durability) -> io::Result<()> {
    let twin = twin(path);
    let wanted = (2 * bytes.len() + SLACK).next_multiple_of(BLOCK);
    let mut write = || -> io::Result<()> {
        let mut file = open(&twin)?;
        let held = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        bytes.resize(bytes.len().next_multiple_of(BLOCK).max(held), PADDING);
        file.write_all(&bytes)?;
        if durability == Durability::Synced {
            file.sync_all()?;
        }
        exchange(&twin, path)?;
        if durability == Durability::Synced {
            sync_parent(path)?;
        }
        Ok(())
    };
    let written = write();
    if written.is_ok() {
        // The next content may need more than this one, and while there is room is the time to take it.
        let _ = reserve(&twin, wanted);
    } else if !path.exists() {
        let _ = fs::remove_file(&twin);
    }
    written
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(MODE).open(path)
}

fn exchange(twin: &Path, path: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, twin, AT_FDCWD, path, RenameFlags::RENAME_EXCHANGE) {
        // The first time there is only the twin, and some file systems know no exchange.
        Err(Errno::ENOENT | Errno::EINVAL | Errno::ENOSYS) => fs::rename(twin, path),
        other => Ok(other?),
    }
}

fn reserve(twin: &Path, wanted: usize) -> io::Result<()> {
    let file = open(twin)?;
    if file.metadata()?.len() < wanted as u64 {
        posix_fallocate(&file, 0, i64::try_from(wanted).unwrap_or(i64::MAX))?;
    }
    Ok(())
}

fn twin(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".twin");
    path.with_file_name(name)
}
