//! OpenAPI v3: which paths take which parameters, so that clients know that the server validates
//! fields and does dry runs. Schemas of the kinds are not in it.
//!
//! Patches do not list their media types: a client that sees strategic merge patch here computes
//! patches from the schemas, which are missing, instead of from the merge keys that it has built in.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};
use toono_api::Resource;
use toono_http::Body;

use crate::{registry::Registry, respond, server::ApiServer};

/// Changes whenever the documents do; clients cache by it.
const DOCUMENTS_HASH: &str = "1";

/// The form of OpenAPI v2 that kubectl reads. No bytes are a document that says nothing, which is
/// what it says: clients then go by version 3 and by what they have built in.
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Answers an OpenAPI path; `None` for any other.
pub(crate) fn answer(
    server: &ApiServer,
    path: &str,
    headers: &HeaderMap,
) -> Option<Response<Body>> {
    if path == "/openapi/v2" {
        return Some(version_2(headers));
    }
    let rest = path.strip_prefix("/openapi/v3")?;
    if rest.is_empty() || rest == "/" {
        return Some(respond::value(&index(&server.registry())));
    }
    let wanted = rest.trim_matches('/');
    let registry = server.registry();
    let found = registry
        .group_versions()
        .into_iter()
        .find(|(group, version)| root(group, version).trim_matches('/') == wanted);
    found.map(|(group, version)| respond::value(&document(&registry, group, version)))
}

fn version_2(headers: &HeaderMap) -> Response<Body> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    if accept.contains("proto-openapi.spec.v2") {
        let content_type = HeaderValue::from_static(V2_PROTOBUF);
        return respond::typed(StatusCode::OK, content_type, bytes::Bytes::new());
    }
    respond::value(&json!({"swagger": "2.0", "info": {"title": "Toono", "version": "v1.35.0"},
        "paths": {}}))
}

fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

fn index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for (group, version) in registry.group_versions() {
        let root = root(group, version);
        let url = format!("/openapi/v3{root}?hash={DOCUMENTS_HASH}");
        paths.insert(root.trim_matches('/').to_owned(), json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

fn document(registry: &Registry, group: &str, version: &str) -> Value {
    let mut paths = Map::new();
    for resource in registry.of_version(group, version) {
        let root = root(group, version);
        let collection = if resource.namespaced {
            paths.insert(
                format!("{root}/{}", resource.plural),
                json!({"get": operation(resource, "list", &[])}),
            );
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
