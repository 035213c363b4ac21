//! Every field of every kind, written as protobuf by the table and read back; and any bytes.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::kinds::RESOURCES;

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}

fn put_number(out: &mut Vec<u8>, field: u32, value: u64) {
    put_varint(out, u64::from(field) << 3);
    put_varint(out, value);
}

fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_varint(out, (u64::from(field) << 3) | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn enveloped(api_version: &str, kind: &str, object: &[u8]) -> Vec<u8> {
    let mut type_meta = Vec::new();
    put_bytes(&mut type_meta, 1, api_version.as_bytes());
    put_bytes(&mut type_meta, 2, kind.as_bytes());
    let mut body = MAGIC.to_vec();
    put_bytes(&mut body, 1, &type_meta);
    put_bytes(&mut body, 2, object);
    body
}

/// Writes some value of a type as field `number`, and tells its JSON.
fn put_example(out: &mut Vec<u8>, number: u32, kind: Type, in_schema: bool) -> Value {
    let mut inner = Vec::new();
    let value = match kind {
        Type::Int32 | Type::Int64 => {
            put_number(out, number, 7);
            return 7.into();
        }
        Type::Boolean => {
            put_number(out, number, 1);
            return true.into();
        }
        Type::Text => {
            put_bytes(out, number, b"text");
            return "text".into();
        }
        Type::Bytes => {
            put_bytes(out, number, b"\x00\xff");
            return "AP8=".into();
        }
        Type::Time | Type::MicroTime => {
            put_number(&mut inner, 1, 1_700_000_000);
            put_number(&mut inner, 2, 123_456_000);
            let micro = kind == Type::MicroTime;
            if micro { "2023-11-14T22:13:20.123456Z" } else { "2023-11-14T22:13:20Z" }.into()
        }
        Type::Quantity => {
            put_bytes(&mut inner, 1, b"100m");
            "100m".into()
        }
        Type::IntOrString => {
            put_number(&mut inner, 1, 1);
            put_bytes(&mut inner, 3, b"25%");
            "25%".into()
        }
        Type::Raw => {
            put_bytes(&mut inner, 1, b"{\"a\":1}");
            json!({"a": 1})
        }
        Type::Double => {
            put_varint(out, (u64::from(number) << 3) | 1);
            out.extend_from_slice(&1.5_f64.to_le_bytes());
            return 1.5.into();
        }
        Type::SchemaOrBool => {
            put_number(&mut inner, 1, 1);
            true.into()
        }
        Type::SchemaOrArray => {
            json!([put_example(&mut inner, 2, Type::Message(SCHEMA), in_schema)])
        }
        Type::SchemaOrTexts => json!([put_example(&mut inner, 2, Type::Text, in_schema)]),
        Type::Message(name) => Value::Object(put_fields(&mut inner, name, in_schema)),
    };
    put_bytes(out, number, &inner);
    value
}

/// Writes every field of a message, and tells their JSON. A schema within a schema is empty.
fn put_all(out: &mut Vec<u8>, name: &str) -> Map<String, Value> {
    put_fields(out, name, false)
}

fn put_fields(out: &mut Vec<u8>, name: &str, in_schema: bool) -> Map<String, Value> {
    let message = types::message(name).unwrap_or_else(|| panic!("no {name} in the table"));
    let mut object = Map::new();
    if name == SCHEMA && in_schema {
        return object;
    }
    let inner = in_schema || name == SCHEMA;
    for field in message.numbered() {
        let value = match field.shape {
            Shape::Plain(kind) | Shape::Optional(kind) => {
                put_example(out, field.number, kind, inner)
            }
            Shape::List(kind) => json!([put_example(out, field.number, kind, inner)]),
            Shape::Map(_) | Shape::MapOfLists => {
                let mut entry = Vec::new();
                put_bytes(&mut entry, 1, b"key");
                let value = if field.shape == Shape::MapOfLists {
                    let mut texts = Vec::new();
                    put_bytes(&mut texts, 1, b"text");
                    put_bytes(&mut entry, 2, &texts);
                    json!(["text"])
                } else {
                    put_example(&mut entry, 2, field.shape.of(), inner)
                };
                put_bytes(out, field.number, &entry);
                json!({"key": value})
            }
        };
        match value {
            Value::Object(inlined) if field.name == "." => object.extend(inlined),
            value => drop(object.insert(field.name.to_owned(), value)),
        }
    }
    object
}

#[test]
fn every_field_of_every_kind_arrives_under_its_name() {
    let kinds = types::messages().filter(|message| message.has_kind());
    for message in kinds {
        let (group, kind) = message.name().split_once('.').unwrap();
        let api_version = if group == "core" { "v1".to_owned() } else { format!("{group}/v1") };
        let mut encoded = Vec::new();
        let mut expected = put_all(&mut encoded, message.name());
        expected.insert("apiVersion".to_owned(), api_version.clone().into());
        expected.insert("kind".to_owned(), kind.into());
        let decoded = decode(&enveloped(&api_version, kind, &encoded)).unwrap();
        assert_eq!(decoded, Value::Object(expected), "{kind}");
        let typed = crate::decode::decode(message.name(), decoded)
            .unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(typed.unknown_fields, [""; 0], "{kind}");
    }
    for resource in RESOURCES {
        let (api_version, kind) = (resource.api_version(), resource.kind);
        let message = types::of_kind(&api_version, kind);
        assert_eq!(message.map(types::Message::name), Some(resource.message), "{kind}");
    }
}

/// The table's JSON names and types against types that others wrote.
#[test]
fn independent_types_agree_with_the_table() {
    fn agree<T: serde::de::DeserializeOwned + serde::Serialize>(name: &str) {
        let written = Value::Object(put_all(&mut Vec::new(), name));
        let typed: T = serde_json::from_value(written.clone()).unwrap();
        let mut read = serde_json::to_value(typed).unwrap();
        // Objects within objects also have their kinds there.
        for place in ["", "/spec/volumeClaimTemplates/0", "/deleteOptions"] {
            if let Some(fields) = read.pointer_mut(place).and_then(Value::as_object_mut) {
                fields.retain(|name, _| !matches!(name.as_str(), "apiVersion" | "kind"));
            }
        }
        assert!(read == written, "{name}: {read} is not {written}");
    }
    /// `agree!(group: Kind …)` for kinds of `group/v1`.
    macro_rules! agree {
        ($($group:ident: $($kind:ident)+;)+) => { $($(
            agree::<k8s_openapi::api::$group::v1::$kind>(
                concat!(stringify!($group), ".", stringify!($kind)),
            );
        )+)+ };
    }
    agree! {
        core: Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount;
        apps: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet;
        batch: CronJob Job;
        policy: Eviction PodDisruptionBudget;
        networking: IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR;
        discovery: EndpointSlice;
        coordination: Lease;
        rbac: ClusterRole ClusterRoleBinding Role RoleBinding;
        storage: CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass;
        node: RuntimeClass;
        scheduling: PriorityClass;
        events: Event;
        admissionregistration: MutatingWebhookConfiguration ValidatingWebhookConfiguration;
        certificates: CertificateSigningRequest;
        authentication: SelfSubjectReview TokenRequest TokenReview;
        authorization: LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview;
        autoscaling: Scale;
    }
    agree::<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>(
        "apiextensions.CustomResourceDefinition",
    );
}

#[test]
fn a_zero_counts_only_where_it_may_be_absent() {
    let mut spec = Vec::new();
    put_number(&mut spec, 1, 0);
    put_number(&mut spec, 5, 0);
    put_number(&mut spec, 7, 0);
    let mut metadata = Vec::new();
    put_bytes(&mut metadata, 1, b"web");
    put_bytes(&mut metadata, 3, b"");
    put_bytes(&mut metadata, 8, b"");
    let mut deployment = Vec::new();
    put_bytes(&mut deployment, 1, &metadata);
    put_bytes(&mut deployment, 2, &spec);
    assert_eq!(
        decode(&enveloped("apps/v1", "Deployment", &deployment)).unwrap(),
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web"}, "spec": {"replicas": 0}})
    );
}

#[test]
fn schemas_are_read_in_all_their_forms() {
    let left = Cell::new(MAX_MESSAGES);
    let room = Room { depth: 0, left: &left };
    let schema = |inner: &[u8]| {
        let mut out = Vec::new();
        put_bytes(&mut out, 24, inner);
        out
    };
    let mut one = Vec::new();
    put_bytes(&mut one, 1, &[]);
    let mut object = Map::new();
    let message = types::message(SCHEMA).unwrap();
    decode_message(message, &schema(&one), &mut object, room).unwrap();
    assert_eq!(Value::Object(object), json!({"items": {}}));
    for (bytes, expected) in [(vec![8, 0], json!(false)), (vec![8, 0, 18, 0], json!({}))] {
        assert_eq!(schema_or(Type::SchemaOrBool, &bytes, room), Ok(Some(expected)));
    }
}

#[test]
fn schemas_without_end_are_refused() {
    let left = Cell::new(MAX_MESSAGES);
    let room = Room { depth: 0, left: &left };
    let mut nested = Vec::new();
    for _ in 0..1000 {
        let mut not = Vec::new();
        put_bytes(&mut not, 28, &nested);
        nested = not;
    }
    let message = types::message(SCHEMA).unwrap();
    assert_eq!(
        decode_message(message, &nested, &mut Map::new(), room),
        Err(ProtobufError::TooDeep)
    );
}

#[test]
fn a_field_of_the_future_is_an_unknown_field() {
    let mut secret = Vec::new();
    put_bytes(&mut secret, 1, b"");
    put_number(&mut secret, 99, 1);
    let decoded = decode(&enveloped("v1", "Secret", &secret)).unwrap();
    let typed = crate::kinds::core::SECRET.decode(decoded).unwrap();
    assert_eq!(typed.unknown_fields, ["99"]);
}

#[test]
fn what_cannot_be_read_is_refused() {
    let number_as_text = {
        let mut spec = Vec::new();
        put_bytes(&mut spec, 1, b"3");
        let mut deployment = Vec::new();
        put_bytes(&mut deployment, 2, &spec);
        deployment
    };
    for (body, says) in [
        (b"{}".to_vec(), "does not begin"),
        (enveloped("batch/v2", "Job", b""), "batch/v2, Kind=Job is not understood"),
        (enveloped("v2", "Pod", b""), "v2, Kind=Pod is not understood"),
        (enveloped("v1", "Pod", b"\x0a\x7f"), "no protobuf message"),
        (enveloped("v1", "Pod", &[0x80; 11]), "no protobuf message"),
        (enveloped("apps/v1", "Deployment", &number_as_text), "apps.DeploymentSpec.replicas"),
    ] {
        let error = decode(&body).unwrap_err().to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    }
}

#[test]
fn options_of_a_deletion_come_in_any_group() {
    let mut options = Vec::new();
    put_number(&mut options, 1, 0);
    let decoded = decode(&enveloped("apps/v1", "DeleteOptions", &options)).unwrap();
    assert_eq!(decoded.get("gracePeriodSeconds"), Some(&json!(0)));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
        let _ = decode(&enveloped("v1", "Pod", &bytes));
    }

    #[test]
    fn a_damaged_object_is_read_or_refused(at in 0_usize..20_000, flip in 1_u8..) {
        let mut encoded = Vec::new();
        put_all(&mut encoded, "core.Pod");
        let length = encoded.len();
        encoded[at % length] ^= flip;
        let _ = decode(&enveloped("v1", "Pod", &encoded));
        let mut encoded = Vec::new();
        put_all(&mut encoded, "apiextensions.CustomResourceDefinition");
        let length = encoded.len();
        encoded[at % length] ^= flip;
        let extension = ("apiextensions.k8s.io/v1", "CustomResourceDefinition");
        let _ = decode(&enveloped(extension.0, extension.1, &encoded));
    }
}

#[test]
fn more_objects_than_any_real_one_has_are_refused() {
    let containers = |count: usize| {
        let mut spec = Vec::new();
        (0..count).for_each(|_| put_bytes(&mut spec, 2, &[]));
        let mut pod = Vec::new();
        put_bytes(&mut pod, 2, &spec);
        decode(&enveloped("v1", "Pod", &pod))
    };
    // The pod and its spec are objects too.
    assert!(containers(MAX_MESSAGES - 2).is_ok());
    assert_eq!(containers(MAX_MESSAGES - 1), Err(ProtobufError::TooMany));
}
