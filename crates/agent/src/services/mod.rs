//! What reaches this node's pods, and its own programs, under the names of Services and ports of the node:
//! kept in the kernel as the pool's records and this node's pods have it.
//!
//! One task does all of it. It programs what changed, compares with what the kernel has when it starts and when
//! anybody else changed the rulesets, and makes the difference good. It wakes up for nothing else.

mod keeper;
mod kernel;
mod layout;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;
pub(crate) use toono_topology::{HostPort, Protocol};

pub(crate) use kernel::remove;

/// What is asked of the task by others of this node. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Services {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What nobody has looked at yet.
    wishes: Mutex<Vec<Wish>>,
    changed: Notify,
    /// Which pods have which ports of the node, by the pods' uids.
    claims: Mutex<BTreeMap<String, Vec<Claim>>>,
}

/// A port of the node that a pod wants for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Of which address; `None` for all.
    pub(crate) host_ip: Option<IpAddr>,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

impl Claim {
    fn conflicts(&self, other: &Self) -> bool {
        let apart = |a: &IpAddr, b: &IpAddr| a != b;
        (self.protocol, self.port) == (other.protocol, other.port)
            && !self.host_ip.zip(other.host_ip).is_some_and(|(a, b)| apart(&a, &b))
    }
}

/// Something that is asked for.
#[derive(Debug)]
enum Wish {
    /// See [`Services::serve_here`].
    Here { service: String, port: String, at: SocketAddr },
    /// See [`Services::set_host_ports`].
    HostPorts { uid: String, ports: Vec<HostPort> },
}

/// A port of a Service, by the names that the Service has for them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServicePort<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// Empty for the only port of a Service that does not name it.
    pub(crate) port: &'a str,
}

impl Services {
    /// This node serves the port itself, at this address of its own, whatever endpoints the Service has. To be
    /// said again after each start of the agent.
    pub(crate) fn serve_here(&self, port: ServicePort<'_>, at: SocketAddr) {
        let service = format!("{}/{}", port.namespace, port.name);
        self.ask(Wish::Here { service, port: port.port.to_owned(), at });
    }

    /// These ports of the node lead to the pod, and no others.
    pub(crate) fn set_host_ports(&self, uid: &str, ports: Vec<HostPort>) {
        self.ask(Wish::HostPorts { uid: uid.to_owned(), ports });
    }

    /// Gives the pod these ports of the node, until it is released. Whether nobody else has any of them.
    pub(crate) fn claim(&self, uid: &str, ports: &[Claim]) -> bool {
        let mut claims = self.inner.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let mut others = claims.iter().filter(|(other, _)| *other != uid).flat_map(|(_, it)| it);
        let is_free = !others.any(|held| ports.iter().any(|port| held.conflicts(port)));
        if is_free && !ports.is_empty() {
            claims.insert(uid.to_owned(), ports.to_vec());
        }
        is_free
    }

    /// The pod has ended: no port of the node is its any more.
    pub(crate) fn release(&self, uid: &str) {
        self.inner.claims.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        self.set_host_ports(uid, Vec::new());
    }

    fn ask(&self, wish: Wish) {
        self.inner.wishes.lock().unwrap_or_else(PoisonError::into_inner).push(wish);
        self.inner.changed.notify_one();
    }

    /// Completes when something is asked for.
    async fn asked(&self) -> Vec<Wish> {
        self.inner.changed.notified().await;
        std::mem::take(&mut *self.inner.wishes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
