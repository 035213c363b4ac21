//! The roles and bindings that a new cluster has, those of Kubernetes 1.35 and Toono's own, as objects to be
//! stored when they are missing. Nothing here grants anything by itself.
//!
//! Left out are Kubernetes' `system:controller:*` roles: its controllers have a service account each, ours
//! are one process.

mod bindings;
mod cluster_roles;
mod namespace;
mod reconcile;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::rbac::v1::{PolicyRule, RoleRef, Subject},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

pub use bindings::cluster_role_bindings;
pub use cluster_roles::{cluster_roles, node_rules};
pub use namespace::{role_bindings, roles};
pub use reconcile::{Reconciled, reconcile};

use crate::object::{GROUP, Object};

/// All of them, roles before the bindings that name them.
#[must_use]
pub fn objects() -> Vec<Object> {
    let cluster_roles = cluster_roles().into_iter().map(Object::ClusterRole);
    let roles = roles().into_iter().map(Object::Role);
    let cluster = cluster_role_bindings().into_iter().map(Object::ClusterRoleBinding);
    let bindings = role_bindings().into_iter().map(Object::RoleBinding);
    cluster_roles.chain(roles).chain(cluster).chain(bindings).collect()
}

/// Everything on everything: what `cluster-admin` holds.
#[must_use]
pub fn full_authority() -> Vec<PolicyRule> {
    vec![rule(&["*"], &["*"], &["*"]), urls(&["*"], &["*"])]
}

/// The annotation that lets each start bring a default object up to date.
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];
const READ_WRITE: [&str; 8] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> PolicyRule {
    PolicyRule {
        api_groups: Some(texts(groups)),
        resources: Some(texts(resources)),
        verbs: texts(verbs),
        ..PolicyRule::default()
    }
}

fn named(groups: &[&str], resources: &[&str], names: &[&str], verbs: &[&str]) -> PolicyRule {
    PolicyRule { resource_names: Some(texts(names)), ..rule(groups, resources, verbs) }
}

fn urls(urls: &[&str], verbs: &[&str]) -> PolicyRule {
    PolicyRule {
        non_resource_urls: Some(texts(urls)),
        verbs: texts(verbs),
        ..PolicyRule::default()
    }
}

/// What a part of the control plane needs to report events.
fn events() -> PolicyRule {
    rule(&["", "events.k8s.io"], &["events"], &["create", "patch", "update"])
}

/// The label says that the object is a default, the annotation that it is brought up to date at each start.
fn metadata(namespace: Option<&str>, name: &str) -> ObjectMeta {
    let map = |key: &str, value: &str| Some(BTreeMap::from([(key.to_owned(), value.to_owned())]));
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        labels: map("kubernetes.io/bootstrapping", "rbac-defaults"),
        annotations: map(AUTO_UPDATE, "true"),
        ..ObjectMeta::default()
    }
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: GROUP.to_owned(), kind: kind.to_owned(), name: name.to_owned() }
}

fn user(name: &str) -> Subject {
    subject("User", name)
}

fn group(name: &str) -> Subject {
    subject("Group", name)
}

fn subject(kind: &str, name: &str) -> Subject {
    Subject {
        api_group: Some(GROUP.to_owned()),
        kind: kind.to_owned(),
        name: name.to_owned(),
        namespace: None,
    }
}

fn service_account(name: &str) -> Subject {
    Subject {
        kind: "ServiceAccount".to_owned(),
        name: name.to_owned(),
        namespace: Some("kube-system".to_owned()),
        api_group: None,
    }
}
