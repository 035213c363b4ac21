//! Which of a Service's endpoints a node may use, by what the Service says of places. The cloud asks it to leave
//! out what no node of a pool may use; nodes ask it for the rest. It knows nothing of readiness but what it is told.

/// Where a node is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vantage {
    /// Its name.
    pub node: String,
    /// Its pool; empty for a node without one, which is then a pool of its own.
    pub pool: String,
    /// Its zone; empty when it is not known.
    pub zone: String,
}

// OpenYurt's keys, which `toono_openyurt::keys` has too: a controller's test compares them. This crate is also a small
// node's, and does not depend on that one.
const NODE: &str = "kubernetes.io/hostname";
const POOL: &str = "openyurt.io/nodepool";
const ZONE: &str = "kubernetes.io/zone";
const ANY: &str = "*";

/// How near an endpoint is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Node,
    Pool,
    Any,
}

/// What a Service wants, best first: the first key counts by which some endpoint can be had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopologyKeys(Vec<Key>);

impl Key {
    /// A zone is a pool, as it is to OpenYurt.
    fn parse(text: &str) -> Option<Self> {
        match text {
            NODE => Some(Self::Node),
            POOL | ZONE => Some(Self::Pool),
            ANY => Some(Self::Any),
            _ => None,
        }
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

impl TopologyKeys {
    /// All that there are.
    pub const KNOWN: [&str; 4] = [NODE, POOL, ZONE, ANY];

    /// The value of `openyurt.io/topologyKeys`: keys with commas in between. What is no key is passed over; without any key every
    /// endpoint is as good as another.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(words(text).filter_map(Key::parse).collect())
    }

    /// Words of an annotation's value that are no key.
    pub fn unknown(text: &str) -> impl Iterator<Item = &str> {
        words(text).filter(|word| Key::parse(word).is_none())
    }

    /// Whether endpoints concern nobody outside of their own pool.
    #[must_use]
    pub fn is_near(&self) -> bool {
        !self.0.is_empty() && !self.0.contains(&Key::Any)
    }

    /// Whether it matters which of all endpoints are in the node's pool: the others are there as well.
    #[must_use]
    pub fn asks_for_neighbours(&self) -> bool {
        self.0.contains(&Key::Pool) && self.0.contains(&Key::Any)
    }

    /// Those of a Service's endpoints that a node may use. Where none is usable, all those that it could use if
    /// they were. `is_neighbour` is asked where endpoints of all pools are there.
    pub fn select<T>(
        &self,
        vantage: &Vantage,
        mut endpoints: Vec<T>,
        node_of: impl Fn(&T) -> &str,
        is_usable: impl Fn(&T) -> bool,
        is_neighbour: impl Fn(&str) -> bool,
    ) -> Vec<T> {
        if self.0.is_empty() {
            return endpoints;
        }
        let reaches = |key: Key, endpoint: &T| {
            let node = node_of(endpoint);
            let is_own = node == vantage.node;
            match key {
                Key::Any => true,
                Key::Pool if !vantage.pool.is_empty() => {
                    // The cloud shows a pool no other pool's.
                    is_own || self.is_near() || is_neighbour(node)
                }
                Key::Node | Key::Pool => is_own,
            }
        };
        let is_there = |key: &&Key| endpoints.iter().any(|it| is_usable(it) && reaches(**key, it));
        match self.0.iter().find(is_there) {
            Some(key) => endpoints.retain(|it| reaches(*key, it)),
            None => endpoints.retain(|it| self.0.iter().any(|key| reaches(*key, it))),
        }
        endpoints
    }
}

/// Whether nodes of a pool have a Service's ports, by the value of `nodeport.openyurt.io/listen`: pools with commas in
/// between, a minus before those that have not, `*` for all that are not named. Who is named twice is what the
/// first says. Nodes without a pool have the ports.
#[must_use]
pub fn listens(list: &str, pool: &str) -> bool {
    let said = |name: &str| {
        words(list).find_map(|word| match word.strip_prefix('-') {
            Some(word) if word == name => Some(false),
            None if word == name => Some(true),
            _ => None,
        })
    };
    pool.is_empty() || said(pool).or_else(|| said("*")).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vantage(pool: &str) -> Vantage {
        Vantage { node: "own".into(), pool: pool.into(), zone: String::new() }
    }

    fn select<'a>(keys: &str, pool: &str, endpoints: &[(&'a str, bool)]) -> Vec<&'a str> {
        let selected = TopologyKeys::parse(keys).select(
            &vantage(pool),
            endpoints.to_vec(),
            |it| it.0,
            |it| it.1,
            |node| node.starts_with("near"),
        );
        selected.into_iter().map(|it| it.0).collect()
    }

    #[test]
    fn the_first_key_with_an_endpoint_counts() {
        let all = [("own", true), ("near-1", true), ("far-1", true)];
        let far = [("own", false), ("near-1", false), ("far-1", true)];
        // What the cloud tells of a Service that stays near.
        let pool = [("own", true), ("near-1", true)];
        let gone = [("own", false), ("near-1", true)];
        let dead = [("own", false), ("near-1", false)];
        for (keys, endpoints, expected) in [
            ("", &all[..], &["own", "near-1", "far-1"][..]),
            ("bogus", &all, &["own", "near-1", "far-1"]),
            ("*", &all, &["own", "near-1", "far-1"]),
            ("kubernetes.io/hostname", &pool, &["own"]),
            ("kubernetes.io/hostname", &gone, &["own"]),
            ("openyurt.io/nodepool", &pool, &["own", "near-1"]),
            ("kubernetes.io/zone", &pool, &["own", "near-1"]),
            ("kubernetes.io/hostname, openyurt.io/nodepool", &pool, &["own"]),
            ("kubernetes.io/hostname,openyurt.io/nodepool", &gone, &["own", "near-1"]),
            ("kubernetes.io/hostname,openyurt.io/nodepool", &dead, &["own", "near-1"]),
            ("openyurt.io/nodepool,*", &all, &["own", "near-1"]),
            ("bogus, openyurt.io/nodepool, *", &far, &["own", "near-1", "far-1"]),
            ("kubernetes.io/hostname,*", &far, &["own", "near-1", "far-1"]),
        ] {
            assert_eq!(select(keys, "shop", endpoints), expected, "{keys:?} {endpoints:?}");
        }
        assert_eq!(select("openyurt.io/nodepool", "", &pool), ["own"], "without a pool");
        assert_eq!(select("openyurt.io/nodepool", "", &[("x", true)]), [""; 0]);
        assert_eq!(TopologyKeys::unknown("a, *,, b ").collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn pools_listen_by_their_names() {
        for (list, a, b) in [
            ("a", true, false),
            ("-a", false, false),
            ("*", true, true),
            ("-a,*", false, true),
            ("*, -a", false, true),
            ("a,-a", true, false),
            ("-a,a", false, false),
            ("-*,a", true, false),
            ("", false, false),
            (" , b ", false, true),
        ] {
            assert_eq!((listens(list, "a"), listens(list, "b")), (a, b), "{list:?}");
            assert!(listens(list, ""), "{list:?}: a node without a pool");
        }
    }

    /// The keys one after another, each over all endpoints.
    fn naive(keys: &[&str], pool: &str, endpoints: &[(&'static str, bool)]) -> Vec<&'static str> {
        let within = |key: &str, node: &str| match key {
            "*" => true,
            "openyurt.io/nodepool" if !pool.is_empty() => node == "own" || node.starts_with("near"),
            _ => node == "own",
        };
        for key in keys {
            let there: Vec<_> =
                endpoints.iter().filter(|it| it.1 && within(key, it.0)).map(|it| it.0).collect();
            if !there.is_empty() {
                return there;
            }
        }
        if keys.is_empty() {
            return endpoints.iter().filter(|it| it.1).map(|it| it.0).collect();
        }
        Vec::new()
    }

    proptest! {
        #[test]
        fn usable_ones_are_those_of_a_naive_reading(
            keys in prop::collection::vec(0..3_usize, 0..4), pooled: bool,
            endpoints in prop::collection::vec((0..4_usize, any::<bool>()), 0..6),
        ) {
            let keys: Vec<&str> = keys.iter().map(|at| {
                ["kubernetes.io/hostname", "openyurt.io/nodepool", "*"][*at]
            }).collect();
            let pool = if pooled { "shop" } else { "" };
            let text = keys.join(",");
            let parsed = TopologyKeys::parse(&text);
            let mut endpoints: Vec<_> = endpoints.iter()
                .map(|(at, usable)| (["own", "near-1", "near-2", "far"][*at], *usable)).collect();
            // The cloud leaves out what no node of the pool may use.
            if parsed.is_near() {
                endpoints.retain(|it| it.0 != "far");
            }
            let usable: Vec<_> = select(&text, pool, &endpoints).into_iter().collect();
            let expected = naive(&keys, pool, &endpoints);
            let selected = parsed.select(&vantage(pool), endpoints, |it| it.0, |it| it.1, |it| it.starts_with("near"));
            let selected: Vec<_> = selected.into_iter().filter(|it| it.1).map(|it| it.0).collect();
            prop_assert_eq!(&selected, &expected);
            prop_assert!(expected.iter().all(|it| usable.contains(it)));
        }
    }
}
