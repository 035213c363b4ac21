//! What the index says of nodes through changes, lists and restarts.

use serde_json::json;

use super::*;

fn pod(uid: &str, node: &str, revision: u64, image: &str) -> PodObject {
    let value = json!({"kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": uid, "namespace": "d", "uid": uid, "resourceVersion": revision.to_string()},
        "spec": {"nodeName": node, "containers": [{"image": image}]}});
    PodObject::parse(&serde_json::to_vec(&value).unwrap()).unwrap()
}

/// What a node of these pods says.
fn digest<'a>(pods: impl IntoIterator<Item = &'a PodObject>) -> BundleDigest {
    pods.into_iter().map(|pod| pod.digest).collect()
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
        let moved: Vec<_> = pods.into_iter().filter_map(|pod| self.bundles.listed(pod)).collect();
        moved.into_iter().chain(self.bundles.list_ended(revision)).map(|node| node.0).collect()
    }

    fn standing(&self, node: &str, revision: u64, digest: BundleDigest) -> Standing {
        self.bundles.standing(self.members[node], revision, digest)
    }

    /// What a node holds after it has fetched.
    fn fetch(&mut self, node: &str, since: u64) -> (u64, BundleDigest) {
        let news = self.bundles.bundle(node, since).unwrap();
        (news.revision, news.digest)
    }
}

#[test]
fn changes_move_only_their_node_and_status_moves_none() {
    let mut world = World::new();
    assert!(world.bundles.bundle("a", 0).is_none(), "nothing is known before the list");
    assert_eq!(world.standing("a", 5, BundleDigest(7)), Standing::Right);
    world.list(10, Vec::new());
    let bundles = &mut world.bundles;
    assert_eq!(bundles.put(pod("1", "a", 11, "x")), Some(NodeIndex(0)));
    assert_eq!(bundles.put(pod("1", "a", 12, "x")), None, "only the status changed");
    assert_eq!(bundles.put(pod("2", "", 13, "x")), None, "bound to no node");
    assert_eq!(bundles.put(pod("2", "a", 14, "x")), Some(NodeIndex(0)));
    let none = BundleDigest::default();
    assert_eq!(world.standing("a", 10, none), Standing::Behind(14));
    assert_eq!(world.standing("b", 10, none), Standing::Right);
    let bundles = &mut world.bundles;
    let all = bundles.bundle("a", 0).unwrap();
    assert_eq!((all.revision, names(&all).len(), all.present.len()), (14, 2, 2));
    let since = bundles.bundle("a", 11).unwrap();
    assert_eq!((names(&since), since.present.len()), (vec!["2".to_owned()], 2));
    assert_eq!(since.digest, digest([&pod("1", "a", 11, "x"), &pod("2", "a", 14, "x")]));
    assert_eq!(bundles.delete(&pod("1", "a", 15, "x")), Some(NodeIndex(0)));
    assert_eq!(bundles.delete(&pod("1", "a", 15, "x")), None, "it is gone");
    let after = bundles.bundle("a", 14).unwrap();
    assert_eq!((after.revision, after.pods.len(), after.present), (15, 0, vec!["2".to_owned()]));
    assert_eq!(after.digest, digest([&pod("2", "a", 14, "x")]));
}

#[test]
fn after_a_restart_who_has_what_it_should_is_asked_nothing() {
    let [one, two] = [pod("1", "a", 30, "x"), pod("2", "b", 31, "x")];
    let mut world = World::new();
    assert_eq!(world.list(40, vec![one.clone(), two.clone()]), [0_u32; 0]);
    // Whatever the revision, so also after its pod's status has changed.
    assert_eq!(world.standing("a", 20, digest([&one])), Standing::Right);
    assert_eq!(world.standing("a", 35, digest([&one])), Standing::Right);
    assert_eq!(world.standing("c", 20, BundleDigest::default()), Standing::Right);
    assert_eq!(world.standing("b", 20, BundleDigest::default()), Standing::Differs, "it waits");
    assert_eq!(world.standing("c", 25, digest([&two])), Standing::Differs, "it was deleted");
    assert_eq!(world.standing("a", 25, digest([&pod("1", "a", 20, "y")])), Standing::Differs);
    assert_eq!(world.standing("c", 0, BundleDigest::default()), Standing::Behind(40), "damaged");
    for (node, since) in [("a", 25), ("b", 20), ("c", 25), ("c", 0)] {
        let (revision, digest) = world.fetch(node, since);
        assert_eq!(world.standing(node, revision, digest), Standing::Right, "and then it is quiet");
    }
    assert_eq!(names(&world.bundles.bundle("a", 25).unwrap()), ["1"]);
}

#[test]
fn what_changes_and_changes_back_is_told_to_who_saw_it_and_to_who_did_not() {
    let mut world = World::new();
    world.list(10, vec![pod("1", "a", 5, "x")]);
    let before = (10, digest([&pod("1", "a", 5, "x")]));
    world.bundles.put(pod("1", "a", 11, "y"));
    let between = world.fetch("a", before.0);
    assert_eq!(world.standing("a", between.0, between.1), Standing::Right);
    world.bundles.put(pod("1", "a", 12, "x"));
    for (revision, digest) in [before, between] {
        assert_eq!(world.standing("a", revision, digest), Standing::Behind(12));
        let news = world.bundles.bundle("a", revision).unwrap();
        assert_eq!((names(&news), news.digest), (vec!["1".to_owned()], before.1));
    }
    // Another server, which starts after that, finds both as they are.
    let mut other = World::new();
    other.list(12, vec![pod("1", "a", 12, "x")]);
    assert_eq!(other.standing("a", before.0, before.1), Standing::Right);
    assert_eq!(other.standing("a", between.0, between.1), Standing::Differs);
}

#[test]
fn a_change_is_told_even_when_digests_happen_to_agree() {
    let mut world = World::new();
    world.list(10, vec![pod("1", "a", 5, "x")]);
    let changed = pod("1", "a", 11, "y");
    let agrees = digest([&changed]);
    world.bundles.put(changed);
    assert_eq!(world.standing("a", 10, agrees), Standing::Behind(11));
    assert_eq!(world.standing("a", 11, agrees), Standing::Right);
}

#[test]
fn what_is_sent_before_it_is_heard_of_needs_no_second_word() {
    let mut world = World::new();
    world.list(10, vec![pod("1", "a", 5, "x")]);
    // The answer was made of the pod as it was to be heard of only at 12.
    let sent = (world.fetch("a", 0).0, digest([&pod("1", "a", 12, "z")]));
    assert_eq!(world.standing("a", sent.0, sent.1), Standing::Differs, "for a moment");
    world.bundles.put(pod("1", "a", 11, "y"));
    assert_eq!(world.standing("a", sent.0, sent.1), Standing::Behind(11));
    let again = (world.fetch("a", sent.0).0, sent.1);
    world.bundles.put(pod("1", "a", 12, "z"));
    assert_eq!(world.standing("a", again.0, again.1), Standing::Behind(12));
    assert_eq!(world.standing("a", 12, again.1), Standing::Right);
}

#[test]
fn a_second_list_finds_what_went_missing_between() {
    let mut world = World::new();
    let (one, two) = (pod("1", "a", 1, "x"), pod("2", "b", 1, "x"));
    world.list(1, vec![one.clone(), two.clone()]);
    assert_eq!(world.list(9, vec![two]), [0]);
    assert_eq!(world.standing("a", 1, digest([&one])), Standing::Behind(9));
    assert_eq!(world.fetch("a", 1), (9, BundleDigest::default()));
    assert_eq!(world.bundles.count(world.members["a"]), 0);
}

#[test]
fn while_a_list_is_told_nothing_is_told_as_complete() {
    let mut world = World::new();
    world.list(10, vec![pod("1", "a", 5, "x"), pod("2", "a", 6, "x")]);
    world.bundles.list();
    assert_eq!(world.bundles.listed(pod("1", "a", 15, "y")), Some(NodeIndex(0)));
    // The other pod changed before that, and has not been told yet.
    let (revision, digest) = world.fetch("a", 10);
    assert_eq!(world.standing("a", revision, digest), Standing::Behind(15));
    world.bundles.listed(pod("2", "a", 12, "y"));
    world.bundles.list_ended(16);
    assert_eq!(names(&world.bundles.bundle("a", revision).unwrap()), ["1", "2"]);
}

#[test]
fn a_revision_from_another_store_gets_everything() {
    let mut world = World::new();
    let here = pod("1", "a", 5, "x");
    world.list(10, vec![here.clone()]);
    assert_eq!(world.standing("a", 1_000, digest([&pod("1", "a", 900, "z")])), Standing::Differs);
    assert_eq!(world.bundles.bundle("a", 1_000).unwrap().pods.len(), 1);
    assert_eq!(world.standing("a", 1_000, digest([&here])), Standing::Right);
}

#[test]
fn who_has_just_been_made_need_not_ask_for_nothing() {
    let mut world = World::new();
    assert_eq!(world.bundles.nothing_for(world.members["a"]), 0, "nothing is known yet");
    world.list(10, vec![pod("1", "b", 5, "x")]);
    assert_eq!(world.bundles.nothing_for(world.members["a"]), 10);
    assert_eq!(world.standing("a", 10, BundleDigest::default()), Standing::Right);
    assert_eq!(world.bundles.nothing_for(world.members["b"]), 0, "a pod waits there");
    assert_eq!(world.standing("b", 0, BundleDigest::default()), Standing::Behind(10));
    world.bundles.put(pod("2", "a", 12, "x"));
    assert_eq!(world.standing("a", 10, BundleDigest::default()), Standing::Behind(12));
}

#[test]
fn places_are_used_again_by_others() {
    let mut world = World::new();
    world.list(10, vec![pod("1", "a", 5, "x"), pod("9", "elsewhere", 6, "x")]);
    world.bundles.leave(world.members["a"]);
    assert_eq!(world.bundles.put(pod("2", "a", 11, "x")), None, "nobody is there");
    assert_eq!(world.bundles.enter("a", NodeIndex(7)), world.members["a"], "it has pods");
    assert_eq!(world.bundles.put(pod("3", "a", 12, "x")), Some(NodeIndex(7)));
    world.bundles.leave(world.members["b"]);
    assert_eq!(world.bundles.enter("d", NodeIndex(3)), world.members["b"], "it had none");
    assert_eq!(world.bundles.put(pod("4", "d", 13, "x")), Some(NodeIndex(3)));
    assert_eq!(world.fetch("d", 0), (13, digest([&pod("4", "d", 13, "x")])));
}
