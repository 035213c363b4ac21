//! A new cluster's roles and bindings: what each kind of user may do with nothing but these.

use std::collections::BTreeSet;

use toono_access::{Kind, Object, bootstrap, covers};
use toono_api::UserInfo;

use crate::{access_of, asks, binding, user, visits};

#[test]
fn defaults_are_whole() {
    let objects = bootstrap::objects();
    let named = |kind: Kind| -> BTreeSet<(&str, &str)> {
        objects
            .iter()
            .filter(|object| object.kind() == kind)
            .map(|object| (object.namespace(), object.name()))
            .collect()
    };
    let (roles, cluster_roles) = (named(Kind::Role), named(Kind::ClusterRole));
    assert_eq!(objects.len(), Kind::ALL.into_iter().map(|kind| named(kind).len()).sum::<usize>());
    for object in &objects {
        let metadata = object.metadata();
        assert_eq!(
            metadata.labels.as_ref().unwrap()["kubernetes.io/bootstrapping"],
            "rbac-defaults"
        );
        let role = match object {
            Object::RoleBinding(binding) => &binding.role_ref,
            Object::ClusterRoleBinding(binding) => &binding.role_ref,
            Object::Role(_) | Object::ClusterRole(_) => continue,
        };
        let found = match role.kind.as_str() {
            "Role" => roles.contains(&(object.namespace(), role.name.as_str())),
            _ => cluster_roles.contains(&("", role.name.as_str())),
        };
        assert!(found, "{} binds {}", object.name(), role.name);
    }
    for name in [
        "cluster-admin",
        "admin",
        "edit",
        "view",
        "system:discovery",
        "system:public-info-viewer",
        "system:basic-user",
        "system:node",
        "system:node-bootstrapper",
        "system:kube-scheduler",
        "system:kube-controller-manager",
        "system:node-proxier",
        "system:monitoring",
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        "system:certificates.k8s.io:kubelet-serving-approver",
    ] {
        assert!(cluster_roles.contains(&("", name)), "{name}");
    }
}

#[test]
fn aggregated_roles_contain_one_another() {
    let roles = bootstrap::cluster_roles();
    let rules = |name: &str| {
        let role = roles.iter().find(|role| role.metadata.name.as_deref() == Some(name)).unwrap();
        role.rules.clone().unwrap()
    };
    assert!(covers(&rules("admin"), &rules("edit")) && covers(&rules("edit"), &rules("view")));
    assert!(!covers(&rules("edit"), &rules("admin")) && !covers(&rules("view"), &rules("edit")));
    assert!(covers(&rules("cluster-admin"), &rules("admin")));
    for role in &roles {
        let aggregated = toono_access::aggregate(role, &roles).unwrap();
        assert_eq!(aggregated.is_some(), role.aggregation_rule.is_some());
        assert!(aggregated.is_none() || aggregated == role.rules, "{:?}", role.metadata.name);
    }
}

#[test]
fn each_kind_of_user_may_what_kubernetes_lets_it() {
    let mut objects = bootstrap::objects();
    objects.push(binding("shop", "view", "ClusterRole/view", &["User/viewer"]));
    objects.push(binding("shop", "edit", "ClusterRole/edit", &["User/editor"]));
    objects.push(binding("shop", "admin", "ClusterRole/admin", &["User/owner"]));
    let access = access_of(&objects);
    let (viewer, editor, owner) = (user("viewer", &[]), user("editor", &[]), user("owner", &[]));
    let scheduler = user("system:kube-scheduler", &[]);
    let manager = user("system:kube-controller-manager", &[]);
    let anonymous = UserInfo::anonymous();
    for (who, verb, what, namespace, allowed) in [
        (&viewer, "list", "pods", "shop", true),
        (&viewer, "get", "pods/log", "shop", true),
        (&viewer, "get", "secrets", "shop", false),
        (&viewer, "create", "pods", "shop", false),
        (&viewer, "create", "pods/exec", "shop", false),
        (&viewer, "list", "pods", "depot", false),
        (&editor, "get", "secrets", "shop", true),
        (&editor, "create", "pods/exec", "shop", true),
        (&editor, "patch", "deployments.apps/scale", "shop", true),
        (&editor, "create", "rolebindings.rbac.authorization.k8s.io", "shop", false),
        (&editor, "update", "resourcequotas", "shop", false),
        (&owner, "create", "rolebindings.rbac.authorization.k8s.io", "shop", true),
        (&owner, "update", "namespaces", "shop", false),
        (&owner, "list", "nodes", "", false),
        (&scheduler, "create", "pods/binding", "shop", true),
        (&scheduler, "list", "nodes", "", true),
        (&scheduler, "get", "secrets", "shop", false),
        (&scheduler, "create", "leases.coordination.k8s.io", "kube-system", true),
        (&manager, "list", "anything.example.com", "", true),
        (&manager, "delete", "pods", "shop", false),
        (&viewer, "create", "selfsubjectaccessreviews.authorization.k8s.io", "", true),
        (&anonymous, "create", "selfsubjectaccessreviews.authorization.k8s.io", "", false),
        (&anonymous, "list", "pods", "shop", false),
    ] {
        let decision = access.decide(&asks(who, verb, what, namespace, "x"));
        assert_eq!(decision.is_allowed(), allowed, "{} {verb} {what}", who.name);
    }
}

#[test]
fn paths_are_open_to_whom_they_should_be() {
    let access = access_of(&bootstrap::objects());
    let (jane, anonymous) = (user("jane", &[]), UserInfo::anonymous());
    let node = user("system:node:a", &["system:nodes"]);
    let joiner = user("system:bootstrap:abcdef", &["system:bootstrappers"]);
    let monitor = user("prometheus", &["system:monitoring"]);
    for (who, verb, path, allowed) in [
        (&anonymous, "get", "/healthz", true),
        (&anonymous, "get", "/livez", true),
        (&anonymous, "get", "/readyz", true),
        (&anonymous, "get", "/version", true),
        (&anonymous, "post", "/version", false),
        (&anonymous, "get", "/readyz/ping", false),
        (&anonymous, "get", "/api", false),
        (&anonymous, "get", "/metrics", false),
        (&anonymous, "post", "/fleet/v1/join", false),
        (&jane, "get", "/apis/apps/v1", true),
        (&jane, "get", "/openapi/v3", true),
        (&jane, "get", "/metrics", false),
        (&jane, "get", "/fleet/v1/bundle", false),
        (&monitor, "get", "/metrics", true),
        (&monitor, "get", "/readyz/ping", true),
        (&joiner, "post", "/fleet/v1/join", true),
        (&joiner, "get", "/fleet/v1/join", false),
        (&joiner, "get", "/fleet/v1/bundle", false),
        (&node, "get", "/fleet/v1/bundle", true),
        (&node, "get", "/fleet/v1/session", true),
        (&node, "get", "/fleet/v1/pool", true),
        (&joiner, "get", "/fleet/v1/pool", false),
        (&node, "post", "/fleet/v1/report", true),
        (&node, "post", "/fleet/v1/tunnel", true),
        (&node, "post", "/fleet/v1/join", false),
        (&node, "get", "/fleet/v1/overview", false),
        (&node, "delete", "/fleet/v1/bundle", false),
    ] {
        let decision = access.decide(&visits(who, verb, path));
        assert_eq!(decision.is_allowed(), allowed, "{} {verb} {path}", who.name);
    }
}
