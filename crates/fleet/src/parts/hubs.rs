//! Which nodes of a pool serve the pool's part to its neighbours. Where the pool's object elects leaders, those of them
//! that live, and nobody else; where it does not, the lowest that lives of those that offer it by their label.
//!
//! Nothing is kept of the choice: whoever asks gets the answer of the moment, so that a hub that falls silent
//! has a successor as soon as it counts as silent.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use toono_openyurt::NodePool;
use toono_session::NodeIndex;

use crate::objects::NodeObject;

/// Who may be hubs of their pools.
#[derive(Debug, Default)]
pub(crate) struct Hubs {
    by_pool: HashMap<Arc<str>, BTreeMap<NodeIndex, IpAddr>>,
    pools: HashMap<NodeIndex, Arc<str>>,
    elected: HashMap<Arc<str>, Elected>,
}

/// The leaders of a pool, as its object says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Elected {
    leaders: Vec<(Box<str>, IpAddr)>,
    /// The pool has not been poked since these lead: its nodes may follow another one.
    is_news: bool,
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

    /// A pool's object as it is now.
    pub(crate) fn elect(&mut self, pool: &NodePool) {
        if !pool.spec.enable_leader_election {
            return self.unelect(pool.name());
        }
        let told = pool.status.iter().flat_map(|status| &status.leader_endpoints);
        let leaders: Vec<(Box<str>, IpAddr)> = told
            .filter_map(|it| Some((it.node_name.as_str().into(), it.address.parse().ok()?)))
            .collect();
        let known = self.elected.get_mut(pool.name());
        if known.as_ref().is_none_or(|known| known.leaders != leaders) {
            self.elected.insert(pool.name().into(), Elected { leaders, is_news: true });
        }
    }

    /// There is no such pool any more, or it elects nobody.
    pub(crate) fn unelect(&mut self, pool: &str) {
        self.elected.remove(pool);
    }

    /// All pools are told: there are no others.
    pub(crate) fn keep_elected(&mut self, is_there: impl Fn(&str) -> bool) {
        self.elected.retain(|pool, _| is_there(pool));
    }

    /// A pool's hubs that live, and where they are. `named` finds a node of the pool.
    pub(crate) fn of(
        &self,
        pool: &str,
        lives: impl Fn(NodeIndex) -> bool,
        named: impl Fn(&str) -> Option<NodeIndex>,
    ) -> Vec<(NodeIndex, IpAddr)> {
        if let Some(elected) = self.elected.get(pool) {
            let leaders = elected.leaders.iter();
            let known = leaders.filter_map(|(name, address)| Some((named(name)?, *address)));
            return known.filter(|(index, _)| lives(*index)).collect();
        }
        let mut offers = self.by_pool.get(pool).into_iter().flatten();
        let first = offers.find(|(index, _)| lives(**index));
        first.map(|(index, address)| (*index, *address)).into_iter().collect()
    }

    /// Whether no pool can have one.
    pub(crate) fn is_empty(&self) -> bool {
        self.pools.is_empty() && self.elected.is_empty()
    }

    /// The pools that may have one.
    pub(crate) fn pools(&self) -> impl Iterator<Item = &Arc<str>> {
        let offered = self.by_pool.keys().filter(|pool| !self.elected.contains_key(*pool));
        self.elected.keys().chain(offered)
    }

    /// Of the pools concerned those with other leaders than when this was asked last.
    pub(crate) fn take_news(&mut self, concerns: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let mut news = Vec::new();
        for (pool, elected) in &mut self.elected {
            if elected.is_news && concerns(pool) {
                elected.is_news = false;
                news.push(pool.clone());
            }
        }
        news
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
            hubs.of("shop", |index| index.0 != dead, |_| None).first().map(|(index, _)| index.0)
        };
        assert_eq!((of(&hubs, 0), of(&hubs, 2)), (Some(2), Some(3)));
        assert_eq!(hubs.of("", |_| true, |_| None), [], "nodes without a pool are no neighbours");
        hubs.admit(NodeIndex(2), &node("other", true, "10.0.0.2"));
        assert_eq!((of(&hubs, 0), of(&hubs, 3)), (Some(3), None));
        hubs.admit(NodeIndex(2), &node("other", false, "10.0.0.2"));
        hubs.remove(NodeIndex(3));
        assert!(hubs.is_empty() && hubs.pools().next().is_none());
        hubs.admit(NodeIndex(5), &node("shop", true, "none"));
        assert!(hubs.is_empty(), "it cannot be reached");
    }

    #[test]
    fn who_is_elected_is_a_hub_and_nobody_else() {
        let pool = |elects: bool, leaders: &[&str]| -> NodePool {
            let end = |name: &&str| json!({"nodeName": name, "address": format!("10.0.0.{name}")});
            let ends: Vec<_> = leaders.iter().map(end).collect();
            serde_json::from_value(json!({"metadata": {"name": "shop"},
                "spec": {"enableLeaderElection": elects}, "status": {"leaderEndpoints": ends}}))
            .unwrap()
        };
        let mut hubs = Hubs::default();
        hubs.admit(NodeIndex(1), &node("shop", true, "10.0.0.1"));
        let of = |hubs: &Hubs, dead: u32| -> Vec<u32> {
            // Node 9 is in another pool.
            let named = |name: &str| name.parse().ok().filter(|it| *it != 9).map(NodeIndex);
            let found = hubs.of("shop", |index| index.0 != dead, named);
            found.iter().map(|(index, _)| index.0).collect()
        };
        hubs.elect(&pool(false, &[]));
        assert_eq!(of(&hubs, 0), [1], "a pool that elects nobody");
        hubs.elect(&pool(true, &["3", "9", "2", "?"]));
        assert_eq!((of(&hubs, 0), of(&hubs, 3)), (vec![3, 2], vec![2]));
        assert_eq!(hubs.pools().count(), 1);
        assert!(hubs.take_news(|pool| pool != "shop").is_empty());
        assert_eq!(hubs.take_news(|_| true), ["shop".into()]);
        hubs.elect(&pool(true, &["3", "9", "2", "?"]));
        assert!(hubs.take_news(|_| true).is_empty(), "they lead already");
        hubs.elect(&pool(true, &[]));
        assert_eq!((of(&hubs, 0), hubs.take_news(|_| true).len()), (vec![], 1));
        hubs.keep_elected(|pool| pool != "shop");
        assert_eq!(of(&hubs, 0), [1], "a pool without an object");
    }
}
