//! Which pods each node must know, and since which revision: an index in memory, no I/O.
//!
//! A node's *desired revision* moves with every change of its pods that concerns it, and never goes
//! back. After a start the index knows neither earlier deletions nor whether a pod's newest
//! revision was only its status. So a node counts as up to date at first, unless one of its pods
//! obviously waits for it, and is asked to compare once, a limited number of nodes a second
//! ([`Bundles::sweep`]): no missed deletion stays, and a restart causes no storm.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::objects::PodObject;

/// All pods, by node.
#[derive(Debug, Default)]
pub(crate) struct Bundles {
    nodes: HashMap<Arc<str>, NodeBundle>,
    /// Uid of every bound pod → its node.
    bound: HashMap<Box<str>, Arc<str>>,
    /// The revision of the first snapshot; none before it.
    start: Option<u64>,
    /// The newest revision seen.
    newest: u64,
}

#[derive(Debug, Default)]
struct NodeBundle {
    desired: u64,
    /// Whether the node has been asked to compare since the start.
    swept: bool,
    pods: BTreeMap<Box<str>, Held>,
}

/// What a node is to be told: which of its pods, of those it has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) revision: u64,
    /// Pods that changed since the revision that the node asked about.
    pub(crate) pods: Vec<Named>,
    /// The uid of every pod of the node.
    pub(crate) present: Vec<String>,
}

/// One pod, by the names that find it and the one that tells it from others of these names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) path: String,
    pub(crate) uid: Box<str>,
}

#[derive(Debug)]
struct Held {
    /// Revision of the last change that concerns the node.
    changed: u64,
    pod: PodObject,
}

impl Bundles {
    /// Everything there is. Returns the nodes whose desired revision moved.
    pub(crate) fn snapshot(&mut self, revision: u64, pods: Vec<PodObject>) -> Vec<Arc<str>> {
        let first = self.start.is_none();
        self.start.get_or_insert(revision);
        let mut moved = Vec::new();
        let mut gone = self.bound.clone();
        for pod in pods {
            gone.remove(&pod.uid);
            let waits = pod.deleting || !pod.started;
            moved.extend(self.place(pod, !first || waits));
        }
        for (uid, node) in gone {
            self.bound.remove(&uid);
            if let Some(bundle) = self.nodes.get_mut(&node) {
                bundle.pods.remove(&uid);
                bundle.desired = bundle.desired.max(revision);
                moved.push(node);
            }
        }
        self.newest = self.newest.max(revision);
        moved.sort_unstable();
        moved.dedup();
        moved
    }

    /// A pod was added or changed. Returns its node when that must hear of it.
    pub(crate) fn put(&mut self, pod: PodObject) -> Option<Arc<str>> {
        self.newest = self.newest.max(pod.revision);
        self.place(pod, true)
    }

    /// A pod is gone since `revision`.
    pub(crate) fn delete(&mut self, uid: &str, revision: u64) -> Option<Arc<str>> {
        self.newest = self.newest.max(revision);
        let node = self.bound.remove(uid)?;
        let bundle = self.nodes.get_mut(&node)?;
        bundle.pods.remove(uid);
        bundle.desired = bundle.desired.max(revision);
        Some(node)
    }

    /// A binding never changes in Kubernetes, so a pod is looked for on no other node.
    fn place(&mut self, pod: PodObject, moves: bool) -> Option<Arc<str>> {
        if pod.node.is_empty() {
            return None;
        }
        let node: Arc<str> = match self.nodes.get_key_value(&*pod.node) {
            Some((known, _)) => known.clone(),
            None => (&*pod.node).into(),
        };
        let bundle = self.nodes.entry(node.clone()).or_default();
        let old = bundle.pods.get(&pod.uid);
        if old.is_some_and(|old| old.pod.revision > pod.revision) {
            return None;
        }
        let same = old.filter(|old| old.pod.digest == pod.digest).map(|old| old.changed);
        let before = bundle.desired;
        if moves && same.is_none() {
            bundle.desired = bundle.desired.max(pod.revision);
        }
        let changed = same.unwrap_or(pod.revision);
        self.bound.entry(pod.uid.clone()).or_insert_with(|| node.clone());
        let after = bundle.desired;
        bundle.pods.insert(pod.uid.clone(), Held { changed, pod });
        (after > before).then_some(node)
    }

    /// What a node should hold, given what it says it holds.
    pub(crate) fn desired(&self, node: &str, observed: u64) -> u64 {
        let Some(start) = self.start else { return observed };
        match self.nodes.get(node) {
            Some(bundle) if bundle.swept => bundle.desired,
            // Not yet asked to compare: what it holds will do, unless more is known to be there. A
            // revision from the future is of another store: compare now.
            Some(bundle) if observed <= self.newest => bundle.desired.max(observed),
            None if observed <= self.newest => observed,
            _ => start,
        }
    }

    /// The answer to `bundle?since=`; none before the first snapshot.
    pub(crate) fn bundle(&mut self, node: &str, since: u64) -> Option<News> {
        let start = self.start?;
        let since = if since > self.newest { 0 } else { since };
        let bundle = match self.nodes.get_mut(node) {
            Some(bundle) => bundle,
            None => self.nodes.entry(node.into()).or_default(),
        };
        if !bundle.swept {
            bundle.swept = true;
            bundle.desired = bundle.desired.max(start);
        }
        let pods = bundle
            .pods
            .values()
            .filter(|held| held.changed > since)
            .map(|held| Named { path: held.pod.path(), uid: held.pod.uid.clone() })
            .collect();
        Some(News {
            revision: bundle.desired,
            pods,
            present: bundle.pods.keys().map(|uid| uid.to_string()).collect(),
        })
    }

    /// Whether Pods have been read: before that no node can compare.
    pub(crate) fn is_loaded(&self) -> bool {
        self.start.is_some()
    }

    /// Asks one node to compare, if it has not been asked since the start.
    pub(crate) fn sweep(&mut self, node: &Arc<str>) -> bool {
        let Some(start) = self.start else { return false };
        let bundle = self.nodes.entry(node.clone()).or_default();
        if bundle.swept {
            return false;
        }
        bundle.swept = true;
        bundle.desired = bundle.desired.max(start);
        true
    }

    /// The pod with this uid, if it is bound to this node.
    pub(crate) fn pod(&self, node: &str, uid: &str) -> Option<&PodObject> {
        self.nodes.get(node)?.pods.get(uid).map(|held| &held.pod)
    }

    pub(crate) fn count(&self, node: &str) -> usize {
        self.nodes.get(node).map_or(0, |bundle| bundle.pods.len())
    }

    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, node: &str, revision: u64, image: &str, started: bool) -> PodObject {
        let status = if started { json!({"startTime": "2026-01-01T00:00:00Z"}) } else { json!({}) };
        let value = json!({"kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": uid, "namespace": "d", "uid": uid, "resourceVersion": revision.to_string()},
            "spec": {"nodeName": node, "containers": [{"image": image}]}, "status": status});
        PodObject::parse(&serde_json::to_vec(&value).unwrap()).unwrap()
    }

    fn names(news: &News) -> Vec<String> {
        let name = |pod: &Named| pod.path.rsplit('/').next().unwrap().to_owned();
        news.pods.iter().map(name).collect()
    }

    #[test]
    fn changes_move_only_their_node_and_status_moves_none() {
        let mut bundles = Bundles::default();
        assert!(bundles.bundle("a", 0).is_none(), "nothing is known before the snapshot");
        assert_eq!(bundles.desired("a", 5), 5);
        bundles.snapshot(10, Vec::new());
        assert_eq!(bundles.put(pod("1", "a", 11, "x", false)).as_deref(), Some("a"));
        assert_eq!(bundles.put(pod("1", "a", 12, "x", true)), None, "only the status changed");
        assert_eq!(bundles.put(pod("2", "", 13, "x", false)), None, "bound to no node");
        assert_eq!(bundles.put(pod("2", "a", 14, "x", false)).as_deref(), Some("a"));
        assert_eq!((bundles.desired("a", 0), bundles.desired("b", 0)), (14, 0));
        let all = bundles.bundle("a", 0).unwrap();
        assert_eq!((all.revision, names(&all).len(), all.present.len()), (14, 2, 2));
        let since = bundles.bundle("a", 11).unwrap();
        assert_eq!((names(&since), since.present.len()), (vec!["2".to_owned()], 2));
        assert_eq!(bundles.delete("1", 15).as_deref(), Some("a"));
        let after = bundles.bundle("a", 14).unwrap();
        assert_eq!(
            (after.revision, after.pods.len(), after.present),
            (15, 0, vec!["2".to_owned()])
        );
    }

    #[test]
    fn after_a_restart_only_waiting_pods_are_urgent_and_all_else_is_swept() {
        let mut bundles = Bundles::default();
        let pods = vec![pod("1", "a", 30, "x", true), pod("2", "b", 31, "x", false)];
        assert_eq!(bundles.snapshot(40, pods), vec![Arc::from("b")]);
        assert_eq!(bundles.desired("a", 20), 20, "nothing waits there");
        assert_eq!(bundles.desired("b", 20), 31, "a pod waits there");
        assert_eq!(bundles.desired("b", 35), 35, "never back");
        assert_eq!(bundles.desired("c", 25), 25, "its pods may have gone meanwhile");
        assert!(bundles.sweep(&"a".into()) && bundles.sweep(&"c".into()));
        assert!(!bundles.sweep(&"a".into()), "once");
        assert_eq!((bundles.desired("a", 20), bundles.desired("c", 25)), (40, 40));
        assert_eq!(bundles.bundle("c", 25).unwrap().revision, 40);
    }

    #[test]
    fn a_second_snapshot_finds_what_went_missing_between() {
        let mut bundles = Bundles::default();
        bundles.snapshot(1, vec![pod("1", "a", 1, "x", true), pod("2", "b", 1, "x", true)]);
        assert_eq!(bundles.snapshot(9, vec![pod("2", "b", 1, "x", true)]), vec![Arc::from("a")]);
        assert_eq!((bundles.desired("a", 1), bundles.count("a")), (9, 0));
    }

    #[test]
    fn a_revision_from_another_store_gets_everything() {
        let mut bundles = Bundles::default();
        bundles.snapshot(10, vec![pod("1", "a", 5, "x", true)]);
        assert_eq!(bundles.desired("a", 1_000), 10);
        assert_eq!(bundles.bundle("a", 1_000).unwrap().pods.len(), 1);
    }
}
