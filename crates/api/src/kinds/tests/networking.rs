//! Ingresses, policies, endpoint slices, addresses.

use super::{super::*, cells, filled, rules, updates};
use serde_json::json;

#[test]
fn ingresses() {
    let ingress = json!({"metadata": {"name": "i"}, "spec": {"rules": [{"host": "a.example", "http": {"paths": [
        {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}});
    rules(
        &networking::INGRESS,
        &ingress,
        &[
            (
                "/spec/rules",
                json!([]),
                "spec: Invalid value: \"\": either `defaultBackend` or `rules` must be specified",
            ),
            (
                "/spec/rules/0/host",
                json!("1.2.3.4"),
                "spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
            ),
            (
                "/spec/rules/0/http/paths/0/path",
                json!("x"),
                "spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path",
            ),
            (
                "/spec/rules/0/http/paths/0/path",
                json!("/a//b"),
                "spec.rules[0].http.paths[0].path: Invalid value: \"/a//b\": must not contain '//'",
            ),
            (
                "/spec/rules/0/http/paths/0/pathType",
                json!(null),
                "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
            ),
            (
                "/spec/rules/0/http/paths/0/pathType",
                json!("Other"),
                "spec.rules[0].http.paths[0].pathType: Unsupported value: \"Other\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"",
            ),
            (
                "/spec/rules/0/http/paths/0/backend/service/port",
                json!({}),
                "spec.rules[0].http.paths[0].backend.service.port: Required value: port name or number is required",
            ),
            (
                "/spec/rules/0/http/paths/0/backend/service/name",
                json!(""),
                "spec.rules[0].http.paths[0].backend.service.name: Required value",
            ),
        ],
    );
    let shown = json!({"metadata": {"name": "i"}, "spec": {"ingressClassName": "x", "tls": [{}],
        "rules": [{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}});
    assert_eq!(
        cells(&networking::INGRESS, &shown),
        [
            json!("i"),
            json!("x"),
            json!("a,b,c + 1 more..."),
            json!("1.2.3.4"),
            json!("80, 443"),
            json!("<unknown>")
        ]
    );
    let class = json!({"metadata": {"name": "c"}, "spec": {"controller": "example.com/x"}});
    rules(
        &networking::INGRESS_CLASS,
        &class,
        &[
            ("/spec/controller", json!(""), "spec.controller: Required value"),
            (
                "/spec/controller",
                json!("x"),
                "spec.controller: Invalid value: \"x\": must be a domain-prefixed path (such as \"acme.io/foo\")",
            ),
        ],
    );
    updates(
        &networking::INGRESS_CLASS,
        &class,
        &[(
            "/spec/controller",
            json!("example.com/y"),
            "spec.controller: Invalid value: \"example.com/y\": field is immutable",
        )],
    );
}

#[test]
fn network_policies() {
    let policy = json!({"metadata": {"name": "p"}, "spec": {"podSelector": {}, "egress": [
        {"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], "ports": [{"port": 80}]}]}});
    let whole = filled(&networking::NETWORK_POLICY, &policy);
    assert_eq!(whole["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(whole["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
    rules(
        &networking::NETWORK_POLICY,
        &policy,
        &[
            (
                "/spec/egress/0/to/0",
                json!({}),
                "spec.egress[0].to[0]: Required value: must specify a peer",
            ),
            (
                "/spec/egress/0/to/0/podSelector",
                json!({}),
                "spec.egress[0].to[0]: Forbidden: may not specify both ipBlock and another peer",
            ),
            (
                "/spec/egress/0/to/0/ipBlock/except/0",
                json!("11.0.0.0/16"),
                "spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
            ),
            (
                "/spec/egress/0/to/0/ipBlock/cidr",
                json!("x"),
                "spec.egress[0].to[0].ipBlock.cidr: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ),
            (
                "/spec/egress/0/ports/0",
                json!({"port": 80, "endPort": 70}),
                "spec.egress[0].ports[0].endPort: Invalid value: 70: must be greater than or equal to `port`",
            ),
            (
                "/spec/policyTypes",
                json!(["Other"]),
                "spec.policyTypes[0]: Unsupported value: \"Other\": supported values: \"Egress\", \"Ingress\"",
            ),
        ],
    );
    assert_eq!(
        cells(&networking::NETWORK_POLICY, &policy),
        [json!("p"), json!("<none>"), json!("<unknown>")]
    );
}

#[test]
fn endpoint_slices() {
    let slice = json!({"metadata": {"name": "e"}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]});
    rules(
        &discovery::ENDPOINT_SLICE,
        &slice,
        &[
            ("/addressType", json!(""), "addressType: Required value"),
            (
                "/addressType",
                json!("IPv5"),
                "addressType: Unsupported value: \"IPv5\": supported values: \"FQDN\", \"IPv4\", \"IPv6\"",
            ),
            (
                "/endpoints/0/addresses",
                json!([]),
                "endpoints[0].addresses: Required value: must contain at least 1 address",
            ),
            (
                "/endpoints/0/addresses/0",
                json!("::1"),
                "endpoints[0].addresses[0]: Invalid value: \"::1\": must be an IPv4 address",
            ),
            (
                "/endpoints/0/addresses/0",
                json!("127.0.0.1"),
                "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ),
            ("/ports", json!([{"port": 1}, {"port": 2}]), "ports[1].name: Duplicate value: \"\""),
        ],
    );
    updates(
        &discovery::ENDPOINT_SLICE,
        &slice,
        &[(
            "/addressType",
            json!("IPv6"),
            "addressType: Invalid value: \"IPv6\": field is immutable",
        )],
    );
    assert_eq!(
        cells(&discovery::ENDPOINT_SLICE, &slice),
        [json!("e"), json!("IPv4"), json!("80"), json!("10.0.0.1"), json!("<unknown>")]
    );
    let empty = json!({"metadata": {"name": "e"}, "addressType": "IPv4"});
    assert_eq!(
        cells(&discovery::ENDPOINT_SLICE, &empty)[2..4],
        [json!("<unset>"), json!("<unset>")]
    );
}

#[test]
fn addresses_and_their_ranges() {
    let address = json!({"metadata": {"name": "10.43.0.1"}, "spec": {"parentRef":
        {"resource": "services", "namespace": "default", "name": "kubernetes"}}});
    rules(
        &networking::IP_ADDRESS,
        &address,
        &[("/spec/parentRef", json!(null), "spec.parentRef: Required value")],
    );
    assert_eq!(
        cells(&networking::IP_ADDRESS, &address),
        [json!("10.43.0.1"), json!("services/default/kubernetes")]
    );
    rules(
        &networking::SERVICE_CIDR,
        &json!({"metadata": {"name": "c"}, "spec": {"cidrs": ["10.43.0.0/16"]}}),
        &[
            ("/spec/cidrs", json!([]), "spec.cidrs: Required value: at least one CIDR required"),
            (
                "/spec/cidrs/0",
                json!("x"),
                "spec.cidrs[0]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ),
        ],
    );
}
