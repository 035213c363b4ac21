//! Decoding: what is kept, what falls out, what is told.

use serde_json::json;

use super::*;

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec})
}

#[test]
fn values_keep_their_meaning_and_get_one_form() {
    let sent = json!({
        "containers": [{
            "name": "a", "image": "b", "stdin": false, "args": [null],
            "resources": {"limits": {"cpu": 1, "memory": "1Gi"}},
            "livenessProbe": {"httpGet": {"port": 80, "path": null}},
        }],
        "terminationGracePeriodSeconds": 5_000_000_000_i64,
        "volumes": [{"name": "v", "emptyDir": {}}],
    });
    let mut object = pod(sent);
    object["metadata"]["creationTimestamp"] = json!("2024-01-01T01:00:00+01:00");
    let decoded = decode("core.Pod", object).unwrap();
    assert_eq!(decoded.unknown_fields, [""; 0]);
    let (meta, spec) = (&decoded.object["metadata"], &decoded.object["spec"]);
    assert_eq!(meta["creationTimestamp"], "2024-01-01T00:00:00Z");
    let container = &spec["containers"][0];
    assert_eq!(container["resources"]["limits"], json!({"cpu": "1", "memory": "1Gi"}));
    assert_eq!(container["livenessProbe"]["httpGet"], json!({"port": 80}));
    assert_eq!((&container["stdin"], &container["args"]), (&json!(false), &json!([""])));
    assert_eq!(spec["volumes"][0]["emptyDir"], json!({}));
    assert_eq!(decoded.object["kind"], "Pod");
}

#[test]
fn wrong_types_are_told_as_kubernetes_tells_them() {
    let cases = [
        (
            json!({"containers": "x"}),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            json!({"containers": [{"name": 1}]}),
            "json: cannot unmarshal number into Go struct field Container.spec.containers.name of type string",
        ),
        (
            json!({"priority": 4_294_967_296_i64}),
            "json: cannot unmarshal number 4294967296 into Go struct field PodSpec.spec.priority of type int32",
        ),
        (json!({"containers": [{"resources": {"limits": {"cpu": "lots"}}}]}), NO_QUANTITY),
        (
            json!({"hostNetwork": "yes"}),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork of type bool",
        ),
    ];
    for (spec, why) in cases {
        assert_eq!(decode("core.Pod", pod(spec)).unwrap_err().why, why);
    }
    let secret = json!({"data": {"a": "not base64!"}});
    let error = decode("core.Secret", secret).unwrap_err();
    assert_eq!(
        (error.path.as_str(), error.why.as_str()),
        ("data.a", "illegal base64 data at input byte 3")
    );
    assert!(decode("core.Pod", json!([])).is_err());
}

#[test]
fn what_is_empty_and_may_be_left_out_falls_out() {
    let given = json!({"metadata": {"labels": {}, "finalizers": []}, "spec": {
        "containers": [], "volumes": [{"name": "v", "emptyDir": {}}], "nodeSelector": {},
        "securityContext": {}, "tolerations": []}});
    let kept = json!({"metadata": {}, "spec": {"containers": [], "securityContext": {},
        "volumes": [{"name": "v", "emptyDir": {}}]}});
    assert_eq!(decode("core.Pod", given).unwrap().object, kept);
    let role = json!({"metadata": {}, "rules": []});
    assert_eq!(decode("rbac.Role", role.clone()).unwrap().object, role);
}

#[test]
fn what_holds_more_objects_than_any_real_one_is_refused() {
    let containers = |count: usize| json!({"containers": vec![json!({}); count]});
    // The pod, its metadata and its spec are objects too.
    assert!(decode("core.Pod", pod(containers(MAX_MESSAGES - 3))).is_ok());
    let error = decode("core.Pod", pod(containers(MAX_MESSAGES))).unwrap_err();
    assert_eq!(error.why, "it has more than 65536 objects within it");
}

#[test]
fn a_name_as_long_as_a_body_is_not_told_again_and_again() {
    let long = "x".repeat(1 << 20);
    let many: Map<String, Value> = (0..100).map(|n| (format!("x{n}"), json!(n))).collect();
    let schema = json!({"spec": {"versions": [{"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"properties": {long: many}}}}]}});
    let decoded = decode("apiextensions.CustomResourceDefinition", schema).unwrap();
    assert_eq!(decoded.unknown_fields, ["..."; MAX_UNKNOWN_FIELDS]);
}

#[test]
fn unknown_fields_fall_out_and_are_named_up_to_a_number() {
    let many: Map<String, Value> = (0..100).map(|n| (format!("x{n}"), json!(n))).collect();
    let decoded = decode("core.Pod", pod(Value::Object(many))).unwrap();
    assert_eq!(decoded.unknown_fields.len(), MAX_UNKNOWN_FIELDS);
    assert_eq!(decoded.unknown_fields[0], "spec.x0");
    assert_eq!(decoded.object["spec"], json!({}));
}
