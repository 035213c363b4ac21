//! Bodies of built-in kinds, in JSON and in protobuf: decoded, defaulted, validated, printed, merged.

use std::time::Duration;

use serde_json::Value;
use toono_api::{Resource, kinds, protobuf};

use super::{BODY, joined};
use crate::{Grammar, Target};

const FIELDS: &[&str] = &[
    "apiVersion",
    "kind",
    "v1",
    "apps/v1",
    "batch/v1",
    "Pod",
    "Service",
    "ConfigMap",
    "Secret",
    "Node",
    "Deployment",
    "StatefulSet",
    "Job",
    "CronJob",
    "Ingress",
    "networking.k8s.io/v1",
    "metadata",
    "name",
    "namespace",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "spec",
    "template",
    "selector",
    "matchLabels",
    "containers",
    "initContainers",
    "image",
    "ports",
    "containerPort",
    "env",
    "valueFrom",
    "resources",
    "limits",
    "requests",
    "cpu",
    "memory",
    "1Gi",
    "100m",
    "volumes",
    "volumeMounts",
    "livenessProbe",
    "httpGet",
    "port",
    "data",
    "stringData",
    "type",
    "ClusterIP",
    "nodePort",
    "schedule",
    "* * * * *",
    "replicas",
    "strategy",
    "rollingUpdate",
    "maxSurge",
    "25%",
    "creationTimestamp",
    "2024-01-01T00:00:00Z",
    "status",
    "conditions",
    "affinity",
    "nodeSelectorTerms",
    "tolerations",
    "topologySpreadConstraints",
    "securityContext",
    "hostNetwork",
    "rules",
    "paths",
    "pathType",
    "Exact",
    "podSelector",
    "ingress",
    "egress",
    "ipBlock",
    "cidr",
    "10.0.0.0/8",
    "-1",
    "",
];

pub(super) const OBJECT: Target = Target {
    name: "object",
    grammar: Grammar::Json,
    tokens: FIELDS,
    max_bytes: BODY,
    // A container of 45 bytes gets five defaults and some forty rules, and here it is checked twice.
    giant_per_mib: Duration::from_millis(120),
    start: || {
        Box::new(|input| {
            if let Ok(object) = serde_json::from_slice(input) {
                written(object);
            }
        })
    },
    giants: |bytes| {
        let pod = |rest: String| {
            format!(
                r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"a"}},"spec":{{{rest}}}}}"#
            )
            .into_bytes()
        };
        let many = |count: usize, item: &dyn Fn(usize) -> String| joined(count, ",", item);
        // Below what makes an object refused at once.
        let most = toono_api::decode::MAX_MESSAGES / 2 - 8;
        let containers =
            many((bytes / 45).min(most), &|at| format!(r#"{{"name":"n{at}","image":"i"}}"#));
        let env = many((bytes / 40).min(most), &|at| format!(r#"{{"name":"n{at}","value":"i"}}"#));
        let ports = many((bytes / 40).min(most), &|at| {
            format!(r#"{{"containerPort":{}}}"#, at % 65_000 + 1)
        });
        let volumes =
            many((bytes / 40).min(most), &|at| format!(r#"{{"name":"v{at}","emptyDir":{{}}}}"#));
        let mounts = many((bytes / 50).min(most), &|at| {
            format!(r#"{{"name":"v{at}","mountPath":"/{at}"}}"#)
        });
        let one = |rest: String| format!(r#""containers":[{{"name":"c","image":"i",{rest}}}]"#);
        let labels = many(bytes / 32, &|at| format!(r#""l{at}":"v""#));
        let owners = many(bytes / 90, &|at| {
            format!(r#"{{"apiVersion":"v1","kind":"Pod","name":"p{at}","uid":"u{at}"}}"#)
        });
        let unknown = many(bytes / 15, &|at| format!(r#""u{at}":1"#));
        let tolerations =
            many(bytes / 40, &|at| format!(r#"{{"key":"k{at}","operator":"Exists"}}"#));
        let rules = many(bytes / 80, &|at| {
            format!(r#"{{"apiGroups":["g{at}"],"resources":["r"],"verbs":["get"]}}"#)
        });
        let service_ports = many((bytes / 50).min(most), &|at| {
            format!(r#"{{"name":"p{at}","port":{}}}"#, at % 65_000 + 1)
        });
        let keys = many(bytes / 20, &|at| format!(r#""k{at}":"v""#));
        vec![
            pod(format!(r#""containers":[{}]"#, many(bytes / 3 - 64, &|_| "{}".to_owned()))),
            pod(format!(r#""containers":[{}]"#, many((bytes / 3).min(65_000), &|_| "{}".to_owned()))),
            pod(one(format!(r#""env":[{}]"#, many(bytes / 3 - 64, &|_| "{}".to_owned())))),
            pod(format!(r#""containers":[{containers}]"#)),
            pod(one(format!(r#""env":[{env}]"#))),
            pod(one(format!(r#""ports":[{ports}]"#))),
            pod(format!(r#""volumes":[{volumes}],{}"#, one(r#""ports":[]"#.to_owned()))),
            pod(one(format!(r#""volumeMounts":[{mounts}]"#))),
            pod(unknown),
            pod(format!(r#""tolerations":[{tolerations}],{}"#, one(r#""ports":[]"#.to_owned()))),
            format!(r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"a","labels":{{{labels}}},"annotations":{{{labels}}}}}}}"#).into(),
            format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"a","ownerReferences":[{owners}]}}}}"#).into(),
            format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"a"}},"data":{{{keys}}}}}"#).into(),
            format!(r#"{{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{{"name":"a"}},"rules":[{rules}]}}"#).into(),
            format!(r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"a"}},"spec":{{"ports":[{service_ports}]}}}}"#).into(),
        ]
    },
};

/// What a write does to an object: each step sees what the one before it left, as in the server.
fn written(object: Value) {
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let Some(row) = kinds::find_kind(text("apiVersion"), text("kind")) else { return };
    let kind = Resource::from(row);
    let Ok(decoded) = kind.behaviour.decode(object) else { return };
    let mut object = decoded.object;
    kind.behaviour.default(&mut object);
    let errors = kind.behaviour.validate(&object, None);
    let again = kind.behaviour.validate(&object, Some(&object));
    // Only what is valid is stored, and so shown.
    if errors.is_empty() {
        assert!(again.is_empty(), "valid as new, and not as it was: {again:?}");
        let stored = kind.behaviour.to_stored(object);
        let served = kind.behaviour.to_served(stored);
        kind.behaviour.row(&served, Default::default());
        kind.behaviour.scale(&served);
    }
}

pub(super) const PROTOBUF: Target = Target {
    name: "protobuf",
    grammar: Grammar::Bytes,
    tokens: &[
        "k8s\0",
        "\n\t\n\u{2}v1\u{12}\u{3}Pod",
        "v1",
        "Pod",
        "ConfigMap",
        "apps/v1",
        "Deployment",
        "\n\0",
        "\u{12}\0",
        "\u{8}\u{1}",
        "\u{1a}\u{2}\u{8}\u{1}",
        "\u{7f}",
        "CustomResourceDefinition",
        "apiextensions.k8s.io/v1",
    ],
    max_bytes: BODY,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: || {
        Box::new(|input| {
            if let Ok(object) = protobuf::decode(input) {
                written(object);
            }
        })
    },
    giants: protobuf_giants,
};

fn protobuf_giants(bytes: usize) -> Vec<Vec<u8>> {
    let envelope = |kind: &str, object: Vec<u8>| {
        let meta = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [b"k8s\0".to_vec(), field(1, &meta), field(2, &object)].concat()
    };
    let pod = |part: &[u8]| envelope("Pod", field(2, &part.repeat(bytes / part.len())));
    let entry = field(2, &[field(1, b"k"), field(2, b"v")].concat());
    vec![
        // Containers, volumes, the same field again, fields nobody knows.
        pod(&field(2, &field(1, b"n"))),
        pod(&field(1, &field(1, b"n"))),
        pod(&field(14, &[])),
        pod(&field(10, b"n")),
        pod(&[0xf8, 0x7f, 1]),
        envelope("Pod", field(1, &[]).repeat(bytes / 2)),
        envelope("ConfigMap", entry.repeat(bytes / entry.len())),
    ]
}

/// A field of protobuf with these bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 0x7f {
        out.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap_or_default());
    out.extend_from_slice(bytes);
    out
}
