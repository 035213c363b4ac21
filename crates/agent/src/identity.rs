//! Who this node is: what the join gave it, kept in one file that only root reads.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use toono_pki::Issued;
use toono_wire::join::{ClusterDns, JoinResponse, SessionGrant};

use crate::{
    AgentError,
    disk::{self, Durability},
};

/// All that a later start needs, also without the cloud.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    pub(crate) node_name: String,
    pub(crate) node_uid: String,
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
    pub(crate) ca_pem: String,
    pub(crate) session: SessionGrant,
    pub(crate) pod_cidr: String,
    /// What the cloud said when the node joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dns: Option<ClusterDns>,
}

impl Identity {
    pub(crate) fn of_join(node_name: &str, key_pem: String, joined: JoinResponse) -> Self {
        Self {
            node_name: node_name.to_owned(),
            node_uid: joined.node_uid,
            certificate_pem: joined.certificate_pem,
            key_pem,
            ca_pem: joined.ca_pem,
            session: joined.session,
            pod_cidr: joined.pod_cidr,
            dns: joined.dns,
        }
    }

    /// The node's certificate and its key.
    pub(crate) fn own(&self) -> Issued {
        Issued { cert_pem: self.certificate_pem.clone(), key_pem: self.key_pem.clone() }
    }

    /// The identity of this data directory, if the node has joined.
    pub(crate) fn load(data: &Path) -> Result<Option<Self>, AgentError> {
        let path = path(data);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(disk::failed("read", &path))?,
        };
        let invalid =
            |error: serde_json::Error| AgentError::Identity { path, reason: error.to_string() };
        serde_json::from_slice(&bytes).map(Some).map_err(invalid)
    }

    pub(crate) fn save(&self, data: &Path) -> Result<(), AgentError> {
        let path = path(data);
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| AgentError::Identity {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        disk::rewrite_json(&path, bytes, Durability::Synced)
    }
}

/// The identity, shared by who uses it and who renews a part of it.
#[derive(Clone)]
pub(crate) struct Credentials {
    identity: Arc<Mutex<Identity>>,
    data: Arc<Path>,
}

impl Credentials {
    pub(crate) fn new(identity: Identity, data: &Path) -> Self {
        Self { identity: Arc::new(Mutex::new(identity)), data: data.into() }
    }

    fn read(&self) -> MutexGuard<'_, Identity> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node's certificate and its key.
    pub(crate) fn own(&self) -> Issued {
        self.read().own()
    }

    pub(crate) fn session(&self) -> SessionGrant {
        self.read().session.clone()
    }

    pub(crate) fn name(&self) -> String {
        self.read().node_name.clone()
    }

    pub(crate) fn uid(&self) -> String {
        self.read().node_uid.clone()
    }

    pub(crate) fn ca_pem(&self) -> String {
        self.read().ca_pem.clone()
    }

    /// Changes a part of it; on disk when this returns. What the disk refuses is not changed.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Identity)) -> Result<(), AgentError> {
        let mut identity = self.read();
        let mut changed = identity.clone();
        change(&mut changed);
        changed.save(&self.data)?;
        *identity = changed;
        Ok(())
    }
}

impl std::fmt::Debug for Credentials {
    /// Without the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("node", &self.read().node_name).finish_non_exhaustive()
    }
}

fn path(data: &Path) -> PathBuf {
    data.join("identity.json")
}

/// Takes the next boot number: on disk before it is used, and above `floor`, which the cloud has seen.
pub(crate) fn next_boot(data: &Path, floor: u32) -> Result<u32, AgentError> {
    let path = data.join("boot");
    let last = disk::read_checked(&path)?
        .and_then(|bytes| String::from_utf8(bytes).ok()?.parse::<u32>().ok())
        .unwrap_or(0);
    let next = last.max(floor).saturating_add(1);
    disk::rewrite_checked(&path, next.to_string().as_bytes(), Durability::Synced)?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_numbers_only_grow() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(next_boot(dir.path(), 0).unwrap(), 1);
        assert_eq!(next_boot(dir.path(), 0).unwrap(), 2);
        assert_eq!(next_boot(dir.path(), 9).unwrap(), 10, "the cloud has seen more than the disk");
        std::fs::write(dir.path().join("boot"), "torn").unwrap();
        assert_eq!(next_boot(dir.path(), 10).unwrap(), 11);
    }
}
