//! What the API said of the daemon set's pods, by a watch that any client could have.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display, Formatter},
};

use serde_json::Value;

use super::{NEW, OLD};
use crate::events::{Event, Object};

/// Where the pods are.
pub(super) const PODS: &str = "/api/v1/namespaces/default/pods";

#[derive(Default)]
pub(super) struct Seen {
    nodes: BTreeMap<String, Node>,
    approved: BTreeSet<String>,
    faults: Vec<String>,
}

#[derive(Default)]
struct Node {
    /// All pods that it ever had, in their order.
    pods: Vec<Pod>,
}

struct Pod {
    uid: String,
    name: String,
    version: String,
    ready: bool,
}

impl Seen {
    /// Nodes whose pod of this version is ready.
    pub(super) fn count(&self, version: &str) -> usize {
        let runs = |node: &&Node| node.pods.iter().any(|pod| pod.ready && pod.version == version);
        self.nodes.values().filter(runs).count()
    }

    /// The name of a node's latest pod.
    pub(super) fn pod(&self, node: &str) -> Option<String> {
        self.nodes.get(node)?.pods.last().map(|pod| pod.name.clone())
    }

    /// From now on this node may be upgraded.
    pub(super) fn approve(&mut self, node: &str) {
        self.approved.insert(node.to_owned());
    }

    /// It may not after all.
    pub(super) fn withdraw(&mut self, node: &str) {
        self.approved.remove(node);
    }

    /// What should not have been, one line each.
    pub(super) fn faults(&self, names: &[String], unasked: &BTreeSet<String>) -> Vec<String> {
        let mut faults = self.faults.clone();
        for name in names {
            let pods = self.nodes.get(name).map(|node| node.pods.as_slice()).unwrap_or_default();
            let had: Vec<&str> = pods.iter().map(|pod| pod.version.as_str()).collect();
            let expected: &[&str] = if unasked.contains(name) { &[OLD] } else { &[OLD, NEW] };
            if had != expected {
                faults.push(format!("{name} had pods of {had:?}, not of {expected:?}"));
            }
        }
        faults
    }

    pub(super) fn take(&mut self, event: &Event) {
        let object = &event.object;
        let Some((node, version)) = place(object) else { return };
        let ready = event.r#type != "DELETED" && object.is("Ready");
        let pods = &mut self.nodes.entry(node.to_owned()).or_default().pods;
        let uid = &object.metadata.uid;
        if let Some(known) = pods.iter_mut().find(|pod| pod.uid == *uid) {
            known.ready = ready;
            return;
        }
        if version == NEW && !self.approved.contains(node) {
            self.faults.push(format!("{node} was upgraded without an approval"));
        }
        let (name, version) = (object.metadata.name.clone(), version.to_owned());
        pods.push(Pod { uid: uid.clone(), name, version, ready });
    }
}

/// A pod's node, and the version that it runs; none before it is bound.
fn place(pod: &Object) -> Option<(&str, &str)> {
    let node = pod.spec.get("nodeName").and_then(Value::as_str)?;
    let version = pod.spec.pointer("/containers/0/env/0/value").and_then(Value::as_str)?;
    Some((node, version))
}

impl Display for Seen {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} run the old version, {} the new one", self.count(OLD), self.count(NEW))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(uid: &str, version: &str) -> Event {
        let object = json!({"metadata": {"uid": uid, "name": uid},
            "spec": {"nodeName": "a", "containers": [{"env": [{"name": "VERSION", "value": version}]}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        Event { r#type: "ADDED".to_owned(), object: serde_json::from_value(object).unwrap() }
    }

    #[test]
    fn an_upgrade_is_a_fault_when_it_is_unasked_or_comes_twice() {
        let (names, nobody) = (["a".to_owned()], BTreeSet::new());
        let after = |approved: bool, pods: &[(&str, &str)]| {
            let mut seen = Seen::default();
            if approved {
                seen.approve("a");
            }
            pods.iter().for_each(|(uid, version)| seen.take(&event(uid, version)));
            seen.faults(&names, &nobody)
        };
        assert_eq!(after(true, &[("1", OLD), ("2", NEW), ("2", NEW)]), [""; 0]);
        assert_eq!(after(false, &[("1", OLD), ("2", NEW)]), ["a was upgraded without an approval"]);
        assert_eq!(after(true, &[("1", OLD), ("2", NEW), ("3", NEW)]).len(), 1, "twice");
        assert_eq!(after(true, &[("1", OLD)]).len(), 1, "never");
    }
}
