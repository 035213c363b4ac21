//! Roles, priorities, runtime classes, webhooks, requests of certificates, definitions of kinds.

use super::{super::*, cells, filled, rules, updates};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

#[test]
fn roles_and_bindings() {
    let role = json!({"metadata": {"name": "system:a"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    let cases = [
        (
            "/rules/0/verbs",
            json!([]),
            "rules[0].verbs: Required value: verbs must contain at least one value",
        ),
        (
            "/rules/0/apiGroups",
            json!([]),
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
        ),
        (
            "/rules/0/resources",
            json!([]),
            "rules[0].resources: Required value: resource rules must supply at least one resource",
        ),
    ];
    rules(&rbac::ROLE, &role, &cases);
    rules(&rbac::CLUSTER_ROLE, &role, &cases);
    rules(
        &rbac::ROLE,
        &role,
        &[(
            "/rules/0",
            json!({"verbs": ["get"], "nonResourceURLs": ["/x"]}),
            "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
        )],
    );
    let binding = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]});
    let whole = filled(&rbac::ROLE_BINDING, &binding);
    assert_eq!(whole["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
    rules(
        &rbac::CLUSTER_ROLE_BINDING,
        &binding,
        &[
            (
                "/roleRef/kind",
                json!("Role"),
                "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
            ),
            ("/roleRef/name", json!(""), "roleRef.name: Required value"),
            ("/subjects/1/namespace", json!(""), "subjects[1].namespace: Required value"),
            ("/subjects/0/name", json!(""), "subjects[0].name: Required value"),
            (
                "/subjects/0/kind",
                json!("Robot"),
                "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"Group\", \"ServiceAccount\", \"User\"",
            ),
        ],
    );
    updates(
        &rbac::ROLE_BINDING,
        &binding,
        &[(
            "/roleRef/name",
            json!("edit"),
            "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"ClusterRole\",\"name\":\"edit\"}: cannot change roleRef",
        )],
    );
    assert_eq!(
        cells(&rbac::ROLE_BINDING, &binding),
        [
            json!("b"),
            json!("ClusterRole/view"),
            json!("<unknown>"),
            json!("u"),
            json!(""),
            json!("n/s")
        ]
    );
}

#[test]
fn priorities_and_runtimes() {
    let class = json!({"metadata": {"name": "p"}, "value": 5});
    rules(
        &scheduling::PRIORITY_CLASS,
        &class,
        &[
            (
                "/value",
                json!(1_000_000_001),
                "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
            ),
            (
                "/preemptionPolicy",
                json!("Other"),
                "preemptionPolicy: Unsupported value: \"Other\": supported values: \"Never\", \"PreemptLowerPriority\"",
            ),
        ],
    );
    updates(
        &scheduling::PRIORITY_CLASS,
        &class,
        &[
            ("/value", json!(6), "value: Forbidden: may not be changed in an update."),
            (
                "/preemptionPolicy",
                json!("Never"),
                "preemptionPolicy: Invalid value: \"Never\": field is immutable",
            ),
        ],
    );
    let runtime = json!({"metadata": {"name": "r"}, "handler": "runc"});
    let wrong = names::dns_label("R");
    rules(
        &node::RUNTIME_CLASS,
        &runtime,
        &[(
            "/handler",
            json!("R"),
            &*format!("handler: Invalid value: \"R\": {}", wrong[0]).leak(),
        )],
    );
    updates(
        &node::RUNTIME_CLASS,
        &runtime,
        &[("/handler", json!("other"), "handler: Invalid value: \"other\": field is immutable")],
    );
}

#[test]
fn webhooks() {
    let hooks = json!({"metadata": {"name": "w"}, "webhooks": [{"name": "a.example.com", "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://hook.example/x"},
        "rules": [{"operations": ["CREATE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["pods"]}]}]});
    let whole = filled(&admission::MUTATING_WEBHOOK_CONFIGURATION, &hooks);
    let hook = &whole["webhooks"][0];
    assert_eq!(
        (&hook["reinvocationPolicy"], &hook["timeoutSeconds"]),
        (&json!("Never"), &json!(10))
    );
    assert_eq!((&hook["failurePolicy"], &hook["rules"][0]["scope"]), (&json!("Fail"), &json!("*")));
    rules(
        &admission::VALIDATING_WEBHOOK_CONFIGURATION,
        &hooks,
        &[
            (
                "/webhooks/0/name",
                json!("a.example"),
                "webhooks[0].name: Invalid value: \"a.example\": should be a domain with at least three segments separated by dots",
            ),
            (
                "/webhooks/0/sideEffects",
                json!(null),
                "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
            ),
            (
                "/webhooks/0/sideEffects",
                json!("Some"),
                "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
            ),
            (
                "/webhooks/0/admissionReviewVersions",
                json!([]),
                "webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1",
            ),
            (
                "/webhooks/0/admissionReviewVersions",
                json!(["v2"]),
                "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1",
            ),
            (
                "/webhooks/0/timeoutSeconds",
                json!(31),
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
            ),
            (
                "/webhooks/0/clientConfig",
                json!({}),
                "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
            ),
            (
                "/webhooks/0/clientConfig/url",
                json!("http://x"),
                "webhooks[0].clientConfig.url: Invalid value: \"http://x\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
            ),
            (
                "/webhooks/0/rules/0/operations",
                json!(["*", "CREATE"]),
                "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not specify other operations",
            ),
            (
                "/webhooks/0/rules/0/resources",
                json!([]),
                "webhooks[0].rules[0].resources: Required value",
            ),
            (
                "/webhooks/0/failurePolicy",
                json!("Maybe"),
                "webhooks[0].failurePolicy: Unsupported value: \"Maybe\": supported values: \"Fail\", \"Ignore\"",
            ),
            (
                "/webhooks/0/matchConditions",
                json!([{"name": "a", "expression": ""}]),
                "webhooks[0].matchConditions[0].expression: Required value",
            ),
        ],
    );
}

#[test]
fn requests_of_certificates() {
    let pem = format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        STANDARD.encode([0x30, 0])
    );
    let request = json!({"metadata": {"name": "r"}, "spec": {"request": STANDARD.encode(pem),
        "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"], "expirationSeconds": 3600}});
    rules(
        &certificates::CERTIFICATE_SIGNING_REQUEST,
        &request,
        &[
            (
                "/spec/request",
                json!("YQ=="),
                "spec.request: Invalid value: \"YQ==\": PEM block type must be CERTIFICATE REQUEST",
            ),
            ("/spec/usages", json!([]), "spec.usages: Required value"),
            (
                "/spec/usages",
                json!(["client auth", "client auth"]),
                "spec.usages[1]: Duplicate value: \"client auth\"",
            ),
            ("/spec/signerName", json!(""), "spec.signerName: Required value"),
            (
                "/spec/signerName",
                json!("x"),
                "spec.signerName: Invalid value: \"x\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
            ),
            (
                "/spec/expirationSeconds",
                json!(5),
                "spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 600 seconds (10 minutes)",
            ),
        ],
    );
    let shown = json!({"metadata": {"name": "r"}, "spec": {"signerName": "s/x", "username": "u", "expirationSeconds": 3600},
        "status": {"conditions": [{"type": "Approved"}], "certificate": "x"}});
    assert_eq!(
        cells(&certificates::CERTIFICATE_SIGNING_REQUEST, &shown),
        [
            json!("r"),
            json!("<unknown>"),
            json!("s/x"),
            json!("u"),
            json!("60m"),
            json!("Approved,Issued")
        ]
    );
}

#[test]
fn definitions_of_kinds() {
    let mut definition = json!({"metadata": {"name": "things.example.com", "creationTimestamp": "2030-01-01T00:00:00Z"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
        "versions": [{"name": "v1", "served": true, "storage": true}]}});
    (extensions::CUSTOM_RESOURCE_DEFINITION.default)(&mut definition);
    assert_eq!(definition["spec"]["names"]["listKind"], "ThingList");
    assert_eq!(definition["spec"]["names"]["singular"], "thing");
    assert_eq!(definition["spec"]["conversion"]["strategy"], "None");
    let status = (extensions::CUSTOM_RESOURCE_DEFINITION.strategy.initial_status)(&definition);
    assert_eq!(status, json!({"storedVersions": ["v1"]}));
    assert_eq!(
        cells(&extensions::CUSTOM_RESOURCE_DEFINITION, &definition),
        [json!("things.example.com"), json!("2030-01-01T00:00:00Z")]
    );
}
