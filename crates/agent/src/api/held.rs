//! What the node has of the cluster, as objects of the API: its pods as they are now, what they reference, the Services
//! and endpoints of its pool, itself.
//!
//! Of most objects the node was told only what pods or proxies need, so labels, annotations and uids are missing.
//!
//! Revisions: those of the cloud count changes of a store that is out of reach. What is answered here has revisions of
//! its own, beyond all that a store ever counts, and other ones after each start of the agent. A client that brings
//! one of another's is told to list again: here by 410, at the server, when the link is back, because it is too large.

use std::{collections::BTreeSet, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use toono_api::{ApiError, meta::text_at};
use toono_wire::referent::{ReferentKind, ReferentName};

use super::{fields::set, network};
use crate::{
    kubelet::query::Query, pool::Pool, referents::Content, retry, sync::Sync, worker::Node,
};

/// The first revision of this node's own; stores count from 1.
const OWN: u64 = 1 << 62;
/// Where the number of the agent's start is in one, above the part that tells contents apart.
const START_SHIFT: u32 = 32;
/// So many starts are told apart.
const START_MASK: u64 = 0x0fff_ffff;

/// Where an object's uid is.
const UID: &[&str] = &["metadata", "uid"];

/// A kind that the node answers for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) plural: &'static str,
    pub(super) kind: &'static str,
    pub(super) is_namespaced: bool,
    pub(super) short_names: &'static [&'static str],
}

const fn core(
    plural: &'static str,
    kind: &'static str,
    is_namespaced: bool,
    short_names: &'static [&'static str],
) -> Kind {
    Kind { group: "", version: "v1", plural, kind, is_namespaced, short_names }
}

/// All of them.
pub(super) const KINDS: [Kind; 8] = [
    core("configmaps", "ConfigMap", true, &["cm"]),
    core("endpoints", "Endpoints", true, &["ep"]),
    core("namespaces", "Namespace", false, &["ns"]),
    core("nodes", "Node", false, &["no"]),
    core("pods", "Pod", true, &["po"]),
    core("secrets", "Secret", true, &[]),
    core("services", "Service", true, &["svc"]),
    Kind {
        group: "discovery.k8s.io",
        version: "v1",
        plural: "endpointslices",
        kind: "EndpointSlice",
        is_namespaced: true,
        short_names: &[],
    },
];
/// For those who need a `'static` one.
static ALL: [Kind; 8] = KINDS;

impl Kind {
    pub(super) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Self> {
        ALL.iter().find(|it| it.group == group && it.version == version && it.plural == plural)
    }

    /// As objects have it.
    pub(super) fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }
}

/// What there is.
pub(super) struct Held {
    node: Arc<Node>,
    pool: Pool,
    sync: Sync,
    /// The revision of everything in this start.
    start: u64,
}

impl Held {
    pub(super) fn new(node: Arc<Node>, pool: Pool, sync: Sync) -> Self {
        let number = u64::from(retry::random_u32()) & START_MASK;
        Self { node, pool, sync, start: OWN | number << START_SHIFT }
    }

    /// The revision of lists: whoever watches from it on is told everything again.
    pub(super) fn revision(&self) -> String {
        self.start.to_string()
    }

    /// Whether a revision is of this start.
    pub(super) fn is_own(&self, revision: &str) -> bool {
        let number = revision.parse::<u64>().ok();
        number.is_some_and(|it| it >> START_SHIFT == self.start >> START_SHIFT)
    }

    /// Whether a list may be answered: the client may have seen something newer of the server, and is not to be
    /// shown the past without a word.
    ///
    /// # Errors
    /// 504 as Kubernetes' servers that lag, 410 for a revision of the past.
    pub(super) fn check_list(&self, query: &Query) -> Result<(), ApiError> {
        let Some(text) = query.first("resourceVersion").filter(|it| *it != "0") else {
            return Ok(());
        };
        if self.is_own(text) {
            return Ok(());
        }
        let bad = || ApiError::BadRequest(format!("invalid resource version {text:?}"));
        let (asked, newest) = (text.parse::<u64>().map_err(|_| bad())?, self.sync.revision());
        match query.first("resourceVersionMatch") {
            Some("Exact") => Err(ApiError::too_old(asked, self.start)),
            _ if asked >= OWN => Err(ApiError::too_old(asked, self.start)),
            _ if asked > newest => Err(ApiError::RevisionTooLarge { asked, newest }),
            _ => Ok(()),
        }
    }

    /// Changes when what the node has does.
    pub(super) async fn changed(&self, seen: &mut Seen) {
        tokio::select! {
            _ = seen.statuses.changed() => {}
            _ = seen.part.changed() => {}
        }
    }

    /// What [`changed`](Self::changed) compares with, from now on.
    pub(super) fn seen(&self) -> Seen {
        Seen { statuses: self.node.outbox.changes(), part: self.pool.versions() }
    }

    /// All of a kind in a namespace, or in all of them if it is empty.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub(super) fn list(&self, kind: &Kind, namespace: &str) -> Result<Vec<Value>, ApiError> {
        let mut found = match kind.plural {
            "pods" => self.pods()?,
            "configmaps" => self.referents(ReferentKind::ConfigMap, namespace)?,
            "secrets" => self.referents(ReferentKind::Secret, namespace)?,
            "namespaces" => self.namespaces()?,
            "nodes" => vec![self.own_node()],
            plural => {
                let vantage = self.pool.vantage();
                self.pool.read(|records| network::list(plural, records, namespace, &vantage))
            }
        };
        let place = if kind.is_namespaced { "namespace" } else { "name" };
        found.retain(|it| {
            namespace.is_empty() || text_at(it, &["metadata", place]) == Some(namespace)
        });
        for object in &mut found {
            set(object, &["kind"], kind.kind);
            set(object, &["apiVersion"], kind.api_version());
            set(object, &["metadata", "resourceVersion"], Value::Null);
            let content = crc32c::crc32c(object.to_string().as_bytes());
            let revision = (self.start | u64::from(content)).to_string();
            set(object, &["metadata", "resourceVersion"], revision);
        }
        Ok(found)
    }

    /// Those that the cloud wants here, each with its status of this moment.
    fn pods(&self) -> Result<Vec<Value>, ApiError> {
        let failed = |error: crate::AgentError| ApiError::Internal(error.to_string());
        let bundles = self.sync.bundles();
        let mut pods = bundles.objects().map_err(failed)?;
        pods.retain(|pod| text_at(pod, UID).is_some_and(|uid| bundles.wants(uid)));
        for pod in &mut pods {
            let status = self.node.outbox.status_of(text_at(pod, UID).unwrap_or_default());
            let status = status.and_then(|text| serde_json::from_str::<Value>(&text).ok());
            if let Some(status) = status {
                set(pod, &["status"], status);
            }
        }
        Ok(pods)
    }

    fn referents(&self, kind: ReferentKind, namespace: &str) -> Result<Vec<Value>, ApiError> {
        let of = |name: &ReferentName| {
            name.kind == kind && (namespace.is_empty() || *name.namespace == *namespace)
        };
        let mut found = Vec::new();
        for name in self.node.referents.names().into_iter().filter(of) {
            if let Some(content) = self.node.referents.find(&name).map_err(ApiError::Internal)? {
                found.push(referent(&name, content));
            }
        }
        Ok(found)
    }

    fn namespaces(&self) -> Result<Vec<Value>, ApiError> {
        let pods = self.pods()?;
        let names = pods.iter().filter_map(|pod| text_at(pod, &["metadata", "namespace"]));
        let names: BTreeSet<&str> = names.collect();
        let namespace = |name| {
            json!({"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
                "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})
        };
        Ok(names.into_iter().map(namespace).collect())
    }

    fn own_node(&self) -> Value {
        let name = &self.node.name;
        json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "spec": {"podCIDR": self.node.network.cidr().to_string()},
            "status": self.node.outbox.node_status()})
    }
}

/// What was there when it was looked at.
pub(super) struct Seen {
    statuses: tokio::sync::watch::Receiver<u64>,
    part: tokio::sync::watch::Receiver<toono_wire::pool::Version>,
}

fn referent(name: &ReferentName, content: Content) -> Value {
    let encoded = |bytes: Vec<u8>| Value::from(STANDARD.encode(bytes));
    let text = |bytes: Vec<u8>| Value::from(String::from_utf8_lossy(&bytes).into_owned());
    let metadata = json!({"name": name.name, "namespace": name.namespace});
    let mut object = json!({"metadata": metadata});
    let is_secret = name.kind == ReferentKind::Secret;
    let value = |(key, bytes)| (key, if is_secret { encoded(bytes) } else { text(bytes) });
    let data: Map<String, Value> = content.data.into_iter().map(value).collect();
    set(&mut object, &["data"], data);
    if is_secret {
        set(&mut object, &["type"], content.kind);
    }
    if !content.binary.is_empty() {
        let binary = content.binary.into_iter().map(|(key, bytes)| (key, encoded(bytes)));
        set(&mut object, &["binaryData"], binary.collect::<Map<String, Value>>());
    }
    object
}
