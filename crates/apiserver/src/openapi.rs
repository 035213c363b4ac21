//! OpenAPI v3: which paths take which parameters, so that clients know that the server validates
//! fields and does dry runs. Schemas of the kinds are not in it.
//!
//! Patches do not list their media types: a client that sees strategic merge patch here computes
//! patches from the schemas, which are missing, instead of from the merge keys that it has built in.

use http::Response;
use serde_json::{Map, Value, json};
use toono_api::{Resource, kinds::RESOURCES};
use toono_http::Body;

use crate::{discovery::group_versions, respond};

/// Changes whenever the documents do; clients cache by it.
const DOCUMENTS_HASH: &str = "1";

/// Answers an OpenAPI path; `None` for any other.
pub(crate) fn answer(path: &str) -> Option<Response<Body>> {
    let rest = path.strip_prefix("/openapi/v3")?;
    if rest.is_empty() || rest == "/" {
        return Some(respond::value(&index()));
    }
    let wanted = rest.trim_matches('/');
    let found = group_versions()
        .into_iter()
        .find(|(group, version)| root(group, version).trim_matches('/') == wanted);
    found.map(|(group, version)| respond::value(&document(group, version)))
}

fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

fn index() -> Value {
    let mut paths = Map::new();
    for (group, version) in group_versions() {
        let root = root(group, version);
        let url = format!("/openapi/v3{root}?hash={DOCUMENTS_HASH}");
        paths.insert(root.trim_matches('/').to_owned(), json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

fn document(group: &str, version: &str) -> Value {
    let mut paths = Map::new();
    for resource in RESOURCES.iter().filter(|row| row.group == group && row.version == version) {
        let root = root(group, version);
        let collection = if resource.namespaced {
            paths.insert(format!("{root}/{}", resource.plural), json!({"get": operation(resource, "list", &[])}));
            format!("{root}/namespaces/{{namespace}}/{}", resource.plural)
        } else {
            format!("{root}/{}", resource.plural)
        };
        paths.insert(format!("{collection}/{{name}}"), object_path(resource));
        paths.insert(collection, collection_path(resource));
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Toono", "version": "v1.35.0"},
        "paths": paths,
        "components": {"schemas": {}},
    })
}

const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
const DELETE: &[&str] = &["dryRun", "gracePeriodSeconds", "propagationPolicy"];

fn collection_path(resource: &Resource) -> Value {
    json!({
        "get": operation(resource, "list", &["labelSelector", "fieldSelector", "limit", "continue", "watch"]),
        "post": operation(resource, "post", WRITE),
        "delete": operation(resource, "deletecollection", DELETE),
    })
}

fn object_path(resource: &Resource) -> Value {
    json!({
        "get": operation(resource, "get", &[]),
        "put": operation(resource, "put", WRITE),
        "patch": operation(resource, "patch", &["dryRun", "fieldManager", "fieldValidation", "force"]),
        "delete": operation(resource, "delete", DELETE),
    })
}

fn operation(resource: &Resource, action: &str, parameters: &[&str]) -> Value {
    let parameters: Vec<Value> = parameters
        .iter()
        .map(|name| {
            json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}})
        })
        .collect();
    json!({
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind":
            {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "parameters": parameters,
        "responses": {"200": {"description": "OK"}},
    })
}
