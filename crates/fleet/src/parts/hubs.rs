//! Which node of a pool serves the pool's part to its neighbours: of those that offer it, the lowest that lives.
//!
//! Nothing is kept of the choice: whoever asks gets the answer of the moment, so that a hub that falls silent
//! has a successor as soon as it counts as silent.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use toono_session::NodeIndex;

use crate::objects::NodeObject;

/// The nodes that offer to be their pool's hub.
#[derive(Debug, Default)]
pub(crate) struct Hubs {
    by_pool: HashMap<Arc<str>, BTreeMap<NodeIndex, IpAddr>>,
    pools: HashMap<NodeIndex, Arc<str>>,
}

impl Hubs {
    /// A Node as it is now.
    pub(crate) fn admit(&mut self, index: NodeIndex, node: &NodeObject) {
        let offer = node.offers_hub().filter(|_| !node.pool().is_empty());
        if offer.is_none() && self.pools.is_empty() {
            return;
        }
        self.remove(index);
        if let Some(address) = offer {
            let pool: Arc<str> = node.pool().into();
            self.by_pool.entry(pool.clone()).or_default().insert(index, address);
            self.pools.insert(index, pool);
        }
    }

    /// A node is no member any more.
    pub(crate) fn remove(&mut self, index: NodeIndex) {
        let Some(pool) = self.pools.remove(&index) else { return };
        if let Some(offers) = self.by_pool.get_mut(&pool) {
            offers.remove(&index);
            if offers.is_empty() {
                self.by_pool.remove(&pool);
            }
        }
    }

    /// A pool's hub, and where it is.
    pub(crate) fn of(
        &self,
        pool: &str,
        lives: impl Fn(NodeIndex) -> bool,
    ) -> Option<(NodeIndex, IpAddr)> {
        let mut offers = self.by_pool.get(pool)?.iter();
        offers.find(|(index, _)| lives(**index)).map(|(index, address)| (*index, *address))
    }

    /// Whether anyone offers anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    /// The pools in which someone does.
    pub(crate) fn pools(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_pool.keys()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(pool: &str, offers: bool, address: &str) -> NodeObject {
        let value = json!({"metadata": {"name": "n", "labels":
                {"apps.openyurt.io/nodepool": pool, "toono.io/pool-hub": offers.to_string()}},
            "status": {"addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": address}]}});
        NodeObject::parse(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn the_lowest_that_offers_and_lives_is_the_hub() {
        let mut hubs = Hubs::default();
        hubs.admit(NodeIndex(1), &node("shop", false, "10.0.0.1"));
        assert!(hubs.is_empty());
        hubs.admit(NodeIndex(3), &node("shop", true, "10.0.0.3"));
        hubs.admit(NodeIndex(2), &node("shop", true, "10.0.0.2"));
        hubs.admit(NodeIndex(4), &node("", true, "10.0.0.4"));
        let of = |hubs: &Hubs, dead: u32| {
            hubs.of("shop", |index| index.0 != dead).map(|(index, _)| index.0)
        };
        assert_eq!((of(&hubs, 0), of(&hubs, 2)), (Some(2), Some(3)));
        assert_eq!(hubs.of("", |_| true), None, "nodes without a pool are no neighbours");
        hubs.admit(NodeIndex(2), &node("other", true, "10.0.0.2"));
        assert_eq!((of(&hubs, 0), of(&hubs, 3)), (Some(3), None));
        hubs.admit(NodeIndex(2), &node("other", false, "10.0.0.2"));
        hubs.remove(NodeIndex(3));
        assert!(hubs.is_empty() && hubs.pools().next().is_none());
        hubs.admit(NodeIndex(5), &node("shop", true, "none"));
        assert!(hubs.is_empty(), "it cannot be reached");
    }
}
