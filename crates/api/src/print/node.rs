//! A node's row.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, NAME, NONE, UNKNOWN, age, column, name, text_or, wide};
use crate::{
    meta::{at, items_at, labels_of, text_at},
    resource::Column,
};

/// Columns of nodes.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "string"),
    column("Roles", "string"),
    AGE,
    column("Version", "string"),
    wide("Internal-IP", "string"),
    wide("External-IP", "string"),
    wide("OS-Image", "string"),
    wide("Kernel-Version", "string"),
    wide("Container-Runtime", "string"),
];

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";

/// A node's row.
#[must_use]
pub fn row(node: &Value, now: Timestamp) -> Vec<Value> {
    let info = |field: &str| text_or(node, &["status", "nodeInfo", field], UNKNOWN).into();
    vec![
        name(node),
        status(node).into(),
        roles(node).into(),
        age(node, now),
        text_or(node, &["status", "nodeInfo", "kubeletVersion"], "").into(),
        address(node, "InternalIP").into(),
        address(node, "ExternalIP").into(),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn status(node: &Value) -> String {
    let ready = items_at(node, &["status", "conditions"])
        .find(|condition| text_at(condition, &["type"]) == Some("Ready"))
        .and_then(|condition| text_at(condition, &["status"]));
    let mut text = match ready {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if at(node, &["spec", "unschedulable"]) == Some(&Value::Bool(true)) {
        text.push_str(",SchedulingDisabled");
    }
    text
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = labels_of(node)
        .filter_map(|(key, value)| {
            let role = key.strip_prefix(ROLE_PREFIX);
            role.or((key == "kubernetes.io/role").then_some(value))
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { NONE.to_owned() } else { roles.join(",") }
}

fn address<'v>(node: &'v Value, kind: &str) -> &'v str {
    items_at(node, &["status", "addresses"])
        .find(|address| text_at(address, &["type"]) == Some(kind))
        .and_then(|address| text_at(address, &["address"]))
        .unwrap_or(NONE)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_shows_its_state() {
        let node = json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/edge": ""}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "Unknown"}],
                       "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                       "nodeInfo": {"kubeletVersion": "v1.35.0+toono"}}});
        let cells = row(&node, Timestamp::UNIX_EPOCH);
        let expected = [
            "n",
            "NotReady,SchedulingDisabled",
            "edge",
            "<unknown>",
            "v1.35.0+toono",
            "10.0.0.1",
            "<none>",
            "<unknown>",
            "<unknown>",
            "<unknown>",
        ];
        assert_eq!(cells, expected.map(Value::from));
    }
}
