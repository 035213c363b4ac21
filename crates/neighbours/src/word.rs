//! What a node says of its own pods: the addresses of those that are ready, and a digest that names it.

use std::{collections::BTreeSet, net::IpAddr};

use toono_wire::pool::record_digest;

/// Addresses that fit into a datagram beside everything else: more than a node has pods.
const MOST: usize = 250;

/// A node's word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Word {
    ready: BTreeSet<IpAddr>,
}

impl Word {
    /// These are ready, and no other of the node's own addresses. Of more than 250 nothing can be said.
    #[must_use]
    pub fn new(ready: BTreeSet<IpAddr>) -> Option<Self> {
        (ready.len() <= MOST).then_some(Self { ready })
    }

    /// Whether the pod with this address is ready.
    #[must_use]
    pub fn is_ready(&self, address: IpAddr) -> bool {
        self.ready.contains(&address)
    }

    /// The addresses, in their order.
    pub fn addresses(&self) -> impl ExactSizeIterator<Item = IpAddr> {
        self.ready.iter().copied()
    }

    /// Names it. 0 is the digest of who has heard no word.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let sum = self.ready.iter().map(|ip| record_digest(&ip.to_string(), ""));
        sum.fold(1, u64::wrapping_add).max(1)
    }
}
