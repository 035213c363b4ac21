//! Schemas that are not structural, whose defaults are wrong, or whose extensions contradict.

use serde_json::json;
use toono_schema::{MAX_ERRORS, Schema};

use crate::{compile, texts, yaml};

/// A schema of `spec.a` and what is wrong with it; paths are those below `schema.properties[spec]`.
type Case = (&'static str, &'static [&'static str]);

fn check(cases: &[Case]) {
    for (field, expected) in cases {
        let text = format!("{{type: object, properties: {{a: {field}}}}}");
        let found = compile(&text).err().map(|errors| texts(&errors)).unwrap_or_default();
        let prefix = "schema.properties[spec].properties[a].";
        let found: Vec<String> = found.iter().map(|text| text.replace(prefix, "")).collect();
        assert_eq!(found, *expected, "{field}");
    }
}

#[test]
fn types_are_needed() {
    check(&[
        ("{}", &["type: Required value: must not be empty for specified object fields"]),
        (
            "{type: array, items: {}}",
            &["items.type: Required value: must not be empty for specified array items"],
        ),
        ("{type: array}", &["items: Required value: must be specified"]),
        (
            "{type: text}",
            &[
                r#"type: Unsupported value: "text": supported values: "array", "boolean", "integer", "number", "object", "string""#,
            ],
        ),
        ("{x-kubernetes-preserve-unknown-fields: true}", &[]),
        (
            "{type: string, x-kubernetes-preserve-unknown-fields: false}",
            &[
                "x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
            ],
        ),
        (
            "{x-kubernetes-int-or-string: true, x-kubernetes-preserve-unknown-fields: true}",
            &["x-kubernetes-preserve-unknown-fields: Invalid value: true: must be false if \
                 x-kubernetes-int-or-string is true"],
        ),
        (
            "{type: string, pattern: '('}",
            &[
                r#"pattern: Invalid value: "(": must be a valid regular expression, but isn't: regex parse error:
    (
    ^
error: unclosed group"#,
            ],
        ),
    ]);
}

#[test]
fn what_openapi_has_and_schemas_may_not() {
    check(&[
        ("{type: object, $ref: x}", &["$ref: Forbidden: $ref is not supported"]),
        ("{type: object, id: x}", &["id: Forbidden: id is not supported"]),
        (
            "{type: object, patternProperties: {a: {}}}",
            &["patternProperties: Forbidden: patternProperties is not supported"],
        ),
        (
            "{type: array, uniqueItems: true, items: {type: string}}",
            &["uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime \
                 complexity becomes quadratic"],
        ),
        (
            "{type: object, properties: {b: {type: string}}, additionalProperties: {type: string}}",
            &["additionalProperties: Forbidden: additionalProperties and properties are mutual \
                 exclusive"],
        ),
    ]);
}

#[test]
fn below_junctors() {
    check(&[
        (
            "{type: string, anyOf: [{type: string}]}",
            &["anyOf[0].type: Forbidden: must be empty to be structural"],
        ),
        (
            "{type: string, allOf: [{default: x}]}",
            &["allOf[0].default: Forbidden: must be undefined to be structural"],
        ),
        (
            "{type: string, oneOf: [{description: x, nullable: true}]}",
            &[
                "oneOf[0].description: Forbidden: must be empty to be structural",
                "oneOf[0].nullable: Forbidden: must be false to be structural",
            ],
        ),
        (
            "{type: object, not: {properties: {metadata: {}}}}",
            &["not.properties[metadata]: Forbidden: must not be specified in a nested context"],
        ),
        ("{x-kubernetes-int-or-string: true, anyOf: [{type: integer}, {type: string}]}", &[]),
        (
            "{x-kubernetes-int-or-string: true, allOf: [{anyOf: [{type: integer}, {type: string}]}, {pattern: x}]}",
            &[],
        ),
    ]);
}

#[test]
fn list_and_map_types() {
    let items = "{type: object, required: [k], properties: {k: {type: string}, v: {type: object}}}";
    let map = |keys: &str| {
        format!(
            "{{type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: {keys}, \
             items: {items}}}"
        )
    };
    check(&[
        (map("[k]").leak(), &[]),
        (
            map("[]").leak(),
            &["x-kubernetes-list-map-keys: Required value: must not be empty if \
                 x-kubernetes-list-type is map"],
        ),
        (
            map("[z]").leak(),
            &[
                r#"x-kubernetes-list-map-keys: Invalid value: ["z"]: entries must all be names of item properties"#,
            ],
        ),
        (
            map("[k, k]").leak(),
            &[
                r#"x-kubernetes-list-map-keys: Invalid value: ["k","k"]: must not contain duplicate entries"#,
            ],
        ),
        (
            map("[v]").leak(),
            &[
                r#"items.properties[v].type: Invalid value: "object": must be a scalar type if parent array's x-kubernetes-list-type is map"#,
                "items.properties[v].default: Required value: this property is in \
                 x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ],
        ),
        (
            "{type: string, x-kubernetes-list-type: set}",
            &[
                r#"type: Invalid value: "string": must be array if x-kubernetes-list-type is specified"#,
            ],
        ),
        (
            "{type: array, x-kubernetes-list-type: bag, items: {type: string}}",
            &[
                r#"x-kubernetes-list-type: Unsupported value: "bag": supported values: "atomic", "set", "map""#,
            ],
        ),
        (
            "{type: array, x-kubernetes-list-type: set, items: {type: string, nullable: true}}",
            &["items.nullable: Forbidden: cannot be nullable when x-kubernetes-list-type is set"],
        ),
        (
            "{type: array, x-kubernetes-list-type: set, items: {type: object}}",
            &[
                r#"items.x-kubernetes-map-type: Invalid value: "": must be atomic as item of a list with x-kubernetes-list-type=set"#,
            ],
        ),
        (
            "{type: array, x-kubernetes-list-map-keys: [k], items: {type: object}}",
            &["x-kubernetes-list-type: Required value: must be map if \
                 x-kubernetes-list-map-keys is non-empty"],
        ),
        (
            "{type: string, x-kubernetes-map-type: atomic}",
            &[
                r#"type: Invalid value: "string": must be object if x-kubernetes-map-type is specified"#,
            ],
        ),
        (
            "{type: object, x-kubernetes-map-type: odd}",
            &[
                r#"x-kubernetes-map-type: Unsupported value: "odd": supported values: "atomic", "granular""#,
            ],
        ),
        (
            "{type: object, x-kubernetes-embedded-resource: true}",
            &["properties: Required value: must not be empty if x-kubernetes-embedded-resource \
                 is true without x-kubernetes-preserve-unknown-fields"],
        ),
        (
            "{x-kubernetes-embedded-resource: true, x-kubernetes-preserve-unknown-fields: true}",
            &["type: Required value: must be object if x-kubernetes-embedded-resource is true"],
        ),
    ]);
}

#[test]
fn defaults_have_to_be_valid() {
    check(&[
        ("{type: string, default: x}", &[]),
        ("{type: string, default: null}", &[]),
        (
            "{type: string, default: 5}",
            &[
                r#"default: Invalid value: "integer": default in body must be of type string: "integer""#,
            ],
        ),
        (
            "{type: object, default: {b: 1}, properties: {c: {type: string}}}",
            &[r#"default: Invalid value: {"b":1}: must not have unknown fields"#],
        ),
        (
            "{type: object, default: {}, required: [b], properties: {b: {type: string, default: x}}}",
            &[],
        ),
        (
            "{type: integer, default: 1, x-kubernetes-validations: [{rule: self > 1}]}",
            &[r#"default: Invalid value: "integer": failed rule: self > 1"#],
        ),
    ]);
}

#[test]
fn the_root() {
    let cases: [(&str, &[&str]); 8] = [
        ("{}", &["schema.type: Required value: must not be empty at the root"]),
        (
            "{type: array, items: {type: string}}",
            &[r#"schema.type: Invalid value: "array": must be object at the root"#],
        ),
        (
            "{type: object, nullable: true}",
            &["schema.nullable: Forbidden: nullable cannot be true at the root"],
        ),
        (
            "{type: object, additionalProperties: {type: string}}",
            &["schema.additionalProperties: Forbidden: must not be used at the root"],
        ),
        (
            "{type: object, properties: {metadata: {type: object, properties: {labels: {type: object}}}}}",
            &["schema.properties[metadata]: Forbidden: must not specify anything other than name \
                 and generateName, but metadata is implicitly specified"],
        ),
        (
            "{type: object, properties: {metadata: {type: object, properties: {name: {type: string, maxLength: 9}}}}}",
            &[],
        ),
        (
            "{type: object, properties: {kind: {type: integer}}}",
            &[r#"schema.properties[kind].type: Invalid value: "integer": must be string"#],
        ),
        (
            "{type: object, anyOf: [{properties: {spec: {properties: {a: {minimum: 1}}}}}], properties: {spec: {type: object}}}",
            &["schema.properties[spec].properties[a]: Required value: because it is defined in \
                 schema.anyOf[0].properties[spec].properties[a]"],
        ),
    ];
    for (text, expected) in cases {
        let found = Schema::compile(&yaml(text), "schema").err().unwrap_or_default();
        assert_eq!(texts(&found), expected, "{text}");
    }
}

#[test]
fn errors_are_bounded() {
    let properties: serde_json::Map<_, _> =
        (0..1000).map(|n| (format!("p{n}"), json!({}))).collect();
    let raw = json!({"type": "object", "properties": properties});
    let errors = Schema::compile(&raw, "schema").expect_err("no types");
    assert_eq!(errors.len(), MAX_ERRORS);
}

#[test]
fn what_takes_long_to_compile_is_counted() {
    let schema = |count: usize, of: &dyn Fn(usize) -> serde_json::Value| {
        let properties: serde_json::Map<_, _> =
            (0..count).map(|n| (format!("p{n:04}"), of(n))).collect();
        Schema::compile(&json!({"type": "object", "properties": properties}), "schema")
    };
    let pattern = |n: usize| json!({"type": "string", "pattern": format!("^a{n}$")});
    let same = |_: usize| json!({"type": "string", "pattern": "^a$"});
    let rule =
        |_: usize| json!({"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]});
    assert!(schema(1000, &pattern).is_ok());
    assert!(schema(5000, &same).is_ok());
    assert!(schema(1000, &rule).is_ok());
    assert_eq!(
        texts(&schema(1001, &pattern).expect_err("too many"))[0],
        "schema.properties[p1000].pattern: Forbidden: a schema may have at most 1000 different patterns"
    );
    assert_eq!(
        texts(&schema(1001, &rule).expect_err("too many"))[0],
        "schema.properties[p1000].x-kubernetes-validations[0]: Forbidden: a schema may have at most \
         1000 rules"
    );
}

#[test]
fn a_deep_schema_is_refused() {
    let mut raw = json!({"type": "string"});
    for _ in 0..200 {
        raw = json!({"type": "object", "properties": {"a": raw}});
    }
    let errors = Schema::compile(&raw, "schema").expect_err("too deep");
    assert_eq!(texts(&errors), ["schema: Forbidden: must not nest deeper than 128 levels"]);
}
