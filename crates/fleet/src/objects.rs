//! The few fields of Nodes and Pods that the fleet acts on, read without decoding the rest.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use toono_api::Uid;

/// The node's place in the session table.
pub(crate) const ANNOTATION_INDEX: &str = "toono.io/session-index";
/// Counts the identities that a node's name has had.
pub(crate) const ANNOTATION_GENERATION: &str = "toono.io/session-generation";
/// OpenYurt's label of the pool that a node belongs to.
pub(crate) const LABEL_POOL: &str = "apps.openyurt.io/nodepool";

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Meta {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    pub(crate) deletion_timestamp: Option<String>,
    pub(crate) deletion_grace_period_seconds: Option<i64>,
    pub(crate) labels: Option<HashMap<String, String>>,
    pub(crate) annotations: Option<HashMap<String, String>>,
}

impl Meta {
    /// The revision of the object's last change. Kubernetes promises since 1.35 that resource
    /// versions are decimal and grow (KEP-5504); both stores that we know keep to it.
    pub(crate) fn revision(&self) -> u64 {
        self.resource_version.parse().unwrap_or(0)
    }

    fn annotation<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.annotations.as_ref()?.get(key)?.parse().ok()
    }
}

/// What the fleet reads of a Node.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeObject {
    pub(crate) metadata: Meta,
    spec: NodeSpec,
    status: NodeStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    conditions: Option<Vec<Condition>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Condition {
    r#type: String,
    status: String,
    #[serde(rename = "lastHeartbeatTime")]
    heard: Option<String>,
}

impl NodeObject {
    pub(crate) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    pub(crate) fn session_index(&self) -> Option<u32> {
        self.metadata.annotation(ANNOTATION_INDEX)
    }

    pub(crate) fn session_generation(&self) -> Option<u16> {
        self.metadata.annotation(ANNOTATION_GENERATION)
    }

    pub(crate) fn pool(&self) -> &str {
        self.metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(LABEL_POOL))
            .map_or("", String::as_str)
    }

    pub(crate) fn pod_cidr(&self) -> &str {
        self.spec.pod_cidr.as_deref().unwrap_or_default()
    }

    /// `True`, `False` or `Unknown`, also when the Node has no Ready condition.
    pub(crate) fn ready(&self) -> &str {
        self.ready_condition().map_or("Unknown", |condition| condition.status.as_str())
    }

    /// When it last reported its status, in its own words.
    pub(crate) fn reported(&self) -> Option<&str> {
        self.ready_condition()?.heard.as_deref()
    }

    fn ready_condition(&self) -> Option<&Condition> {
        let mut conditions = self.status.conditions.iter().flatten();
        conditions.find(|condition| condition.r#type == "Ready")
    }
}

/// What the fleet reads of a Pod. There are millions: the object itself is asked for when a node wants it.
#[derive(Debug, Clone)]
pub(crate) struct PodObject {
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
    pub(crate) uid: Uid,
    pub(crate) revision: u64,
    /// The node that it is bound to; empty for none yet.
    pub(crate) node: Box<str>,
    pub(crate) deleting: bool,
    /// Whether a node has taken it up: only a node sets `status.startTime`.
    pub(crate) started: bool,
    /// Changes when anything but the status and bookkeeping does: what a node must hear of.
    pub(crate) digest: u64,
}

#[derive(Deserialize)]
struct PodParts<'a> {
    #[serde(default)]
    metadata: Meta,
    #[serde(borrow, default)]
    spec: Option<&'a RawValue>,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    start_time: Option<String>,
}

impl PodObject {
    pub(crate) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let parts: PodParts<'_> = serde_json::from_slice(json)?;
        let spec_json = parts.spec.map_or("{}", RawValue::get);
        let spec: PodSpec = serde_json::from_str(spec_json)?;
        let meta = parts.metadata;
        Ok(Self {
            digest: digest(&meta, spec_json),
            revision: meta.revision(),
            node: spec.node_name.unwrap_or_default().into(),
            deleting: meta.deletion_timestamp.is_some(),
            started: parts.status.start_time.is_some(),
            namespace: meta.namespace.into(),
            name: meta.name.into(),
            uid: meta.uid.as_str().into(),
        })
    }
}

fn digest(meta: &Meta, spec: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    spec.hash(&mut hasher);
    meta.deletion_timestamp.hash(&mut hasher);
    meta.deletion_grace_period_seconds.hash(&mut hasher);
    for map in [&meta.labels, &meta.annotations] {
        let mut pairs: Vec<_> = map.iter().flatten().collect();
        pairs.sort();
        pairs.hash(&mut hasher);
    }
    hasher.finish()
}

/// The value at a path, or null.
pub(crate) fn at<'v>(value: &'v Value, path: &[&str]) -> &'v Value {
    toono_api::meta::at(value, path).unwrap_or(&Value::Null)
}

/// Sets the value at a path; what stands in the way and is no object is replaced by one.
pub(crate) fn set(value: &mut Value, path: &[&str], new: impl Into<Value>) {
    let Some((first, rest)) = path.split_first() else {
        *value = new.into();
        return;
    };
    if !value.is_object() {
        *value = Value::Object(serde_json::Map::new());
    }
    if let Some(fields) = value.as_object_mut() {
        set(fields.entry(*first).or_insert(Value::Null), rest, new);
    }
}

/// Sets a condition in a `status` object. `lastTransitionTime` moves only with the status, as
/// Kubernetes' API conventions ask. Returns whether anything but the heartbeat time changed.
pub(crate) fn set_condition(status: &mut Value, mut wanted: Value, now: &str) -> bool {
    if !wanted.is_object() {
        return false;
    }
    if !at(status, &["conditions"]).is_array() {
        set(status, &["conditions"], Value::Array(Vec::new()));
    }
    let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) else {
        return false;
    };
    let kind = at(&wanted, &["type"]);
    match conditions.iter_mut().find(|condition| at(condition, &["type"]) == kind) {
        Some(old) => {
            let same = |key: &&str| at(old, &[key]) == at(&wanted, &[key]);
            let changed = !["status", "reason", "message"].iter().all(same);
            let transition =
                if same(&"status") { at(old, &["lastTransitionTime"]).clone() } else { now.into() };
            set(&mut wanted, &["lastTransitionTime"], transition);
            let heard = at(old, &["lastHeartbeatTime"]);
            if at(&wanted, &["lastHeartbeatTime"]).is_null() && !heard.is_null() {
                set(&mut wanted, &["lastHeartbeatTime"], heard.clone());
            }
            *old = wanted;
            changed
        }
        None => {
            set(&mut wanted, &["lastTransitionTime"], now);
            conditions.push(wanted);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(value: &Value) -> PodObject {
        PodObject::parse(&serde_json::to_vec(value).unwrap()).unwrap()
    }

    #[test]
    fn a_status_change_is_no_news_to_the_node() {
        let mut value = json!({"kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "7"},
            "spec": {"nodeName": "edge"}});
        let before = pod(&value);
        assert_eq!((&*before.node, before.revision, before.started), ("edge", 7, false));
        value["status"] = json!({"startTime": "2026-01-01T00:00:00Z"});
        value["metadata"]["resourceVersion"] = "8".into();
        let after = pod(&value);
        assert_eq!((before.digest, after.started), (after.digest, true));
        value["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_ne!(pod(&value).digest, after.digest);
    }

    #[test]
    fn a_condition_moves_its_transition_time_only_with_its_status() {
        let mut status = json!({"conditions": [
            {"type": "Ready", "status": "True", "reason": "a", "message": "", "lastTransitionTime": "t0"}]});
        assert!(set_condition(
            &mut status,
            json!({"type": "Ready", "status": "True", "reason": "b", "message": ""}),
            "t1"
        ));
        assert_eq!(status["conditions"][0]["lastTransitionTime"], "t0");
        assert!(set_condition(
            &mut status,
            json!({"type": "Ready", "status": "False", "reason": "b", "message": ""}),
            "t2"
        ));
        assert_eq!(status["conditions"][0]["lastTransitionTime"], "t2");
        assert!(!set_condition(
            &mut status,
            json!({"type": "Ready", "status": "False", "reason": "b", "message": ""}),
            "t3"
        ));
    }
}
