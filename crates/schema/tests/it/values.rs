//! Each keyword of a schema that checks values.

use crate::{faults, faults_since, schema};

/// A schema of `spec.a`, a value for it, and what is wrong with it (nothing where empty).
type Case = (&'static str, &'static str, &'static [&'static str]);

fn check(cases: &[Case]) {
    for (field, value, expected) in cases {
        let schema = schema(&format!("{{type: object, properties: {{a: {field}}}}}"));
        assert_eq!(faults(&schema, &format!("{{a: {value}}}")), *expected, "{field} <- {value}");
    }
}

#[test]
fn types() {
    check(&[
        ("{type: string}", "x", &[]),
        (
            "{type: string}",
            "5",
            &[
                r#"spec.a: Invalid value: "integer": spec.a in body must be of type string: "integer""#,
            ],
        ),
        (
            "{type: integer}",
            "x",
            &[
                r#"spec.a: Invalid value: "string": spec.a in body must be of type integer: "string""#,
            ],
        ),
        ("{type: integer}", "3.0", &[]),
        (
            "{type: integer}",
            "3.5",
            &[
                r#"spec.a: Invalid value: "number": spec.a in body must be of type integer: "number""#,
            ],
        ),
        ("{type: number}", "3", &[]),
        (
            "{type: boolean}",
            "'true'",
            &[
                r#"spec.a: Invalid value: "string": spec.a in body must be of type boolean: "string""#,
            ],
        ),
        (
            "{type: object, properties: {b: {type: string}}}",
            "[]",
            &[r#"spec.a: Invalid value: "array": spec.a in body must be of type object: "array""#],
        ),
        (
            "{type: array, items: {type: string}}",
            "[x, {}]",
            &[
                r#"spec.a[1]: Invalid value: "object": spec.a[1] in body must be of type string: "object""#,
            ],
        ),
        (
            "{type: array, items: {type: string}}",
            "[null]",
            &[
                r#"spec.a[0]: Invalid value: "null": spec.a[0] in body must be of type string: "null""#,
            ],
        ),
        ("{type: string, nullable: true}", "null", &[]),
        ("{x-kubernetes-int-or-string: true}", "5", &[]),
        ("{x-kubernetes-int-or-string: true}", "50%", &[]),
        (
            "{x-kubernetes-int-or-string: true}",
            "true",
            &[
                r#"spec.a: Invalid value: "boolean": spec.a in body must be of type integer,string: "boolean""#,
            ],
        ),
        ("{x-kubernetes-preserve-unknown-fields: true}", "[{b: 1}]", &[]),
    ]);
}

#[test]
fn numbers() {
    check(&[
        (
            "{type: integer, maximum: 5}",
            "6",
            &["spec.a: Invalid value: 6: spec.a in body should be less than or equal to 5"],
        ),
        ("{type: integer, maximum: 5}", "5", &[]),
        (
            "{type: integer, maximum: 5, exclusiveMaximum: true}",
            "5",
            &["spec.a: Invalid value: 5: spec.a in body should be less than 5"],
        ),
        (
            "{type: integer, minimum: 1}",
            "0",
            &["spec.a: Invalid value: 0: spec.a in body should be greater than or equal to 1"],
        ),
        (
            "{type: number, minimum: 0.5, exclusiveMinimum: true}",
            "0.5",
            &["spec.a: Invalid value: 0.5: spec.a in body should be greater than 0.5"],
        ),
        (
            "{type: integer, multipleOf: 3}",
            "7",
            &["spec.a: Invalid value: 7: spec.a in body should be a multiple of 3"],
        ),
        (
            "{type: integer, maximum: 2147483647}",
            "2147483648",
            &["spec.a: Invalid value: 2147483648: spec.a in body should be less than or equal to \
                 2.147483647e+09"],
        ),
        (
            "{type: number, maximum: 1000000}",
            "1500000.5",
            &["spec.a: Invalid value: 1.5000005e+06: spec.a in body should be less than or equal \
                 to 1e+06"],
        ),
        (
            "{type: number, minimum: 1}",
            "0.00001",
            &["spec.a: Invalid value: 1e-05: spec.a in body should be greater than or equal to 1"],
        ),
    ]);
}

#[test]
fn strings() {
    check(&[
        ("{type: string, maxLength: 3}", "äöü", &[]),
        (
            "{type: string, maxLength: 3}",
            "abcd",
            &["spec.a: Too long: may not be more than 3 bytes"],
        ),
        (
            "{type: string, minLength: 1}",
            "''",
            &[r#"spec.a: Invalid value: "": spec.a in body should be at least 1 chars long"#],
        ),
        (
            "{type: string, pattern: '^a+$'}",
            "b",
            &[r#"spec.a: Invalid value: "b": spec.a in body should match '^a+$'"#],
        ),
        (
            "{type: string, enum: [Edge, Cloud]}",
            "Sky",
            &[r#"spec.a: Unsupported value: "Sky": supported values: "Edge", "Cloud""#],
        ),
        (
            "{type: integer, enum: [1, 2]}",
            "3",
            &[r#"spec.a: Unsupported value: 3: supported values: "1", "2""#],
        ),
        ("{type: integer, enum: [1, 2]}", "2.0", &[]),
    ]);
}

#[test]
fn formats() {
    let good = [
        ("date-time", "'2024-02-29T10:00:00.5+01:00'"),
        ("date", "'2024-02-29'"),
        ("duration", "1h30m"),
        ("ipv4", "10.0.0.1"),
        ("ipv6", "'fe80::1'"),
        ("cidr", "10.0.0.0/8"),
        ("mac", "'01:23:45:67:89:ab'"),
        ("uuid", "'123e4567-e89b-12d3-a456-426614174000'"),
        ("byte", "aGVsbG8="),
        ("hostname", "a.example.org"),
        ("email", "a@example.org"),
        ("uri", "'https://example.org/x?y'"),
        ("bsonobjectid", "507f1f77bcf86cd799439011"),
        ("k8s-short-name", "a-1"),
        ("k8s-long-name", "a.b-1"),
        ("something-else", "'anything'"),
    ];
    for (format, value) in good {
        check(&[(leak(format!("{{type: string, format: {format}}}")), value, &[])]);
    }
    let bad = [
        ("date-time", "2024-02-30T10:00:00Z"),
        ("date", "2023-02-29"),
        ("duration", "1 hour"),
        ("ipv4", "10.0.0"),
        ("ipv6", "10.0.0.1"),
        ("cidr", "10.0.0.0/33"),
        ("mac", "01:23"),
        ("uuid", "123e4567"),
        ("byte", "a"),
        ("hostname", "-a"),
        ("email", "a.example.org"),
        ("uri", "no uri"),
        ("bsonobjectid", "xyz"),
        ("k8s-short-name", "A"),
    ];
    for (format, value) in bad {
        let expected = format!(
            "spec.a: Invalid value: {value:?}: spec.a in body must be of type {format}: {value:?}"
        );
        let schema = schema(&format!(
            "{{type: object, properties: {{a: {{type: string, format: {format}}}}}}}"
        ));
        assert_eq!(faults(&schema, &format!("{{a: '{value}'}}")), [expected]);
    }
}

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

#[test]
fn lists_and_maps() {
    check(&[
        (
            "{type: array, maxItems: 1, items: {type: integer}}",
            "[1, 2]",
            &["spec.a: Too many: 2: must have at most 1 item"],
        ),
        (
            "{type: array, maxItems: 2, items: {type: integer}}",
            "[1, 2, 3]",
            &["spec.a: Too many: 3: must have at most 2 items"],
        ),
        (
            "{type: array, minItems: 1, items: {type: integer}}",
            "[]",
            &["spec.a: Invalid value: 0: spec.a in body should have at least 1 items"],
        ),
        (
            "{type: object, maxProperties: 1, additionalProperties: {type: string}}",
            "{x: a, y: b}",
            &["spec.a: Too many: 2: must have at most 1 item"],
        ),
        (
            "{type: object, minProperties: 1, additionalProperties: {type: string}}",
            "{}",
            &["spec.a: Invalid value: 0: spec.a in body should have at least 1 properties"],
        ),
        (
            "{type: object, additionalProperties: {type: string}}",
            "{x: 1}",
            &[r#"spec.a.x: Invalid value: "integer": spec.a.x in body must be of type string: "integer""#],
        ),
        (
            "{type: object, required: [b, c], properties: {b: {type: string}, c: {type: string}}}",
            "{c: x}",
            &["spec.a.b: Required value"],
        ),
        (
            "{type: array, x-kubernetes-list-type: set, items: {type: string}}",
            "[x, y, x, x]",
            &[r#"spec.a[2]: Duplicate value: "x""#],
        ),
        (
            "{type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [port, protocol],
              items: {type: object, required: [port], properties: {port: {type: integer},
              protocol: {type: string, default: TCP}, name: {type: string}}}}",
            "[{port: 1}, {port: 1, protocol: UDP}, {port: 1, protocol: TCP, name: x}]",
            &[r#"spec.a[2]: Duplicate value: {"port":1,"protocol":"TCP"}"#],
        ),
        (
            "{type: array, x-kubernetes-list-type: atomic, items: {type: string}}",
            "[x, x]",
            &[],
        ),
        (
            "{type: object, x-kubernetes-embedded-resource: true, x-kubernetes-preserve-unknown-fields: true}",
            "{kind: Pod, spec: {}}",
            &["spec.a.apiVersion: Required value"],
        ),
        (
            "{type: object, x-kubernetes-embedded-resource: true, x-kubernetes-preserve-unknown-fields: true}",
            "{apiVersion: v1, kind: 5}",
            &["spec.a.kind: Invalid value: 5: must be a string"],
        ),
    ]);
}

#[test]
fn junctors() {
    check(&[
        (
            "{type: integer, anyOf: [{minimum: 5}, {maximum: 1}]}",
            "3",
            &[
                r#"<nil>: Invalid value: "": "spec.a" must validate at least one schema (anyOf)"#,
                "spec.a: Invalid value: 3: spec.a in body should be greater than or equal to 5",
            ],
        ),
        (
            "{type: integer, oneOf: [{minimum: 1}, {minimum: 2}]}",
            "3",
            &[
                r#"<nil>: Invalid value: "": "spec.a" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
            ],
        ),
        (
            "{type: object, properties: {b: {type: string}, c: {type: string}},
              oneOf: [{required: [b]}, {required: [c]}]}",
            "{}",
            &[
                r#"<nil>: Invalid value: "": "spec.a" must validate one and only one schema (oneOf). Found none valid"#,
                "spec.a.b: Required value",
            ],
        ),
        (
            "{type: integer, allOf: [{minimum: 5}, {maximum: 9}]}",
            "3",
            &[
                r#"<nil>: Invalid value: "": "spec.a" must validate all the schemas (allOf)"#,
                "spec.a: Invalid value: 3: spec.a in body should be greater than or equal to 5",
            ],
        ),
        (
            "{type: integer, not: {minimum: 5}}",
            "7",
            &[r#"<nil>: Invalid value: "": "spec.a" must not validate the schema (not)"#],
        ),
        ("{x-kubernetes-int-or-string: true, anyOf: [{type: integer}, {type: string}]}", "x", &[]),
    ]);
}

#[test]
fn what_was_wrong_before_may_stay() {
    let schema = schema(
        "{type: object, properties: {
            a: {type: string, maxLength: 3}, b: {type: integer},
            list: {type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [name],
              items: {type: object, required: [name], properties: {name: {type: string},
              v: {type: integer, maximum: 5}}}}}}",
    );
    let old = "{a: toolong, list: [{name: x, v: 9}, {name: y, v: 1}]}";
    let kept = "{a: toolong, b: 1, list: [{name: y, v: 2}, {name: x, v: 9}]}";
    assert_eq!(faults_since(&schema, kept, Some(old)), [""; 0]);
    let changed = "{a: toolonger, list: [{name: x, v: 8}]}";
    assert_eq!(
        faults_since(&schema, changed, Some(old)),
        [
            "spec.a: Too long: may not be more than 3 bytes",
            "spec.list[0].v: Invalid value: 8: spec.list[0].v in body should be less than or equal \
             to 5",
        ]
    );
}
