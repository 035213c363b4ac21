//! Which pods each node must know, and since which revision: an index in memory, no I/O.
//!
//! A node's *desired revision* moves with every change of its pods that concerns it, and never goes
//! back. After a start the index knows neither earlier deletions nor whether a pod's newest
//! revision was only its status. So a node counts as up to date at first, unless one of its pods
//! obviously waits for it, and is asked to compare once, a limited number of nodes a second
//! ([`Bundles::sweep`]): no missed deletion stays, and a restart causes no storm.
//!
//! There is one of each of these for every node and every pod, so they are small: a node's bundle is found
//! by a dense index, and a pod is kept by what names it, not by what it says.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use toono_api::{Uid, intern::Pool};
use toono_session::NodeIndex;

use crate::objects::PodObject;

/// The names of namespaces, each once.
static NAMESPACES: Pool<str> = Pool::new();

/// A node's place among the bundles. It stays while the node is a member or has pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BundleIndex(u32);

/// All pods, by node.
#[derive(Debug, Default)]
pub(crate) struct Bundles {
    nodes: Vec<NodeBundle>,
    vacant: Vec<BundleIndex>,
    by_name: HashMap<Arc<str>, BundleIndex>,
    /// Of a list that is being told, after the first one: what it has told.
    listing: Option<HashSet<Uid>>,
    /// The revision of the first whole list; none before it.
    start: Option<u64>,
    /// The newest revision seen.
    newest: u64,
}

#[derive(Debug, Default)]
struct NodeBundle {
    name: Arc<str>,
    desired: u64,
    /// Whether the node has been asked to compare since the start.
    swept: bool,
    /// The member of this name, if there is one: only a member can hear anything.
    member: Option<NodeIndex>,
    /// In the order of their uids.
    pods: Vec<Held>,
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
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Box<str>,
    pub(crate) uid: Uid,
}

impl Named {
    /// Where the API has it.
    pub(crate) fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/pods/{}", self.namespace, self.name)
    }
}

#[derive(Debug)]
struct Held {
    uid: Uid,
    namespace: Arc<str>,
    name: Box<str>,
    revision: u64,
    /// See [`PodObject::digest`].
    digest: u64,
    /// Revision of the last change that concerns the node.
    changed: u64,
}

impl BundleIndex {
    /// No node's.
    pub(crate) const NONE: Self = Self(u32::MAX);

    fn place(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl NodeBundle {
    /// Has the node compare, since all that there was at the start counts for it. Whether that is new.
    fn compare(&mut self, start: u64) -> bool {
        let new = !std::mem::replace(&mut self.swept, true);
        if new {
            self.desired = self.desired.max(start);
        }
        new
    }

    fn find(&self, uid: &Uid) -> Result<usize, usize> {
        self.pods.binary_search_by(|held| held.uid.cmp(uid))
    }

    fn pod(&self, uid: &Uid) -> Option<&Held> {
        self.pods.get(self.find(uid).ok()?)
    }

    fn put(&mut self, pod: Held) {
        match self.find(&pod.uid) {
            Ok(at) => {
                if let Some(held) = self.pods.get_mut(at) {
                    *held = pod;
                }
            }
            Err(at) => {
                // Most nodes have a handful: room for as many more again would be a waste.
                self.pods.reserve_exact(1);
                self.pods.insert(at, pod);
            }
        }
    }

    fn remove(&mut self, uid: &Uid) -> bool {
        self.find(uid).map(|at| self.pods.remove(at)).is_ok()
    }
}

impl Bundles {
    /// A list begins.
    pub(crate) fn list(&mut self) {
        self.listing = self.start.map(|_| HashSet::new());
    }

    /// A pod that a list tells of. Returns its node when that must hear of it.
    pub(crate) fn listed(&mut self, pod: PodObject) -> Option<NodeIndex> {
        let first = self.start.is_none();
        if let Some(listing) = &mut self.listing {
            listing.insert(pod.uid.clone());
        }
        let waits = pod.deleting || !pod.started;
        self.place(pod, !first || waits)
    }

    /// A list has been told wholly, at a revision. Returns the nodes whose pods were not in it.
    pub(crate) fn list_ended(&mut self, revision: u64) -> Vec<NodeIndex> {
        self.start.get_or_insert(revision);
        self.newest = self.newest.max(revision);
        let Some(listing) = self.listing.take() else { return Vec::new() };
        let (mut moved, mut emptied) = (Vec::new(), Vec::new());
        for (index, bundle) in (0..).map(BundleIndex).zip(&mut self.nodes) {
            let before = bundle.pods.len();
            bundle.pods.retain(|pod| listing.contains(&pod.uid));
            if bundle.pods.len() < before {
                bundle.desired = bundle.desired.max(revision);
                moved.extend(bundle.member);
                emptied.push(index);
            }
        }
        emptied.into_iter().for_each(|index| self.vacate_if_unused(index));
        moved
    }

    /// A pod was added or changed. Returns its node when that must hear of it.
    pub(crate) fn put(&mut self, pod: PodObject) -> Option<NodeIndex> {
        self.newest = self.newest.max(pod.revision);
        self.place(pod, true)
    }

    /// A pod is gone, since the revision that it has.
    pub(crate) fn delete(&mut self, pod: &PodObject) -> Option<NodeIndex> {
        self.newest = self.newest.max(pod.revision);
        let index = *self.by_name.get(&*pod.node)?;
        let bundle = self.nodes.get_mut(index.place())?;
        if !bundle.remove(&pod.uid) {
            return None;
        }
        bundle.desired = bundle.desired.max(pod.revision);
        let member = bundle.member;
        self.vacate_if_unused(index);
        member
    }

    /// A binding never changes in Kubernetes, so a pod is looked for on no other node.
    fn place(&mut self, pod: PodObject, moves: bool) -> Option<NodeIndex> {
        if pod.node.is_empty() {
            return None;
        }
        let index = self.index_of(&pod.node);
        let namespace = NAMESPACES.share(&*pod.namespace);
        let bundle = self.nodes.get_mut(index.place())?;
        let old = bundle.pod(&pod.uid);
        if old.is_some_and(|old| old.revision > pod.revision) {
            return None;
        }
        let same = old.filter(|old| old.digest == pod.digest).map(|old| old.changed);
        let before = bundle.desired;
        if moves && same.is_none() {
            bundle.desired = bundle.desired.max(pod.revision);
        }
        let changed = same.unwrap_or(pod.revision);
        let PodObject { uid, name, revision, digest, .. } = pod;
        bundle.put(Held { uid, namespace, name, revision, digest, changed });
        bundle.member.filter(|_| bundle.desired > before)
    }

    /// What a node should hold, given what it says it holds.
    pub(crate) fn desired(&self, node: BundleIndex, observed: u64) -> u64 {
        let Some(start) = self.start else { return observed };
        match self.nodes.get(node.place()) {
            Some(bundle) if bundle.swept => bundle.desired,
            // Not yet asked to compare: what it holds will do, unless more is known to be there. A
            // revision from the future is of another store: compare now.
            Some(bundle) if observed <= self.newest => bundle.desired.max(observed),
            None if observed <= self.newest => observed,
            _ => start,
        }
    }

    /// The answer to `bundle?since=`; none before the first list is whole.
    pub(crate) fn bundle(&mut self, node: &str, since: u64) -> Option<News> {
        let start = self.start?;
        let since = if since > self.newest { 0 } else { since };
        let index = self.by_name.get(node).copied().unwrap_or(BundleIndex::NONE);
        let Some(bundle) = self.nodes.get_mut(index.place()) else {
            // Its Node is gone, and so are its pods.
            return Some(News { revision: self.newest, ..News::default() });
        };
        bundle.compare(start);
        let named = |held: &Held| Named {
            namespace: held.namespace.clone(),
            name: held.name.clone(),
            uid: held.uid.clone(),
        };
        Some(News {
            revision: bundle.desired,
            pods: bundle.pods.iter().filter(|held| held.changed > since).map(named).collect(),
            present: bundle.pods.iter().map(|held| held.uid.to_string()).collect(),
        })
    }

    /// Whether Pods have been read: before that no node can compare.
    pub(crate) fn is_loaded(&self) -> bool {
        self.start.is_some()
    }

    /// Asks one node to compare, if it has not been asked since the start.
    pub(crate) fn sweep(&mut self, node: BundleIndex) -> bool {
        let Some(start) = self.start else { return false };
        self.nodes.get_mut(node.place()).is_some_and(|bundle| bundle.compare(start))
    }

    /// What a node holds that has just been made, and that holds nothing: the revision up to which nothing is
    /// all there is for it, so that it need not ask; 0 when it has to.
    pub(crate) fn nothing_for(&mut self, node: BundleIndex) -> u64 {
        let Some(start) = self.start else { return 0 };
        let newest = self.newest;
        match self.nodes.get_mut(node.place()) {
            Some(bundle) if bundle.pods.is_empty() => {
                bundle.compare(start);
                bundle.desired = bundle.desired.max(newest);
                bundle.desired
            }
            _ => 0,
        }
    }

    /// The names of the pod with this uid, if it is bound to this node.
    pub(crate) fn pod(&self, node: &str, uid: &str) -> Option<(&str, &str)> {
        let index = self.by_name.get(node)?;
        let held = self.nodes.get(index.place())?.pod(&Uid::from(uid))?;
        Some((&held.namespace, &held.name))
    }

    pub(crate) fn count(&self, node: BundleIndex) -> usize {
        self.nodes.get(node.place()).map_or(0, |bundle| bundle.pods.len())
    }

    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// A member's place, kept until [`Bundles::leave`].
    pub(crate) fn enter(&mut self, name: &str, member: NodeIndex) -> BundleIndex {
        let index = self.index_of(name);
        if let Some(bundle) = self.nodes.get_mut(index.place()) {
            bundle.member = Some(member);
        }
        index
    }

    /// The member at a place is gone; its pods may still be there.
    pub(crate) fn leave(&mut self, node: BundleIndex) {
        if let Some(bundle) = self.nodes.get_mut(node.place()) {
            bundle.member = None;
        }
        self.vacate_if_unused(node);
    }

    fn index_of(&mut self, name: &str) -> BundleIndex {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        let name: Arc<str> = name.into();
        let bundle = NodeBundle { name: name.clone(), ..NodeBundle::default() };
        let index = match self.vacant.pop() {
            Some(index) => {
                if let Some(place) = self.nodes.get_mut(index.place()) {
                    *place = bundle;
                }
                index
            }
            None => {
                self.nodes.push(bundle);
                BundleIndex(u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX))
            }
        };
        self.by_name.insert(name, index);
        index
    }

    fn vacate_if_unused(&mut self, index: BundleIndex) {
        let Some(bundle) = self.nodes.get(index.place()) else { return };
        let unused = bundle.member.is_none() && bundle.pods.is_empty();
        if unused && self.by_name.get(&bundle.name) == Some(&index) {
            self.by_name.remove(&bundle.name);
            self.vacant.push(index);
        }
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
        news.pods.iter().map(|pod| pod.name.to_string()).collect()
    }

    /// All members, by name.
    struct World {
        bundles: Bundles,
        members: HashMap<&'static str, BundleIndex>,
    }

    impl World {
        /// With members `a`, `b` and `c`, which are nodes 0, 1 and 2.
        fn new() -> Self {
            let mut bundles = Bundles::default();
            let names = ["a", "b", "c"].into_iter().zip((0..).map(NodeIndex));
            let members = names.map(|(name, index)| (name, bundles.enter(name, index))).collect();
            Self { bundles, members }
        }

        fn list(&mut self, revision: u64, pods: Vec<PodObject>) -> Vec<u32> {
            self.bundles.list();
            let moved: Vec<_> =
                pods.into_iter().filter_map(|pod| self.bundles.listed(pod)).collect();
            moved.into_iter().chain(self.bundles.list_ended(revision)).map(|node| node.0).collect()
        }

        fn desired(&self, node: &str, observed: u64) -> u64 {
            self.bundles.desired(self.members[node], observed)
        }

        fn sweep(&mut self, node: &str) -> bool {
            self.bundles.sweep(self.members[node])
        }
    }

    #[test]
    fn changes_move_only_their_node_and_status_moves_none() {
        let mut world = World::new();
        assert!(world.bundles.bundle("a", 0).is_none(), "nothing is known before the list");
        assert_eq!(world.desired("a", 5), 5);
        world.list(10, Vec::new());
        let bundles = &mut world.bundles;
        assert_eq!(bundles.put(pod("1", "a", 11, "x", false)), Some(NodeIndex(0)));
        assert_eq!(bundles.put(pod("1", "a", 12, "x", true)), None, "only the status changed");
        assert_eq!(bundles.put(pod("2", "", 13, "x", false)), None, "bound to no node");
        assert_eq!(bundles.put(pod("2", "a", 14, "x", false)), Some(NodeIndex(0)));
        assert_eq!((world.desired("a", 0), world.desired("b", 0)), (14, 0));
        let bundles = &mut world.bundles;
        let all = bundles.bundle("a", 0).unwrap();
        assert_eq!((all.revision, names(&all).len(), all.present.len()), (14, 2, 2));
        let since = bundles.bundle("a", 11).unwrap();
        assert_eq!((names(&since), since.present.len()), (vec!["2".to_owned()], 2));
        assert_eq!(bundles.delete(&pod("1", "a", 15, "x", true)), Some(NodeIndex(0)));
        assert_eq!(bundles.delete(&pod("1", "a", 15, "x", true)), None, "it is gone");
        let after = bundles.bundle("a", 14).unwrap();
        assert_eq!(
            (after.revision, after.pods.len(), after.present),
            (15, 0, vec!["2".to_owned()])
        );
    }

    #[test]
    fn after_a_restart_only_waiting_pods_are_urgent_and_all_else_is_swept() {
        let mut world = World::new();
        let pods = vec![pod("1", "a", 30, "x", true), pod("2", "b", 31, "x", false)];
        assert_eq!(world.list(40, pods), [1]);
        assert_eq!(world.desired("a", 20), 20, "nothing waits there");
        assert_eq!(world.desired("b", 20), 31, "a pod waits there");
        assert_eq!(world.desired("b", 35), 35, "never back");
        assert_eq!(world.desired("c", 25), 25, "its pods may have gone meanwhile");
        assert!(world.sweep("a") && world.sweep("c"));
        assert!(!world.sweep("a"), "once");
        assert_eq!((world.desired("a", 20), world.desired("c", 25)), (40, 40));
        assert_eq!(world.bundles.bundle("c", 25).unwrap().revision, 40);
    }

    #[test]
    fn a_second_list_finds_what_went_missing_between() {
        let mut world = World::new();
        world.list(1, vec![pod("1", "a", 1, "x", true), pod("2", "b", 1, "x", true)]);
        assert_eq!(world.list(9, vec![pod("2", "b", 1, "x", true)]), [0]);
        assert_eq!((world.desired("a", 1), world.bundles.count(world.members["a"])), (9, 0));
    }

    #[test]
    fn a_revision_from_another_store_gets_everything() {
        let mut world = World::new();
        world.list(10, vec![pod("1", "a", 5, "x", true)]);
        assert_eq!(world.desired("a", 1_000), 10);
        assert_eq!(world.bundles.bundle("a", 1_000).unwrap().pods.len(), 1);
    }

    #[test]
    fn who_has_just_been_made_need_not_ask_for_nothing() {
        let mut world = World::new();
        assert_eq!(world.bundles.nothing_for(world.members["a"]), 0, "nothing is known yet");
        world.list(10, vec![pod("1", "b", 5, "x", true)]);
        assert_eq!(world.bundles.nothing_for(world.members["a"]), 10);
        assert_eq!(world.desired("a", 10), 10);
        assert!(!world.sweep("a"));
        assert_eq!(world.bundles.nothing_for(world.members["b"]), 0, "a pod waits there");
        world.bundles.put(pod("2", "a", 12, "x", false));
        assert_eq!(world.desired("a", 10), 12);
    }

    #[test]
    fn places_are_used_again_by_others() {
        let mut world = World::new();
        world.list(10, vec![pod("1", "a", 5, "x", true), pod("9", "elsewhere", 6, "x", true)]);
        world.bundles.leave(world.members["a"]);
        assert_eq!(world.bundles.put(pod("2", "a", 11, "x", true)), None, "nobody is there");
        assert_eq!(world.bundles.enter("a", NodeIndex(7)), world.members["a"], "it has pods");
        assert_eq!(world.bundles.put(pod("3", "a", 12, "x", true)), Some(NodeIndex(7)));
        world.bundles.leave(world.members["b"]);
        assert_eq!(world.bundles.enter("d", NodeIndex(3)), world.members["b"], "it had none");
        assert_eq!(world.bundles.put(pod("4", "d", 13, "x", true)), Some(NodeIndex(3)));
    }
}
