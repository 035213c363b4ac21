//! Which fields stay, which are named as unknown, and which defaults are filled in.

use serde_json::json;

use crate::{schema, yaml};

/// The schema of `spec`, a spec, what stays of it, and the fields that are named.
type Case = (&'static str, &'static str, &'static str, &'static [&'static str]);

#[test]
fn unknown_fields_go() {
    let cases: &[Case] = &[
        ("{type: object, properties: {a: {type: string}}}", "{a: x, b: y}", "{a: x}", &["spec.b"]),
        (
            "{type: object, properties: {a: {type: array, items: {type: object, properties: {b: {type: string}}}}}}",
            "{a: [{b: x}, {c: y}]}",
            "{a: [{b: x}, {}]}",
            &["spec.a[1].c"],
        ),
        (
            "{type: object, x-kubernetes-preserve-unknown-fields: true, properties: {a: {type: object, properties: {b: {type: string}}}}}",
            "{z: {y: 1}, a: {b: x, c: y}}",
            "{z: {y: 1}, a: {b: x}}",
            &["spec.a.c"],
        ),
        (
            "{type: object, properties: {a: {type: array, x-kubernetes-preserve-unknown-fields: true, items: {type: object, properties: {b: {type: object}}}}}}",
            "{a: [{c: x, b: {d: 1}}]}",
            "{a: [{c: x, b: {}}]}",
            &["spec.a[0].b.d"],
        ),
        (
            "{type: object, additionalProperties: {type: object, properties: {b: {type: string}}}}",
            "{one: {b: x, c: y}}",
            "{one: {b: x}}",
            &["spec.one.c"],
        ),
        (
            "{type: object, properties: {a: {type: object, additionalProperties: true}}}",
            "{a: {x: 1, y: {z: 1}}}",
            "{a: {x: 1, y: {}}}",
            &["spec.a.y.z"],
        ),
        (
            "{type: object, properties: {a: {type: object, x-kubernetes-embedded-resource: true, properties: {spec: {type: object}}}}}",
            "{a: {apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {b: 1}, status: {}}}",
            "{a: {apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {}}}",
            &["spec.a.spec.b", "spec.a.status"],
        ),
    ];
    for (spec, before, after, unknown) in cases {
        let schema = schema(spec);
        let mut object = json!({
            "apiVersion": "g/v1", "kind": "K", "metadata": {"name": "x", "odd": 1}, "spec": yaml(before),
        });
        let found = schema.prune(&mut object);
        let found: Vec<String> = found.into_iter().map(|field| field.0).collect();
        assert_eq!(found, *unknown, "{spec}");
        assert_eq!(object["spec"], yaml(after), "{spec}");
        assert_eq!(object["metadata"]["odd"], 1);
    }
}

#[test]
fn an_unknown_field_is_told_in_kubernetes_words() {
    let schema = schema("{type: object}");
    let mut object = json!({"spec": {"foo": 1}});
    let found = schema.prune(&mut object);
    assert_eq!(found[0].to_string(), r#"unknown field "spec.foo""#);
}

#[test]
fn absent_fields_get_their_defaults() {
    let schema = schema(
        "{type: object, properties: {
            a: {type: string, default: x},
            b: {type: object, default: {}, properties: {c: {type: integer, default: 5}}},
            d: {type: object, properties: {e: {type: integer, default: 7}}},
            n: {type: string, nullable: true, default: y},
            m: {type: string},
            any: {x-kubernetes-preserve-unknown-fields: true},
            list: {type: array, items: {type: object, properties: {f: {type: boolean, default: true}}}},
            map: {type: object, additionalProperties: {type: object, properties: {g: {type: string, default: z}}}}}}",
    );
    for (before, after) in [
        ("{}", "{a: x, b: {c: 5}, n: y}"),
        ("{a: null, n: null, m: null, any: null}", "{a: x, b: {c: 5}, n: null}"),
        ("{d: {}, b: {c: 1}}", "{a: x, b: {c: 1}, d: {e: 7}, n: y}"),
        (
            "{list: [{}, {f: false}], map: {k: {}}}",
            "{a: x, b: {c: 5}, n: y, list: [{f: true}, {f: false}], map: {k: {g: z}}}",
        ),
    ] {
        let mut object = json!({"spec": yaml(before)});
        schema.default(&mut object);
        assert_eq!(object["spec"], yaml(after), "{before}");
    }
}

#[test]
fn there_is_no_default_for_an_absent_spec() {
    let schema = schema("{type: object, properties: {a: {type: string, default: x}}}");
    let mut object = json!({});
    schema.default(&mut object);
    assert_eq!(object, json!({}));
}
