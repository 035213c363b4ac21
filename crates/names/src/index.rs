//! What the pool's records do not tell by their keys: which slices a Service has, and whose an address is.
//!
//! It holds keys, which it shares with the records, and never a text.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::Bound::{Included, Unbounded},
    sync::Arc,
};

use toono_wire::pool::{ServiceRecord, SliceRecord, service_key, slice_key};

/// An order's smallest text.
const FIRST: &str = "";

/// The index. It follows the records change by change.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Of a Service's key, the keys of its slices.
    slices: BTreeSet<(Arc<str>, Arc<str>)>,
    /// Of a slice's key, its Service's: by what it is found when the slice is gone.
    services: BTreeMap<Arc<str>, Arc<str>>,
    /// Whose an address is: keys of Services and of endpoints.
    addresses: BTreeSet<(IpAddr, Arc<str>)>,
    /// The cluster IPs of a Service, for when it is gone.
    cluster_ips: BTreeMap<Arc<str>, Box<[IpAddr]>>,
}

/// What a key is of.
pub(crate) enum Key<'k> {
    Service,
    Slice { namespace: &'k str },
    Endpoint { address: &'k str },
    Other,
}

impl<'k> Key<'k> {
    pub(crate) fn of(key: &'k str) -> Self {
        let mut parts = key.splitn(4, '/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("service"), Some(_), Some(_), None) => Self::Service,
            (Some("slice"), Some(namespace), Some(_), None) => Self::Slice { namespace },
            (Some("endpoint"), Some(_), Some(_), Some(address)) => Self::Endpoint { address },
            _ => Self::Other,
        }
    }
}

impl Index {
    /// A record is there now, or has another text.
    pub(crate) fn put(&mut self, key: &Arc<str>, text: &str) {
        self.remove(key);
        match Key::of(key) {
            Key::Service => {
                let record = serde_json::from_str::<ServiceRecord>(text).unwrap_or_default();
                let ips: Box<[IpAddr]> =
                    record.cluster_ips.iter().filter_map(|ip| ip.parse().ok()).collect();
                self.addresses.extend(ips.iter().map(|ip| (*ip, key.clone())));
                if !ips.is_empty() {
                    self.cluster_ips.insert(key.clone(), ips);
                }
            }
            Key::Slice { namespace } => {
                let record = serde_json::from_str::<SliceRecord>(text).unwrap_or_default();
                let service: Arc<str> = service_key(namespace, &record.service).into();
                self.slices.insert((service.clone(), key.clone()));
                self.services.insert(key.clone(), service);
            }
            Key::Endpoint { address } => {
                if let Ok(address) = address.parse() {
                    self.addresses.insert((address, key.clone()));
                }
            }
            Key::Other => {}
        }
    }

    /// A record is gone.
    pub(crate) fn remove(&mut self, key: &Arc<str>) {
        match Key::of(key) {
            Key::Service => {
                for ip in self.cluster_ips.remove(key).unwrap_or_default() {
                    self.addresses.remove(&(ip, key.clone()));
                }
            }
            Key::Slice { .. } => {
                if let Some(service) = self.services.remove(key) {
                    self.slices.remove(&(service, key.clone()));
                }
            }
            Key::Endpoint { address } => {
                if let Ok(address) = address.parse() {
                    self.addresses.remove(&(address, key.clone()));
                }
            }
            Key::Other => {}
        }
    }

    /// The keys of a Service's slices.
    pub(crate) fn slices_of(&self, service: &str) -> impl Iterator<Item = &Arc<str>> {
        let from = (Arc::<str>::from(service), Arc::from(FIRST));
        let range = self.slices.range((Included(from.clone()), Unbounded));
        range.take_while(move |(of, _)| *of == from.0).map(|(_, slice)| slice)
    }

    /// The keys of what has this address, Services and endpoints.
    pub(crate) fn holders_of(&self, address: IpAddr) -> impl Iterator<Item = &Arc<str>> {
        let range = self.addresses.range((Included((address, Arc::from(FIRST))), Unbounded));
        range.take_while(move |(of, _)| *of == address).map(|(_, key)| key)
    }

    /// The key of the Service that a slice is of.
    pub(crate) fn service_of(&self, namespace: &str, slice: &str) -> Option<&Arc<str>> {
        self.services.get(&*slice_key(namespace, slice))
    }
}
