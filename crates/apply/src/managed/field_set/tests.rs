//! Sets: membership, operations, and how they are read and written.

use serde_json::json;

use super::*;

fn set(fields: Value) -> FieldSet {
    FieldSet::decode(&fields).unwrap()
}

#[test]
fn membership_and_operations() {
    let one = set(json!({"f:a": {}, "f:b": {".": {}, "f:c": {}, "f:d": {}}}));
    let other = set(json!({"f:b": {"f:c": {}}, "f:e": {}}));
    assert_eq!(one.len(), 4);
    assert_eq!(
        one.clone().union(other.clone()).encode(),
        json!({"f:a": {}, "f:b": {".": {}, "f:c": {}, "f:d": {}}, "f:e": {}})
    );
    assert_eq!(one.intersection(&other).encode(), json!({"f:b": {"f:c": {}}}));
    assert_eq!(
        one.clone().difference(&other).encode(),
        json!({"f:a": {}, "f:b": {".": {}, "f:d": {}}})
    );
    let whole = set(json!({"f:b": {}}));
    assert_eq!(
        one.clone().difference(&whole).encode(),
        json!({"f:a": {}, "f:b": {"f:c": {}, "f:d": {}}})
    );
    assert_eq!(one.clone().recursive_difference(&whole).encode(), json!({"f:a": {}}));
    assert_eq!(one.leaves().encode(), json!({"f:a": {}, "f:b": {"f:c": {}, "f:d": {}}}));
    assert_eq!(one.prefixes().encode(), json!({"f:b": {}}));
    assert!(one.contains(&[Element::field("b")]));
    assert!(!other.contains(&[Element::field("b")]));
    assert_eq!(one.below(&Element::field("b")).unwrap().len(), 2);
}

#[test]
fn what_is_no_set_is_refused() {
    for bad in [json!(1), json!([]), json!({"f:a": 1}), json!({"name": {}})] {
        assert!(FieldSet::decode(&bad).is_err(), "{bad}");
    }
    let mut deep = json!({});
    for _ in 0..FIELD_SET_MAX_DEPTH {
        deep = json!({"f:a": deep});
    }
    assert_eq!(FieldSet::decode(&deep), Err(FieldSetError::TooDeep));
    let many: Map<String, Value> =
        (0..=FIELD_SET_MAX_PLACES).map(|at| (format!("i:{at}"), json!({}))).collect();
    assert_eq!(FieldSet::decode(&Value::Object(many)), Err(FieldSetError::TooLarge));
}

#[test]
fn a_small_set_beside_a_large_one_is_treated_as_any_other() {
    let field = |at: usize| (format!("f:{at:03}"), json!({"f:x": {}, "f:y": {}}));
    let large = set(Value::Object((0..100).map(field).collect()));
    let small = set(json!({"f:007": {".": {}, "f:x": {}}, "f:z": {}}));
    assert_eq!(small.intersection(&large).encode(), json!({"f:007": {"f:x": {}}}));
    assert_eq!(small.intersection(&large), large.intersection(&small));
    assert_eq!(small.clone().difference(&large).encode(), json!({"f:007": {}, "f:z": {}}));
    let all: Vec<FieldSet> = large
        .paths()
        .iter()
        .map(|path| {
            let mut one = FieldSet::new();
            one.insert(path);
            one
        })
        .collect();
    assert_eq!(FieldSet::union_of(all), large);
    assert!(FieldSet::union_of(Vec::new()).is_empty());
}

#[test]
fn two_spellings_of_a_key_are_one_place() {
    let both = set(json!({r#"k:{"a":1}"#: {"f:x": {}}, r#"k:{ "a": 1 }"#: {"f:y": {}}}));
    assert_eq!(both.encode(), json!({r#"k:{"a":1}"#: {"f:x": {}, "f:y": {}}}));
}

#[test]
fn leaves_of_nothing_below_are_dropped_with_their_way() {
    let one = set(json!({"f:a": {".": {}, "f:b": {}}}));
    assert_eq!(one.leaves().paths(), vec![vec![Element::field("a"), Element::field("b")]]);
}
