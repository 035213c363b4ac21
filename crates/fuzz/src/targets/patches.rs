//! The four forms of patches, over objects of built-in kinds.
//!
//! An input is a document with the kind's message, the object and the patch, together as long as one
//! body may be.

use std::time::Duration;

use serde_json::Value;
use toono_api::{Place, types};
use toono_apply::{
    PatchKind,
    managed::{self, FieldSet, Write},
};

use super::{BODY, joined};
use crate::{Decode, Grammar, Target};

const FIELDS: &[&str] = &[
    "metadata",
    "name",
    "labels",
    "annotations",
    "spec",
    "containers",
    "image",
    "env",
    "value",
    "ports",
    "containerPort",
    "protocol",
    "TCP",
    "volumes",
    "volumeMounts",
    "mountPath",
    "status",
    "conditions",
    "type",
    "finalizers",
    "ownerReferences",
    "uid",
    "tolerations",
    "object",
    "patch",
    "live",
    "applied",
    "force",
    "message",
    "core.Pod",
    "core.Service",
    "apps.Deployment",
    "core.ConfigMap",
    "op",
    "path",
    "from",
    "add",
    "remove",
    "replace",
    "move",
    "copy",
    "test",
    "/",
    "/-",
    "/spec/containers/0",
    "/spec/containers/-",
    "~0",
    "~1",
    "/metadata/labels/a",
    "$patch",
    "merge",
    "delete",
    "$retainKeys",
    "$deleteFromPrimitiveList/finalizers",
    "$setElementOrder/containers",
    "$setElementOrder/env",
    "managedFields",
    "manager",
    "operation",
    "Apply",
    "Update",
    "apiVersion",
    "v1",
    "apps/v1",
    "fieldsType",
    "FieldsV1",
    "fieldsV1",
    "f:spec",
    "f:metadata",
    "f:labels",
    "f:containers",
    "k:{\"name\":\"a\"}",
    "v:\"x\"",
    "i:0",
    ".",
    "subresource",
    "time",
    "2024-01-01T00:00:00Z",
    "kubectl",
    "kubectl.kubernetes.io/last-applied-configuration",
];

pub(super) const JSON_PATCH: Target = Target {
    name: "json-patch",
    grammar: Grammar::Json,
    tokens: FIELDS,
    max_bytes: BODY,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: || plain(PatchKind::Json),
    giants: |bytes| {
        let count = (bytes / 100).min(toono_apply::JSON_PATCH_MAX_OPERATIONS);
        let long = joined(bytes / 12, ",", |at| format!("\"{at}\""));
        let operations = |operation: &dyn Fn(usize) -> String| joined(count, ",", operation);
        [
            // Each looks at all there is.
            operations(&|_| r#"{"op":"test","path":"/a","value":[]}"#.to_owned()),
            operations(&|_| r#"{"op":"add","path":"/a/0","value":1}"#.to_owned()),
            operations(&|_| r#"{"op":"remove","path":"/a/0"}"#.to_owned()),
            operations(&|_| r#"{"op":"move","from":"/a/0","path":"/a/-"}"#.to_owned()),
            operations(&|_| r#"{"op":"copy","from":"/a/0","path":"/a/0"}"#.to_owned()),
            operations(&|at| format!(r#"{{"op":"add","path":"/b{at}","value":{{}}}}"#)),
        ]
        .map(|operations| {
            format!(r#"{{"object":{{"a":[{long}]}},"patch":[{operations}]}}"#).into_bytes()
        })
        .into()
    },
};

pub(super) const MERGE_PATCH: Target = Target {
    name: "merge-patch",
    grammar: Grammar::Json,
    tokens: FIELDS,
    max_bytes: BODY,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: || plain(PatchKind::Merge),
    giants: |bytes| {
        let entries = |value: &str| joined(bytes / 40, ",", |at| format!(r#""k{at}":{value}"#));
        vec![
            format!(r#"{{"object":{{{}}},"patch":{{{}}}}}"#, entries("1"), entries("null")).into(),
            format!(r#"{{"object":{{{}}},"patch":{{{}}}}}"#, entries("{}"), entries("[]")).into(),
        ]
    },
};

fn plain(kind: PatchKind) -> Decode {
    Box::new(move |input| {
        let Ok(mut input) = serde_json::from_slice::<Value>(input) else { return };
        let message = message_of(&input);
        let (mut object, patch) = (take(&mut input, "object"), take(&mut input, "patch"));
        // The server only has objects.
        if object.is_object() {
            let _ = toono_apply::apply(kind, &mut object, patch, message);
        }
    })
}

fn take(input: &mut Value, field: &str) -> Value {
    input.get_mut(field).map(Value::take).unwrap_or_default()
}

fn message_of(input: &Value) -> Option<&'static types::Message> {
    types::message(input.get("message")?.as_str()?)
}

pub(super) const STRATEGIC: Target = Target {
    name: "strategic-merge",
    grammar: Grammar::Json,
    tokens: FIELDS,
    max_bytes: BODY,
    // Live object and patch are read, merged by key, and dropped.
    giant_per_mib: Duration::from_millis(60),
    start: || plain(PatchKind::Strategic),
    giants: |bytes| {
        let named = |count: usize, first: usize, rest: &str| {
            joined(count, ",", |at| format!(r#"{{"name":"n{}"{rest}}}"#, first + at))
        };
        let texts =
            |count: usize, first: usize| joined(count, ",", |at| format!("\"f{}\"", first + at));
        let (count, many) = (bytes / 90, bytes / 45);
        let pod = |live: String, patch: String| {
            format!(
                r#"{{"message":"core.Pod","object":{{"spec":{{"containers":[{live}]}}}},"patch":{{"spec":{{{patch}}}}}}}"#
            )
            .into_bytes()
        };
        let finalizers = |live: String, patch: String| {
            format!(
                r#"{{"message":"core.Pod","object":{{"metadata":{{"finalizers":[{live}]}}}},"patch":{{"metadata":{{{patch}}}}}}}"#
            )
            .into_bytes()
        };
        vec![
            pod(named(count, 0, r#","image":"a""#), format!(r#""containers":[{}]"#, named(count, 0, r#","image":"b""#))),
            pod(named(count, 0, ""), format!(r#""containers":[{}]"#, named(count, count, ""))),
            pod(named(count, 0, ""), format!(r#""containers":[{}]"#, named(count, 0, r#","$patch":"delete""#))),
            pod(named(count, 0, ""), format!(r#""containers":[{}]"#, named(count, 0, r#","$patch":"replace""#))),
            pod(named(count, 0, ""), format!(r#""$setElementOrder/containers":[{}]"#, named(count, 0, ""))),
            finalizers(texts(many, 0), format!(r#""finalizers":[{}]"#, texts(many, many))),
            finalizers(texts(many, 0), format!(r#""$deleteFromPrimitiveList/finalizers":[{}]"#, texts(many, many))),
            finalizers(texts(many, 0), format!(r#""$setElementOrder/finalizers":[{}]"#, texts(many, 0))),
            format!(r#"{{"message":"core.Pod","object":{{"spec":{{{}}}}},"patch":{{"spec":{{"$retainKeys":[{}]}}}}}}"#,
                joined(count, ",", |at| format!("\"g{at}\":1")), texts(count, 0)).into(),
        ]
    },
};

pub(super) const APPLY: Target = Target {
    name: "server-side-apply",
    grammar: Grammar::Json,
    tokens: FIELDS,
    max_bytes: BODY,
    // Live object, what is applied, and two records of the fields of both.
    giant_per_mib: Duration::from_millis(150),
    start: || Box::new(server_side_apply),
    giants: |bytes| {
        let count = bytes / 200;
        let containers = |first: usize, image: &str| {
            joined(count, ",", |at| format!(r#"{{"name":"n{}","image":"{image}"}}"#, first + at))
        };
        let owned = |first: usize| {
            joined(count, ",", |at| {
                format!(
                    r#""k:{{\"name\":\"n{}\"}}":{{".":{{}},"f:image":{{}},"f:name":{{}}}}"#,
                    first + at
                )
            })
        };
        let pod = |live: String, owner: &str, owned: String, applied: String| {
            format!(
                r#"{{"message":"core.Pod","force":true,"live":{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"p","managedFields":[{{"manager":"{owner}","operation":"Apply","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{{"f:spec":{{"f:containers":{{{owned}}}}}}}}}]}},"spec":{{"containers":[{live}]}}}},"applied":{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"p"}},"spec":{{"containers":[{applied}]}}}}}}"#
            )
            .into_bytes()
        };
        vec![
            pod(containers(0, "a"), "fuzz", owned(0), containers(0, "b")),
            // All go, all are new, all are another's.
            pod(containers(0, "a"), "fuzz", owned(0), String::new()),
            pod(containers(0, "a"), "fuzz", owned(0), containers(count, "a")),
            pod(containers(0, "a"), "other", owned(0), containers(0, "b")),
        ]
    },
};

fn server_side_apply(input: &[u8]) {
    let Ok(input) = serde_json::from_slice::<Value>(input) else { return };
    let Some(message) = message_of(&input) else { return };
    let part = |name: &str| input.get(name).unwrap_or(&Value::Null);
    let (live, applied) = (part("live"), part("applied"));
    if !live.is_object() && !live.is_null() {
        return;
    }
    let text = |name: &str| part(name).as_str().unwrap_or_default();
    let reset = managed::reset_fields(true, text("subresource"));
    let write = Write {
        place: Place::of_message(message),
        api_version: applied.get("apiVersion").and_then(Value::as_str).unwrap_or("v1"),
        other_versions: &[],
        manager: "fuzz",
        subresource: text("subresource"),
        reset,
        now: "2024-01-01T00:00:00Z",
    };
    let force = part("force").as_bool().unwrap_or_default();
    match managed::apply(&write, live, applied, force) {
        Ok(mut done) => managed::keep_times(live, &mut done.object),
        // Conflicts are told in words.
        Err(error) => drop(error.to_string()),
    }
    if part("update").is_object() {
        let mut updated = part("update").clone();
        managed::update(&write, live, &mut updated);
    }
    let _ = FieldSet::decode(part("fields"));
}
