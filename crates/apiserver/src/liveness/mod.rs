//! What is known of nodes' lives and is not written: who was heard when, and how that shows in what is
//! served. Nodes that hold a session have Leases that are made when they are read; a renewal of a stored
//! Lease in `kube-node-lease` stays in memory; a Node's Ready condition shows when it was last heard. It
//! must not judge: who is ready is written by whoever is tied to [`Liveness`].
//!
//! A million kubelets that renew every ten seconds are 100,000 writes a second that nobody reads. What
//! must survive is that a node was ready, and that is the Node's condition; when it was last heard is of
//! use for as long as the grace, and a server that starts gives everyone the grace anew.

mod heartbeat;
mod renewals;
mod session_leases;
mod stored;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use jiff::Timestamp;
use toono_api::{ApiError, Resource, kinds::coordination::LEASE};
use toono_mvcc::{Entry, Key};

use crate::server::ApiServer;
use renewals::Renewals;

pub(crate) use heartbeat::freshen;
pub(crate) use session_leases::{Joined, SessionLeases, add_to, may_match, node_key};

/// The namespace of the Leases by which nodes say that they live.
pub(crate) const NODE_LEASES: &str = "kube-node-lease";

/// Who knows when nodes were last heard. The binary ties it to the fleet.
pub trait Liveness: Send + Sync {
    /// When each of these nodes was last heard, in their order; none if not since the start. Many are asked
    /// for together, because whoever knows has one lock.
    fn heard(&self, nodes: &[&str]) -> Vec<Option<Timestamp>>;
    /// A node has renewed its Lease. What it says for so long after that may go unseen here, because another
    /// server hears it: silence counts from then on only.
    fn renewed(&self, node: &str, unseen: Duration);
}

/// What the server itself keeps of it.
#[derive(Default)]
pub(crate) struct Lives {
    known: OnceLock<Arc<dyn Liveness>>,
    renewals: Renewals,
}

impl Lives {
    /// `shared`: other servers have the same store, and are to see renewals in time.
    pub(crate) fn new(shared: bool) -> Self {
        Self { known: OnceLock::new(), renewals: Renewals::new(shared) }
    }

    /// Whether this is the first call.
    pub(crate) fn set(&self, known: Arc<dyn Liveness>) -> bool {
        self.known.set(known).is_ok()
    }

    fn heard(&self, nodes: &[&str]) -> Vec<Option<Timestamp>> {
        match self.known.get() {
            Some(known) => known.heard(nodes),
            None => vec![None; nodes.len()],
        }
    }

    fn renewed(&self, node: &str, unseen: Duration) {
        if let Some(known) = self.known.get() {
            known.renewed(node, unseen);
        }
    }

    /// Whether a renewal of this Lease may stay in memory for now.
    pub(crate) fn may_renew(&self, lease: &Entry) -> bool {
        self.renewals.may_renew(lease)
    }

    /// Renews a Lease in memory; as it is now. One that is kept by a session is not stored, and its session
    /// says as much.
    pub(crate) fn renew(&self, lease: Entry, is_stored: bool, time: &str) -> Option<Entry> {
        let renewed = renewals::with_time(&lease, time)?;
        if is_stored {
            self.renewals.renew(&lease, time);
        }
        self.renewed(lease.key.name(), Duration::ZERO);
        Some(renewed)
    }

    /// Shows these Leases as they were last renewed.
    pub(crate) fn show_renewed(&self, leases: &mut [Entry]) {
        leases.iter_mut().for_each(|lease| self.renewals.show(lease));
    }
}

/// Whether these are Leases of nodes.
pub(crate) fn are_node_leases(resource: &Resource, namespace: &str) -> bool {
    namespace == NODE_LEASES && resource.is(&LEASE)
}

/// The Lease of a node as it is shown, of the one that is stored if one is.
///
/// # Errors
/// When the node cannot be read.
pub(crate) fn lease(
    server: &ApiServer,
    key: &Key,
    stored: Option<Entry>,
) -> Result<Option<Entry>, ApiError> {
    match stored {
        Some(mut lease) => {
            server.inner.lives.renewals.show(&mut lease);
            Ok(Some(lease))
        }
        None => session_leases::of_node(server, key.name()),
    }
}

/// Whether an object that was read is a Lease that a session keeps, and so is not stored.
///
/// # Errors
/// When the store cannot be read.
pub(crate) fn is_kept_by_session(server: &ApiServer, read: &Entry) -> Result<bool, ApiError> {
    let is_lease = read.key.namespace() == NODE_LEASES && read.key.plural() == LEASE.plural;
    Ok(is_lease && server.current(&read.key)?.is_none())
}

/// Tells of the renewals that reach the store until the server ends.
pub(crate) fn follow(server: &ApiServer) {
    tokio::spawn(stored::follow(Arc::downgrade(&server.inner)));
}
