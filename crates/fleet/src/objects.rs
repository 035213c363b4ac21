//! The few fields of objects that the fleet acts on, read without decoding the rest.

mod references;

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use toono_api::Uid;
use toono_openyurt::keys;
use toono_session::{PodDigest, PodFacts};
use toono_wire::pool::NodeRecord;
use toono_wire::referent::ReferentKind;

use references::PodSpec;

pub(crate) use references::ReferentObject;

use crate::certificates::Certificates;

/// The node's place in the session table.
pub(crate) const ANNOTATION_INDEX: &str = "toono.io/session-index";
/// Counts the identities that a node's name has had.
pub(crate) const ANNOTATION_GENERATION: &str = "toono.io/session-generation";
/// `true` on a Node that may serve its pool's part to its neighbours.
const LABEL_HUB: &str = "toono.io/pool-hub";
/// The fingerprints of the certificates that the node's identity of today has, in hexadecimal: see
/// [`Certificates`].
pub(crate) const ANNOTATION_CERTIFICATE: &str = "toono.io/session-certificate";
/// Kubernetes' label of the zone that a node is in.
const LABEL_ZONE: &str = "topology.kubernetes.io/zone";

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
    addresses: Option<Vec<Address>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Address {
    r#type: String,
    address: String,
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

    /// Those of today's identity, as far as the Node tells.
    pub(crate) fn certificates(&self) -> Certificates {
        let text = self.metadata.annotation::<String>(ANNOTATION_CERTIFICATE);
        Certificates::parse(&text.unwrap_or_default())
    }

    pub(crate) fn pool(&self) -> &str {
        self.metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(keys::NODE_POOL))
            .map_or("", String::as_str)
    }

    /// Where the node is in its pool, if it offers to be the pool's hub.
    pub(crate) fn offers_hub(&self) -> Option<std::net::IpAddr> {
        let offers = self.metadata.labels.as_ref()?.get(LABEL_HUB).is_some_and(|it| it == "true");
        let mut addresses = self.status.addresses.iter().flatten().filter(|_| offers);
        addresses.find(|it| it.r#type == "InternalIP")?.address.parse().ok()
    }

    /// What its neighbours must know of the node; nothing before it has an address and a pod network.
    pub(crate) fn neighbour_record(&self) -> Option<NodeRecord> {
        let internal =
            self.status.addresses.iter().flatten().filter(|it| it.r#type == "InternalIP");
        let addresses: Vec<String> = internal.map(|it| it.address.clone()).collect();
        let pod_cidrs: Vec<String> = self.spec.pod_cidr.iter().cloned().collect();
        let is_complete = !addresses.is_empty() && !pod_cidrs.is_empty();
        let zone = self.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_ZONE));
        let zone = zone.cloned().unwrap_or_default();
        is_complete.then_some(NodeRecord { addresses, pod_cidrs, zone })
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
    /// Changes when anything but the status and bookkeeping does: what a node must hear of.
    pub(crate) digest: PodDigest,
    /// It has succeeded or failed, and needs nothing any more.
    pub(crate) ended: bool,
    /// The ConfigMaps and Secrets of its namespace that it names, in order, each once.
    pub(crate) references: Vec<(ReferentKind, Box<str>)>,
}

#[derive(Deserialize)]
struct PodParts<'a> {
    #[serde(default)]
    metadata: Meta,
    #[serde(borrow, default)]
    spec: Option<&'a RawValue>,
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PodStatus {
    phase: Option<String>,
}

impl PodObject {
    pub(crate) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let parts: PodParts<'_> = serde_json::from_slice(json)?;
        let spec_json = parts.spec.map_or("{}", RawValue::get);
        let mut spec: PodSpec = serde_json::from_str(spec_json)?;
        let meta = parts.metadata;
        let status: Option<PodStatus> =
            parts.status.map(|status| serde_json::from_str(status.get())).transpose()?;
        let phase = status.and_then(|status| status.phase);
        Ok(Self {
            digest: digest(&meta, spec_json, parts.status),
            ended: matches!(phase.as_deref(), Some("Succeeded" | "Failed")),
            revision: meta.revision(),
            node: spec.node_name.take().unwrap_or_default().into(),
            references: spec.references(),
            namespace: meta.namespace.into(),
            name: meta.name.into(),
            uid: meta.uid.as_str().into(),
        })
    }
}

fn digest(meta: &Meta, spec: &str, status: Option<&RawValue>) -> PodDigest {
    PodDigest::of(PodFacts {
        uid: &meta.uid,
        spec,
        deletion_timestamp: meta.deletion_timestamp.as_deref(),
        deletion_grace_period_seconds: meta.deletion_grace_period_seconds,
        labels: pairs(meta.labels.as_ref()),
        annotations: pairs(meta.annotations.as_ref()),
        gates: toono_session::gates(spec, status),
    })
}

fn pairs(map: Option<&HashMap<String, String>>) -> Vec<(&str, &str)> {
    map.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())).collect()
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
        let text = value.to_string();
        let pod = PodObject::parse(text.as_bytes()).unwrap();
        assert_eq!(pod.digest, PodDigest::of_json(&text).unwrap(), "as the node computes it");
        pod
    }

    #[test]
    fn a_status_change_is_no_news_to_the_node() {
        let mut value = json!({"kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "7",
                "labels": {"a": "b", "c": "d"}, "annotations": {"e": "f"}},
            "spec": {"nodeName": "edge"}});
        let before = pod(&value);
        assert_eq!((&*before.node, before.revision), ("edge", 7));
        value["status"] = json!({"startTime": "2026-01-01T00:00:00Z"});
        value["metadata"]["resourceVersion"] = "8".into();
        let after = pod(&value);
        assert_eq!(before.digest, after.digest);
        value["spec"]["readinessGates"] = json!([{"conditionType": "a/b"}]);
        let gated = pod(&value);
        value["status"]["conditions"] = json!([{"type": "a/b", "status": "True"}]);
        assert_ne!(pod(&value).digest, gated.digest, "but for what opens its gates");
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
