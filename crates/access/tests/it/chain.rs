//! The order of authorizers, and how a refusal reads.

use toono_access::{Access, Decision, Graph, bootstrap, forbidden};
use toono_api::UserInfo;

use crate::{access_of, asks, binding, user, visits};

#[test]
fn masters_need_no_binding() {
    let admin = user("kubernetes-admin", &["system:masters"]);
    let allowed = Decision::Allow { reason: "".into(), owner: None };
    assert_eq!(Access::default().decide(&asks(&admin, "delete", "nodes", "", "a")), allowed);
    assert_eq!(Access::default().decide(&visits(&admin, "get", "/metrics")), allowed);
}

#[test]
fn without_bindings_nobody_else_may_anything() {
    let access = Access::default();
    for who in [UserInfo::anonymous(), user("jane", &["system:serviceaccounts"])] {
        let refused = Decision::Deny { reason: "".into() };
        assert_eq!(access.decide(&asks(&who, "get", "pods", "shop", "a")), refused);
        assert_eq!(access.decide(&visits(&who, "get", "/version")), refused);
    }
}

#[test]
fn refusals_read_as_kubernetes_writes_them() {
    let access = access_of(&[binding("shop", "x", "Role/gone", &["User/jane"])]);
    let (jane, anonymous) = (user("jane", &[]), UserInfo::anonymous());
    let node = user("system:node:edge-1", &["system:nodes"]);
    let nameless = user("somebody", &["system:nodes"]);
    let unprefixed = user("system:node:", &["system:nodes"]);
    for (attributes, message) in [
        (
            asks(&jane, "list", "pods", "default", ""),
            r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default""#,
        ),
        (
            asks(&jane, "get", "pods/log", "default", "a"),
            r#"pods "a" is forbidden: User "jane" cannot get resource "pods/log" in API group "" in the namespace "default""#,
        ),
        (
            asks(&jane, "list", "deployments.apps", "", ""),
            r#"deployments.apps is forbidden: User "jane" cannot list resource "deployments" in API group "apps" at the cluster scope"#,
        ),
        (
            asks(&jane, "get", "namespaces", "", "shop"),
            r#"namespaces "shop" is forbidden: User "jane" cannot get resource "namespaces" in API group "" in the namespace "shop": RBAC: role.rbac.authorization.k8s.io "gone" not found"#,
        ),
        (
            visits(&anonymous, "get", "/metrics"),
            r#"forbidden: User "system:anonymous" cannot get path "/metrics""#,
        ),
        (
            asks(&node, "get", "secrets", "shop", "key"),
            r#"secrets "key" is forbidden: User "system:node:edge-1" cannot get resource "secrets" in API group "" in the namespace "shop": no relationship found between node 'edge-1' and this object"#,
        ),
        (
            asks(&nameless, "get", "secrets", "shop", "key"),
            r#"secrets "key" is forbidden: User "somebody" cannot get resource "secrets" in API group "" in the namespace "shop""#,
        ),
        (
            asks(&unprefixed, "get", "nodes", "", "a"),
            r#"nodes "a" is forbidden: User "system:node:" cannot get resource "nodes" in API group "" at the cluster scope: unknown node for user "system:node:""#,
        ),
    ] {
        let refusal = access.require(&attributes).unwrap_err();
        assert_eq!((refusal.code(), refusal.to_string().as_str()), (403, message));
    }
}

#[test]
fn each_authorizer_has_its_say() {
    let node = user("system:node:edge-1", &["system:nodes"]);
    let access = access_of(&[
        binding("shop", "x", "Role/gone", &["Group/system:nodes"]),
        binding("", "keep", "ClusterRole/cluster-admin", &["User/system:node:edge-2"]),
    ]);
    let attributes = asks(&node, "get", "secrets", "shop", "key");
    let decision = access.decide(&attributes);
    assert_eq!(
        decision.reason(),
        "no relationship found between node 'edge-1' and this object\n\
         RBAC: role.rbac.authorization.k8s.io \"gone\" not found"
    );
    assert!(forbidden(&attributes, decision.reason()).to_string().ends_with("not found"));

    // What the node authorizer has no opinion on, a binding may still allow.
    let mut objects = bootstrap::objects();
    objects.push(binding("", "keep", "ClusterRole/cluster-admin", &["User/system:node:edge-1"]));
    assert!(access_of(&objects).decide(&attributes).is_allowed());
}

#[test]
fn a_rules_review_of_a_node_is_incomplete() {
    let access = Access { graph: Graph::default(), ..access_of(&bootstrap::objects()) };
    let review = access.rules_for(&user("system:node:a", &["system:nodes"]), "shop");
    assert!(review.incomplete);
    let error = review.evaluation_error.unwrap();
    assert_eq!(error, "node authorizer does not support user rule resolution");
    assert!(!access.rules_for(&user("jane", &[]), "shop").incomplete);
}
