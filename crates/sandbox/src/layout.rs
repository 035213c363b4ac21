//! Where things are in a sandbox's directory, and how they are cleared away.
//!
//! Only paths: what the files hold is their writers' matter.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{protocol::SOCKET_NAME, spec::ContainerId};

/// A log's files, the one that is written to among them; the kubelet's default of `containerLogMaxFiles`.
pub const MAX_LOG_FILES: u32 = 5;
/// What the keeper says of itself.
pub(crate) const KEEPER_LOG: &str = "keeper.log";
/// One folder per container, and libcontainer's own state.
const CONTAINERS: &str = "containers";
const RUNTIME_STATE: &str = "runtime";
/// In a container's folder: a link to each layer of its image.
pub(crate) const LAYERS: &str = "l";
/// In a container's folder: what it has written.
pub(crate) const UPPER: &str = "upper";

/// A container's folder: its bundle (`config.json`), its layers and its root file system.
pub(crate) fn container(dir: &Path, id: &ContainerId) -> PathBuf {
    dir.join(CONTAINERS).join(id.as_str())
}

/// The folder in which libcontainer keeps a folder for each container.
pub(crate) fn runtime_state(dir: &Path) -> PathBuf {
    dir.join(RUNTIME_STATE)
}

/// The image layers that the containers of a sandbox have mounted, whether or not a keeper runs.
///
/// # Errors
/// The first directory or link that cannot be read; what is missing is none.
pub fn mounted_layers(dir: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut layers = BTreeSet::new();
    for container in entries(&dir.join(CONTAINERS))? {
        for link in entries(&container.join(LAYERS))? {
            layers.insert(fs::read_link(link)?);
        }
    }
    Ok(layers)
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.path())).collect(),
    }
}

/// The files that a container has written in its own root file system.
#[must_use]
pub fn writable_layer(dir: &Path, id: &ContainerId) -> PathBuf {
    container(dir, id).join(UPPER)
}

/// Those of all attempts of a container that are still there.
#[must_use]
pub fn writable_layers(dir: &Path, name: &str) -> Vec<PathBuf> {
    let is_attempt = |path: &PathBuf| {
        let file = path.file_name().and_then(|file| file.to_str());
        let number = file.and_then(|file| file.strip_prefix(name)?.strip_prefix('-'));
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    let all = entries(&dir.join(CONTAINERS)).unwrap_or_default().into_iter();
    all.filter(is_attempt).map(|path| path.join(UPPER)).collect()
}

/// A file of a log: 0 is the one that is written to, higher numbers are older.
#[must_use]
pub fn rotated(log: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return log.to_owned();
    }
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
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
