//! What OpenAPI documents say of a custom resource.

use serde_json::json;
use toono_schema::{PublishedKind, Schema};

use crate::yaml;

const EVERYTHING: &str = "{type: object, description: d, required: [spec], properties: {
    spec: {type: object, x-kubernetes-map-type: granular, properties: {
        a: {type: string, format: hostname, pattern: a, maxLength: 3, minLength: 1, enum: [a, b], default: a, nullable: true, title: t},
        b: {type: integer, minimum: 1, maximum: 5, exclusiveMinimum: true, multipleOf: 2},
        c: {type: array, maxItems: 3, minItems: 1, items: {type: object, required: [k], properties: {k: {type: string}}}, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [k]},
        d: {type: object, maxProperties: 3, additionalProperties: {type: number}},
        e: {x-kubernetes-int-or-string: true, anyOf: [{type: integer}, {type: string}]},
        f: {type: object, x-kubernetes-embedded-resource: true, x-kubernetes-preserve-unknown-fields: true},
        g: {type: object, not: {required: [x]}, properties: {x: {type: boolean}}}},
      x-kubernetes-validations: [{rule: 'true', message: m, reason: FieldValueInvalid, fieldPath: .a}]}}}";

#[test]
fn a_schema_is_published_as_it_was_written() {
    let raw = yaml(EVERYTHING);
    let schema = Schema::compile(&raw, "schema").expect("sound");
    assert_eq!(schema.to_json(), raw);
}

#[test]
fn the_components_of_a_kind() {
    let schema = Schema::compile(&yaml(EVERYTHING), "schema").expect("sound");
    let kind = PublishedKind {
        group: "apps.openyurt.io".into(),
        version: "v1beta2".into(),
        kind: "NodePool".into(),
        list_kind: "NodePoolList".into(),
    };
    let components = schema.openapi_components(&kind);
    let names: Vec<&String> = components.keys().collect();
    assert_eq!(
        names,
        ["io.openyurt.apps.v1beta2.NodePool", "io.openyurt.apps.v1beta2.NodePoolList"]
    );
    let object = &components["io.openyurt.apps.v1beta2.NodePool"];
    assert_eq!(
        object["x-kubernetes-group-version-kind"],
        json!([{"group": "apps.openyurt.io", "version": "v1beta2", "kind": "NodePool"}])
    );
    for name in ["apiVersion", "kind", "metadata", "spec"] {
        assert!(object["properties"][name].is_object(), "{name}");
    }
    let items = &components["io.openyurt.apps.v1beta2.NodePoolList"]["properties"]["items"];
    assert_eq!(
        items["items"],
        json!({"$ref": "#/components/schemas/io.openyurt.apps.v1beta2.NodePool"})
    );
}
