//! What the index says of ConfigMaps and Secrets that pods reference.

use serde_json::{Value, json};

use super::*;

const KINDS: [ReferentKind; 2] = [ReferentKind::ConfigMap, ReferentKind::Secret];

/// A pod of the namespace `d` with these ConfigMaps.
fn pod(uid: &str, node: &str, revision: u64, maps: &[&str], phase: &str) -> PodObject {
    let sources: Vec<Value> =
        maps.iter().map(|name| json!({"configMapRef": {"name": name}})).collect();
    let value = json!({"kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": uid, "namespace": "d", "uid": uid, "resourceVersion": revision.to_string()},
        "spec": {"nodeName": node, "containers": [{"image": "x", "envFrom": sources}]},
        "status": {"phase": phase}});
    PodObject::parse(value.to_string().as_bytes()).unwrap()
}

fn map(namespace: &str, name: &str, revision: u64, value: &str) -> ReferentObject {
    let value = json!({"data": {"k": value},
        "metadata": {"name": name, "namespace": namespace, "resourceVersion": revision.to_string()}});
    ReferentObject::parse(ReferentKind::ConfigMap, value.to_string().as_bytes()).unwrap()
}

/// An index that has read all there is, with members `a` and `b`, which are nodes 0 and 1.
struct World(Bundles);

impl World {
    fn over(revision: u64, maps: Vec<ReferentObject>, pods: Vec<PodObject>) -> Self {
        let mut bundles = Bundles::default();
        for (name, index) in ["a", "b"].into_iter().zip((0..).map(NodeIndex)) {
            bundles.enter(name, index);
        }
        KINDS.into_iter().for_each(|kind| bundles.list_referents(kind));
        let spreads: Vec<_> = maps.into_iter().filter_map(|it| bundles.put_referent(it)).collect();
        assert!(spreads.is_empty(), "no pod is known yet");
        for kind in KINDS {
            assert!(bundles.referents_listed(kind, revision).is_empty());
        }
        bundles.list();
        for pod in pods {
            assert_eq!(bundles.listed(pod), None);
        }
        assert_eq!(bundles.list_ended(revision), []);
        Self(bundles)
    }

    fn told(&mut self, spread: Option<Spread>) -> Vec<u32> {
        let mut moved = Vec::new();
        if let Some(mut spread) = spread {
            while !spread.is_done() {
                moved.extend(self.0.spread(&mut spread).into_iter().map(|node| node.0));
            }
        }
        moved
    }

    /// A ConfigMap of `d` changes; the nodes that hear of it.
    fn put(&mut self, name: &str, revision: u64, value: &str) -> Vec<u32> {
        let spread = self.0.put_referent(map("d", name, revision, value));
        self.told(spread)
    }

    fn delete(&mut self, name: &str, revision: u64) -> Vec<u32> {
        let spread = self.0.delete_referent(&map("d", name, 0, "").name, revision);
        self.told(spread)
    }

    /// What is sent, what is named, the revision and the digest.
    fn fetch(&mut self, node: &str, since: u64) -> (String, String, u64, BundleDigest) {
        let news = self.0.bundle(node, since).unwrap();
        let sent: Vec<_> = news.referents.iter().map(|(name, _)| name.name.to_string()).collect();
        let named: Vec<_> = news.referenced.iter().map(|name| name.name.to_string()).collect();
        (sent.join(" "), named.join(" "), news.revision, news.digest)
    }

    fn standing(&mut self, node: &str, revision: u64, digest: BundleDigest) -> Standing {
        let index = self.0.by_name[node];
        self.0.standing(index, revision, digest)
    }
}

#[test]
fn a_change_moves_those_who_reference_it_and_no_one_else() {
    let pods = vec![
        pod("1", "a", 5, &["m", "later"], "Running"),
        pod("2", "b", 6, &[], "Running"),
        pod("3", "b", 7, &["n"], "Succeeded"),
    ];
    let maps = vec![map("d", "m", 1, "v1"), map("d", "n", 2, "v1"), map("e", "m", 3, "v1")];
    let mut world = World::over(10, maps, pods);
    let (sent, named, revision, held) = world.fetch("a", 0);
    assert_eq!((sent.as_str(), named.as_str(), revision), ("m", "m", 10));
    assert_eq!(world.fetch("b", 0).1, "", "what has ended needs nothing");

    assert_eq!(world.put("m", 11, "v1"), [0_u32; 0], "another label, say");
    assert_eq!(world.put("m", 12, "v2"), [0]);
    assert_eq!(world.put("n", 13, "v2"), [0_u32; 0]);
    let spread = world.0.put_referent(map("e", "m", 14, "v2"));
    assert!(spread.is_none(), "of another namespace");
    assert_eq!(world.standing("a", revision, held), Standing::Behind(12));
    let (sent, named, revision, held) = world.fetch("a", revision);
    assert_eq!((sent.as_str(), named.as_str()), ("m", "m"));
    assert_eq!(world.standing("a", revision, held), Standing::Right);

    assert_eq!(world.put("later", 15, "v1"), [0], "it was missing");
    let (sent, named, revision, _) = world.fetch("a", revision);
    assert_eq!((sent.as_str(), named.as_str(), revision), ("later", "m later", 15));
    assert_eq!(world.delete("later", 16), [0]);
    let (sent, named, revision, held) = world.fetch("a", revision);
    assert_eq!((sent.as_str(), named.as_str(), revision), ("", "m", 16));
    assert_eq!(world.standing("a", revision, held), Standing::Right);
}

#[test]
fn a_pod_brings_what_its_node_does_not_have_and_takes_it_along() {
    let maps = vec![map("d", "m", 1, "v"), map("d", "n", 2, "v")];
    let mut world = World::over(10, maps, vec![pod("1", "a", 5, &["m"], "")]);
    let before = world.fetch("a", 0);
    world.0.put(pod("2", "a", 11, &["m", "n"], ""));
    let (sent, named, revision, _) = world.fetch("a", before.2);
    assert_eq!((sent.as_str(), named.as_str()), ("n", "m n"), "the other one is there");
    assert_eq!(world.0.put(pod("2", "a", 12, &["m", "n"], "Running")), None);
    assert_eq!(world.0.put(pod("2", "a", 13, &["m", "n"], "Failed")), Some(NodeIndex(0)));
    let (sent, named, revision, held) = world.fetch("a", revision);
    assert_eq!((sent.as_str(), named.as_str(), revision), ("", "m", 13));
    assert_eq!(world.standing("a", revision, held), Standing::Right);
    world.0.delete(&pod("1", "a", 14, &["m"], ""));
    assert_eq!(world.fetch("a", revision).1, "");
    assert!(world.0.referents.of(ListIndex::NONE).is_empty());
}

#[test]
fn after_a_restart_who_has_what_it_should_is_asked_nothing() {
    let make =
        |value| World::over(10, vec![map("d", "m", 1, value)], vec![pod("1", "a", 5, &["m"], "")]);
    let (_, _, revision, held) = make("v").fetch("a", 0);
    assert_eq!(make("v").standing("a", revision, held), Standing::Right);
    assert_eq!(make("w").standing("a", revision, held), Standing::Differs);
}

#[test]
fn what_is_heard_of_late_counts_as_later_than_all_that_was_told() {
    let maps = vec![map("d", "m", 1, "v")];
    let mut world = World::over(10, maps, vec![pod("1", "a", 5, &["m"], "")]);
    world.0.put(pod("2", "a", 20, &[], ""));
    let (_, _, revision, held) = world.fetch("a", 10);
    assert_eq!(revision, 20);
    // Its change was before the pod's, and is heard of only now.
    assert_eq!(world.put("m", 15, "w"), [0]);
    assert_eq!(world.standing("a", revision, held), Standing::Behind(21));
    let (sent, _, revision, held) = world.fetch("a", revision);
    assert_eq!((sent.as_str(), revision), ("m", 21));
    assert_eq!(world.standing("a", revision, held), Standing::Right);
    // And the other way round.
    assert_eq!(world.0.put(pod("3", "a", 21, &[], "")), Some(NodeIndex(0)));
    assert_eq!(world.standing("a", revision, held), Standing::Behind(22));
    assert_eq!(world.fetch("a", revision).2, 22);
}

#[test]
fn a_change_that_is_on_its_way_is_in_what_is_fetched_meanwhile() {
    let maps = vec![map("d", "m", 1, "v")];
    let mut world = World::over(10, maps, Vec::new());
    for number in 0..2_000 {
        world.0.enter(&format!("n{number}"), NodeIndex(number + 2));
        let node = format!("n{number}");
        world.0.put(pod(&node, &node, 11, &["m"], ""));
    }
    let mut spread = world.0.put_referent(map("d", "m", 12, "w")).unwrap();
    let first = world.0.spread(&mut spread);
    assert_eq!(first.len(), SLICE);
    let (sent, _, revision, held) = world.fetch("n1999", 11);
    assert_eq!((sent.as_str(), revision), ("m", 12));
    let rest = world.told(Some(spread));
    assert_eq!(first.len() + rest.len(), 2_000);
    assert_eq!(world.standing("n1999", revision, held), Standing::Right);
}

#[test]
fn a_second_list_finds_what_went_missing_between() {
    let maps = vec![map("d", "m", 1, "v"), map("d", "n", 2, "v")];
    let mut world = World::over(10, maps, vec![pod("1", "a", 5, &["m", "n"], "")]);
    world.0.list_referents(ReferentKind::ConfigMap);
    assert_eq!(world.put("n", 2, "v"), [0_u32; 0]);
    let mut moved = Vec::new();
    for spread in world.0.referents_listed(ReferentKind::ConfigMap, 12) {
        moved.extend(world.told(Some(spread)));
    }
    assert_eq!(moved, [0]);
    assert_eq!(world.fetch("a", 10).1, "n");
}

#[test]
fn nothing_is_left_of_what_nobody_has_any_more() {
    let mut world = World::over(10, Vec::new(), Vec::new());
    for round in 0..100 {
        let (name, revision) = (format!("m{round}"), 20 + 10 * round);
        world.0.put(pod("1", "a", revision, &[&name], ""));
        world.put(&name, revision + 1, "v");
        world.delete(&name, revision + 2);
        world.0.delete(&pod("1", "a", revision + 3, &[], ""));
    }
    let referents = format!("{:?}", world.0.referents);
    assert!(referents.len() < 600, "{referents}");
}
