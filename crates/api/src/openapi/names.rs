//! What components are called: by the Go packages of built-in types, by the reversed group of custom
//! ones. Clients look some of them up by name.

use crate::Resource;

/// `ObjectMeta` and what else belongs to no group.
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// The component of a message of the table of types.
pub(super) fn of_message(name: &str) -> String {
    match name.split_once('.') {
        Some(("meta", short)) => of_meta(short),
        Some(("apiextensions", short)) => of_extension(short),
        Some((group, short)) => format!("io.k8s.api.{group}.v1.{short}"),
        None => name.to_owned(),
    }
}

/// The component of one of the types that belong to no group.
pub(super) fn of_meta(short: &str) -> String {
    format!("{META}.{short}")
}

/// The component of a type of custom resource definitions.
pub(super) fn of_extension(short: &str) -> String {
    format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.{short}")
}

/// The component of a resource's kind.
#[must_use]
pub fn component(resource: &Resource) -> String {
    of_resource(resource, &resource.kind)
}

/// The component of a resource's list.
pub(super) fn of_list(resource: &Resource) -> String {
    of_resource(resource, &resource.list_kind)
}

fn of_resource(resource: &Resource, kind: &str) -> String {
    match resource.behaviour.built_in().and_then(|row| row.message.split_once('.')) {
        Some((group, _)) => of_message(&format!("{group}.{kind}")),
        None => {
            let group: Vec<&str> = resource.group.rsplit('.').collect();
            format!("{}.{}.{kind}", group.join("."), resource.version)
        }
    }
}

/// The API group of the messages whose names begin so.
pub(super) fn api_group(prefix: &str) -> String {
    match prefix {
        "core" | "meta" => String::new(),
        "apps" | "autoscaling" | "batch" | "policy" => prefix.to_owned(),
        "rbac" => "rbac.authorization.k8s.io".to_owned(),
        other => format!("{other}.k8s.io"),
    }
}
