//! Which pod has which address: given once, kept on disk until the pod is gone.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use toono_net::Cidr;

use crate::{
    AgentError,
    disk::{self, Durability},
};

/// The node's own address and the pods' in its pod network.
#[derive(Debug)]
pub(crate) struct Addresses {
    path: PathBuf,
    network: Cidr,
    given: BTreeMap<String, Ipv4Addr>,
    /// Where the last search ended: an address that was just freed is taken again last, since
    /// others may still remember whose it was.
    last: u32,
}

/// The pod network has no address left.
#[derive(Debug, thiserror::Error)]
#[error("no address of {network} is free: {given} pods have one")]
pub(crate) struct Exhausted {
    network: Cidr,
    given: usize,
}

impl Addresses {
    /// What the file says, less what does not fit the network.
    pub(crate) fn load(data: &Path, network: Cidr) -> Result<Self, AgentError> {
        let path = data.join("addresses");
        let given: BTreeMap<String, Ipv4Addr> = disk::read_checked(&path)?
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let mut loaded = Self { path, network: network.network(), given, last: 0 };
        let (first, last) = loaded.range();
        loaded.given.retain(|_, address| (first..=last).contains(&address.to_bits()));
        loaded.last = loaded.given.values().map(|address| address.to_bits()).max().unwrap_or(0);
        Ok(loaded)
    }

    /// The bridge's address: the network's first.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(base(&self.network).saturating_add(1))
    }

    /// The prefix length of the network.
    pub(crate) fn length(&self) -> u8 {
        self.network.length()
    }

    /// The pod's address, given now if it has none; on disk before it is returned.
    pub(crate) fn give(&mut self, uid: &str) -> Result<Result<Ipv4Addr, Exhausted>, AgentError> {
        if let Some(address) = self.given.get(uid) {
            return Ok(Ok(*address));
        }
        let Some(address) = self.free() else {
            return Ok(Err(Exhausted { network: self.network, given: self.given.len() }));
        };
        self.given.insert(uid.to_owned(), address);
        self.last = address.to_bits();
        if let Err(error) = self.save() {
            self.given.remove(uid);
            return Err(error);
        }
        Ok(Ok(address))
    }

    /// Takes the pod's address back.
    pub(crate) fn free_of(&mut self, uid: &str) -> Result<(), AgentError> {
        if self.given.remove(uid).is_some() { self.save() } else { Ok(()) }
    }

    /// Takes back the addresses of all pods but these.
    pub(crate) fn keep_only(&mut self, wanted: impl Fn(&str) -> bool) -> Result<(), AgentError> {
        let before = self.given.len();
        self.given.retain(|uid, _| wanted(uid));
        if self.given.len() == before { Ok(()) } else { self.save() }
    }

    /// The pods' addresses: after the gateway, before the broadcast address.
    fn range(&self) -> (u32, u32) {
        let hosts = u32::MAX.checked_shr(u32::from(self.network.length())).unwrap_or(0);
        let base = base(&self.network);
        (base.saturating_add(2), base.saturating_add(hosts).saturating_sub(1))
    }

    fn free(&self) -> Option<Ipv4Addr> {
        let (first, last) = self.range();
        let start = self.last.max(first.saturating_sub(1)).saturating_add(1);
        let mut order = (start..=last).chain(first..=last.min(start.saturating_sub(1)));
        let taken = |bits: u32| self.given.values().any(|address| address.to_bits() == bits);
        order.find(|bits| !taken(*bits)).map(Ipv4Addr::from_bits)
    }

    fn save(&self) -> Result<(), AgentError> {
        let bytes = serde_json::to_vec(&self.given).unwrap_or_default();
        disk::rewrite_checked(&self.path, &bytes, Durability::Synced)
    }
}

fn base(network: &Cidr) -> u32 {
    match network.address() {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(dir: &Path, cidr: &str) -> Addresses {
        Addresses::load(dir, cidr.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_pod_keeps_its_address_and_freed_ones_rest() {
        let dir = tempfile::tempdir().unwrap();
        let mut addresses = load(dir.path(), "10.244.3.0/29");
        assert_eq!(addresses.gateway().to_string(), "10.244.3.1");
        let mut give = |uid: &str| addresses.give(uid).unwrap().unwrap().to_string();
        assert_eq!(
            (give("a"), give("b"), give("a")),
            ("10.244.3.2".into(), "10.244.3.3".into(), "10.244.3.2".into())
        );

        let mut again = load(dir.path(), "10.244.3.0/29");
        assert_eq!(
            again.give("b").unwrap().unwrap().to_string(),
            "10.244.3.3",
            "also after a restart"
        );
        again.free_of("a").unwrap();
        let given: Vec<_> =
            ["c", "d", "e", "f"].map(|uid| again.give(uid).unwrap().unwrap().to_string()).into();
        assert_eq!(given, ["10.244.3.4", "10.244.3.5", "10.244.3.6", "10.244.3.2"]);
        assert!(again.give("g").unwrap().is_err(), "the broadcast address is not given");
        again.keep_only(|uid| uid == "e").unwrap();
        assert_eq!(again.give("e").unwrap().unwrap().to_string(), "10.244.3.6");
    }

    #[test]
    fn another_network_starts_anew() {
        let dir = tempfile::tempdir().unwrap();
        load(dir.path(), "10.244.3.0/24").give("a").unwrap().unwrap();
        let mut moved = load(dir.path(), "10.244.4.0/24");
        assert_eq!(moved.give("a").unwrap().unwrap().to_string(), "10.244.4.2");
    }
}
