//! A pod as the caches hold it: what controllers read, and that in little memory. What pods have
//! alike (labels, owners, what their template says, most of what they report) is kept once.
//!
//! It is never written: what controllers write are patches.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::Arc,
};

pub(crate) use super::watched::WatchedPod;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Container as ApiContainer, Pod as ApiPod, PodSpec},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use toono_api::intern::Pool;
use toono_openyurt::keys;
use toono_placement::{PodKey, PodView};
use toono_wire::upgrade;

use super::{status::Report, watched::Status};
use crate::{
    key::Key,
    object::{Claimable, Metadata, Object, OfKind},
    pods::controller_of,
};

/// How much a pod would be missed: an annotation.
pub(crate) const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// A pod's completion index, as an annotation and as a label.
pub(crate) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How often pods of this index failed before: an annotation.
pub(crate) const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// How often they failed in a way that does not count: an annotation.
pub(crate) const INDEX_IGNORED_FAILURES: &str =
    "batch.kubernetes.io/job-index-ignored-failure-count";

pub(crate) use toono_openyurt::keys::{
    ORIGINAL_NOT_READY_TOLERATION as ORIGINAL_NOT_READY,
    ORIGINAL_UNREACHABLE_TOLERATION as ORIGINAL_UNREACHABLE,
};

/// The annotations that are kept.
const ANNOTATIONS: [&str; 10] = [
    DELETION_COST,
    INDEX,
    INDEX_FAILURES,
    INDEX_IGNORED_FAILURES,
    upgrade::OFFER,
    upgrade::APPROVED,
    upgrade::PULL,
    keys::STATIC_POD_HASH,
    ORIGINAL_NOT_READY,
    ORIGINAL_UNREACHABLE,
];

static LABELS: Pool<BTreeMap<String, String>> = Pool::new();
static OWNERS: Pool<Owners> = Pool::new();
static FINALIZERS: Pool<Vec<String>> = Pool::new();
static TEMPLATES: Pool<Template> = Pool::new();
static REPORTS: Pool<Report> = Pool::new();
static NODES: Pool<str> = Pool::new();
static NOTES: Pool<str> = Pool::new();

/// A pod.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(test, derive(serde::Deserialize), serde(from = "WatchedPod"))]
pub(crate) struct Pod {
    pub(crate) metadata: PodMetadata,
    /// The node that it is bound to.
    node: Option<Arc<str>>,
    hostname: Option<Box<str>>,
    template: Arc<Template>,
    report: Arc<Report>,
    ready_changed: Option<Timestamp>,
    addresses: Box<[IpAddr]>,
}

/// A pod's metadata.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PodMetadata {
    key: Key,
    uid: Box<str>,
    resource_version: Option<Box<str>>,
    labels: Arc<BTreeMap<String, String>>,
    annotations: Box<[(&'static str, Arc<str>)]>,
    owners: Arc<Owners>,
    finalizers: Arc<Vec<String>>,
    created: Option<Timestamp>,
    deletion: Option<Box<Deletion>>,
}

/// When a pod is to be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deletion {
    pub(crate) at: Timestamp,
    pub(crate) grace_seconds: i64,
}

/// References to owners.
#[derive(Debug, PartialEq)]
struct Owners(Vec<OwnerReference>);

// References hold text and truth values only, so equality is reflexive.
impl Eq for Owners {}

impl Hash for Owners {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.iter().for_each(|owner| owner.uid.hash(state));
    }
}

/// What all pods of a template ask for.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Template {
    /// What placement needs to know, without what is a single pod's own.
    pub(crate) placement: PodView,
    pub(crate) subdomain: Option<Box<str>>,
    pub(crate) scheduler_name: Option<Box<str>>,
    /// It waits for somebody before it may be scheduled.
    pub(crate) gated: bool,
    /// Sidecars: init containers that run on beside the containers.
    pub(crate) sidecars: Box<[Container]>,
    pub(crate) containers: Box<[Container]>,
}

/// A container.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Container {
    pub(crate) name: Box<str>,
    pub(crate) ports: Box<[Port]>,
}

/// A named port of a container.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Port {
    pub(crate) name: Box<str>,
    pub(crate) protocol: Option<Box<str>>,
    pub(crate) number: i32,
}

impl Pod {
    /// The node that it is bound to.
    pub(crate) fn node_name(&self) -> Option<&str> {
        self.node.as_deref()
    }

    pub(crate) fn hostname(&self) -> Option<&str> {
        self.hostname.as_deref()
    }

    pub(crate) fn template(&self) -> &Template {
        &self.template
    }

    /// What it last reported of itself.
    pub(crate) fn report(&self) -> &Report {
        &self.report
    }

    /// When it became ready, or ceased to be.
    pub(crate) fn ready_changed(&self) -> Option<Timestamp> {
        self.ready_changed
    }

    /// Its addresses, the first one first.
    pub(crate) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// What placement needs to know of it.
    pub(crate) fn placement(&self) -> PodView {
        PodView {
            key: self.placement_key(),
            labels: BTreeMap::clone(&self.metadata.labels),
            owner: self.owner().map(Into::into),
            node_name: self.node.as_deref().map(Into::into),
            terminating: self.metadata.is_leaving(),
            created: self.metadata.created.map_or(0, |created| created.as_second()),
            ..self.template.placement.clone()
        }
    }

    /// The uid of its controller.
    fn owner(&self) -> Option<&str> {
        controller_of(&self.metadata).map(|owner| owner.uid.as_str())
    }

    /// Whether placement would decide the same of `other` in its place.
    pub(crate) fn is_placed_as(&self, other: &Self) -> bool {
        self.template.placement == other.template.placement
            && self.metadata.key == other.metadata.key
            && self.metadata.labels == other.metadata.labels
            && self.node == other.node
            && self.metadata.is_leaving() == other.metadata.is_leaving()
            && self.owner() == other.owner()
    }

    /// By what placement knows it.
    pub(crate) fn placement_key(&self) -> PodKey {
        PodKey { namespace: self.metadata.namespace().into(), name: self.metadata.name().into() }
    }
}

impl PodMetadata {
    /// One of the annotations that are kept.
    pub(crate) fn annotation(&self, name: &str) -> Option<&str> {
        debug_assert!(ANNOTATIONS.contains(&name), "{name} is not kept");
        self.annotations.iter().find(|(known, _)| *known == name).map(|(_, value)| &**value)
    }

    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str)
    }

    pub(crate) fn deletion(&self) -> Option<Deletion> {
        self.deletion.as_deref().copied()
    }
}

impl Metadata for PodMetadata {
    fn key(&self) -> Key {
        self.key.clone()
    }

    fn namespace(&self) -> &str {
        &self.key.namespace
    }

    fn name(&self) -> &str {
        &self.key.name
    }

    fn uid(&self) -> &str {
        &self.uid
    }

    fn resource_version(&self) -> Option<Cow<'_, str>> {
        self.resource_version.as_deref().map(Cow::Borrowed)
    }

    fn is_leaving(&self) -> bool {
        self.deletion.is_some()
    }
}

impl Claimable for PodMetadata {
    fn labels(&self) -> Option<&BTreeMap<String, String>> {
        Some(&self.labels)
    }

    fn owners(&self) -> &[OwnerReference] {
        &self.owners.0
    }

    fn finalizers(&self) -> &[String] {
        &self.finalizers
    }

    fn created(&self) -> Option<Timestamp> {
        self.created
    }
}

impl Object for Pod {
    type Metadata = PodMetadata;

    fn metadata(&self) -> &PodMetadata {
        &self.metadata
    }

    fn share_key(&mut self, key: &Key) {
        self.metadata.key = key.clone();
    }
}

impl OfKind for Pod {
    fn kind() -> Cow<'static, str> {
        "Pod".into()
    }

    fn api_version() -> Cow<'static, str> {
        "v1".into()
    }
}

impl From<WatchedPod> for Pod {
    fn from(pod: WatchedPod) -> Self {
        let WatchedPod { metadata, spec, status } = pod;
        let status = status.unwrap_or_default();
        let pod = ApiPod { metadata, spec: spec.map(Into::into), status: None };
        let template = TEMPLATES.share(Template::of(&pod));
        let ApiPod { metadata, spec, .. } = pod;
        let spec = spec.unwrap_or_default();
        let node = spec.node_name.as_deref().filter(|name| !name.is_empty());
        let ready = status.conditions.iter().flatten().find(|known| known.type_ == "Ready");
        Self {
            node: node.map(|name| NODES.share(name)),
            hostname: text(spec.hostname),
            template,
            ready_changed: ready.and_then(|ready| Some(ready.last_transition_time.as_ref()?.0)),
            addresses: addresses(&status),
            report: REPORTS.share(Report::of(&status)),
            metadata: metadata.into(),
        }
    }
}

impl From<ObjectMeta> for PodMetadata {
    fn from(metadata: ObjectMeta) -> Self {
        let grace_seconds = metadata.deletion_grace_period_seconds.unwrap_or(0);
        let annotations = metadata.annotations.unwrap_or_default();
        let kept = |name| Some((name, NOTES.share(annotations.get(name)?.as_str())));
        Self {
            key: Key::new(
                metadata.namespace.as_deref().unwrap_or_default(),
                metadata.name.as_deref().unwrap_or_default(),
            ),
            uid: metadata.uid.unwrap_or_default().into(),
            resource_version: text(metadata.resource_version),
            labels: LABELS.share(metadata.labels.unwrap_or_default()),
            annotations: ANNOTATIONS.into_iter().filter_map(kept).collect(),
            owners: OWNERS.share(Owners(metadata.owner_references.unwrap_or_default())),
            finalizers: FINALIZERS.share(metadata.finalizers.unwrap_or_default()),
            created: metadata.creation_timestamp.map(|time| time.0),
            deletion: metadata
                .deletion_timestamp
                .map(|time| Box::new(Deletion { at: time.0, grace_seconds })),
        }
    }
}

impl Template {
    fn of(pod: &ApiPod) -> Self {
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let inits = spec.init_containers.iter().flatten();
        let sidecars = inits.filter(|init| init.restart_policy.as_deref() == Some("Always"));
        Self {
            placement: PodView {
                key: PodKey { namespace: "".into(), name: "".into() },
                labels: BTreeMap::new(),
                owner: None,
                node_name: None,
                terminating: false,
                created: 0,
                ..PodView::from_pod(pod)
            },
            subdomain: text(spec.subdomain.clone()),
            scheduler_name: text(spec.scheduler_name.clone()),
            gated: spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()),
            sidecars: sidecars.map(Container::of).collect(),
            containers: spec.containers.iter().map(Container::of).collect(),
        }
    }
}

impl Container {
    fn of(container: &ApiContainer) -> Self {
        let named = container.ports.iter().flatten().filter_map(|port| {
            Some(Port {
                name: port.name.as_deref()?.into(),
                protocol: port.protocol.as_deref().map(Into::into),
                number: port.container_port,
            })
        });
        Self { name: container.name.as_str().into(), ports: named.collect() }
    }
}

fn addresses(status: &Status) -> Box<[IpAddr]> {
    let all = status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok());
    let mut found: Vec<IpAddr> = all.collect();
    if found.is_empty() {
        found.extend(status.pod_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok()));
    }
    found.into()
}

/// A pod as the API has it, as the caches would hold it.
#[cfg(test)]
pub(crate) fn cached(pod: &ApiPod) -> Arc<Pod> {
    Arc::new(serde_json::from_value(serde_json::to_value(pod).unwrap()).unwrap())
}

fn text(text: Option<String>) -> Option<Box<str>> {
    text.map(Into::into)
}
