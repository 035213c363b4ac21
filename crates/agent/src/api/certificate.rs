//! The certificate under which this node answers its pods, kept so that pods which trust it go on to.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use toono_pki::{Issued, LocalServer, PkiError};

use crate::{
    AgentError,
    disk::{self, Durability},
};

/// What clients in pods call the API.
const NAMES: [&str; 4] = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// The newest one. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    path: PathBuf,
    node: Arc<str>,
    newest: Arc<watch::Sender<Arc<Kept>>>,
}

/// One as it is on disk.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    names: Vec<String>,
    ca_pem: String,
    cert_pem: String,
    key_pem: String,
}

impl std::fmt::Debug for Kept {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Kept {
    fn generate(node: &str, names: Vec<String>) -> Result<Self, PkiError> {
        let LocalServer { ca_pem, server } = LocalServer::generate(node, &names)?;
        Ok(Self { names, ca_pem, cert_pem: server.cert_pem, key_pem: server.key_pem })
    }

    /// TLS for who answers.
    pub(super) fn config(&self) -> Result<Arc<rustls::ServerConfig>, PkiError> {
        let server = Issued { cert_pem: self.cert_pem.clone(), key_pem: self.key_pem.clone() };
        LocalServer { ca_pem: self.ca_pem.clone(), server }.config()
    }
}

impl Certificate {
    /// The one on disk, or a new one, for the names alone.
    pub(crate) fn load(data: &Path, node: &str) -> Result<Self, AgentError> {
        let path = data.join("api");
        let stored = disk::read_checked(&path)?;
        let (kept, is_new) = match stored.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            Some(kept) => (kept, false),
            None => (Kept::generate(node, NAMES.map(str::to_owned).into())?, true),
        };
        let newest = Arc::new(watch::Sender::new(Arc::new(kept)));
        let this = Self { path, node: node.into(), newest };
        if is_new {
            this.save()?;
        }
        Ok(this)
    }

    /// Makes another one if it is not for these addresses of the API, if any are known. Whether it did.
    pub(super) fn fit(&self, addresses: &[IpAddr]) -> Result<bool, AgentError> {
        let mut names: Vec<String> = NAMES.map(str::to_owned).into();
        names.extend(addresses.iter().map(ToString::to_string));
        if addresses.is_empty() || self.newest.borrow().names == names {
            return Ok(false);
        }
        let kept = Kept::generate(&self.node, names)?;
        self.newest.send_replace(Arc::new(kept));
        self.save()?;
        Ok(true)
    }

    /// The CA that pods of this node trust besides the cluster's, PEM.
    pub(crate) fn with_ca<T>(&self, read: impl FnOnce(&str) -> T) -> T {
        read(&self.newest.borrow().ca_pem)
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Kept>> {
        self.newest.subscribe()
    }

    fn save(&self) -> Result<(), AgentError> {
        let bytes = serde_json::to_vec(&**self.newest.borrow()).unwrap_or_default();
        disk::write_checked(&self.path, &bytes, Durability::Synced)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_stays_until_the_api_has_another_address() {
        let dir = tempfile::tempdir().unwrap();
        let ca = |it: &Certificate| it.with_ca(str::to_owned);
        let first = Certificate::load(dir.path(), "n1").unwrap();
        let mode = std::fs::metadata(dir.path().join("api")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!first.fit(&[]).unwrap());
        let before = ca(&first);
        assert!(first.fit(&[[10, 96, 0, 1].into()]).unwrap());
        assert!(ca(&first) != before && !first.fit(&[[10, 96, 0, 1].into()]).unwrap());
        let again = Certificate::load(dir.path(), "n1").unwrap();
        assert_eq!(ca(&again), ca(&first));
        assert!(!again.fit(&[]).unwrap(), "what is not known yet changes nothing");
        again.newest.borrow().config().unwrap();
    }
}
