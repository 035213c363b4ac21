//! Printer columns, and the `status` and `scale` subresources.

use serde_json::{Value, json};
use toono_schema::{Cell, Column, JsonPath, Subresources, keep_status, only_status};

use crate::yaml;

fn object() -> Value {
    yaml(
        "{metadata: {name: x, creationTimestamp: '2024-01-01T00:00:00Z', labels: {a.b/c: l}},
          spec: {replicas: 3, ratio: 1.5, on: true, hosts: [a, b], 'odd.name': z},
          status: {when: soon, conditions: [{type: Ready, status: 'True', n: 5}, {type: Done, status: 'False', n: 9}]}}",
    )
}

#[test]
fn paths_lead_to_values() {
    let object = object();
    let cases = [
        (".spec.replicas", json!([3])),
        ("{.spec.replicas}", json!([3])),
        (".spec.hosts[1]", json!(["b"])),
        (".spec.hosts[-1]", json!(["b"])),
        (".spec.hosts[*]", json!(["a", "b"])),
        (".spec.hosts[7]", json!([])),
        (".spec.absent.more", json!([])),
        (r".spec.odd\.name", json!(["z"])),
        (".spec['odd.name']", json!(["z"])),
        (r".metadata.labels.a\.b/c", json!(["l"])),
        (r#".status.conditions[?(@.type=="Ready")].status"#, json!(["True"])),
        (".status.conditions[?(@.type == 'Done')].status", json!(["False"])),
        (".status.conditions[?(@.n > 6)].type", json!(["Done"])),
        (".status.conditions[?(@.n)].type", json!(["Ready", "Done"])),
    ];
    for (path, expected) in cases {
        let path = JsonPath::parse(path).expect(path);
        let found: Vec<Value> = path.find(&object).into_iter().cloned().collect();
        assert_eq!(Value::Array(found), expected, "{path:?}");
    }
}

#[test]
fn other_paths_are_refused() {
    for path in [
        "",
        "{}",
        ".a[",
        ".a[?(@.b==1",
        "..a",
        ".a[1:2]",
        ".a[?(.b)]",
        "spec",
        ".a..b",
        ".a[?(@.b[?(@.c)])]",
    ] {
        assert!(JsonPath::parse(path).is_err(), "{path}");
    }
}

#[test]
fn cells_are_of_the_columns_type() {
    let cases = [
        ("integer", ".spec.replicas", Cell::Value(json!(3))),
        ("integer", ".spec.ratio", Cell::Value(json!(1))),
        ("integer", ".status.when", Cell::Empty),
        ("number", ".spec.ratio", Cell::Value(json!(1.5))),
        ("boolean", ".spec.on", Cell::Value(json!(true))),
        ("string", ".status.when", Cell::Value(json!("soon"))),
        ("string", ".spec.replicas", Cell::Value(json!("3"))),
        ("string", ".spec.hosts", Cell::Value(json!(r#"["a","b"]"#))),
        ("string", ".spec.absent", Cell::Empty),
        ("date", ".metadata.creationTimestamp", Cell::Time(1_704_067_200)),
        ("date", ".status.when", Cell::InvalidTime),
    ];
    for (kind, path, expected) in cases {
        let raw = json!({"name": "C", "type": kind, "jsonPath": path, "priority": 1});
        let column = Column::parse(raw.as_object().expect("a map")).expect("sound");
        assert_eq!(column.cell(&object()), expected, "{kind} {path}");
        assert_eq!(column.priority, 1);
    }
}

#[test]
fn columns_that_cannot_be_used() {
    for raw in [
        json!({"type": "string", "jsonPath": ".a"}),
        json!({"name": "C", "type": "text", "jsonPath": ".a"}),
        json!({"name": "C", "type": "string"}),
        json!({"name": "C", "type": "string", "jsonPath": "..a"}),
    ] {
        assert!(Column::parse(raw.as_object().expect("a map")).is_err(), "{raw}");
    }
}

#[test]
fn scale_reads_and_sets_its_paths() {
    let raw = yaml(
        "{status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.ready, labelSelectorPath: .status.selector}}",
    );
    let parsed = Subresources::parse(&raw).expect("sound");
    assert!(parsed.status);
    let scale = parsed.scale.expect("declared");
    let mut object = json!({"spec": {"replicas": 2}, "status": {"selector": "a=b"}});
    assert_eq!(scale.replicas(&object), Some(2));
    assert_eq!(scale.status_replicas(&object), 0);
    assert_eq!(scale.selector(&object), "a=b");
    assert!(scale.set_replicas(&mut object, 5));
    assert_eq!(object["spec"]["replicas"], 5);
    let mut absent = json!({});
    assert_eq!(scale.replicas(&absent), None);
    assert!(scale.set_replicas(&mut absent, 1));
    assert_eq!(absent, json!({"spec": {"replicas": 1}}));
    let mut odd = json!({"spec": 5});
    assert!(!scale.set_replicas(&mut odd, 1));
    assert_eq!(odd, json!({"spec": 5}));
}

#[test]
fn scale_paths_lead_below_spec_and_status() {
    for (spec, status, selector) in [
        (".status.replicas", ".status.replicas", ""),
        (".spec.replicas", ".spec.replicas", ""),
        (".spec.list[0]", ".status.replicas", ""),
        (".spec", ".status.replicas", ""),
        (".spec.replicas", ".status.replicas", ".metadata.labels"),
    ] {
        let raw = json!({"scale": {"specReplicasPath": spec, "statusReplicasPath": status, "labelSelectorPath": selector}});
        let error = Subresources::parse(&raw).expect_err("refused");
        assert!(error.to_string().contains("should be a json path under"), "{error}");
    }
}

#[test]
fn status_and_the_rest_are_written_apart() {
    let old = json!({"spec": {"a": 1}, "status": {"s": 1}});
    let mut new = json!({"spec": {"a": 2}, "status": {"s": 2}});
    assert_eq!(only_status(&old, &new), json!({"spec": {"a": 1}, "status": {"s": 2}}));
    keep_status(&mut new, Some(&old));
    assert_eq!(new, json!({"spec": {"a": 2}, "status": {"s": 1}}));
    keep_status(&mut new, None);
    assert_eq!(new, json!({"spec": {"a": 2}}));
}
