//! Services, ConfigMaps, Secrets, Events, limits and quotas, leases.

use super::{super::*, cells, rules, updates};
use serde_json::json;

#[test]
fn services() {
    let service = json!({"metadata": {"name": "s"},
        "spec": {"ports": [{"port": 80}], "clusterIP": "10.43.0.5"}});
    rules(
        &service::SERVICE,
        &service,
        &[
            (
                "/spec/type",
                json!("Other"),
                "spec.type: Unsupported value: \"Other\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            ),
            ("/spec/ports", json!([]), "spec.ports: Required value"),
            (
                "/spec/ports/0/port",
                json!(0),
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive; spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (
                "/spec/ports/0/protocol",
                json!("ICMP"),
                "spec.ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ),
            (
                "/spec/ports/0/targetPort",
                json!("a--b"),
                "spec.ports[0].targetPort: Invalid value: \"a--b\": must not contain consecutive hyphens",
            ),
            (
                "/spec/ports/0/nodePort",
                json!(30000),
                "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
            ),
            (
                "/spec/ports",
                json!([{"port": 1, "name": "a"}, {"port": 2}]),
                "spec.ports[1].name: Required value",
            ),
            (
                "/spec/ports",
                json!([{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]),
                "spec.ports[1].name: Duplicate value: \"a\"",
            ),
            (
                "/spec/sessionAffinity",
                json!("Some"),
                "spec.sessionAffinity: Unsupported value: \"Some\": supported values: \"ClientIP\", \"None\"",
            ),
            (
                "/spec/externalTrafficPolicy",
                json!("Local"),
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
            ),
            (
                "/spec/clusterIPs",
                json!(["10.43.0.6"]),
                "spec.clusterIPs: Invalid value: [\"10.43.0.6\"]: first value must match `clusterIP`",
            ),
            (
                "/spec/selector",
                json!({"a b": "c"}),
                "spec.selector: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            ),
        ],
    );
    let named = json!({"metadata": {"name": "s"},
        "spec": {"type": "ExternalName", "externalName": "example.com."}});
    rules(
        &service::SERVICE,
        &named,
        &[
            ("/spec/externalName", json!(""), "spec.externalName: Required value"),
            (
                "/spec/clusterIPs",
                json!(["None"]),
                "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
            ),
        ],
    );
    updates(
        &service::SERVICE,
        &service,
        &[
            (
                "/spec/clusterIP",
                json!("10.43.0.6"),
                "spec.clusterIPs[0]: Invalid value: [\"10.43.0.5\"]: may not change once set",
            ),
            ("/spec/ports/0/port", json!(81), ""),
        ],
    );
    let mut headless = json!({"metadata": {}, "spec": {"clusterIP": "None", "ports": []}});
    (service::SERVICE.default)(&mut headless);
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    assert_eq!(headless["spec"]["ipFamilyPolicy"], "RequireDualStack");
    let balanced = json!({"metadata": {"name": "s"}, "spec": {"type": "LoadBalancer",
        "clusterIPs": ["10.43.0.5"], "selector": {"a": "b"},
        "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}});
    assert_eq!(
        cells(&service::SERVICE, &balanced),
        [
            json!("s"),
            json!("LoadBalancer"),
            json!("10.43.0.5"),
            json!("<pending>"),
            json!("80:30080/TCP,53/UDP"),
            json!("<unknown>"),
            json!("a=b")
        ]
    );
}

#[test]
fn config_maps_and_secrets() {
    let map = json!({"metadata": {"name": "c"}, "data": {"a": "b"}});
    rules(
        &config::CONFIG_MAP,
        &map,
        &[
            (
                "/data",
                json!({"..": "x"}),
                "data[..]: Invalid value: \"..\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
            ),
            (
                "/binaryData",
                json!({"a": "YQ=="}),
                "data[a]: Invalid value: \"a\": duplicate of key present in binaryData; binaryData[a]: Invalid value: \"a\": duplicate of key present in data",
            ),
            (
                "/data/big",
                json!("x".repeat(1 << 20)),
                ": Too long: may not be more than 1048576 bytes",
            ),
        ],
    );
    let kept = json!({"metadata": {"name": "c"}, "immutable": true, "data": {"a": "b"}});
    let why = "Forbidden: field is immutable when `immutable` is set";
    updates(
        &config::CONFIG_MAP,
        &kept,
        &[
            ("/data/a", json!("c"), &*format!("data: {why}").leak()),
            ("/immutable", json!(false), &*format!("immutable: {why}").leak()),
        ],
    );
    let tls = json!({"metadata": {"name": "s"}, "type": "kubernetes.io/tls",
        "data": {"tls.crt": "", "tls.key": ""}});
    rules(
        &config::SECRET,
        &tls,
        &[
            ("/data", json!({"tls.crt": ""}), "data[tls.key]: Required value"),
            ("/type", json!("kubernetes.io/ssh-auth"), "data[ssh-privatekey]: Required value"),
            (
                "/type",
                json!("kubernetes.io/basic-auth"),
                "data[username]: Required value; data[password]: Required value",
            ),
            (
                "/type",
                json!("kubernetes.io/dockerconfigjson"),
                "data[.dockerconfigjson]: Required value",
            ),
            (
                "/type",
                json!("kubernetes.io/service-account-token"),
                "metadata.annotations[kubernetes.io/service-account.name]: Required value",
            ),
        ],
    );
    updates(
        &config::SECRET,
        &tls,
        &[("/type", json!("Opaque"), "type: Invalid value: \"Opaque\": field is immutable")],
    );
}

#[test]
fn limits_and_quotas() {
    let range = json!({"metadata": {"name": "l"}, "spec": {"limits": [
        {"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1"}}]}});
    rules(
        &limits::LIMIT_RANGE,
        &range,
        &[
            (
                "/spec/limits/0/min/cpu",
                json!("3"),
                "spec.limits[0].min[cpu]: Invalid value: \"3\": min value 3 is greater than max value 2; spec.limits[0].min[cpu]: Invalid value: \"3\": min value 3 is greater than default request value 2; spec.limits[0].min[cpu]: Invalid value: \"3\": min value 3 is greater than default value 2",
            ),
            (
                "/spec/limits/0/type",
                json!("PersistentVolumeClaim"),
                "spec.limits[0]: Required value: either minimum or maximum storage value is required, but neither was provided",
            ),
            (
                "/spec/limits/0/max",
                json!({"thing": "1"}),
                "spec.limits[0].max[thing]: Invalid value: \"thing\": must be a standard limit type or fully qualified; spec.limits[0].default[thing]: Invalid value: \"thing\": must be a standard limit type or fully qualified; spec.limits[0].defaultRequest[thing]: Invalid value: \"thing\": must be a standard limit type or fully qualified",
            ),
        ],
    );
    let quota =
        json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "5", "requests.cpu": "1"}}});
    rules(
        &limits::RESOURCE_QUOTA,
        &quota,
        &[
            (
                "/spec/hard/pods",
                json!("-1"),
                "spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0",
            ),
            (
                "/spec/hard/things",
                json!("1"),
                "spec.hard[things]: Invalid value: \"things\": must be a standard resource for quota",
            ),
            (
                "/spec/scopes",
                json!(["Other"]),
                "spec.scopes: Invalid value: [\"Other\"]: unsupported scope",
            ),
        ],
    );
    updates(
        &limits::RESOURCE_QUOTA,
        &quota,
        &[(
            "/spec/scopes",
            json!(["BestEffort"]),
            "spec.scopes: Invalid value: [\"BestEffort\"]: field is immutable",
        )],
    );
    let used = json!({"metadata": {"name": "q"}, "status": {
        "hard": {"limits.cpu": "2", "pods": "5"}, "used": {"limits.cpu": "1", "pods": "3"}}});
    assert_eq!(
        cells(&limits::RESOURCE_QUOTA, &used),
        [json!("q"), json!("pods: 3/5"), json!("limits.cpu: 1/2"), json!("<unknown>")]
    );
}

#[test]
fn events_of_both_groups_are_the_same_objects() {
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"name": "e", "namespace": "n"}, "type": "Normal", "reason": "r", "action": "a",
        "note": "text", "regarding": {"kind": "Pod", "name": "p", "namespace": "n"},
        "reportingController": "k8s.io/c", "reportingInstance": "i",
        "eventTime": "2030-01-01T00:00:00.000000Z"});
    let stored = events::to_stored(event.clone());
    assert_eq!(stored["involvedObject"]["name"], "p");
    assert_eq!((&stored["message"], &stored["apiVersion"]), (&json!("text"), &json!("v1")));
    assert_eq!(events::to_served(stored.clone()), event);
    assert_eq!(cells(&events::EVENT, &event), cells(&events::CORE_EVENT, &stored));
    assert_eq!(cells(&events::EVENT, &event)[3], "pod/p");
    rules(
        &events::EVENT,
        &event,
        &[
            ("/eventTime", json!(null), "eventTime: Required value"),
            ("/reason", json!(""), "reason: Required value"),
            (
                "/action",
                json!("x".repeat(129)),
                &*format!(
                    "action: Invalid value: \"{}\": can have at most 128 characters",
                    "x".repeat(129)
                )
                .leak(),
            ),
            (
                "/regarding/namespace",
                json!("m"),
                "regarding.namespace: Invalid value: \"m\": does not match event.namespace",
            ),
        ],
    );
    updates(
        &events::EVENT,
        &event,
        &[
            ("/note", json!("other"), "note: Invalid value: \"other\": field is immutable"),
            ("/series", json!({"count": 2}), ""),
        ],
    );
}

#[test]
fn leases_namespaces_and_nodes() {
    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "h", "leaseDurationSeconds": 10}});
    rules(
        &coordination::LEASE,
        &lease,
        &[
            (
                "/spec/leaseDurationSeconds",
                json!(0),
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
            ),
            (
                "/spec/leaseTransitions",
                json!(-1),
                "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
            ),
        ],
    );
    // A leader that ends gives its lease back so.
    let free = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": ""}});
    rules(&coordination::LEASE, &free, &[]);
    let namespace = json!({"metadata": {"name": "n"}});
    let filled = super::filled(&core::NAMESPACE, &namespace);
    assert_eq!(filled["metadata"]["labels"]["kubernetes.io/metadata.name"], "n");
    assert_eq!(filled["spec"]["finalizers"], json!(["kubernetes"]));
    let node = json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.0.0.0/24", "taints": [{"key": "a", "effect": "NoSchedule"}]}});
    rules(
        &core::NODE,
        &node,
        &[
            (
                "/spec/taints/0/effect",
                json!("Never"),
                "spec.taints[0].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
            ),
            (
                "/spec/taints/-",
                json!({"key": "a", "effect": "NoSchedule"}),
                "spec.taints[1]: Duplicate value: \"a\"",
            ),
        ],
    );
}
