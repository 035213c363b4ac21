//! Properties over generated schemas and values.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use toono_schema::{Budget, Schema};

/// Longest that anything may take on one input. Tests run without optimization and beside others.
const LONGEST: Duration = Duration::from_secs(1);

const NAMES: [&str; 5] = ["a", "b", "spec", "metadata", "kind"];

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(&NAMES[..]).prop_map(str::to_owned)
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z]{0,5}".prop_map(Value::from),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(name(), inner, 0..5).prop_map(|map| json!(map)),
        ]
    })
}

/// Structural schemas of fields, with defaults that are valid.
fn field() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "string"})),
        Just(json!({"type": "string", "default": "x", "maxLength": 3})),
        Just(json!({"type": "string", "nullable": true, "default": "y"})),
        Just(json!({"type": "integer", "default": 5, "minimum": 2})),
        Just(json!({"type": "boolean", "default": true})),
        Just(json!({"x-kubernetes-int-or-string": true})),
        Just(json!({"x-kubernetes-preserve-unknown-fields": true})),
        Just(json!({"type": "object", "additionalProperties": true})),
        Just(json!({"type": "object", "x-kubernetes-embedded-resource": true,
            "x-kubernetes-preserve-unknown-fields": true})),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        let properties = prop::collection::btree_map(
            prop::sample::select(&["a", "b", "c"][..]),
            inner.clone(),
            0..4,
        );
        prop_oneof![
            (properties, any::<bool>(), any::<bool>()).prop_map(|(properties, keep, default)| {
                let mut schema = json!({"type": "object", "properties": properties});
                if keep {
                    schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
                }
                if default {
                    schema["default"] = json!({});
                }
                schema
            }),
            inner.clone().prop_map(|items| json!({"type": "array", "items": items})),
            inner.prop_map(|values| json!({"type": "object", "additionalProperties": values})),
        ]
    })
}

fn structural() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(prop::sample::select(&["a", "b", "spec"][..]), field(), 0..4)
        .prop_map(|properties| json!({"type": "object", "properties": properties}))
}

/// JSON that looks like a schema in places.
fn odd_schema() -> impl Strategy<Value = Value> {
    let keys = [
        "type",
        "properties",
        "items",
        "additionalProperties",
        "required",
        "default",
        "enum",
        "anyOf",
        "allOf",
        "oneOf",
        "not",
        "nullable",
        "format",
        "pattern",
        "maximum",
        "minLength",
        "maxItems",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-map-type",
        "x-kubernetes-validations",
        "x-kubernetes-int-or-string",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-preserve-unknown-fields",
        "rule",
        "message",
        "messageExpression",
        "reason",
        "fieldPath",
        "optionalOldSelf",
        "a",
    ];
    let words = [
        "object",
        "array",
        "string",
        "integer",
        "map",
        "set",
        "atomic",
        "date-time",
        "(",
        "^a$",
        "self.a == oldSelf.a",
        "self.all(x, x)",
        "self",
        "a",
        ".a",
        "FieldValueInvalid",
    ];
    let leaf = prop_oneof![
        scalar(),
        prop::sample::select(words.to_vec()).prop_map(Value::from),
        Just(json!(true)),
    ];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        let key = prop::sample::select(keys.to_vec());
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..6).prop_map(|map| {
                let mut map: Map<String, Value> =
                    map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
                map.entry("type").or_insert_with(|| json!("object"));
                Value::Object(map)
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// A stored object is read as it was written.
    #[test]
    fn pruned_and_defaulted_is_a_fixpoint(raw in structural(), value in value()) {
        let schema = Schema::compile(&raw, "schema").map_err(|errors| {
            TestCaseError::fail(format!("{errors:?}"))
        })?;
        let mut once = value;
        schema.default(&mut once);
        schema.prune(&mut once);
        let mut twice = once.clone();
        schema.default(&mut twice);
        prop_assert!(schema.prune(&mut twice).is_empty());
        prop_assert_eq!(&once, &twice);
    }

    /// What compiles is published as what compiles to the same.
    #[test]
    fn a_published_schema_compiles_to_itself(raw in structural()) {
        let schema = Schema::compile(&raw, "schema").map_err(|errors| {
            TestCaseError::fail(format!("{errors:?}"))
        })?;
        let again = Schema::compile(&schema.to_json(), "schema").map_err(|errors| {
            TestCaseError::fail(format!("{errors:?}"))
        })?;
        prop_assert_eq!(schema.to_json(), again.to_json());
    }

    /// An unchanged object is never refused for what a stricter schema says of it.
    #[test]
    fn an_unchanged_object_stays_allowed(raw in structural(), value in value()) {
        if let Ok(schema) = Schema::compile(&raw, "schema") {
            prop_assert!(schema.validate(&value, Some(&value), &Budget::default()).is_empty());
        }
    }

    /// Nothing that anyone sends panics or takes long.
    #[test]
    fn any_schema_and_any_value(raw in odd_schema(), value in value(), old in value()) {
        let started = Instant::now();
        if let Ok(schema) = Schema::compile(&raw, "schema") {
            let mut object = value;
            schema.default(&mut object);
            schema.prune(&mut object);
            let _ = schema.validate(&object, Some(&old), &Budget::default());
            let _ = schema.to_json();
            let _ = schema.rule_warnings();
        }
        prop_assert!(started.elapsed() < LONGEST, "{:?}", started.elapsed());
    }

    #[test]
    fn any_text_as_a_rule(rule in "(self|oldSelf|\\.a|\\(|\\)|\\[|\\]|==|[0-9]|'x'|\\.all\\(x, |\\?| && |\\+){0,12}") {
        let raw = json!({"type": "object", "properties": {"a": {"type": "object",
            "x-kubernetes-preserve-unknown-fields": true, "x-kubernetes-validations": [{"rule": rule}]}}});
        let started = Instant::now();
        if let Ok(schema) = Schema::compile(&raw, "schema") {
            let object = json!({"a": {"a": [1, {"a": 2}]}});
            let _ = schema.validate(&object, None, &Budget::default());
        }
        prop_assert!(started.elapsed() < LONGEST, "{:?}", started.elapsed());
    }

    #[test]
    fn any_text_as_a_path(text in "[.\\[\\]@?()'\"=<>*a-c0-9\\\\{}$-]{0,24}", value in value()) {
        if let Ok(path) = toono_schema::JsonPath::parse(&text) {
            let _ = path.find(&value);
        }
    }
}
