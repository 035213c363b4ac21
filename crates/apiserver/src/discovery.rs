//! What the server has, for clients that ask first: groups, resources, version.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};
use toono_api::Resource;
use toono_http::Body;

use crate::{
    encode, health, query::Query, registry::Registry, resource_metrics, respond, server::ApiServer,
};

/// Answers a discovery path; `None` for any other.
pub(crate) fn answer(
    server: &ApiServer,
    path: &str,
    headers: &HeaderMap,
    query: &Query,
) -> Option<Response<Body>> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let registry = server.registry();
    if let Some(told) = resource_metrics::discovery(&segments) {
        return Some(respond::value(&told));
    }
    match segments.as_slice() {
        [] => Some(respond::value(&json!({"paths": paths(&registry)}))),
        ["version"] => Some(respond::value(&version(server))),
        [check @ ("healthz" | "livez" | "readyz"), which @ ..] => {
            health::answer(server, check, which, query)
        }
        ["api"] => Some(groups(&registry, headers, true)),
        ["apis"] => Some(groups(&registry, headers, false)),
        ["apis", group] => Some(respond::value(&group_object(&registry, group)?)),
        ["api", version] => resources(&registry, "", version),
        ["apis", group, version] => resources(&registry, group, version),
        _ => None,
    }
}

fn group_names(registry: &Registry) -> Vec<&str> {
    let mut names: Vec<&str> =
        registry.group_versions().into_iter().map(|(group, _)| group).collect();
    names.retain(|name| !name.is_empty());
    names.dedup();
    names
}

fn paths(registry: &Registry) -> Vec<String> {
    let mut paths: Vec<String> =
        ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"]
            .map(str::to_owned)
            .to_vec();
    for (group, version) in
        registry.group_versions().into_iter().filter(|(group, _)| !group.is_empty())
    {
        paths.push(format!("/apis/{group}"));
        paths.push(format!("/apis/{group}/{version}"));
    }
    paths.sort();
    paths
}

fn version(server: &ApiServer) -> Value {
    json!({
        "major": "1",
        "minor": "35",
        "gitVersion": server.inner.config.git_version,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_architecture()),
    })
}

fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn groups(registry: &Registry, headers: &HeaderMap, core: bool) -> Response<Body> {
    if let Some(version) = aggregated_version(headers) {
        let items: Vec<Value> = if core {
            vec![aggregated_group(registry, "")]
        } else {
            group_names(registry)
                .into_iter()
                .map(|group| aggregated_group(registry, group))
                .chain([resource_metrics::aggregated()])
                .collect()
        };
        let api_version = format!("apidiscovery.k8s.io/{version}");
        let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": api_version,
            "metadata": {}, "items": items});
        let content_type = match version {
            "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        };
        let content_type = HeaderValue::from_static(content_type);
        let mut response = respond::typed(StatusCode::OK, content_type, list.to_string());
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
        return response;
    }
    let list = if core {
        json!({"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}]})
    } else {
        let groups: Vec<Value> = group_names(registry)
            .into_iter()
            .filter_map(|group| group_object(registry, group))
            .chain(resource_metrics::discovery(&["apis", resource_metrics::GROUP]))
            .collect();
        json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
    };
    let mut response = respond::value(&list);
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

/// The version of aggregated discovery that comes first in the `Accept` header, if any does before
/// plain JSON.
fn aggregated_version(headers: &HeaderMap) -> Option<&'static str> {
    let accept = headers.get(header::ACCEPT)?.to_str().ok()?;
    for clause in accept.split(',').map(str::trim) {
        let has = |parameter: &str| clause.split(';').any(|part| part.trim() == parameter);
        if has("as=APIGroupDiscoveryList") && clause.starts_with("application/json") {
            if has("v=v2") {
                return Some("v2");
            }
            if has("v=v2beta1") {
                return Some("v2beta1");
            }
        } else if clause == "application/json" {
            return None;
        }
    }
    None
}

fn versions_of<'r>(registry: &'r Registry, group: &str) -> Vec<&'r str> {
    registry
        .group_versions()
        .into_iter()
        .filter(|(name, _)| *name == group)
        .map(|(_, version)| version)
        .collect()
}

fn group_object(registry: &Registry, group: &str) -> Option<Value> {
    let versions: Vec<Value> = versions_of(registry, group)
        .into_iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    let preferred = versions.first()?.clone();
    Some(json!({"kind": "APIGroup", "apiVersion": "v1", "name": group, "versions": versions,
        "preferredVersion": preferred}))
}

fn aggregated_group(registry: &Registry, group: &str) -> Value {
    let versions: Vec<Value> = versions_of(registry, group)
        .into_iter()
        .map(|version| {
            let resources: Vec<Value> = registry
                .of_version(group, version)
                .map(|resource| aggregated_resource(resource))
                .collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let subresources: Vec<Value> = resource
        .subresources
        .iter()
        .map(|sub| {
            json!({"subresource": sub.name, "verbs": sub.verbs,
                "responseKind": {"group": sub.group, "version": sub.version, "kind": sub.kind}})
        })
        .collect();
    let mut value = json!({
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs,
    });
    for (field, list) in
        [("shortNames", &resource.short_names), ("categories", &resource.categories)]
    {
        if !list.is_empty() {
            encode::set(&mut value, field, json!(list));
        }
    }
    if !subresources.is_empty() {
        encode::set(&mut value, "subresources", subresources);
    }
    value
}

fn resources(registry: &Registry, group: &str, version: &str) -> Option<Response<Body>> {
    let mut list = Vec::new();
    for resource in registry.of_version(group, version) {
        let mut value = json!({"name": resource.plural, "singularName": resource.singular,
            "namespaced": resource.namespaced, "kind": resource.kind, "verbs": resource.verbs});
        for (field, names) in
            [("shortNames", &resource.short_names), ("categories", &resource.categories)]
        {
            if !names.is_empty() {
                encode::set(&mut value, field, json!(names));
            }
        }
        list.push(value);
        list.extend(resource.subresources.iter().map(|sub| {
            let mut value = json!({"name": format!("{}/{}", resource.plural, sub.name),
                "singularName": "", "namespaced": resource.namespaced, "kind": sub.kind,
                "verbs": sub.verbs});
            if sub.group != resource.group {
                encode::set(&mut value, "group", &*sub.group);
                encode::set(&mut value, "version", &*sub.version);
            }
            value
        }));
    }
    if list.is_empty() {
        return None;
    }
    let group_version =
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(respond::value(&json!({"kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": group_version, "resources": list})))
}
