//! Each directive, what is refused, and properties of any merge.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": spec})
}

fn patched(object: Value, patch: Value) -> Value {
    let mut object = object;
    strategic_merge(&mut object, patch, types::message("core.Pod")).unwrap();
    object
}

#[test]
fn lists_merge_by_key() {
    let before = pod(
        json!({"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]},
        {"name": "b", "image": "1"}], "tolerations": [{"key": "t"}]}),
    );
    let after = patched(
        before,
        json!({"spec": {
        "containers": [{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}, {"name": "c", "image": "3"}],
        "tolerations": [{"key": "u"}]}}),
    );
    assert_eq!(
        after,
        pod(json!({"containers": [
        {"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]},
        {"name": "c", "image": "3"}, {"name": "b", "image": "1"}], "tolerations": [{"key": "u"}]}))
    );
}

#[test]
fn directives_delete_replace_and_order() {
    let containers = json!([{"name": "a"}, {"name": "b"}, {"name": "c"}]);
    for (patch, expected) in [
        (
            json!({"containers": [{"name": "b", "$patch": "delete"}]}),
            json!([{"name": "a"}, {"name": "c"}]),
        ),
        (json!({"containers": [{"$patch": "replace"}, {"name": "z"}]}), json!([{"name": "z"}])),
        (
            json!({"containers": [{"name": "b", "image": "2", "$patch": "replace"}]}),
            json!([{"name": "a"}, {"name": "b", "image": "2"}, {"name": "c"}]),
        ),
        (
            json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}]}),
            json!([{"name": "c"}, {"name": "a"}, {"name": "b"}]),
        ),
        (
            json!({"$setElementOrder/containers": [{"name": "n"}, {"name": "a"}, {"name": "b"}, {"name": "c"}],
                "containers": [{"name": "n"}]}),
            json!([{"name": "n"}, {"name": "a"}, {"name": "b"}, {"name": "c"}]),
        ),
    ] {
        let after = patched(pod(json!({"containers": containers})), json!({"spec": patch}));
        assert_eq!(after["spec"]["containers"], expected, "{patch}");
    }
}

#[test]
fn what_a_patch_adds_comes_first_unless_it_says_otherwise() {
    let live = json!([{"name": "a"}, {"name": "b"}, {"name": "c"}]);
    for (names, expected) in [
        (vec!["side"], ["side", "a", "b", "c"].as_slice()),
        (vec!["b", "new"], &["a", "b", "new", "c"]),
        (vec!["c", "a"], &["b", "c", "a"]),
    ] {
        let patch: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        let after =
            patched(pod(json!({"containers": live})), json!({"spec": {"containers": patch}}));
        let containers = after["spec"]["containers"].as_array().unwrap();
        let found: Vec<&str> = containers.iter().filter_map(|one| one["name"].as_str()).collect();
        assert_eq!(found, expected, "{names:?}");
    }
}

#[test]
fn sets_merge_and_lose_items() {
    let before = json!({"metadata": {"finalizers": ["a", "b"]}});
    let after = patched(before.clone(), json!({"metadata": {"finalizers": ["c", "a"]}}));
    assert_eq!(after["metadata"]["finalizers"], json!(["c", "a", "b"]));
    let after =
        patched(before, json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}));
    assert_eq!(after["metadata"]["finalizers"], json!(["b"]));
}

#[test]
fn retain_keys_clears_the_other_sources() {
    let before = pod(json!({"volumes": [{"name": "v", "emptyDir": {}}]}));
    let patch = json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}});
    assert_eq!(
        patched(before, patch)["spec"]["volumes"],
        json!([{"name": "v", "hostPath": {"path": "/x"}}])
    );
    let mut deployment =
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    strategic_merge(&mut deployment, patch, types::message("apps.Deployment")).unwrap();
    assert_eq!(deployment["spec"]["strategy"], json!({"type": "Recreate"}));
}

#[test]
fn maps_are_deleted_and_replaced() {
    let before = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"securityContext": {"x": 1}}});
    let after = patched(before.clone(), json!({"metadata": {"labels": {"a": null, "c": "3"}}}));
    assert_eq!(after["metadata"]["labels"], json!({"b": "2", "c": "3"}));
    let after =
        patched(before.clone(), json!({"metadata": {"labels": {"$patch": "replace", "z": "1"}}}));
    assert_eq!(after["metadata"]["labels"], json!({"z": "1"}));
    let after = patched(before, json!({"spec": {"securityContext": {"$patch": "delete"}}}));
    assert_eq!(after["spec"], json!({}));
}

#[test]
fn what_a_field_says_is_obeyed() {
    let mut budget = json!({"spec": {"selector": {"matchLabels": {"a": "1"}}}});
    let patch = json!({"spec": {"selector": {"matchLabels": {"b": "2"}}}});
    strategic_merge(&mut budget, patch.clone(), types::message("policy.PodDisruptionBudget"))
        .unwrap();
    assert_eq!(budget, patch);
    let rules = |rule: &str| json!({"x-kubernetes-validations": [{"rule": rule}]});
    let crd = |inner: Value| json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": {"properties": {"a": inner}}}}]}});
    let message = types::message("apiextensions.CustomResourceDefinition");
    let mut schema = crd(rules("x"))["spec"]["versions"][0].take();
    let version = types::message("apiextensions.CustomResourceDefinitionVersion");
    let patch = crd(rules("y"))["spec"]["versions"][0].take();
    strategic_merge(&mut schema, patch, version).unwrap();
    let merged = &schema["schema"]["openAPIV3Schema"]["properties"]["a"];
    assert_eq!(merged["x-kubernetes-validations"].as_array().unwrap().len(), 2);
    // The list of versions has no merge key.
    let mut whole = crd(rules("x"));
    strategic_merge(&mut whole, crd(rules("y")), message).unwrap();
    assert_eq!(whole, crd(rules("y")));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let object = pod(json!({"containers": [{"name": "a"}]}));
    for bad in [
        json!([1]),
        json!({"spec": {"containers": [{"image": "x"}]}}),
        json!({"spec": {"containers": ["a"]}}),
        json!({"spec": {"$patch": "explode"}}),
        json!({"spec": {"containers": [{"$patch": "delete"}]}}),
    ] {
        assert!(
            strategic_merge(&mut object.clone(), bad.clone(), types::message("core.Pod")).is_err(),
            "{bad}"
        );
    }
}

fn containers() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-d]", 0u8..4, 0..4).prop_map(|map| {
        let list: Vec<Value> =
            map.into_iter().map(|(name, image)| json!({"name": name, "image": image})).collect();
        pod(json!({"containers": list}))
    })
}

proptest! {
    #[test]
    fn merging_twice_changes_nothing_more(object in containers(), patch in containers()) {
        let once = patched(object, patch.clone());
        prop_assert_eq!(patched(once.clone(), patch), once);
    }

    #[test]
    fn everything_that_the_patch_sets_is_there(object in containers(), patch in containers()) {
        let after = patched(object, patch.clone());
        for item in patch["spec"]["containers"].as_array().unwrap() {
            prop_assert!(after["spec"]["containers"].as_array().unwrap().contains(item));
        }
    }
}
