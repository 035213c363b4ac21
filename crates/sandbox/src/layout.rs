//! Where things are in a sandbox's directory, and how they are cleared away.
//!
//! Only paths: what the files hold is their writers' matter.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{protocol::SOCKET_NAME, spec::ContainerId};

/// What the keeper says of itself.
pub(crate) const KEEPER_LOG: &str = "keeper.log";
/// One folder per container, and libcontainer's own state.
const CONTAINERS: &str = "containers";
const RUNTIME_STATE: &str = "runtime";

/// A container's folder: its bundle (`config.json`), its layers and its root file system.
pub(crate) fn container(dir: &Path, id: &ContainerId) -> PathBuf {
    dir.join(CONTAINERS).join(id.as_str())
}

/// The folder in which libcontainer keeps a folder for each container.
pub(crate) fn runtime_state(dir: &Path) -> PathBuf {
    dir.join(RUNTIME_STATE)
}

/// Deletes all that a keeper keeps here, except its log. For when no keeper runs.
///
/// # Errors
/// The first thing that could not be deleted; what is missing is none.
pub(crate) fn clear(dir: &Path) -> io::Result<()> {
    for name in [CONTAINERS, RUNTIME_STATE] {
        ignore_missing(fs::remove_dir_all(dir.join(name)))?;
    }
    ignore_missing(fs::remove_file(dir.join(SOCKET_NAME)))
}

pub(crate) fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
