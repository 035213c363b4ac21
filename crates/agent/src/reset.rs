//! Forgetting a node: everything that its agent has made on this machine is removed.

use std::{
    fs::{File, TryLockError},
    path::Path,
};

use toono_sandbox::SandboxSpec;

use crate::{
    AgentError,
    bundles::{Bundles, pod_dir},
    container::volumes,
    disk,
    identity::Identity,
    network::{self, NetworkError},
    services,
    supervisor::clear_sandbox,
};

/// What a reset came across.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// The node's name, if the directory had an identity.
    pub node: Option<String>,
    /// How many pods were ended.
    pub pods: usize,
    /// What could not be removed, one line each.
    pub failures: Vec<String>,
}

/// Ends all pods of a node as a power cut would: keepers, containers and cgroups go, the data stays, and an
/// agent started later brings the same pods back. The agent must not be running. Can be repeated.
///
/// # Errors
/// [`AgentError::Locked`] while an agent runs, and what cannot be read at all; single failures are
/// in [`Removed::failures`].
pub async fn stop_pods(data: &Path, cgroup_parent: &str) -> Result<Removed, AgentError> {
    if !data.exists() {
        return Ok(Removed::default());
    }
    let _lock = lock(data)?;
    end_pods(data, cgroup_parent).await
}

/// As [`stop_pods`], then removes the node's links and tables and deletes the data directory.
///
/// # Errors
/// As [`stop_pods`]; after any failure the data directory stays.
pub async fn reset(data: &Path, cgroup_parent: &str) -> Result<Removed, AgentError> {
    if !data.exists() {
        return Ok(Removed::default());
    }
    let _lock = lock(data)?;
    let mut removed = end_pods(data, cgroup_parent).await?;
    if let Some(node) = &removed.node
        && let Err(error) = network::tear_down(node).await
    {
        removed.failures.push(describe(&error));
    }
    if let Err(error) = services::remove() {
        removed.failures.push(crate::join::chain(&error));
    }
    if removed.failures.is_empty() {
        disk::remove_tree(data)?;
    }
    Ok(removed)
}

async fn end_pods(data: &Path, cgroup_parent: &str) -> Result<Removed, AgentError> {
    let node = Identity::load(data).ok().flatten().map(|identity| identity.node_name);
    let mut removed = Removed { node, ..Removed::default() };
    for uid in Bundles::load(data)?.on_disk()? {
        let dir = pod_dir(data, &uid);
        let spec = SandboxSpec::leftover(dir.clone(), &uid, cgroup_parent);
        match clear_sandbox(&spec).await {
            Ok(()) => match volumes::release(&dir) {
                Ok(()) => removed.pods += 1,
                Err(error) => removed.failures.push(format!("volumes of pod {uid}: {error}")),
            },
            Err(error) => removed.failures.push(format!("pod {uid}: {error}")),
        }
    }
    if let Err(error) = toono_sandbox::prune_cgroups(cgroup_parent) {
        removed.failures.push(format!("cgroup {cgroup_parent}: {error}"));
    }
    Ok(removed)
}

fn lock(data: &Path) -> Result<File, AgentError> {
    let path = data.join("lock");
    let file = File::options().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(disk::failed("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(AgentError::Locked { dir: data.to_owned() }),
        Err(TryLockError::Error(source)) => Err(disk::failed("lock", &path)(source)),
    }
}

fn describe(error: &NetworkError) -> String {
    crate::join::chain(error)
}
