//! Nobody grants what they do not hold.

use serde_json::json;
use toono_access::{Access, Kind, Object, bootstrap};

use crate::{RBAC, access_of, binding, cluster_role, object, role, rules_of, user};

/// Jane may write roles and bindings in `shop` and read pods there; joe may bind and escalate.
fn shop() -> Access {
    access_of(&[
        cluster_role(
            "secrets",
            json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]),
        ),
        role(
            "shop",
            "pods",
            json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]),
        ),
        role(
            "shop",
            "trusted",
            json!([
                {"apiGroups": [RBAC], "resources": ["clusterroles"], "resourceNames": ["secrets"], "verbs": ["bind"]},
                {"apiGroups": [RBAC], "resources": ["roles"], "verbs": ["escalate"]},
            ]),
        ),
        binding("shop", "pods", "Role/pods", &["User/jane", "User/joe"]),
        binding("shop", "trusted", "Role/trusted", &["User/joe"]),
    ])
}

#[test]
fn a_role_may_hold_what_its_writer_holds() {
    let (access, jane, joe) = (shop(), user("jane", &["clerks"]), user("joe", &[]));
    let held =
        role("shop", "new", json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]));
    let more = role(
        "shop",
        "new",
        json!([
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "delete", "patch"]},
            {"apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"], "verbs": ["update"]},
        ]),
    );
    access.check_grant(&jane, "shop", None, &held).unwrap();
    let refusal = access.check_grant(&jane, "shop", None, &more).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "roles.rbac.authorization.k8s.io \"new\" is forbidden: user \"jane\" \
         (groups=[\"clerks\" \"system:authenticated\"]) is attempting to grant RBAC permissions not \
         currently held:\n\
         {APIGroups:[\"\"], Resources:[\"pods\"], ResourceNames:[\"a\"], Verbs:[\"update\"]}\n\
         {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"patch\"]}"
    );
    // What is held in one namespace is not held in another, nor in the cluster.
    assert!(access.check_grant(&jane, "depot", None, &held).is_err());
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    assert!(access.check_grant(&jane, "shop", None, &cluster_role("new", rules)).is_err());

    access.check_grant(&joe, "shop", None, &more).unwrap();
    assert!(access.check_grant(&joe, "depot", None, &more).is_err());
    access.check_grant(&user("root", &["system:masters"]), "shop", None, &more).unwrap();
}

#[test]
fn a_binding_needs_the_rules_or_leave_to_bind() {
    let (access, jane, joe) = (shop(), user("jane", &[]), user("joe", &[]));
    let pods = binding("shop", "new", "Role/pods", &["User/kim"]);
    let secrets = binding("shop", "new", "ClusterRole/secrets", &["User/kim"]);
    access.check_grant(&jane, "shop", None, &pods).unwrap();
    let refusal = access.check_grant(&jane, "shop", None, &secrets).unwrap_err().to_string();
    assert!(
        refusal.starts_with("rolebindings.rbac.authorization.k8s.io \"new\" is forbidden"),
        "{refusal}"
    );
    assert!(
        refusal.ends_with(r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#),
        "{refusal}"
    );
    access.check_grant(&joe, "shop", None, &secrets).unwrap();
    // Leave to bind in a namespace is not leave to bind in the cluster.
    let everywhere = binding("", "new", "ClusterRole/secrets", &["User/kim"]);
    assert!(access.check_grant(&joe, "", None, &everywhere).is_err());
    assert!(access.check_grant(&joe, "shop", None, &everywhere).is_err());

    let lost = binding("shop", "new", "Role/gone", &["User/kim"]);
    let error = access.check_grant(&jane, "shop", None, &lost).unwrap_err();
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        (404, "role.rbac.authorization.k8s.io \"gone\" not found")
    );
}

#[test]
fn what_garbage_collection_changes_needs_no_rights() {
    let (access, nobody) = (shop(), user("nobody", &[]));
    let rules = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let old = object(
        Kind::Role,
        json!({"metadata": {"name": "r", "namespace": "shop", "finalizers": ["a/b"]}, "rules": rules}),
    );
    let released =
        object(Kind::Role, json!({"metadata": {"name": "r", "namespace": "shop"}, "rules": rules}));
    let labelled = object(
        Kind::Role,
        json!({"metadata": {"name": "r", "namespace": "shop", "labels": {"a": "b"}}, "rules": rules}),
    );
    access.check_grant(&nobody, "shop", Some(&old), &released).unwrap();
    assert!(access.check_grant(&nobody, "shop", Some(&old), &labelled).is_err());
}

#[test]
fn aggregation_is_for_administrators() {
    let mut access = Access { rules: rules_of(&bootstrap::objects()), ..shop() };
    access.rules.apply(&binding("", "root", "ClusterRole/cluster-admin", &["User/root"]));
    let aggregated = |rule: bool| -> Object {
        let mut role = json!({"metadata": {"name": "sum"}});
        if rule {
            role["aggregationRule"] =
                json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
        }
        object(Kind::ClusterRole, role)
    };
    let jane = user("jane", &[]);
    for (old, new) in [(None, true), (Some(true), false), (Some(false), true)] {
        let (old, new) = (old.map(aggregated), aggregated(new));
        let refusal = access.check_grant(&jane, "", old.as_ref(), &new).unwrap_err().to_string();
        assert!(
            refusal.ends_with("must have cluster-admin privileges to use the aggregationRule"),
            "{refusal}"
        );
        access.check_grant(&user("root", &[]), "", old.as_ref(), &new).unwrap();
    }
    access.check_grant(&jane, "", None, &aggregated(false)).unwrap();
}
