//! A node as the caches hold it: what controllers read, and that in little memory. What nodes have
//! alike (labels, what they offer, most of what they report) is kept once.
//!
//! It is never written: what controllers write are patches.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::Taint as ApiTaint,
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, Time},
    },
};
use serde::Deserialize;
use toono_api::intern::Pool;
use toono_openyurt::keys;
use toono_placement::{Effect, Image, NodeView, Offer, Taint as PlacementTaint};

use super::{kind, lean_metadata};
use crate::{
    key::Key,
    object::{Metadata, Object, OfKind, UidText, Version},
};

pub(crate) use toono_openyurt::keys::{
    AUTONOMY as OLD_AUTONOMY, AUTONOMY_DURATION as AUTONOMY, BINDING,
};

/// For ever, as [`AUTONOMY`] spells it.
const FOR_EVER: &str = "0";

static TEXTS: Pool<str> = Pool::new();
static DRESSES: Pool<Dress> = Pool::new();
static REPORTS: Pool<Report> = Pool::new();
static OFFERS: Pool<Offer> = Pool::new();
static TAINTS: Pool<[Taint]> = Pool::new();
static IMAGES: Pool<[Image]> = Pool::new();

/// A node as watches bring it, by what the caches and placement read of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WatchedNode {
    #[serde(deserialize_with = "lean_metadata")]
    pub(crate) metadata: ObjectMeta,
    spec: Option<Spec>,
    status: Option<Status>,
}
kind!(WatchedNode, ClusterResourceScope, "", "v1", "Node", "nodes");

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    taints: Option<Vec<ApiTaint>>,
    unschedulable: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    allocatable: Option<BTreeMap<String, Quantity>>,
    capacity: Option<BTreeMap<String, Quantity>>,
    conditions: Option<Vec<WatchedCondition>>,
    images: Option<Vec<WatchedImage>>,
}

#[derive(Clone, Debug, Deserialize)]
struct WatchedCondition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    reason: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WatchedImage {
    names: Option<Vec<String>>,
    size_bytes: Option<i64>,
}

/// A node.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(test, derive(serde::Deserialize), serde(from = "WatchedNode"))]
pub(crate) struct Node {
    pub(crate) metadata: NodeMetadata,
    dress: Arc<Dress>,
    taints: Arc<[Taint]>,
    offer: Arc<Offer>,
    report: Arc<Report>,
    unschedulable: bool,
}

/// A node's metadata.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NodeMetadata {
    key: Key,
    uid: UidText,
    resource_version: Version,
    leaving: bool,
}

/// What is put on a node: its labels and the annotations that are kept.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Dress {
    /// Sorted by key.
    labels: Box<[(Arc<str>, Value)]>,
    /// Few nodes have any.
    notes: Option<Box<Notes>>,
}

/// What annotations of a node say.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Notes {
    autonomy: Option<Box<str>>,
    /// What its pool gave it, as the controller of pools wrote it down: one text for most nodes of a pool.
    given: Option<Arc<str>>,
}

/// A label's value. Each node is labelled with its own name, and the rest is alike on many.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Value {
    OwnName,
    Text(Arc<str>),
}

/// What a node reports, without when.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Report {
    conditions: Box<[NodeCondition]>,
    images: Arc<[Image]>,
}

/// A condition of a node.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeCondition {
    pub(crate) type_: Box<str>,
    pub(crate) status: Box<str>,
    /// Only of `Ready`.
    pub(crate) reason: Option<Box<str>>,
}

/// A taint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Taint {
    pub(crate) key: Arc<str>,
    pub(crate) value: Option<Arc<str>>,
    pub(crate) effect: Arc<str>,
    pub(crate) added: Option<Timestamp>,
}

impl Node {
    /// The value of a label.
    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        let at = self.dress.labels.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
        self.dress.labels.get(at).map(|(_, value)| self.text(value))
    }

    fn text<'a>(&'a self, value: &'a Value) -> &'a str {
        match value {
            Value::OwnName => self.metadata.name(),
            Value::Text(text) => text,
        }
    }

    /// For how long it keeps its pods when silent, in its owner's words.
    pub(crate) fn autonomy(&self) -> Option<&str> {
        self.dress.notes.as_ref()?.autonomy.as_deref()
    }

    /// The pool it is in; empty when in none.
    pub(crate) fn pool(&self) -> &str {
        self.label(keys::NODE_POOL).unwrap_or_default()
    }

    /// What its pool gave it, as JSON of the controller of pools.
    pub(crate) fn given(&self) -> Option<&Arc<str>> {
        self.dress.notes.as_ref()?.given.as_ref()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(|ready| *ready.status == *"True")
    }

    pub(crate) fn taints(&self) -> &[Taint] {
        &self.taints
    }

    /// It is cordoned.
    pub(crate) fn is_unschedulable(&self) -> bool {
        self.unschedulable
    }

    pub(crate) fn condition(&self, type_: &str) -> Option<&NodeCondition> {
        self.report.conditions.iter().find(|condition| *condition.type_ == *type_)
    }

    /// What placement needs to know of it.
    pub(crate) fn placement(&self) -> NodeView {
        let label =
            |(key, value): &(Arc<str>, Value)| (key.to_string(), self.text(value).to_owned());
        let taint = |taint: &Taint| {
            Some(PlacementTaint {
                key: (*taint.key).into(),
                value: taint.value.as_deref().unwrap_or_default().into(),
                effect: Effect::parse(&taint.effect)?,
            })
        };
        NodeView {
            name: self.metadata.name().into(),
            labels: self.dress.labels.iter().map(label).collect(),
            taints: self.taints.iter().filter_map(taint).collect(),
            unschedulable: self.unschedulable,
            offer: Arc::clone(&self.offer),
            images: Arc::clone(&self.report.images),
        }
    }

    /// Whether it is a node for the same pods as `other` of its name, whatever room it has.
    pub(crate) fn admits_as(&self, other: &Self) -> bool {
        let same = |(one, other): (&Taint, &Taint)| {
            one.key == other.key && one.value == other.value && one.effect == other.effect
        };
        self.dress.labels == other.dress.labels
            && self.taints.len() == other.taints.len()
            && self.taints.iter().zip(&*other.taints).all(same)
    }

    /// Whether its labels are those of `other` of its name.
    pub(crate) fn has_labels_of(&self, other: &Self) -> bool {
        self.dress.labels == other.dress.labels
    }

    /// Whether placement would decide the same with `other` of its name in its place.
    pub(crate) fn is_placed_on_as(&self, other: &Self) -> bool {
        self.admits_as(other)
            && self.unschedulable == other.unschedulable
            && self.offer == other.offer
            && self.report.images == other.report.images
    }
}

impl Taint {
    pub(crate) fn new(key: &str, effect: &str, added: Timestamp) -> Self {
        let (key, effect) = (TEXTS.share(key), TEXTS.share(effect));
        Self { key, value: None, effect, added: Some(added) }
    }
}

impl From<ApiTaint> for Taint {
    fn from(taint: ApiTaint) -> Self {
        Self {
            key: TEXTS.share(taint.key.as_str()),
            value: taint.value.map(|value| TEXTS.share(value.as_str())),
            effect: TEXTS.share(taint.effect.as_str()),
            added: taint.time_added.map(|time| time.0),
        }
    }
}

impl From<&Taint> for ApiTaint {
    fn from(taint: &Taint) -> Self {
        Self {
            key: taint.key.to_string(),
            value: taint.value.as_deref().map(str::to_owned),
            effect: taint.effect.to_string(),
            time_added: taint.added.map(Time),
        }
    }
}

impl Metadata for NodeMetadata {
    fn key(&self) -> Key {
        self.key.clone()
    }

    fn namespace(&self) -> &str {
        ""
    }

    fn name(&self) -> &str {
        &self.key.name
    }

    fn uid(&self) -> &str {
        self.uid.as_str()
    }

    fn resource_version(&self) -> Option<Cow<'_, str>> {
        Some(self.resource_version.text()).filter(|version| !version.is_empty())
    }

    fn is_leaving(&self) -> bool {
        self.leaving
    }
}

impl Object for Node {
    type Metadata = NodeMetadata;

    fn metadata(&self) -> &NodeMetadata {
        &self.metadata
    }

    fn share_key(&mut self, key: &Key) {
        self.metadata.key = key.clone();
    }
}

impl OfKind for Node {
    fn kind() -> Cow<'static, str> {
        "Node".into()
    }

    fn api_version() -> Cow<'static, str> {
        "v1".into()
    }
}

impl From<WatchedNode> for Node {
    fn from(node: WatchedNode) -> Self {
        let WatchedNode { metadata, spec, status } = node;
        let spec = spec.unwrap_or_default();
        let Status { allocatable, capacity, conditions, images } = status.unwrap_or_default();
        let taints: Vec<_> = spec.taints.into_iter().flatten().map(Taint::from).collect();
        Self {
            dress: DRESSES.share(Dress::of(&metadata)),
            taints: TAINTS.share(taints),
            offer: OFFERS
                .share(allocatable.or(capacity).as_ref().map(Offer::from_list).unwrap_or_default()),
            report: REPORTS
                .share(Report::of(conditions.unwrap_or_default(), &images.unwrap_or_default())),
            unschedulable: spec.unschedulable.unwrap_or(false),
            metadata: metadata.into(),
        }
    }
}

impl From<ObjectMeta> for NodeMetadata {
    fn from(metadata: ObjectMeta) -> Self {
        Self {
            key: Key::of(&metadata),
            uid: UidText::new(metadata.uid.as_deref().unwrap_or_default()),
            resource_version: Version::new(
                metadata.resource_version.as_deref().unwrap_or_default(),
            ),
            leaving: metadata.deletion_timestamp.is_some(),
        }
    }
}

impl Dress {
    fn of(metadata: &ObjectMeta) -> Self {
        let label = |(key, value): (&String, &String)| {
            let value = match metadata.name.as_ref() == Some(value) {
                true => Value::OwnName,
                false => Value::Text(TEXTS.share(value.as_str())),
            };
            (TEXTS.share(key.as_str()), value)
        };
        let annotation = |key| metadata.annotations.as_ref()?.get(key).map(String::as_str);
        let is_on = |key| annotation(key) == Some("true");
        let for_ever = (is_on(OLD_AUTONOMY) || is_on(BINDING)).then_some(FOR_EVER);
        let notes = Notes {
            autonomy: for_ever.or_else(|| annotation(AUTONOMY)).map(Into::into),
            given: annotation(keys::PREVIOUS_ATTRIBUTES).map(|text| TEXTS.share(text)),
        };
        let has_any = notes.autonomy.is_some() || notes.given.is_some();
        Self {
            labels: metadata.labels.iter().flatten().map(label).collect(),
            notes: has_any.then(|| Box::new(notes)),
        }
    }
}

impl Report {
    fn of(conditions: Vec<WatchedCondition>, images: &[WatchedImage]) -> Self {
        let kept = |condition: WatchedCondition| NodeCondition {
            reason: condition.reason.filter(|_| condition.type_ == "Ready").map(Into::into),
            type_: condition.type_.into(),
            status: condition.status.into(),
        };
        let images = images.iter().map(|image| {
            (image.names.as_deref().unwrap_or_default(), image.size_bytes.unwrap_or(0))
        });
        Self {
            conditions: conditions.into_iter().map(kept).collect(),
            images: IMAGES.share(Image::reported(images)),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node as ApiNode;
    use serde_json::json;

    use super::*;

    fn whole() -> serde_json::Value {
        json!({
            "metadata": {"name": "n", "uid": "u", "resourceVersion": "7",
                "labels": {"kubernetes.io/hostname": "n", "zone": "z", "a": "b"},
                "annotations": {AUTONOMY: "1h", "other": "x"}},
            "spec": {"podCIDR": "10.0.0.0/26", "unschedulable": true, "taints": [
                {"key": "k", "value": "v", "effect": "NoSchedule"},
                {"key": "t", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"},
                {"key": "t", "effect": "Unheard"}]},
            "status": {"capacity": {"cpu": "8", "pods": "9"},
                "allocatable": {"cpu": "4", "memory": "1Gi", "pods": "110", "example.com/gpu": "2"},
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
                    "lastHeartbeatTime": "2026-01-01T00:00:00Z"}],
                "images": [{"names": ["big", "big:1"], "sizeBytes": 1 << 30},
                    {"names": ["small"], "sizeBytes": 7}]}})
    }

    fn cached(node: serde_json::Value) -> Node {
        serde_json::from_value(node).unwrap()
    }

    #[test]
    fn placement_learns_the_same_as_from_the_whole_node() {
        let api: ApiNode = serde_json::from_value(whole()).unwrap();
        let node = cached(whole());
        assert_eq!(node.placement(), NodeView::from_node(&api));
        let taints: Vec<ApiTaint> = node.taints().iter().map(Into::into).collect();
        assert_eq!(Some(taints), api.spec.unwrap().taints);
        let mut without = whole();
        without["status"]["allocatable"].take();
        let api: ApiNode = serde_json::from_value(without.clone()).unwrap();
        assert_eq!(cached(without).placement(), NodeView::from_node(&api), "capacity counts then");
    }

    #[test]
    fn what_controllers_read_is_kept() {
        let node = cached(whole());
        assert_eq!(node.label("kubernetes.io/hostname"), Some("n"));
        assert_eq!((node.label("zone"), node.label("b")), (Some("z"), None));
        assert_eq!(node.autonomy(), Some("1h"));
        assert_eq!(node.metadata.resource_version().as_deref(), Some("7"));
        assert_eq!(node.condition("Ready").unwrap().reason.as_deref(), Some("KubeletReady"));
    }

    #[test]
    fn a_heartbeat_changes_nothing_for_placement_and_a_taint_does() {
        let node = cached(whole());
        let mut beaten = whole();
        beaten["metadata"]["resourceVersion"] = "8".into();
        beaten["status"]["conditions"][0]["status"] = "Unknown".into();
        beaten["spec"]["taints"][1]["timeAdded"].take();
        beaten["status"]["images"][1]["sizeBytes"] = 8.into();
        assert!(cached(beaten.clone()).is_placed_on_as(&node));
        beaten["status"]["images"][0]["sizeBytes"] = 9.into();
        assert!(!cached(beaten.clone()).is_placed_on_as(&node), "a large image is gone");
        beaten["status"]["images"] = whole()["status"]["images"].take();
        beaten["status"]["allocatable"]["cpu"] = "3".into();
        assert!(!cached(beaten.clone()).is_placed_on_as(&node) && cached(beaten).admits_as(&node));
        let mut tainted = whole();
        tainted["spec"]["taints"][1]["effect"] = "NoSchedule".into();
        assert!(!cached(tainted).admits_as(&node));
    }
}
