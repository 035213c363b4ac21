//! Expressions in CEL, and the schemas of custom resources with objects of theirs.

use std::time::Duration;

use serde_json::{Map, Value, json};
use toono_api::place::SchemaPlace;
use toono_schema::{Budget, Column, PublishedKind, Schema, Subresources};

use super::{BODY, joined};
use crate::{Decode, Grammar, Target};

pub(super) const CEL: Target = Target {
    name: "cel",
    grammar: Grammar::Text,
    tokens: &[
        "object",
        "oldObject",
        "request",
        "object.items",
        "object.metadata.name",
        ".all(x, ",
        ".exists(x, ",
        ".map(x, ",
        ".filter(x, ",
        "x",
        "y",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ", ",
        " + ",
        " * ",
        " && ",
        " || ",
        "!",
        " ? ",
        " : ",
        " in ",
        " == ",
        "has(",
        "size(",
        "'a'",
        "\"",
        "1",
        "0",
        "-1",
        "9223372036854775807",
        "1u",
        "1.5",
        "true",
        "null",
        ".matches('(a+)+$')",
        ".replace('a', 'aa')",
        ".split('')",
        ".join('a')",
        ".contains(",
        ".format([",
        "lists.range(100)",
        "string(",
        "int(",
        "duration('1h')",
        "timestamp('2024-01-01T00:00:00Z')",
        ".getHours()",
        "quantity('1Gi')",
        "isURL(",
        "url(",
        "ip('1.2.3.4')",
        "cidr('10.0.0.0/8')",
        ".sum()",
        ".indexOf(",
        ".find('a*')",
        ".findAll('.')",
        ".substring(",
        ".upperAscii()",
        "optional.of(",
        ".?a",
        "[?0]",
        ".orValue(",
        "sets.contains(",
        ".distinct()",
        ".flatten()",
        ".sort()",
        ".reverse()",
        "b'x'",
        "r'\\'",
        "type(",
        "semver('1.2.3')",
        "base64.encode(",
        "dyn(",
        "'%s'.format([object])",
        "[[1,2],[3]]",
    ],
    max_bytes: toono_schema::MAX_RULE_BYTES,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: cel,
    giants: |bytes| {
        let nested = |open: &str, inner: &str, close: &str| {
            let times = bytes.saturating_sub(inner.len()) / (open.len() + close.len()).max(1);
            let times = if open.len() + close.len() == 0 { 0 } else { times };
            format!("{}{inner}{}", open.repeat(times), close.repeat(times)).into_bytes()
        };
        vec![
            nested("(", "true", ")"),
            nested("[", "1", "]"),
            nested("!", "true", ""),
            nested("-", "1", ""),
            nested("", "1", "+1"),
            nested("", "'a'", "+'a'"),
            nested("", "true", "&&true"),
            nested("object.items.all(x,", "true", ")"),
            nested("", "object.items", ".map(x,[x,x])"),
            nested("", "object.text", ".replace('','aa')"),
            nested("", "object.items", ".flatten()"),
            nested("", "object.text", ".split('').join('ab')"),
            nested("", "true?true:true", "?true:true"),
            nested("", "object", ".a"),
            nested("", "object.text.matches('", "(a*)*') "),
            nested("", "object.items", ".distinct()"),
            nested("", "object.items.all(x, object.items.all(y, object.items.all(z, x == y)))", ""),
            nested(
                "",
                "object.items.map(x, object.items).map(y, y.map(z, object.items)).size() > 0",
                "",
            ),
        ]
    },
};

/// Large enough for costs to show, small enough for functions whose time is the product of their
/// arguments' lengths.
fn cel() -> Decode {
    let object = json!({
        "metadata": {"name": "a", "labels": {"x": "y"}},
        "items": (0..100).collect::<Vec<_>>(),
        "others": (100..200).map(|at| at.to_string()).collect::<Vec<_>>(),
        "text": "a".repeat(4096),
    });
    let request = json!({"operation": "CREATE", "userInfo": {"groups": ["g"], "username": "u"}});
    let mut variables = Map::new();
    variables.insert("object".to_owned(), object.clone());
    variables.insert("oldObject".to_owned(), object);
    variables.insert("request".to_owned(), request);
    Box::new(move |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        drop(toono_schema::evaluate_condition(text, &variables));
    })
}

pub(super) const SCHEMA: Target = Target {
    name: "crd-schema",
    grammar: Grammar::Json,
    tokens: &[
        "schema",
        "object",
        "old",
        "columns",
        "subresources",
        "type",
        "string",
        "integer",
        "object",
        "array",
        "number",
        "boolean",
        "properties",
        "additionalProperties",
        "items",
        "required",
        "enum",
        "default",
        "nullable",
        "pattern",
        "format",
        "date-time",
        "int32",
        "ipv4",
        "cidr",
        "duration",
        "maximum",
        "minimum",
        "exclusiveMaximum",
        "multipleOf",
        "maxLength",
        "minLength",
        "maxItems",
        "uniqueItems",
        "maxProperties",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "^(a+)+$",
        "(a|aa)*b",
        "(.{1,500}){1,500}",
        "[a-z",
        "\\p{L}{1,999}",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-type",
        "map",
        "set",
        "atomic",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-map-type",
        "x-kubernetes-validations",
        "rule",
        "message",
        "messageExpression",
        "reason",
        "fieldPath",
        "optionalOldSelf",
        "self.size() > 1",
        "self == oldSelf",
        "self.all(x, self.all(y, x == y))",
        "spec",
        "status",
        "metadata",
        "name",
        "apiVersion",
        "kind",
        "jsonPath",
        ".spec.a[?(@.b==\"c\")].d",
        "specReplicasPath",
        ".spec.replicas",
        "a",
        "b",
    ],
    max_bytes: BODY,
    // The object stands there twice beside its schema, and is checked against both.
    giant_per_mib: Duration::from_millis(110),
    start: || Box::new(schema),
    giants: schema_giants,
};

fn schema_giants(bytes: usize) -> Vec<Vec<u8>> {
    // The object stands there twice, beside the schema.
    let document = |schema: String, object: String| {
        format!(r#"{{"schema":{{"type":"object","properties":{{"a":{schema}}}}},"object":{{"a":{object}}},"old":{{"a":{object}}}}}"#)
            .into_bytes()
    };
    let array = |text: String| format!("[{text}]");
    let numbers = || array(joined(bytes / 20, ",", |at| at.to_string()));
    let maps = || array(joined(bytes / 40, ",", |at| format!("{{\"k\":{at}}}")));
    let list = |rest: &str| format!(r#"{{"type":"array",{rest}}}"#);
    vec![
        document(
            list(
                r#""items":{"type":"integer"},"uniqueItems":false,"x-kubernetes-list-type":"set""#,
            ),
            numbers(),
        ),
        document(
            list(
                r#""items":{"type":"object","required":["k"],"properties":{"k":{"type":"integer"}}},"x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k"]"#,
            ),
            maps(),
        ),
        document(list(r#""items":{"type":"integer","maximum":3}"#), numbers()),
        document(list(r#""items":{"type":"object"}"#), maps()),
        document(
            list(r#""items":{"type":"integer","x-kubernetes-validations":[{"rule":"self >= 0"}]}"#),
            numbers(),
        ),
        document(
            list(
                r#""items":{"type":"integer"},"x-kubernetes-validations":[{"rule":"self.all(x, self.all(y, x != y + 1000000))"}]"#,
            ),
            numbers(),
        ),
        document(
            r#"{"type":"string","pattern":"^(a+)+$"}"#.to_owned(),
            format!("\"{}b\"", "a".repeat(bytes / 3 - 256)),
        ),
        document(
            r#"{"type":"string","pattern":"([a-z]{1,50}){1,20}$"}"#.to_owned(),
            format!("\"{}B\"", "a".repeat(bytes / 3 - 256)),
        ),
        document(
            r#"{"type":"string","pattern":"((.{1,100}){1,100}){1,10}"}"#.to_owned(),
            "1".to_owned(),
        ),
        document(
            format!(
                r#"{{"type":"object","properties":{{{}}}}}"#,
                joined(bytes / 50, ",", |at| format!(r#""k{at}":{{"type":"string"}}"#))
            ),
            format!("{{{}}}", joined(bytes / 50, ",", |at| format!("\"k{at}\":\"\""))),
        ),
        document(
            format!(
                r#"{{"type":"object","properties":{{{}}}}}"#,
                joined(bytes / 150, ",", |at| format!(
                    r#""k{at}":{{"type":"string","pattern":"^[a-z0-9]{{1,63}}$"}}"#
                ))
            ),
            "{}".to_owned(),
        ),
        document(
            format!(
                r#"{{"type":"object","properties":{{{}}}}}"#,
                joined(bytes / 150, ",", |at| format!(
                    r#""k{at}":{{"type":"integer","x-kubernetes-validations":[{{"rule":"self > {at}"}}]}}"#
                ))
            ),
            "{}".to_owned(),
        ),
        document(
            format!(
                r#"{{"type":"string","enum":[{}]}}"#,
                joined(bytes / 20, ",", |at| format!("\"{at}\""))
            ),
            "\"x\"".to_owned(),
        ),
    ]
}

fn schema(input: &[u8]) {
    let Ok(input) = serde_json::from_slice::<Value>(input) else { return };
    let part = |name: &str| input.get(name).unwrap_or(&Value::Null);
    let raw = part("schema");
    drop(SchemaPlace::of_open_api(raw));
    let _ = Subresources::parse(part("subresources"));
    let columns = part("columns").as_array().into_iter().flatten();
    for column in columns.filter_map(|raw| Column::parse(raw.as_object()?).ok()) {
        let _ = column.cell(part("object"));
    }
    let Ok(schema) = Schema::compile(raw, "spec.versions[0].schema.openAPIV3Schema") else {
        return;
    };
    drop(schema.rule_warnings());
    let kind = PublishedKind {
        group: "example.org".to_owned(),
        version: "v1".to_owned(),
        kind: "Widget".to_owned(),
        list_kind: "WidgetList".to_owned(),
    };
    drop(schema.openapi_components(&kind));
    let mut object = part("object").clone();
    schema.default(&mut object);
    schema.prune(&mut object);
    let _ = schema.validate(&object, input.get("old"), &Budget::default());
}
