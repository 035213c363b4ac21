//! What a pool gives its nodes, and how it is taken back: labels, annotations, taints.
//!
//! A node's annotation says what it was given and what was there before. A value that somebody changed by hand is
//! his from then on: it is neither set again nor taken away.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Taint;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use toono_openyurt::{NodePool, keys};

/// Labels, annotations and taints of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Attributes {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) taints: Vec<Taint>,
}

/// What a node was given. OpenYurt reads and writes the same, but for what was there before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Given {
    #[serde(flatten)]
    pub(super) attributes: Attributes,
    /// What was there before, under the same keys.
    #[serde(skip_serializing_if = "is_nothing")]
    pub(super) replaced: Attributes,
}

fn is_nothing(attributes: &Attributes) -> bool {
    *attributes == Attributes::default()
}

/// What a pool gives each of its nodes; nothing where there is no pool.
pub(super) fn wanted(pool: Option<&NodePool>) -> Attributes {
    let Some(spec) = pool.map(|pool| &pool.spec) else { return Attributes::default() };
    let mut labels = spec.labels.clone();
    // A pool that moved its own nodes elsewhere would undo itself.
    labels.retain(|key, _| key != keys::NODE_POOL && key != keys::DESIRED_NODE_POOL);
    if spec.host_network {
        labels.insert(keys::NODE_POOL_HOST_NETWORK.to_owned(), "true".to_owned());
    }
    let mut annotations = spec.annotations.clone();
    annotations.retain(|key, _| key != keys::PREVIOUS_ATTRIBUTES);
    let mut taints: Vec<Taint> = Vec::new();
    for taint in &spec.taints {
        // When it was added differs from node to node.
        let taint = Taint { time_added: None, ..taint.clone() };
        if !taints.iter().any(|known| is_same_kind(known, &taint)) {
            taints.push(taint);
        }
    }
    Attributes { labels, annotations, taints }
}

/// What a node says that it was given; unreadable is nothing.
pub(super) fn given(text: Option<&str>) -> Given {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Whether a node has to be changed so that it has what is wanted.
pub(super) fn is_right(text: Option<&str>, wanted: &Attributes) -> bool {
    match text {
        None => is_nothing(wanted),
        Some(text) => !is_nothing(wanted) && given(Some(text)).attributes == *wanted,
    }
}

/// The merge patch that gives a node what is wanted and takes back what is not any more; none when there is nothing
/// to do.
pub(super) fn patch(node: &Attributes, wanted: &Attributes) -> Option<Value> {
    let text = node.annotations.get(keys::PREVIOUS_ATTRIBUTES).map(String::as_str);
    if is_right(text, wanted) {
        return None;
    }
    let before = given(text);
    let (labels, old_labels) =
        exchange(&node.labels, &before.attributes.labels, &before.replaced.labels, &wanted.labels);
    let (mut annotations, old_annotations) = exchange(
        &node.annotations,
        &before.attributes.annotations,
        &before.replaced.annotations,
        &wanted.annotations,
    );
    let (taints, old_taints) = exchange_taints(node, &before, &wanted.taints);
    let now = Given {
        attributes: wanted.clone(),
        replaced: Attributes {
            labels: old_labels,
            annotations: old_annotations,
            taints: old_taints,
        },
    };
    // These structures have string keys only.
    let now = (!is_nothing(wanted)).then(|| serde_json::to_string(&now).unwrap_or_default());
    annotations.insert(keys::PREVIOUS_ATTRIBUTES.to_owned(), json!(now));
    let mut patch = json!({"metadata": {"labels": labels, "annotations": annotations}});
    if taints != node.taints
        && let Some(fields) = patch.as_object_mut()
    {
        fields.insert("spec".to_owned(), json!({"taints": taints}));
    }
    Some(patch)
}

/// What changes in a map of the node, and what is to be remembered of what was there.
fn exchange(
    present: &BTreeMap<String, String>,
    given: &BTreeMap<String, String>,
    replaced: &BTreeMap<String, String>,
    wanted: &BTreeMap<String, String>,
) -> (Map<String, Value>, BTreeMap<String, String>) {
    let mut changes = Map::new();
    let mut remembered = BTreeMap::new();
    for (key, value) in given.iter().filter(|(key, _)| !wanted.contains_key(*key)) {
        if present.get(key) == Some(value) && replaced.get(key) != Some(value) {
            changes.insert(key.clone(), json!(replaced.get(key)));
        }
    }
    for (key, value) in wanted {
        let now = present.get(key);
        let is_ours = given.contains_key(key);
        let before = if is_ours { replaced.get(key) } else { now };
        if let Some(before) = before {
            remembered.insert(key.clone(), before.clone());
        }
        let is_untouched = !is_ours || now == given.get(key);
        if is_untouched && now != Some(value) {
            changes.insert(key.clone(), json!(value));
        }
    }
    (changes, remembered)
}

/// A node's taints as they are to be, and those to be remembered that were there before.
fn exchange_taints(
    node: &Attributes,
    before: &Given,
    wanted: &[Taint],
) -> (Vec<Taint>, Vec<Taint>) {
    let of_kind =
        |all: &[Taint], taint: &Taint| all.iter().find(|one| is_same_kind(one, taint)).cloned();
    let mut taints = node.taints.clone();
    for given in &before.attributes.taints {
        let was_there = of_kind(&before.replaced.taints, given).is_some();
        if !was_there && of_kind(wanted, given).is_none_or(|new| new.value != given.value) {
            taints.retain(|taint| !(is_same_kind(taint, given) && taint.value == given.value));
        }
    }
    let mut remembered = Vec::new();
    for taint in wanted {
        let given = of_kind(&before.attributes.taints, taint);
        let was_there = match &given {
            Some(_) => of_kind(&before.replaced.taints, taint),
            None => of_kind(&node.taints, taint),
        };
        let is_changed = given.as_ref().is_none_or(|given| given.value != taint.value);
        if was_there.is_none() && is_changed && of_kind(&taints, taint).is_none() {
            taints.push(taint.clone());
        }
        remembered.extend(was_there);
    }
    (taints, remembered)
}

/// A node has one taint of a key and an effect.
fn is_same_kind(one: &Taint, other: &Taint) -> bool {
    one.key == other.key && one.effect == other.effect
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attributes(labels: &[(&str, &str)], taints: &[(&str, &str)]) -> Attributes {
        let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let taint = |(key, value): &(&str, &str)| Taint {
            key: (*key).to_owned(),
            value: Some((*value).to_owned()),
            effect: "NoSchedule".to_owned(),
            time_added: None,
        };
        Attributes {
            labels: labels.iter().map(text).collect(),
            annotations: BTreeMap::new(),
            taints: taints.iter().map(taint).collect(),
        }
    }

    /// The node after the patch, as the server makes it.
    fn patched(node: &Attributes, wanted: &Attributes) -> Attributes {
        let Some(patch) = patch(node, wanted) else { return node.clone() };
        let mut node = node.clone();
        let merge = |map: &mut BTreeMap<String, String>, changes: &Value| {
            for (key, value) in changes.as_object().unwrap() {
                match value.as_str() {
                    Some(value) => drop(map.insert(key.clone(), value.to_owned())),
                    None => drop(map.remove(key)),
                }
            }
        };
        merge(&mut node.labels, &patch["metadata"]["labels"]);
        merge(&mut node.annotations, &patch["metadata"]["annotations"]);
        if let Some(taints) = patch.pointer("/spec/taints") {
            node.taints = serde_json::from_value(taints.clone()).unwrap();
        }
        node
    }

    #[test]
    fn a_pool_gives_and_takes_back() {
        let bare = attributes(&[("mine", "1")], &[("own", "x")]);
        let pool = attributes(&[("zone", "a"), ("mine", "2")], &[("edge", "y"), ("own", "z")]);
        let member = patched(&bare, &pool);
        assert_eq!(member.labels, attributes(&[("zone", "a"), ("mine", "2")], &[]).labels);
        assert_eq!(member.taints, attributes(&[], &[("own", "x"), ("edge", "y")]).taints);
        assert_eq!(patch(&member, &pool), None, "done once");
        assert_eq!(patched(&member, &Attributes::default()), bare);
    }

    #[test]
    fn what_somebody_set_by_hand_is_his() {
        let pool = attributes(&[("zone", "a")], &[("edge", "y")]);
        let mut member = patched(&Attributes::default(), &pool);
        member.labels.insert("zone".to_owned(), "by hand".to_owned());
        member.taints.clear();
        let changed = attributes(&[("zone", "b")], &[("edge", "y")]);
        let member = patched(&member, &changed);
        assert_eq!(member.labels["zone"], "by hand");
        assert!(member.taints.is_empty(), "he took it off");
        let left = patched(&member, &Attributes::default());
        assert_eq!(left.labels["zone"], "by hand");
        assert!(left.annotations.is_empty());
    }

    #[test]
    fn what_openyurt_wrote_is_taken_back() {
        let mut node = attributes(&[("zone", "a"), ("mine", "1")], &[]);
        let text = r#"{"labels":{"zone":"a"},"annotations":{"note":"n"}}"#;
        node.annotations.insert(keys::PREVIOUS_ATTRIBUTES.to_owned(), text.to_owned());
        node.annotations.insert("note".to_owned(), "n".to_owned());
        assert_eq!(patched(&node, &Attributes::default()), attributes(&[("mine", "1")], &[]));
    }

    proptest! {
        /// Through any pools, a node that nobody else touches is in the end what it was.
        #[test]
        fn a_node_that_left_is_as_it_was(
            own in prop::collection::btree_map("[ab]", "[xyz]", 0..3),
            pools in prop::collection::vec(prop::collection::btree_map("[abc]", "[xyz]", 0..4), 1..6),
        ) {
            let make = |map: &BTreeMap<String, String>| {
                let pairs: Vec<(&str, &str)> = map.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                attributes(&pairs, &pairs)
            };
            let before = make(&own);
            let mut node = before.clone();
            for pool in &pools {
                let wanted = make(pool);
                node = patched(&node, &wanted);
                for (key, value) in &wanted.labels {
                    prop_assert_eq!(node.labels.get(key), Some(value));
                }
                prop_assert_eq!(patch(&node, &wanted), None);
            }
            let mut left = patched(&node, &Attributes::default());
            left.taints.sort_by(|a, b| a.key.cmp(&b.key));
            prop_assert_eq!(left, before);
        }
    }
}
