//! Strategic merge patch: a merge patch whose lists are merged by key, with directives.
//!
//! Directives: `$patch: replace | delete | merge` in a map, `$retainKeys` in a map,
//! `$deleteFromPrimitiveList/FIELD` and `$setElementOrder/FIELD` beside a list's field. The rules
//! are those of Kubernetes' strategic-merge-patch page.

use serde_json::{Map, Value};
use toono_api::merge::{Merge, MergeSchema, PLAIN};

use crate::PatchError;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_SET: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

type Fields = Map<String, Value>;

/// Merges a patch into an object by the kind's merge keys.
///
/// # Errors
/// When a directive is unknown, an item lacks its merge key, or a type does not fit.
pub fn strategic_merge(
    object: &mut Value,
    patch: Value,
    schema: &MergeSchema,
) -> Result<(), PatchError> {
    let Value::Object(patch) = patch else {
        return Err(PatchError::Malformed("a strategic merge patch must be an object".to_owned()));
    };
    let mut fields = take_map(object);
    merge_map(&mut fields, patch, schema)?;
    *object = Value::Object(fields);
    Ok(())
}

fn take_map(value: &mut Value) -> Fields {
    match value.take() {
        Value::Object(fields) => fields,
        _ => Fields::new(),
    }
}

/// What a map asks to be done with its counterpart.
enum Directive {
    Merge,
    Replace,
    Delete,
}

fn take_directive(patch: &mut Fields) -> Result<Directive, PatchError> {
    match patch.remove(PATCH).as_ref().map(Value::as_str) {
        None | Some(Some("merge")) => Ok(Directive::Merge),
        Some(Some("replace")) => Ok(Directive::Replace),
        Some(Some("delete")) => Ok(Directive::Delete),
        Some(other) => Err(PatchError::Malformed(format!(
            "unknown patch type: {}",
            other.unwrap_or("no text")
        ))),
    }
}

fn merge_map(
    fields: &mut Fields,
    mut patch: Fields,
    schema: &MergeSchema,
) -> Result<(), PatchError> {
    match take_directive(&mut patch)? {
        Directive::Merge => {}
        Directive::Replace => {
            *fields = patch;
            return Ok(());
        }
        Directive::Delete => {
            fields.clear();
            return Ok(());
        }
    }
    retain_keys(fields, &mut patch, schema)?;
    let order = take_prefixed(&mut patch, ELEMENT_ORDER);
    for (field, deleted) in take_prefixed(&mut patch, DELETE_FROM_SET) {
        let deleted = list_of(deleted, &field)?;
        if let Some(Value::Array(items)) = fields.get_mut(&field) {
            items.retain(|item| !deleted.contains(item));
        }
    }
    for (field, value) in patch {
        merge_field(fields, field, value, schema)?;
    }
    for (field, wanted) in order {
        let wanted = list_of(wanted, &field)?;
        if let Some(Value::Array(items)) = fields.get_mut(&field) {
            let key = match schema.field(&field) {
                Some(Merge::ListByKey(key, _)) => Some(key),
                _ => None,
            };
            set_order(items, &wanted, key);
        }
    }
    Ok(())
}

fn retain_keys(
    fields: &mut Fields,
    patch: &mut Fields,
    schema: &MergeSchema,
) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    if !schema.retain_keys {
        return Ok(());
    }
    let keys = list_of(keys, RETAIN_KEYS)?;
    let kept = |field: &str| keys.iter().any(|key| key.as_str() == Some(field));
    if let Some(extra) = patch.iter().find(|(field, value)| !value.is_null() && !kept(field)) {
        return Err(PatchError::Malformed(format!(
            "{RETAIN_KEYS} does not name {}, which the patch sets",
            extra.0
        )));
    }
    fields.retain(|field, _| kept(field));
    Ok(())
}

/// Takes the fields with a directive's prefix out of a patch, without the prefix.
fn take_prefixed(patch: &mut Fields, prefix: &str) -> Vec<(String, Value)> {
    let names: Vec<String> = patch.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
    names
        .into_iter()
        .filter_map(|name| {
            let value = patch.remove(&name)?;
            Some((name.strip_prefix(prefix)?.to_owned(), value))
        })
        .collect()
}

fn list_of(value: Value, field: &str) -> Result<Vec<Value>, PatchError> {
    match value {
        Value::Array(items) => Ok(items),
        _ => Err(PatchError::Malformed(format!("{field} must be a list"))),
    }
}

fn merge_field(
    fields: &mut Fields,
    field: String,
    value: Value,
    schema: &MergeSchema,
) -> Result<(), PatchError> {
    match (schema.field(&field), value) {
        (_, Value::Null) => {
            fields.remove(&field);
        }
        (Some(Merge::ListByKey(key, items)), Value::Array(patch)) => {
            let mut list = take_list(fields, &field);
            merge_list(&mut list, patch, key, items).map_err(|error| within(&field, error))?;
            fields.insert(field, Value::Array(list));
        }
        (Some(Merge::Set), Value::Array(patch)) => {
            let mut list = take_list(fields, &field);
            for item in patch {
                if !list.contains(&item) {
                    list.push(item);
                }
            }
            fields.insert(field, Value::Array(list));
        }
        (merge, Value::Object(patch)) => {
            let schema = match merge {
                Some(Merge::Object(schema)) => schema,
                _ => &PLAIN,
            };
            let deletes = patch.get(PATCH).and_then(Value::as_str) == Some("delete");
            let slot = fields.entry(field.as_str()).or_insert(Value::Null);
            let mut inner = take_map(slot);
            merge_map(&mut inner, patch, schema).map_err(|error| within(&field, error))?;
            *slot = Value::Object(inner);
            if deletes {
                fields.remove(&field);
            }
        }
        (_, value) => {
            fields.insert(field, value);
        }
    }
    Ok(())
}

fn within(field: &str, error: PatchError) -> PatchError {
    match error {
        PatchError::Malformed(why) => PatchError::Malformed(format!("{field}: {why}")),
        other => other,
    }
}

fn take_list(fields: &mut Fields, field: &str) -> Vec<Value> {
    match fields.remove(field) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

fn merge_list(
    list: &mut Vec<Value>,
    patch: Vec<Value>,
    key: &str,
    schema: &MergeSchema,
) -> Result<(), PatchError> {
    let mut replaces = false;
    let mut changes = Vec::with_capacity(patch.len());
    for item in patch {
        let Value::Object(mut item) = item else {
            return Err(PatchError::Malformed(format!("items must be maps with {key}")));
        };
        match (take_directive(&mut item)?, item.get(key).cloned()) {
            // An item that holds nothing but the directive replaces the list by the others.
            (Directive::Replace, _) if item.is_empty() => replaces = true,
            (Directive::Delete, None) => {
                return Err(PatchError::Malformed(format!(
                    "delete patch type with no merge key {key:?}"
                )));
            }
            (_, None) => {
                return Err(PatchError::Malformed(format!(
                    "map: {} does not contain declared merge key: {key}",
                    Value::Object(item)
                )));
            }
            (directive, Some(id)) => changes.push((directive, id, item)),
        }
    }
    if replaces {
        list.clear();
    }
    for (directive, id, item) in changes {
        let same = |candidate: &Value| candidate.get(key) == Some(&id);
        match directive {
            Directive::Delete => list.retain(|candidate| !same(candidate)),
            Directive::Replace => match list.iter_mut().find(|candidate| same(candidate)) {
                Some(slot) => *slot = Value::Object(item),
                None => list.push(Value::Object(item)),
            },
            Directive::Merge => {
                let mut merged = match list.iter_mut().find(|candidate| same(candidate)) {
                    Some(slot) => take_map(slot),
                    None => {
                        list.push(Value::Null);
                        Fields::new()
                    }
                };
                merge_map(&mut merged, item, schema)?;
                // The slot that was emptied above: null is never an item of such a list.
                if let Some(slot) = list.iter_mut().find(|candidate| candidate.is_null()) {
                    *slot = Value::Object(merged);
                }
            }
        }
    }
    Ok(())
}

/// Orders a list as `wanted` says; items that it does not name keep their place relative to the
/// item before them.
fn set_order(items: &mut [Value], wanted: &[Value], key: Option<&str>) {
    let id = |item: &Value| match key {
        Some(key) => item.get(key).cloned().unwrap_or(Value::Null),
        None => item.clone(),
    };
    let wanted: Vec<Value> = wanted.iter().map(&id).collect();
    let mut last = None;
    let mut ranked: Vec<(Option<usize>, usize, Value)> = items
        .iter_mut()
        .enumerate()
        .map(|(place, item)| {
            let rank = wanted.iter().position(|wanted| *wanted == id(item));
            last = rank.or(last);
            (last, place, item.take())
        })
        .collect();
    ranked.sort_by_key(|(rank, place, _)| (*rank, *place));
    for (slot, (_, _, item)) in items.iter_mut().zip(ranked) {
        *slot = item;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use toono_api::merge;

    use super::*;

    fn pod(spec: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": spec})
    }

    fn patched(object: Value, patch: Value) -> Value {
        let mut object = object;
        strategic_merge(&mut object, patch, &merge::POD).unwrap();
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
            {"name": "a", "image": "2", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
            {"name": "b", "image": "1"}, {"name": "c", "image": "3"}], "tolerations": [{"key": "u"}]}))
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
    fn sets_merge_and_lose_items() {
        let before = json!({"metadata": {"finalizers": ["a", "b"]}});
        let after = patched(before.clone(), json!({"metadata": {"finalizers": ["c", "a"]}}));
        assert_eq!(after["metadata"]["finalizers"], json!(["a", "b", "c"]));
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
        let mut deployment = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
        let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
        strategic_merge(&mut deployment, patch, &merge::WORKLOAD).unwrap();
        assert_eq!(deployment["spec"]["strategy"], json!({"type": "Recreate"}));
    }

    #[test]
    fn maps_are_deleted_and_replaced() {
        let before = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"securityContext": {"x": 1}}});
        let after = patched(before.clone(), json!({"metadata": {"labels": {"a": null, "c": "3"}}}));
        assert_eq!(after["metadata"]["labels"], json!({"b": "2", "c": "3"}));
        let after = patched(
            before.clone(),
            json!({"metadata": {"labels": {"$patch": "replace", "z": "1"}}}),
        );
        assert_eq!(after["metadata"]["labels"], json!({"z": "1"}));
        let after = patched(before, json!({"spec": {"securityContext": {"$patch": "delete"}}}));
        assert_eq!(after["spec"], json!({}));
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
                strategic_merge(&mut object.clone(), bad.clone(), &merge::POD).is_err(),
                "{bad}"
            );
        }
    }

    fn containers() -> impl Strategy<Value = Value> {
        prop::collection::btree_map("[a-d]", 0u8..4, 0..4).prop_map(|map| {
            let list: Vec<Value> = map
                .into_iter()
                .map(|(name, image)| json!({"name": name, "image": image}))
                .collect();
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
}
