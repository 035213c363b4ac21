//! Server-side apply for any configuration: what must hold whatever is applied.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use toono_api::{Place, kinds, place::SchemaPlace};
use toono_apply::managed::{self, ApplyError, FieldSet, Managers, Write};

static NOTHING: FieldSet = FieldSet::new();

fn write<'a>(place: Place<'a>, manager: &'a str, now: &'a str) -> Write<'a> {
    Write {
        place,
        api_version: "v1",
        other_versions: &[],
        manager,
        subresource: "",
        reset: &NOTHING,
        now,
    }
}

fn apply(live: &Value, manager: &str, applied: &Value, force: bool) -> Result<Value, ApplyError> {
    let place = kinds::pod::POD.place();
    managed::apply(&write(place, manager, "2024-01-01T00:00:00Z"), live, applied, force)
        .map(|applied| applied.object)
}

/// The object without its `managedFields`.
fn bare(object: &Value) -> Value {
    let mut object = object.clone();
    object.pointer_mut("/metadata").unwrap().as_object_mut().unwrap().remove("managedFields");
    object
}

/// Pods whose places are those in which maps, keyed lists, sets and atomic places meet. `names` are
/// used for every key, so that two pods of disjoint names have disjoint fields.
fn pods(names: &'static str) -> impl Strategy<Value = Value> {
    let map = move || prop::collection::btree_map(names, "[xy]", 0..3);
    let env = prop::collection::btree_map(names, "[xy]", 0..3);
    let containers = prop::collection::btree_map(names, (env, prop::option::of("[xy]")), 0..3);
    let finalizers = prop::collection::btree_set(names, 0..3);
    (map(), finalizers, containers).prop_map(|(labels, finalizers, containers)| {
        let mut metadata = Map::new();
        metadata.insert("name".into(), "p".into());
        if !labels.is_empty() {
            metadata.insert("labels".into(), json!(labels));
        }
        if !finalizers.is_empty() {
            metadata.insert("finalizers".into(), json!(finalizers));
        }
        let containers: Vec<Value> = containers
            .into_iter()
            .map(|(name, (env, image))| {
                let mut container = json!({"name": name});
                let fields = container.as_object_mut().unwrap();
                if let Some(image) = image {
                    fields.insert("image".into(), image.into());
                }
                if !env.is_empty() {
                    let env = env.iter().map(|(name, value)| json!({"name": name, "value": value}));
                    fields.insert("env".into(), env.collect());
                }
                container
            })
            .collect();
        let mut pod = json!({"apiVersion": "v1", "metadata": metadata});
        if !containers.is_empty() {
            pod.as_object_mut().unwrap().insert("spec".into(), json!({"containers": containers}));
        }
        pod
    })
}

/// Every scalar of a pod with the names on the way to it: a model of places that knows nothing of
/// field sets.
fn facts(value: &Value, at: &str, found: &mut std::collections::BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                facts(value, &format!("{at}.{name}"), found);
            }
        }
        Value::Array(items) => {
            for item in items {
                match item.get("name") {
                    Some(name) => facts(item, &format!("{at}[{name}]"), found),
                    None => {
                        found.insert(format!("{at}[={item}]"), item.clone());
                    }
                }
            }
        }
        scalar => {
            found.insert(at.to_owned(), scalar.clone());
        }
    }
}

fn facts_of(value: &Value) -> std::collections::BTreeMap<String, Value> {
    let mut found = std::collections::BTreeMap::new();
    facts(&bare(value), "", &mut found);
    found
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-c:.{}]{0,4}".prop_map(Value::from),
    ];
    let name = prop_oneof![
        Just("metadata".to_owned()),
        Just("spec".to_owned()),
        Just("containers".to_owned()),
        Just("ports".to_owned()),
        Just("name".to_owned()),
        Just("finalizers".to_owned()),
        Just("managedFields".to_owned()),
        Just("fieldsV1".to_owned()),
        "[fkvi]:[a-c0-9{}\":]{0,5}",
    ];
    leaf.prop_recursive(6, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn field_sets() -> impl Strategy<Value = FieldSet> {
    let step = prop_oneof![
        "f:[a-c]{1,2}",
        "[a-c]".prop_map(|name| format!("k:{{\"name\":\"{name}\"}}")),
        "v:\"[a-c]\"",
        "i:[0-3]",
    ];
    let path = prop::collection::vec(step, 1..5);
    prop::collection::vec(path, 0..12).prop_map(|paths| {
        let mut set = FieldSet::new();
        for path in paths {
            let path: Vec<managed::Element> =
                path.iter().map(|step| managed::Element::parse(step).unwrap().unwrap()).collect();
            set.insert(&path);
        }
        set
    })
}

/// Creates, applies, edits: then every field of the object has an owner, and no field that is gone.
///
/// Except where nobody had owned anything: such an object stays untracked until it is applied, when
/// all of it becomes what was there before.
fn every_field_has_an_owner(
    created: Value,
    applied: &Value,
    edited: &Value,
) -> Result<(), TestCaseError> {
    let place = kinds::pod::POD.place();
    let mut live = created;
    managed::update(&write(place, "creator", "2024-01-01T00:00:00Z"), &Value::Null, &mut live);
    let live = apply(&live, "me", applied, true).unwrap();
    let mut after = edited.clone();
    managed::update(&write(place, "editor", "2024-01-02T00:00:00Z"), &live, &mut after);
    if owned_by_anybody(&live).is_empty() {
        prop_assert_eq!(after.pointer("/metadata/managedFields"), None);
        after = apply(&after, "me", &json!({"apiVersion": "v1", "metadata": {"name": "p"}}), false)
            .unwrap();
    }
    let owned = owned_by_anybody(&after);
    // Applied anew by somebody, everything in the object is owned by that one.
    let everything = owned_by_anybody(&apply(&Value::Null, "all", edited, false).unwrap());
    prop_assert_eq!(everything.leaves().difference(&owned), FieldSet::new());
    prop_assert_eq!(owned.leaves().difference(&everything), FieldSet::new());
    Ok(())
}

fn owned_by_anybody(object: &Value) -> FieldSet {
    let managers = Managers::decode(object.pointer("/metadata/managedFields")).unwrap();
    managers.iter().fold(FieldSet::new(), |all, (_, owned)| all.union(owned.fields.clone()))
}

/// The case that the property found when it was not said of objects without owners.
#[test]
fn an_object_that_nobody_owned_is_edited() {
    let bare = json!({"apiVersion": "v1", "metadata": {"name": "p"}});
    let edited = json!({"apiVersion": "v1", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "a"}]}});
    every_field_has_an_owner(bare.clone(), &bare, &edited).unwrap();
}

proptest! {
    #[test]
    fn a_set_is_read_as_it_was_written(set in field_sets()) {
        prop_assert_eq!(FieldSet::decode(&set.encode()).unwrap(), set.clone());
        prop_assert_eq!(set.paths().len(), set.len());
    }

    #[test]
    fn operations_are_those_of_sets(one in field_sets(), other in field_sets()) {
        let (union, both) = (one.clone().union(other.clone()), one.intersection(&other));
        let rest = one.clone().difference(&other);
        for path in union.paths() {
            let (here, there) = (one.contains(&path), other.contains(&path));
            prop_assert!(here || there);
            prop_assert_eq!(both.contains(&path), here && there);
            prop_assert_eq!(rest.contains(&path), here && !there);
            let below = (1..=path.len())
                .any(|length| other.contains(path.get(..length).unwrap()));
            prop_assert_eq!(one.clone().recursive_difference(&other).contains(&path), here && !below);
        }
        prop_assert_eq!(union.len() + both.len(), one.len() + other.len());
        prop_assert_eq!(rest.union(both), one.clone());
        prop_assert!(one.clone().difference(&one).is_empty());
        prop_assert_eq!(one.clone().union(one.clone()), one);
    }

    #[test]
    fn applying_twice_is_applying_once(
        before in pods("[a-d]"), applied in pods("[a-d]"), mine in pods("[a-d]"),
    ) {
        let live = apply(&Value::Null, "you", &before, true).unwrap();
        let live = apply(&live, "me", &mine, true).unwrap();
        let once = apply(&live, "me", &applied, true).unwrap();
        let place = kinds::pod::POD.place();
        let later = write(place, "me", "2024-06-01T00:00:00Z");
        let twice = managed::apply(&later, &once, &applied, false).unwrap();
        prop_assert!(!twice.changed);
        prop_assert_eq!(twice.object, once);
    }

    #[test]
    fn managers_of_disjoint_fields_never_conflict(
        mine in pods("[a-c]"), yours in pods("[d-f]"), mine_later in pods("[a-c]"),
    ) {
        let live = apply(&Value::Null, "me", &mine, false).unwrap();
        let live = apply(&live, "you", &yours, false).unwrap();
        let live = apply(&live, "me", &mine_later, false).unwrap();
        let mut expected = facts_of(&mine_later);
        expected.extend(facts_of(&yours));
        prop_assert_eq!(facts_of(&live), expected);
        let live = apply(&live, "me", &json!({"apiVersion": "v1", "metadata": {"name": "p"}}), false);
        prop_assert_eq!(facts_of(&live.unwrap()), facts_of(&yours));
    }

    /// The result is what was live, minus what only this manager applied and no longer does, plus
    /// what it applies.
    #[test]
    fn nothing_else_comes_or_goes(
        yours in pods("[a-d]"), mine in pods("[a-d]"), applied in pods("[a-d]"),
    ) {
        let live = apply(&Value::Null, "you", &yours, true).unwrap();
        let live = apply(&live, "me", &mine, true).unwrap();
        let result = apply(&live, "me", &applied, true).unwrap();
        // What I took over by force is no longer yours, as it has another value.
        let yours = facts_of(&yours);
        let applied_facts = facts_of(&applied);
        let mine = facts_of(&mine);
        let mut expected = facts_of(&live);
        expected.retain(|place, value| {
            !mine.contains_key(place) || yours.get(place) == Some(value)
        });
        expected.extend(applied_facts);
        prop_assert_eq!(facts_of(&result), expected);
    }

    #[test]
    fn a_conflict_is_a_place_of_another_with_another_value(
        yours in pods("[a-d]"), mine in pods("[a-d]"),
    ) {
        let live = apply(&Value::Null, "you", &yours, false).unwrap();
        let (yours, wanted) = (facts_of(&yours), facts_of(&mine));
        let differ = wanted
            .iter()
            .filter(|(place, value)| yours.get(*place).is_some_and(|theirs| theirs != *value))
            .count();
        match apply(&live, "me", &mine, false) {
            Ok(_) => prop_assert_eq!(differ, 0),
            Err(ApplyError::Conflicts(conflicts)) => prop_assert_eq!(conflicts.0.len(), differ),
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        }
    }

    #[test]
    fn a_plain_write_leaves_each_field_with_one_owner_or_more(
        created in pods("[a-d]"), applied in pods("[a-d]"), edited in pods("[a-d]"),
    ) {
        every_field_has_an_owner(created, &applied, &edited)?;
    }

    /// There is a short way to the record of a write that changes no ownership. It leads where the
    /// long way does, which is taken when the client sends the record in another form.
    #[test]
    fn a_record_is_the_same_both_ways(
        created in pods("[a-b]"), applied in pods("[a-b]"), first in pods("[a-b]"),
        second in pods("[a-b]"), sends in any::<bool>(), editor in "[em]",
    ) {
        let place = kinds::pod::POD.place();
        let mut live = created;
        managed::update(&write(place, "c", "2024-01-01T00:00:00Z"), &Value::Null, &mut live);
        let live = apply(&live, "m", &applied, true).unwrap();
        let edit = |live: &Value, edited: &Value, now, record: Option<Value>| {
            let mut after = edited.clone();
            if let Some(record) = record {
                after["metadata"]["managedFields"] = record;
            }
            managed::update(&write(place, &editor, now), live, &mut after);
            after
        };
        let live = edit(&live, &first, "2024-01-02T00:00:00Z", None);
        prop_assume!(live["metadata"].get("managedFields").is_some());
        let record = live["metadata"]["managedFields"].clone();
        let mut other_form = record.clone();
        other_form[0]["subresource"] = "".into();
        for edited in [&first, &second] {
            let now = "2024-01-03T00:00:00Z";
            let short = edit(&live, edited, now, sends.then(|| record.clone()));
            let long = edit(&live, edited, now, Some(other_form.clone()));
            prop_assert_eq!(short, long);
        }
    }

    #[test]
    fn any_input_is_answered(
        live in any_json(), applied in any_json(), force in any::<bool>(),
        schema in any_json(),
    ) {
        let schema = SchemaPlace::of_open_api(&schema);
        for place in [kinds::pod::POD.place(), Place::UNKNOWN, schema.place()] {
            let mut applied = applied.clone();
            if let Some(fields) = applied.as_object_mut() {
                fields.insert("apiVersion".into(), "v1".into());
            }
            let write = write(place, "kubectl", "no time at all");
            let _ = managed::apply(&write, &live, &applied, force);
            managed::update(&write, &live, &mut applied);
            managed::keep_times(&live, &mut applied);
        }
        let _ = FieldSet::decode(&live);
        let _ = Managers::decode(Some(&applied));
    }

    #[test]
    fn any_step_is_answered(step in ".{0,12}") {
        if let Ok(Some(element)) = managed::Element::parse(&step) {
            let _ = element.to_string();
            prop_assert_eq!(managed::Element::parse(&element.encode()).unwrap(), Some(element));
        }
    }
}
