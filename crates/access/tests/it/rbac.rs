//! Rules, roles and bindings, by the examples of Kubernetes' documentation and its corner cases.

use serde_json::json;
use toono_access::{Kind, Rules};

use crate::{asks, binding, cluster_role, role, rules_of, user, visits};

#[test]
fn a_rule_matches_as_in_kubernetes() {
    let jane = user("jane", &[]);
    let pods =
        |resources: &[&str]| json!([{"apiGroups": [""], "resources": resources, "verbs": ["get"]}]);
    for (rule, verb, what, name, allowed) in [
        (pods(&["pods"]), "get", "pods", "a", true),
        (pods(&["pods"]), "list", "pods", "", false),
        (pods(&["pods"]), "get", "pods/log", "a", false),
        (pods(&["pods"]), "get", "pods.apps", "a", false),
        (pods(&["pods/log"]), "get", "pods/log", "a", true),
        (pods(&["pods/log"]), "get", "pods", "a", false),
        (pods(&["*/log"]), "get", "pods/log", "a", true),
        (pods(&["*/log"]), "get", "pods/status", "a", false),
        (pods(&["*/log"]), "get", "pods", "a", false),
        (pods(&["pods/*"]), "get", "pods/log", "a", false),
        (pods(&["pods/*"]), "get", "pods", "a", false),
        (pods(&["*/*"]), "get", "pods/log", "a", false),
        (pods(&["*"]), "get", "pods/log", "a", true),
        (pods(&["pod*"]), "get", "pods", "a", false),
        (
            json!([{"apiGroups": ["*"], "resources": ["deployments"], "verbs": ["*"]}]),
            "deletecollection",
            "deployments.apps",
            "",
            true,
        ),
        (
            json!([{"apiGroups": ["apps"], "resources": ["*"], "verbs": ["*"]}]),
            "get",
            "pods",
            "a",
            false,
        ),
        // A name is asked for where names are given; creating and listing name none.
        (
            json!([{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a", "b"], "verbs": ["*"]}]),
            "update",
            "configmaps",
            "b",
            true,
        ),
        (
            json!([{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a"], "verbs": ["*"]}]),
            "create",
            "configmaps",
            "",
            false,
        ),
        (
            json!([{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["*"], "verbs": ["*"]}]),
            "get",
            "configmaps",
            "a",
            false,
        ),
        // A rule with URLs only is about no resource, and one that lacks groups is about none either.
        (json!([{"nonResourceURLs": ["*"], "verbs": ["*"]}]), "get", "pods", "a", false),
        (json!([{"resources": ["*"], "verbs": ["*"]}]), "get", "pods", "a", false),
    ] {
        let objects = [
            cluster_role("reader", rule.clone()),
            binding("", "readers", "ClusterRole/reader", &["User/jane"]),
        ];
        let decision = rules_of(&objects).decide(&asks(&jane, verb, what, "shop", name));
        assert_eq!(decision.is_allowed(), allowed, "{rule} {verb} {what} {name}");
    }
}

#[test]
fn urls_match_by_their_end() {
    let jane = user("jane", &[]);
    for (url, verb, path, allowed) in [
        ("/healthz", "get", "/healthz", true),
        ("/healthz", "head", "/healthz", false),
        ("/healthz", "get", "/healthz/etcd", false),
        ("/healthz/*", "get", "/healthz/etcd", true),
        ("/healthz/*", "get", "/healthz", false),
        ("/apis*", "get", "/apis/apps/v1", true),
        ("/api/**", "get", "/api/v1", true),
        ("/*/v1", "get", "/apis/v1", false),
        ("*", "get", "/anything", true),
    ] {
        let objects = [
            cluster_role("visitor", json!([{"nonResourceURLs": [url], "verbs": ["get"]}])),
            binding("", "visitors", "ClusterRole/visitor", &["User/jane"]),
            binding("shop", "visitors", "ClusterRole/visitor", &["User/joe"]),
        ];
        let rules = rules_of(&objects);
        assert_eq!(rules.decide(&visits(&jane, verb, path)).is_allowed(), allowed, "{url} {path}");
        let joe = user("joe", &[]);
        assert!(!rules.decide(&visits(&joe, verb, path)).is_allowed(), "{url} {path}");
    }
}

#[test]
fn a_binding_gives_its_role_where_it_is() {
    let rules = rules_of(&[
        role(
            "shop",
            "reader",
            json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]),
        ),
        cluster_role(
            "keeper",
            json!([{"apiGroups": [""], "resources": ["secrets", "nodes"], "verbs": ["get"]}]),
        ),
        binding(
            "shop",
            "read",
            "Role/reader",
            &["User/jane", "Group/clerks", "ServiceAccount//bot"],
        ),
        binding("shop", "keep", "ClusterRole/keeper", &["User/jane"]),
        binding("", "keep", "ClusterRole/keeper", &["Group/keepers", "ServiceAccount/ops/bot"]),
        // A role of a namespace cannot be bound in the cluster, nor an account without namespace.
        binding("", "wrong", "Role/reader", &["User/mallory"]),
        binding("", "nobody", "ClusterRole/keeper", &["ServiceAccount//bot"]),
    ]);
    let (jane, clerk) = (user("jane", &[]), user("carl", &["clerks"]));
    let (bot, ops) =
        (user("system:serviceaccount:shop:bot", &[]), user("system:serviceaccount:ops:bot", &[]));
    let (keeper, mallory) = (user("kim", &["keepers"]), user("mallory", &[]));
    for (user, what, namespace, reason) in [
        (&jane, "pods", "shop", Some(r#"RoleBinding "read/shop" of Role "reader" to User "jane""#)),
        (
            &clerk,
            "pods",
            "shop",
            Some(r#"RoleBinding "read/shop" of Role "reader" to Group "clerks""#),
        ),
        (
            &bot,
            "pods",
            "shop",
            Some(r#"RoleBinding "read/shop" of Role "reader" to ServiceAccount "bot/shop""#),
        ),
        (&jane, "pods", "depot", None),
        (&jane, "pods", "", None),
        (
            &jane,
            "secrets",
            "shop",
            Some(r#"RoleBinding "keep/shop" of ClusterRole "keeper" to User "jane""#),
        ),
        (&jane, "secrets", "", None),
        (
            &keeper,
            "secrets",
            "depot",
            Some(r#"ClusterRoleBinding "keep" of ClusterRole "keeper" to Group "keepers""#),
        ),
        (
            &keeper,
            "nodes",
            "",
            Some(r#"ClusterRoleBinding "keep" of ClusterRole "keeper" to Group "keepers""#),
        ),
        (
            &ops,
            "secrets",
            "",
            Some(
                r#"ClusterRoleBinding "keep" of ClusterRole "keeper" to ServiceAccount "bot/ops""#,
            ),
        ),
        (&bot, "secrets", "shop", None),
        (&mallory, "pods", "shop", None),
    ] {
        let decision = rules.decide(&asks(user, "get", what, namespace, "x"));
        let expected = reason.map(|reason| format!("RBAC: allowed by {reason}"));
        assert_eq!(decision.is_allowed(), expected.is_some(), "{} {what} {namespace}", user.name);
        if let Some(expected) = expected {
            assert_eq!(decision.reason(), expected);
        }
    }
}

#[test]
fn a_namespace_is_seen_by_those_who_are_bound_in_it() {
    let rules = rules_of(&[
        cluster_role(
            "view",
            json!([{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "list"]}]),
        ),
        binding("shop", "view", "ClusterRole/view", &["User/jane"]),
    ]);
    let jane = user("jane", &[]);
    assert!(rules.decide(&asks(&jane, "get", "namespaces", "", "shop")).is_allowed());
    assert!(!rules.decide(&asks(&jane, "get", "namespaces", "", "depot")).is_allowed());
    assert!(!rules.decide(&asks(&jane, "list", "namespaces", "", "")).is_allowed());
}

#[test]
fn a_missing_role_is_told() {
    let rules = rules_of(&[
        binding("shop", "a", "Role/gone", &["User/jane"]),
        binding("shop", "b", "ClusterRole/gone", &["User/jane"]),
        binding("shop", "c", "Role/gone", &["User/jane"]),
    ]);
    let jane = user("jane", &[]);
    assert_eq!(
        rules.decide(&asks(&jane, "get", "pods", "shop", "x")).reason(),
        "RBAC: [role.rbac.authorization.k8s.io \"gone\" not found, \
         clusterrole.rbac.authorization.k8s.io \"gone\" not found]"
    );
    let review = rules.rules_for(&jane, "shop");
    assert!(review.resource_rules.is_empty() && review.evaluation_error.is_some());
    assert_eq!(rules.decide(&asks(&jane, "get", "pods", "", "x")).reason(), "");
}

#[test]
fn changes_take_effect_and_removals_leave_nothing() {
    let all = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let mut rules = Rules::default();
    let (jane, joe) = (user("jane", &[]), user("joe", &[]));
    let may =
        |rules: &Rules, who| rules.decide(&asks(who, "get", "pods", "shop", "a")).is_allowed();
    // Bound before the role exists.
    rules.apply(&binding("shop", "x", "Role/all", &["User/jane", "User/jane"]));
    assert!(!may(&rules, &jane));
    rules.apply(&role("shop", "all", all.clone()));
    assert!(may(&rules, &jane));
    rules.apply(&binding("shop", "x", "Role/all", &["User/joe"]));
    assert!(!may(&rules, &jane) && may(&rules, &joe));
    rules.apply(&role("shop", "all", json!([])));
    assert!(!may(&rules, &joe));
    rules.apply(&role("shop", "all", all));
    rules.remove(Kind::RoleBinding, "shop", "other");
    rules.remove(Kind::ClusterRoleBinding, "", "x");
    assert!(may(&rules, &joe));
    rules.remove(Kind::RoleBinding, "shop", "x");
    assert!(!may(&rules, &joe) && !rules.is_empty());
    rules.remove(Kind::Role, "shop", "all");
    assert!(rules.is_empty());
}

#[test]
fn an_object_without_its_namespace_grants_nothing() {
    let mut lost = binding("shop", "x", "ClusterRole/all", &["User/jane"]);
    let toono_access::Object::RoleBinding(inner) = &mut lost else { panic!("a role binding") };
    inner.metadata.namespace = None;
    assert!(rules_of(&[lost]).is_empty());
}

#[test]
fn a_rules_review_lists_each_binding_once() {
    let rules = rules_of(&[
        cluster_role("a", json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}])),
        cluster_role("b", json!([{"nonResourceURLs": ["/x"], "verbs": ["get"]}])),
        binding("", "b", "ClusterRole/b", &["User/jane", "Group/system:authenticated"]),
        binding("shop", "a", "ClusterRole/a", &["User/jane", "Group/system:authenticated"]),
    ]);
    let review = rules.rules_for(&user("jane", &[]), "shop");
    assert_eq!((review.resource_rules.len(), review.non_resource_rules.len()), (1, 1));
    assert!(!review.incomplete && review.evaluation_error.is_none());
    assert_eq!(rules.rules_for(&user("jane", &[]), "depot").resource_rules.len(), 0);
}
