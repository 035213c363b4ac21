//! What can be set, with its defaults in one place.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// Settings of all controllers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ControllersConfig {
    /// Which controllers run.
    pub controllers: Switches,
    /// Objects of one kind that are worked on at the same time.
    pub concurrent_syncs: usize,
    /// The scheduler takes pods whose `schedulerName` is this.
    pub scheduler_name: String,
    /// Bindings under way at the same time.
    pub concurrent_bindings: usize,
    /// Events that were not renewed for so long are deleted.
    pub event_lifetime_seconds: u64,
    /// Pods of a node that has been missing for so long are ended: before, it may be joining again under its name.
    pub missing_node_seconds: u64,
    /// The certificates, PEM, by which pods know the API server: published in every namespace.
    /// Empty: nothing is published.
    pub root_ca: String,
    /// When pods leave nodes that are gone.
    pub eviction: EvictionConfig,
}

/// The controllers that can be switched, by their names in kube-controller-manager where they have one there.
pub const CONTROLLERS: &[&str] = &[
    "certificatesigningrequest",
    "clusterrole-aggregation",
    "cronjob",
    "daemonpodupdater",
    "daemonset",
    "deployment",
    "disruption",
    "endpoints",
    "event-expiry",
    "garbagecollector",
    "hubleader",
    "job",
    "namespace",
    "nodebucket",
    "nodelifecycle",
    "nodepool",
    "podbinding",
    "replicaset",
    "resourcequota",
    "root-ca-certificate-publisher",
    "scheduler",
    "serviceaccount",
    "serviceaccount-token",
    "statefulset",
    "tokencleaner",
    "ttl-after-finished",
    "yurtappset",
    "yurtstaticset",
];

/// Those of OpenYurt's kinds: what runs beside a Kubernetes that has all others itself.
pub const BESIDE_OTHERS: &[&str] = &[
    "daemonpodupdater",
    "hubleader",
    "nodebucket",
    "nodepool",
    "podbinding",
    "yurtappset",
    "yurtstaticset",
];

/// Which controllers run, as kube-controller-manager's `--controllers` says it: `name` runs, `-name` does not, `*`
/// are all others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Switches(Vec<String>);

impl Switches {
    /// Whether a controller runs.
    #[must_use]
    pub fn runs(&self, name: &str) -> bool {
        let mut named = self.0.iter().filter_map(|item| match item.strip_prefix('-') {
            Some(off) => (off == name).then_some(false),
            None => (item == name).then_some(true),
        });
        named.next().unwrap_or_else(|| self.0.iter().any(|item| item == "*"))
    }

    /// The same where only [`BESIDE_OTHERS`] may run; `*` are all of those.
    ///
    /// # Errors
    /// The first one named that the cluster has itself.
    pub fn beside_others(&self) -> Result<Self, NotBeside> {
        for item in &self.0 {
            let name = item.strip_prefix('-').unwrap_or(item);
            if item != "*" && !BESIDE_OTHERS.contains(&name) {
                return Err(NotBeside(name.to_owned()));
            }
        }
        let running = BESIDE_OTHERS.iter().filter(|name| self.runs(name));
        Ok(Self(running.map(|name| (*name).to_owned()).collect()))
    }
}

/// A controller that the cluster runs itself, or that has nothing to do there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is for the cluster's own controllers to do: two would undo each other's work")]
pub struct NotBeside(String);

impl Default for Switches {
    fn default() -> Self {
        Self(vec!["*".to_owned()])
    }
}

impl FromStr for Switches {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let items: Vec<String> = text.split(',').map(|item| item.trim().to_owned()).collect();
        for item in &items {
            let name = item.strip_prefix('-').unwrap_or(item);
            if item != "*" && !CONTROLLERS.contains(&name) {
                return Err(format!(
                    "there is no controller {name:?}; there are: {}",
                    CONTROLLERS.join(", ")
                ));
            }
        }
        Ok(Self(items))
    }
}

impl TryFrom<String> for Switches {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Switches> for String {
    fn from(switches: Switches) -> Self {
        switches.to_string()
    }
}

impl fmt::Display for Switches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// When pods leave nodes that are not ready, for each node pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct EvictionConfig {
    /// Nodes per second whose pods may be evicted.
    pub nodes_per_second: f64,
    /// The same while the pool is partly disrupted and large.
    pub disrupted_nodes_per_second: f64,
    /// Share of not ready nodes from which a pool counts as partly disrupted.
    pub disrupted_share: f64,
    /// Up to this many nodes a pool is small: when it is partly disrupted nothing is evicted.
    pub small_pool_nodes: usize,
}

impl Default for ControllersConfig {
    fn default() -> Self {
        Self {
            controllers: Switches::default(),
            // Kubernetes' default for each of these controllers.
            concurrent_syncs: 5,
            scheduler_name: "default-scheduler".to_owned(),
            // Enough to cover a commit's latency; more only queue in the server.
            concurrent_bindings: 64,
            // Kubernetes' `--event-ttl`.
            event_lifetime_seconds: 60 * 60,
            // The quarantine of Kubernetes' pod garbage collector.
            missing_node_seconds: 40,
            root_ca: String::new(),
            eviction: EvictionConfig::default(),
        }
    }
}

impl Default for EvictionConfig {
    /// Kubernetes' defaults.
    fn default() -> Self {
        Self {
            nodes_per_second: 0.1,
            disrupted_nodes_per_second: 0.01,
            disrupted_share: 0.55,
            small_pool_nodes: 50,
        }
    }
}

impl EvictionConfig {
    /// The pause between two nodes at a rate; `None` when the rate is zero or not a number.
    pub(crate) fn pause(nodes_per_second: f64) -> Option<Duration> {
        if nodes_per_second > 0.0 {
            Duration::try_from_secs_f64(1.0 / nodes_per_second).ok()
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_switched_by_name() {
        let runs = |text: &str, name: &str| text.parse::<Switches>().unwrap().runs(name);
        assert!(runs("*", "nodebucket") && !runs("-nodebucket,*", "nodebucket"));
        assert!(runs("-nodebucket,*", "job") && !runs("job", "nodebucket") && runs("job", "job"));
        assert!("-nodebuckets".parse::<Switches>().unwrap_err().contains("nodebucket,"));
    }

    #[test]
    fn beside_others_nothing_runs_that_they_run() {
        let beside = |text: &str| text.parse::<Switches>().unwrap().beside_others();
        let all = beside("*").unwrap();
        for name in CONTROLLERS {
            assert_eq!(all.runs(name), BESIDE_OTHERS.contains(name), "{name}");
        }
        let some = beside("*,-yurtappset").unwrap();
        assert!(some.runs("nodepool") && !some.runs("yurtappset") && !some.runs("deployment"));
        for text in ["deployment", "nodepool,scheduler", "*,-garbagecollector"] {
            assert!(beside(text).is_err(), "{text}");
        }
        assert!(beside("scheduler").unwrap_err().to_string().starts_with("scheduler "));
    }
}
