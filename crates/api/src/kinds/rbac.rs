//! The rows of `rbac.authorization.k8s.io`. Whether somebody may grant a role is not judged here.

use serde_json::{Map, Value};

use super::{
    ROW,
    checks::{self, Errors},
    field::At,
    maps_in, set_default,
};
use crate::{
    names,
    print::cluster as print,
    resource::{BuiltIn, Strategy},
};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Names of roles may hold what paths may hold, such as colons.
const STRATEGY: Strategy = Strategy { name_rule: names::any, ..super::DATA };
const RBAC: BuiltIn = BuiltIn { group: GROUP, strategy: STRATEGY, ..ROW };

/// Roles.
pub static ROLE: BuiltIn = BuiltIn {
    kind: "Role",
    list_kind: "RoleList",
    plural: "roles",
    singular: "role",
    message: "rbac.Role",
    validate: |object| rules_of(object, true),
    ..RBAC
};

/// ClusterRoles.
pub static CLUSTER_ROLE: BuiltIn = BuiltIn {
    kind: "ClusterRole",
    list_kind: "ClusterRoleList",
    plural: "clusterroles",
    singular: "clusterrole",
    namespaced: false,
    message: "rbac.ClusterRole",
    validate: cluster_role_rules,
    ..RBAC
};

/// RoleBindings.
pub static ROLE_BINDING: BuiltIn = BuiltIn {
    kind: "RoleBinding",
    list_kind: "RoleBindingList",
    plural: "rolebindings",
    singular: "rolebinding",
    columns: print::ROLE_BINDING,
    row: print::role_binding_row,
    message: "rbac.RoleBinding",
    default: binding_defaults,
    validate: |object| binding_rules(object, &["ClusterRole", "Role"], true),
    validate_update: binding_update,
    ..RBAC
};

/// ClusterRoleBindings.
pub static CLUSTER_ROLE_BINDING: BuiltIn = BuiltIn {
    kind: "ClusterRoleBinding",
    list_kind: "ClusterRoleBindingList",
    plural: "clusterrolebindings",
    singular: "clusterrolebinding",
    namespaced: false,
    columns: print::ROLE_BINDING,
    row: print::role_binding_row,
    message: "rbac.ClusterRoleBinding",
    default: binding_defaults,
    validate: |object| binding_rules(object, &["ClusterRole"], false),
    validate_update: binding_update,
    ..RBAC
};

fn rules_of(object: &Value, namespaced: bool) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    for rule in root.each("rules") {
        let count = |field: &str| rule.get(field).len();
        if count("verbs") == 0 {
            errors.push(rule.get("verbs").required("verbs must contain at least one value"));
        }
        if count("nonResourceURLs") > 0 {
            let urls = rule.get("nonResourceURLs");
            if namespaced {
                errors.push(urls.invalid("namespaced rules cannot apply to non-resource URLs"));
            }
            if count("apiGroups") + count("resources") + count("resourceNames") > 0 {
                errors.push(
                    urls.invalid(
                        "rules cannot apply to both regular resources and non-resource URLs",
                    ),
                );
            }
            continue;
        }
        if count("apiGroups") == 0 {
            errors.push(
                rule.get("apiGroups").required("resource rules must supply at least one api group"),
            );
        }
        if count("resources") == 0 {
            errors.push(
                rule.get("resources").required("resource rules must supply at least one resource"),
            );
        }
    }
    errors
}

fn cluster_role_rules(object: &Value) -> Errors {
    let mut errors = rules_of(object, false);
    let root = At::root(object);
    let aggregation = root.get("aggregationRule");
    if aggregation.is_set() {
        let selectors = aggregation.get("clusterRoleSelectors");
        if selectors.len() == 0 {
            errors.push(selectors.required(
                "at least one clusterRoleSelector required if aggregationRule is non-nil",
            ));
        }
        for selector in aggregation.each("clusterRoleSelectors") {
            checks::label_selector(selector, &mut errors);
        }
    }
    errors
}

fn binding_defaults(object: &mut Value) {
    if let Some(reference) = object.get_mut("roleRef").and_then(Value::as_object_mut) {
        set_group(reference, GROUP);
    }
    let Some(fields) = object.as_object_mut() else { return };
    for subject in maps_in(fields, "subjects") {
        if matches!(subject.get("kind").and_then(Value::as_str), Some("User" | "Group")) {
            set_group(subject, GROUP);
        }
    }
}

fn set_group(reference: &mut Map<String, Value>, group: &str) {
    if reference.get("apiGroup").and_then(Value::as_str) == Some("") {
        reference.remove("apiGroup");
    }
    set_default(reference, "apiGroup", group);
}

fn binding_rules(object: &Value, role_kinds: &[&str], namespaced: bool) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let role = root.get("roleRef");
    if role.get("apiGroup").text() != GROUP {
        errors.push(role.get("apiGroup").unsupported(&[GROUP]));
    }
    if !role_kinds.contains(&role.get("kind").text()) {
        errors.push(role.get("kind").unsupported(role_kinds));
    }
    checks::required_name(role.get("name"), names::path_segment, &mut errors);
    for subject in root.each("subjects") {
        subject_rules(subject, namespaced, &mut errors);
    }
    errors
}

fn subject_rules(subject: At<'_, '_>, namespaced: bool, errors: &mut Errors) {
    checks::required(subject.get("name"), errors);
    let group = subject.get("apiGroup");
    match subject.get("kind").text() {
        "ServiceAccount" => {
            if !subject.get("name").text().is_empty() {
                checks::named(subject.get("name"), names::dns_subdomain, errors);
            }
            if !group.text().is_empty() {
                errors.push(group.unsupported(&[""]));
            }
            if !namespaced && subject.get("namespace").text().is_empty() {
                errors.push(subject.get("namespace").required(""));
            }
        }
        "User" | "Group" => {
            if group.text() != GROUP {
                errors.push(group.unsupported(&[GROUP]));
            }
        }
        _ => errors.push(subject.get("kind").unsupported(&["Group", "ServiceAccount", "User"])),
    }
}

fn binding_update(new: &Value, old: &Value) -> Errors {
    let new = At::root(new);
    if Some(new.get("roleRef").value) == old.get("roleRef") {
        return Errors::new();
    }
    vec![new.get("roleRef").invalid("cannot change roleRef")]
}
