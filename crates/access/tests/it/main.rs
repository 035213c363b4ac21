//! What access control decides, by example and against a naive oracle.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod bootstrap;
mod chain;
mod cost;
mod covers;
mod escalation;
mod node_graph;
mod node_writes;
mod oracle;
mod rbac;

use serde_json::{Value, json};
use toono_access::{Access, Attributes, Kind, Object, Request, ResourceRequest, Rules};
use toono_api::UserInfo;

const RBAC: &str = "rbac.authorization.k8s.io";

fn user(name: &str, groups: &[&str]) -> UserInfo {
    UserInfo::new(name, groups.iter().copied())
}

/// An object whose kind is told by its fields.
fn object(kind: Kind, json: Value) -> Object {
    Object::parse(kind, &serde_json::to_vec(&json).unwrap()).unwrap()
}

fn role(namespace: &str, name: &str, rules: Value) -> Object {
    object(Kind::Role, json!({"metadata": {"namespace": namespace, "name": name}, "rules": rules}))
}

fn cluster_role(name: &str, rules: Value) -> Object {
    object(Kind::ClusterRole, json!({"metadata": {"name": name}, "rules": rules}))
}

/// A binding of `Role/x` or `ClusterRole/x` to subjects such as `User/jane` or `ServiceAccount/ns/name`; of
/// the cluster when the namespace is empty.
fn binding(namespace: &str, name: &str, role: &str, subjects: &[&str]) -> Object {
    let subjects: Vec<Value> = subjects.iter().map(|subject| subject_of(subject)).collect();
    let (role_kind, role) = role.split_once('/').unwrap();
    let role_ref = json!({"apiGroup": RBAC, "kind": role_kind, "name": role});
    let kind = if namespace.is_empty() { Kind::ClusterRoleBinding } else { Kind::RoleBinding };
    let metadata = match namespace {
        "" => json!({"name": name}),
        namespace => json!({"name": name, "namespace": namespace}),
    };
    object(kind, json!({"metadata": metadata, "roleRef": role_ref, "subjects": subjects}))
}

fn subject_of(text: &str) -> Value {
    let parts: Vec<&str> = text.split('/').collect();
    match parts.as_slice() {
        ["ServiceAccount", "", name] => json!({"kind": "ServiceAccount", "name": name}),
        [kind, namespace, name] => json!({"kind": kind, "name": name, "namespace": namespace}),
        [kind, name] => json!({"kind": kind, "name": name, "apiGroup": RBAC}),
        _ => panic!("{text}"),
    }
}

fn rules_of(objects: &[Object]) -> Rules {
    let mut rules = Rules::default();
    objects.iter().for_each(|object| rules.apply(object));
    rules
}

fn access_of(objects: &[Object]) -> Access {
    Access { rules: rules_of(objects), ..Access::default() }
}

/// `resource.group/subresource` in a namespace, with a name.
fn resource<'a>(what: &'a str, namespace: &'a str, name: &'a str) -> ResourceRequest<'a> {
    let (what, subresource) = what.split_once('/').unwrap_or((what, ""));
    let (resource, api_group) = what.split_once('.').unwrap_or((what, ""));
    ResourceRequest { api_group, resource, subresource, namespace, name, selector: None }
}

fn asks<'a>(
    user: &'a UserInfo,
    verb: &'a str,
    what: &'a str,
    namespace: &'a str,
    name: &'a str,
) -> Attributes<'a> {
    Attributes { user, verb, request: Request::Resource(resource(what, namespace, name)) }
}

fn visits<'a>(user: &'a UserInfo, verb: &'a str, path: &'a str) -> Attributes<'a> {
    Attributes { user, verb, request: Request::NonResource { path } }
}
