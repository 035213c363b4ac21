//! The default cluster roles.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::rbac::v1::{AggregationRule, ClusterRole, PolicyRule},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use toono_wire::path;

use super::{READ, READ_WRITE, WRITE, events, full_authority, metadata, named, rule, urls};
use crate::aggregate::aggregate;

/// What a machine with a bootstrap token may do: become a node.
pub(super) const JOIN_ROLE: &str = "system:toono:join";
/// What a node may do with the fleet.
pub(super) const LINK_ROLE: &str = "system:toono:node-link";
/// What the servers of one cluster may ask each other.
pub(super) const PEER_ROLE: &str = "system:toono:server-link";

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const CERTIFICATES: &str = "certificates.k8s.io";
const COORDINATION: &str = "coordination.k8s.io";
const DISCOVERY: &str = "discovery.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const RESOURCE: &str = "resource.k8s.io";
const STORAGE: &str = "storage.k8s.io";
const CREATE: [&str; 1] = ["create"];
const GET: [&str; 1] = ["get"];

/// The default cluster roles. Aggregated ones already hold the rules that they aggregate.
#[must_use]
pub fn cluster_roles() -> Vec<ClusterRole> {
    let mut roles = public();
    roles.extend(for_people());
    roles.extend(control_plane());
    roles.extend(nodes());
    roles.extend(add_ons());
    roles.extend(certificates());
    roles.extend(fleet());
    // Each of these takes in the one before it.
    for name in ["view", "edit", "admin"] {
        let position = roles.iter().position(|role| role.metadata.name.as_deref() == Some(name));
        let Some(position) = position else { continue };
        let rules = roles.get(position).and_then(|role| aggregate(role, &roles).ok().flatten());
        if let Some(role) = roles.get_mut(position) {
            role.rules = rules;
        }
    }
    roles
}

fn role(name: &str, rules: Vec<PolicyRule>) -> ClusterRole {
    ClusterRole { metadata: metadata(None, name), rules: Some(rules), aggregation_rule: None }
}

fn label(target: &str) -> (String, String) {
    (format!("rbac.authorization.k8s.io/aggregate-to-{target}"), "true".to_owned())
}

fn aggregated_to(target: &str, mut role: ClusterRole) -> ClusterRole {
    role.metadata.labels.get_or_insert_default().extend([label(target)]);
    role
}

/// A role that takes in all that are labelled for it.
fn aggregating(name: &str) -> ClusterRole {
    let selector = LabelSelector {
        match_labels: Some(BTreeMap::from([label(name)])),
        ..LabelSelector::default()
    };
    let aggregation = AggregationRule { cluster_role_selectors: Some(vec![selector]) };
    ClusterRole { aggregation_rule: Some(aggregation), rules: None, ..role(name, Vec::new()) }
}

fn public() -> Vec<ClusterRole> {
    let health = ["/healthz", "/livez", "/readyz", "/version", "/version/"];
    let discovery = ["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*"];
    vec![
        role("cluster-admin", full_authority()),
        role("system:public-info-viewer", vec![urls(&health, &GET)]),
        role("system:discovery", vec![urls(&[&discovery[..], &health].concat(), &GET)]),
        role(
            "system:basic-user",
            vec![
                rule(
                    &[AUTHORIZATION],
                    &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
                    &CREATE,
                ),
                rule(&[AUTHENTICATION], &["selfsubjectreviews"], &CREATE),
            ],
        ),
        role(
            "system:monitoring",
            vec![
                urls(
                    &[
                        "/healthz",
                        "/healthz/*",
                        "/livez",
                        "/livez/*",
                        "/metrics",
                        "/metrics/slis",
                        "/readyz",
                        "/readyz/*",
                    ],
                    &GET,
                ),
                urls(&["/flagz", "/statusz"], &GET),
            ],
        ),
        role(
            "system:service-account-issuer-discovery",
            vec![urls(
                &[
                    "/.well-known/openid-configuration",
                    "/.well-known/openid-configuration/",
                    "/openid/v1/jwks",
                    "/openid/v1/jwks/",
                ],
                &GET,
            )],
        ),
    ]
}

fn for_people() -> Vec<ClusterRole> {
    vec![
        aggregating("admin"),
        aggregated_to("admin", aggregating("edit")),
        aggregated_to("edit", aggregating("view")),
        aggregated_to("admin", role("system:aggregate-to-admin", admin_rules())),
        aggregated_to("edit", role("system:aggregate-to-edit", edit_rules())),
        aggregated_to("view", role("system:aggregate-to-view", view_rules())),
    ]
}

fn admin_rules() -> Vec<PolicyRule> {
    vec![
        rule(&[AUTHORIZATION], &["localsubjectaccessreviews"], &CREATE),
        rule(&[RBAC], &["rolebindings", "roles"], &READ_WRITE),
    ]
}

fn edit_rules() -> Vec<PolicyRule> {
    let reach = ["pods/attach", "pods/exec", "pods/portforward", "pods/proxy"];
    let core = [
        "configmaps",
        "events",
        "persistentvolumeclaims",
        "replicationcontrollers",
        "replicationcontrollers/scale",
        "secrets",
        "serviceaccounts",
        "services",
        "services/proxy",
    ];
    let workloads = [
        "daemonsets",
        "deployments",
        "deployments/rollback",
        "deployments/scale",
        "replicasets",
        "replicasets/scale",
    ];
    let sets = ["statefulsets", "statefulsets/scale"];
    let legacy = ["ingresses", "networkpolicies", "replicationcontrollers/scale"];
    vec![
        rule(&[""], &[&reach[..], &["secrets", "services/proxy"]].concat(), &READ),
        rule(&[""], &["serviceaccounts"], &["impersonate"]),
        rule(&[""], &[&["pods"], &reach[..]].concat(), &WRITE),
        rule(&[""], &["pods/eviction"], &CREATE),
        rule(&[""], &core, &WRITE),
        rule(&[""], &["serviceaccounts/token"], &CREATE),
        rule(&["apps"], &[&workloads[..], &sets].concat(), &WRITE),
        rule(&["autoscaling"], &["horizontalpodautoscalers"], &WRITE),
        rule(&["batch"], &["cronjobs", "jobs"], &WRITE),
        rule(&["extensions"], &[&workloads[..], &legacy].concat(), &WRITE),
        rule(&["policy"], &["poddisruptionbudgets"], &WRITE),
        rule(&[NETWORKING], &["ingresses", "networkpolicies"], &WRITE),
        rule(&[COORDINATION], &["leases"], &READ_WRITE),
        rule(&[RESOURCE], &["resourceclaims", "resourceclaimtemplates"], &WRITE),
    ]
}

fn view_rules() -> Vec<PolicyRule> {
    let core = [
        "configmaps",
        "endpoints",
        "persistentvolumeclaims",
        "persistentvolumeclaims/status",
        "pods",
        "replicationcontrollers",
        "replicationcontrollers/scale",
        "serviceaccounts",
        "services",
        "services/status",
    ];
    let reports = [
        "bindings",
        "events",
        "limitranges",
        "namespaces/status",
        "pods/log",
        "pods/status",
        "replicationcontrollers/status",
        "resourcequotas",
        "resourcequotas/status",
    ];
    let workloads = [
        "daemonsets",
        "daemonsets/status",
        "deployments",
        "deployments/scale",
        "deployments/status",
        "replicasets",
        "replicasets/scale",
        "replicasets/status",
    ];
    let sets = ["controllerrevisions", "statefulsets", "statefulsets/scale", "statefulsets/status"];
    let net = ["ingresses", "ingresses/status", "networkpolicies"];
    vec![
        rule(&[""], &core, &READ),
        rule(&[""], &reports, &READ),
        rule(&[""], &["namespaces"], &READ),
        rule(&[DISCOVERY], &["endpointslices"], &READ),
        rule(&["apps"], &[&workloads[..], &sets].concat(), &READ),
        rule(
            &["autoscaling"],
            &["horizontalpodautoscalers", "horizontalpodautoscalers/status"],
            &READ,
        ),
        rule(&["batch"], &["cronjobs", "cronjobs/status", "jobs", "jobs/status"], &READ),
        rule(
            &["extensions"],
            &[&workloads[..], &net, &["replicationcontrollers/scale"]].concat(),
            &READ,
        ),
        rule(&["policy"], &["poddisruptionbudgets", "poddisruptionbudgets/status"], &READ),
        rule(&[NETWORKING], &net, &READ),
        rule(
            &[RESOURCE],
            &["resourceclaims", "resourceclaims/status", "resourceclaimtemplates"],
            &READ,
        ),
    ]
}

/// Asking who someone is and what they may: what every server that delegates these needs.
fn delegation() -> [PolicyRule; 2] {
    [
        rule(&[AUTHENTICATION], &["tokenreviews"], &CREATE),
        rule(&[AUTHORIZATION], &["subjectaccessreviews"], &CREATE),
    ]
}

fn control_plane() -> Vec<ClusterRole> {
    let mut manager = vec![
        events(),
        rule(&[COORDINATION], &["leases"], &CREATE),
        named(&[COORDINATION], &["leases"], &["kube-controller-manager"], &["get", "update"]),
        rule(&[""], &["secrets", "serviceaccounts"], &["create", "update"]),
        rule(&[""], &["secrets"], &["delete"]),
        rule(&[""], &["configmaps", "namespaces", "secrets", "serviceaccounts"], &GET),
        rule(&["*"], &["*"], &["list", "watch"]),
        rule(&[""], &["serviceaccounts/token"], &CREATE),
    ];
    manager.extend(delegation());
    vec![
        role("system:kube-controller-manager", manager),
        role("system:kube-scheduler", scheduler_rules()),
        role(
            "system:volume-scheduler",
            vec![
                rule(
                    &[""],
                    &["persistentvolumeclaims", "persistentvolumes"],
                    &["get", "list", "patch", "update", "watch"],
                ),
                rule(&[STORAGE], &["storageclasses"], &READ),
            ],
        ),
        role("system:auth-delegator", delegation().to_vec()),
        role("system:kube-aggregator", vec![rule(&[""], &["endpoints", "services"], &READ)]),
        role(
            "system:kubelet-api-admin",
            vec![
                rule(&[""], &["nodes"], &[&READ[..], &["proxy"]].concat()),
                rule(
                    &[""],
                    &[
                        "nodes/configz",
                        "nodes/healthz",
                        "nodes/log",
                        "nodes/metrics",
                        "nodes/pods",
                        "nodes/proxy",
                        "nodes/stats",
                    ],
                    &["*"],
                ),
            ],
        ),
    ]
}

fn scheduler_rules() -> Vec<PolicyRule> {
    let watched = [
        "namespaces",
        "nodes",
        "persistentvolumeclaims",
        "persistentvolumes",
        "replicationcontrollers",
        "services",
    ];
    let storage = ["csidrivers", "csinodes", "csistoragecapacities", "volumeattachments"];
    let devices = ["deviceclasses", "devicetaintrules", "resourceslices"];
    let change = ["get", "list", "patch", "update", "watch"];
    let mut rules = vec![
        events(),
        rule(&[COORDINATION], &["leases"], &CREATE),
        named(
            &[COORDINATION],
            &["leases"],
            &["kube-scheduler"],
            &["get", "list", "update", "watch"],
        ),
        rule(&[COORDINATION], &["leasecandidates"], &READ_WRITE),
        rule(&[""], &watched, &READ),
        rule(&[""], &["pods"], &["delete", "get", "list", "watch"]),
        rule(&[""], &["bindings", "pods/binding"], &CREATE),
        rule(&[""], &["pods/status"], &["patch", "update"]),
        rule(&[""], &["pods/finalizers"], &change),
        rule(&["apps", "extensions"], &["replicasets"], &READ),
        rule(&["apps"], &["statefulsets"], &READ),
        rule(&["policy"], &["poddisruptionbudgets"], &READ),
        rule(&[STORAGE], &storage, &READ),
        rule(&[RESOURCE], &devices, &READ),
        rule(&[RESOURCE], &["resourceclaims", "resourceclaims/status"], &change),
    ];
    rules.extend(delegation());
    rules
}

/// What a node needs, before the node authorizer narrows it to the node's own. Also the rules of the role
/// `system:node`, which is there for those who look and is bound to nobody.
#[must_use]
pub fn node_rules() -> Vec<PolicyRule> {
    let own = ["create", "delete", "get", "patch", "update"];
    let mut rules = vec![
        rule(&[AUTHORIZATION], &["localsubjectaccessreviews"], &CREATE),
        rule(&[""], &["services"], &READ),
        rule(&[""], &["nodes"], &["create", "get", "list", "patch", "update", "watch"]),
        rule(&[""], &["nodes/status", "pods/status"], &["patch", "update"]),
        rule(&[""], &["events"], &["create", "patch", "update"]),
        rule(&[""], &["pods"], &["create", "delete", "get", "list", "watch"]),
        rule(&[""], &["pods/eviction", "serviceaccounts/token"], &CREATE),
        rule(&[""], &["configmaps", "secrets"], &READ),
        rule(
            &[""],
            &["endpoints", "persistentvolumeclaims", "persistentvolumes", "serviceaccounts"],
            &GET,
        ),
        rule(&[""], &["persistentvolumeclaims/status"], &["get", "patch", "update"]),
        rule(&[CERTIFICATES], &["certificatesigningrequests"], &["create", "get", "list", "watch"]),
        rule(&[CERTIFICATES], &["clustertrustbundles"], &READ),
        rule(&[COORDINATION], &["leases"], &own),
        rule(&[STORAGE], &["csinodes"], &own),
        rule(&[STORAGE], &["volumeattachments"], &GET),
        rule(&[STORAGE], &["csidrivers"], &READ),
        rule(&["node.k8s.io"], &["runtimeclasses"], &READ),
        rule(&[RESOURCE], &["resourceclaims"], &GET),
        rule(&[RESOURCE], &["resourceslices"], &["deletecollection"]),
    ];
    rules.extend(delegation());
    rules
}

fn nodes() -> Vec<ClusterRole> {
    vec![
        role("system:node", node_rules()),
        role(
            "system:node-bootstrapper",
            vec![rule(
                &[CERTIFICATES],
                &["certificatesigningrequests"],
                &["create", "get", "list", "watch"],
            )],
        ),
        role(
            "system:node-problem-detector",
            vec![
                rule(&[""], &["nodes"], &GET),
                rule(&[""], &["nodes/status"], &["patch"]),
                events(),
            ],
        ),
        role(
            "system:node-proxier",
            vec![
                rule(&[""], &["endpoints", "services"], &["list", "watch"]),
                rule(&[""], &["nodes"], &READ),
                events(),
                rule(&[NETWORKING], &["servicecidrs"], &["list", "watch"]),
                rule(&[DISCOVERY], &["endpointslices"], &["list", "watch"]),
            ],
        ),
    ]
}

fn add_ons() -> Vec<ClusterRole> {
    let observed = ["events", "namespaces", "nodes", "pods"];
    vec![
        role(
            "system:heapster",
            vec![rule(&[""], &observed, &READ), rule(&["extensions"], &["deployments"], &READ)],
        ),
        role("system:kube-dns", vec![rule(&[""], &["endpoints", "services"], &["list", "watch"])]),
        role(
            "system:persistent-volume-provisioner",
            vec![
                rule(&[""], &["persistentvolumes"], &["create", "delete", "get", "list", "watch"]),
                rule(&[""], &["persistentvolumeclaims"], &["get", "list", "update", "watch"]),
                rule(&[STORAGE], &["storageclasses"], &READ),
                rule(&[""], &["events"], &["watch"]),
                events(),
            ],
        ),
    ]
}

fn certificates() -> Vec<ClusterRole> {
    let requests = ["nodeclient", "selfnodeclient"].map(|below| {
        let resource = format!("certificatesigningrequests/{below}");
        role(
            &format!("system:certificates.k8s.io:certificatesigningrequests:{below}"),
            vec![rule(&[CERTIFICATES], &[&resource], &CREATE)],
        )
    });
    let approvers = [
        "kube-apiserver-client",
        "kube-apiserver-client-kubelet",
        "kubelet-serving",
        "legacy-unknown",
    ]
    .map(|signer| {
        let name = format!("kubernetes.io/{signer}");
        role(
            &format!("system:certificates.k8s.io:{signer}-approver"),
            vec![named(&[CERTIFICATES], &["signers"], &[&name], &["approve"])],
        )
    });
    let trust = role(
        "system:cluster-trust-bundle-discovery",
        vec![rule(&[CERTIFICATES], &["clustertrustbundles"], &READ)],
    );
    requests.into_iter().chain(approvers).chain([trust]).collect()
}

/// Toono's own. Nodes do not join again, and the overview is for administrators: hence no pattern.
fn fleet() -> Vec<ClusterRole> {
    let link = [
        path::SESSION,
        path::SOCKET,
        path::CERTIFICATE,
        path::BUNDLE,
        path::POOL,
        path::REPORT,
        path::TUNNEL,
    ];
    vec![
        role(JOIN_ROLE, vec![urls(&[path::JOIN], &["post"])]),
        role(LINK_ROLE, vec![urls(&link, &["get", "post"])]),
        role(PEER_ROLE, vec![urls(&[path::PEER], &["post"])]),
    ]
}
