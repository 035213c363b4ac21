//! What the node answers clients that ask first: groups, resources, version, health.

use serde_json::{Value, json};

use super::{
    fields::set,
    held::{KINDS, Kind},
};

/// Answers a path that is no resource's; `None` for one that the node knows nothing of.
pub(super) fn answer(path: &str) -> Option<Value> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        [] => {
            let paths = ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/readyz", "/version"];
            Some(json!({"paths": paths}))
        }
        ["version"] => Some(json!({"major": "1", "minor": "35",
            "gitVersion": crate::node_status::KUBELET_VERSION, "platform": platform()})),
        ["healthz" | "livez" | "readyz"] => Some("ok".into()),
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": []})),
        ["apis"] => {
            let groups: Vec<Value> = groups().map(group).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["apis", name] => groups().find(|it| it.group == *name).map(|kind| {
            let mut group = group(kind);
            set(&mut group, &["kind"], "APIGroup");
            set(&mut group, &["apiVersion"], "v1");
            group
        }),
        ["api", version] => resources("", version),
        ["apis", group, version] => resources(group, version),
        _ => None,
    }
}

/// One kind of each group but the core's.
fn groups() -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().filter(|kind| !kind.group.is_empty())
}

fn group(kind: &Kind) -> Value {
    let version = json!({"groupVersion": kind.api_version(), "version": kind.version});
    json!({"name": kind.group, "versions": [version], "preferredVersion": version})
}

fn resources(group: &str, version: &str) -> Option<Value> {
    let own = KINDS.iter().filter(|kind| kind.group == group && kind.version == version);
    let resources: Vec<Value> = own
        .clone()
        .map(|kind| {
            json!({"name": kind.plural, "singularName": kind.kind.to_lowercase(), "kind": kind.kind,
                "namespaced": kind.is_namespaced, "shortNames": kind.short_names,
                "verbs": ["get", "list", "watch"]})
        })
        .collect();
    let version = own.clone().next()?.api_version();
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version,
        "resources": resources}))
}

fn platform() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{arch}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_node_has_is_found() {
        let core = answer("/api/v1").unwrap();
        let names: Vec<_> =
            core["resources"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
        assert!(names.contains(&"pods".into()) && names.contains(&"configmaps".into()));
        assert_eq!(answer("/apis").unwrap()["groups"][0]["name"], "discovery.k8s.io");
        assert_eq!(
            answer("/apis/discovery.k8s.io/v1").unwrap()["resources"][0]["name"],
            "endpointslices"
        );
        for unknown in ["/apis/apps", "/apis/apps/v1", "/api/v2", "/metrics"] {
            assert_eq!(answer(unknown), None, "{unknown}");
        }
    }
}
