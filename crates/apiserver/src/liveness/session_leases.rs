//! Leases of nodes that hold a session: nobody writes them, they are made of the Node when they are read.
//! So a million nodes have their Leases without a million objects, and without a write at each renewal.
//!
//! What there is at a revision is a function of what is stored at it, the same at every server: a node with
//! a session has a Lease unless one is stored under its name, which then counts. Only `renewTime` comes from
//! memory. A watch follows Leases and Nodes as one, and sees such a Lease come and go with its Node, and
//! change when readiness does, each at the revision of what was written; never when it is renewed.

use std::{borrow::Cow, sync::Weak};

use jiff::Timestamp;
use serde::Deserialize;
use toono_api::{
    ApiError, ObjectHeader,
    kinds::{
        coordination::LEASE,
        core::{NAMESPACE, NODE},
    },
};
use toono_mvcc::{Compacted, Entry, Event, EventKind, Key, Page, Prefix, Rev};
use uuid::Uuid;

use super::NODE_LEASES;
use crate::{
    query::Filter,
    server::{ApiServer, Inner, expired},
};

/// The label that tells these Leases from those that somebody wrote: what is owned by its Node and goes
/// with it anyway need not be collected.
const LABEL: (&str, &str) = ("toono.io/lease", "session");
/// How long a Lease says that it lasts; a kubelet's default.
const DURATION_SECONDS: u32 = 40;
/// Nodes that are read at once to find one with a session.
const NODES_AT_ONCE: usize = 500;
/// Makes the UID of a Lease of that of its Node, which is as unique, and never the same.
const UID_MASK: u128 = 0x6c65_6173_6500_0000_0000_006f_6e6f_6f74;

/// What a Lease is made of.
#[derive(Deserialize)]
struct Node<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(borrow, default)]
    status: Status<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    uid: &'a str,
    creation_timestamp: &'a str,
    #[serde(borrow, default)]
    annotations: Option<Annotations<'a>>,
}

#[derive(Deserialize, Default)]
struct Annotations<'a> {
    /// The node's place in the fleet's table: it is given one when it joins.
    #[serde(borrow, default, rename = "toono.io/session-index")]
    session: Option<Cow<'a, str>>,
}

#[derive(Deserialize, Default)]
struct Status<'a> {
    #[serde(borrow, default)]
    conditions: Option<Vec<Condition<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow, default)]
    status: Cow<'a, str>,
    #[serde(borrow, default)]
    last_heartbeat_time: Cow<'a, str>,
}

impl<'a> Node<'a> {
    /// Of a stored Node, if it has a session.
    fn of(entry: &'a Entry) -> Option<Self> {
        let node: Self = serde_json::from_slice(&entry.value).ok()?;
        node.metadata.annotations.as_ref()?.session.as_ref()?;
        Some(node)
    }

    fn ready(&self) -> Option<&Condition<'a>> {
        self.status.conditions.iter().flatten().find(|condition| condition.r#type == "Ready")
    }

    /// Whether a watch of Leases need not be told that this Node became the other.
    fn has_lease_of(&self, other: &Self) -> bool {
        let status = |node: &Self| node.ready().map(|ready| ready.status.to_string());
        self.metadata.uid == other.metadata.uid && status(self) == status(other)
    }
}

/// The Lease at a revision of the node of this name; none if it has no session.
///
/// # Errors
/// When what it is made of cannot be read.
pub(super) fn of_node(server: &ApiServer, name: &str) -> Result<Option<Entry>, ApiError> {
    if !may_be(server)? {
        return Ok(None);
    }
    let node = server.current(&node_key(name))?;
    let node = node.filter(|node| Node::of(node).is_some());
    Ok(node.and_then(|node| leases_of(&server.inner, &[(&node, node.modified)]).pop()))
}

/// Whether the namespace is there to have any. As it ends they are gone, or it never would.
fn may_be(server: &ApiServer) -> Result<bool, ApiError> {
    let namespace =
        server.current(&Key::new(NAMESPACE.group, NAMESPACE.plural, "", NODE_LEASES))?;
    Ok(namespace.is_some_and(|entry| {
        ObjectHeader::parse(&entry.value).is_ok_and(|header| !header.metadata.is_deleting())
    }))
}

/// The Leases of these Nodes, those that have one, as of these revisions.
fn leases_of(server: &Inner, nodes: &[(&Entry, Rev)]) -> Vec<Entry> {
    let names: Vec<&str> = nodes.iter().map(|(node, _)| node.key.name()).collect();
    let heard = server.lives.heard(&names);
    let leases = nodes.iter().zip(heard).filter_map(|((entry, rev), heard)| {
        let node = Node::of(entry)?;
        Some(Entry {
            key: lease_key(entry.key.name()),
            value: encoded(entry.key.name(), &node, *rev, heard).into(),
            created: entry.created,
            modified: *rev,
            owner: entry.owner.clone(),
        })
    });
    leases.collect()
}

/// Names, UIDs and times need no escapes.
fn encoded(name: &str, node: &Node<'_>, rev: Rev, heard: Option<Timestamp>) -> String {
    let Metadata { uid, creation_timestamp, .. } = &node.metadata;
    let renewed = match (heard, node.ready()) {
        (Some(heard), _) => micro_time(heard),
        // Not since the server's start: as the Node says.
        (None, Some(ready)) if !ready.last_heartbeat_time.is_empty() => {
            micro_time_of(&ready.last_heartbeat_time)
        }
        (None, _) => micro_time_of(creation_timestamp),
    };
    let (label, kept_by) = LABEL;
    let own_uid = uid.parse().map_or_else(|_| format!("{uid}-lease"), uid_of_lease);
    format!(
        "{{\"kind\":\"Lease\",\"apiVersion\":\"coordination.k8s.io/v1\",\"metadata\":{{\
         \"resourceVersion\":\"{rev}\",\"creationTimestamp\":\"{creation_timestamp}\",\
         \"labels\":{{\"{label}\":\"{kept_by}\"}},\"name\":\"{name}\",\"namespace\":\"{NODE_LEASES}\",\
         \"ownerReferences\":[{{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"name\":\"{name}\",\
         \"uid\":\"{uid}\"}}],\"uid\":\"{own_uid}\"}},\"spec\":{{\"holderIdentity\":\"{name}\",\
         \"leaseDurationSeconds\":{DURATION_SECONDS},\"renewTime\":\"{renewed}\"}}}}"
    )
}

/// As Kubernetes writes `metav1.MicroTime`.
fn micro_time(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

fn micro_time_of(time: &str) -> String {
    time.parse().map_or_else(|_| time.to_owned(), micro_time)
}

/// RFC 9562 has a version for what is made by rules of one's own.
fn uid_of_lease(node: Uuid) -> String {
    uuid::Builder::from_custom_bytes((node.as_u128() ^ UID_MASK).to_be_bytes())
        .into_uuid()
        .to_string()
}

/// Where a node is stored.
pub(crate) fn node_key(name: &str) -> Key {
    Key::new(NODE.group, NODE.plural, "", name)
}

fn lease_key(name: &str) -> Key {
    Key::new(LEASE.group, LEASE.plural, NODE_LEASES, name)
}

fn nodes() -> Prefix {
    Prefix::resource(NODE.group, NODE.plural)
}

/// Whether any of these Leases can match.
pub(crate) fn may_match(filter: &Filter) -> bool {
    let (label, kept_by) = LABEL;
    filter.labels.matches(|key| (key == label).then_some(kept_by))
}

/// Puts Leases that sessions keep between those of a page that was read after `after`.
///
/// # Errors
/// When the revision is gone.
pub(crate) fn add_to(
    page: &mut Page,
    server: &ApiServer,
    rev: Rev,
    after: Option<&Key>,
    most: usize,
) -> Result<(), Compacted> {
    let namespace = Prefix::namespace(LEASE.group, LEASE.plural, NODE_LEASES);
    let mut from = match after {
        Some(after) if namespace.contains(after) => Some(node_key(after.name())),
        Some(after) if after.as_str() > namespace.as_str() => return Ok(()),
        _ => None,
    };
    if !may_be(server).unwrap_or(false) {
        return Ok(());
    }
    // Both are complete up to here only.
    let mut ends = page.more.then(|| page.entries.last().map(|last| last.key.clone())).flatten();
    loop {
        let found =
            server.inner.store.list(&nodes(), rev, from.as_ref(), most.min(NODES_AT_ONCE))?;
        from = found.entries.last().map(|last| last.key.clone());
        let nodes: Vec<_> = found.entries.iter().map(|node| (node, node.modified)).collect();
        let mut leases = leases_of(&server.inner, &nodes);
        leases.retain(|lease| {
            page.entries.binary_search_by(|stored| stored.key.cmp(&lease.key)).is_err()
        });
        let last = from.as_ref().map(|last| lease_key(last.name())).filter(|_| found.more);
        let reached = ends.is_some() && last >= ends;
        let done = last.is_none() || !leases.is_empty() || reached;
        if let Some(last) = last.filter(|_| done) {
            ends = Some(ends.map_or_else(|| last.clone(), |ends| ends.min(last.clone())));
        }
        if done {
            page.entries.extend(leases);
            page.more |= found.more;
            break;
        }
    }
    page.entries.sort_by(|a, b| a.key.cmp(&b.key));
    page.entries.retain(|entry| ends.as_ref().is_none_or(|ends| entry.key <= *ends));
    if page.entries.len() > most {
        page.entries.truncate(most);
        page.more = true;
    }
    Ok(())
}

/// What a watch of Leases sees of the two resources that it follows.
pub(crate) struct SessionLeases {
    server: Weak<Inner>,
}

/// What to follow besides Leases.
pub(crate) struct Joined {
    pub(crate) prefix: Prefix,
    pub(crate) view: SessionLeases,
}

impl Joined {
    pub(crate) fn new(server: &ApiServer) -> Self {
        let view = SessionLeases { server: std::sync::Arc::downgrade(&server.inner) };
        Self { prefix: nodes(), view }
    }
}

impl SessionLeases {
    /// What became of a Lease by this event of either resource; nothing if none changed.
    ///
    /// # Errors
    /// When the event is so old that what there was besides is gone.
    pub(crate) fn seen(&self, event: &Event) -> Result<Option<Event>, ApiError> {
        let Some(server) = self.server.upgrade() else { return Ok(None) };
        if event.entry.key.plural() == NODE.plural {
            return seen_of_node(&server, event);
        }
        let replaces = event.kind == EventKind::Put && event.prev.is_some();
        if replaces || event.entry.key.namespace() != NODE_LEASES {
            return Ok(Some(event.clone()));
        }
        // One that is written takes the place of one that a session keeps, or gives it back.
        let node = at(&server, &node_key(event.entry.key.name()), event.rev)?;
        let kept = node.and_then(|node| leases_of(&server, &[(&node, event.rev)]).pop());
        let event = event.clone();
        Ok(Some(match (event.kind, kept) {
            (_, None) => event,
            (EventKind::Put, Some(kept)) => Event { prev: Some(kept), ..event },
            (EventKind::Delete, Some(kept)) => Event { kind: EventKind::Put, entry: kept, ..event },
        }))
    }
}

fn seen_of_node(server: &Inner, event: &Event) -> Result<Option<Event>, ApiError> {
    let before = event.prev.as_ref().filter(|node| Node::of(node).is_some());
    let now = Some(&event.entry).filter(|_| event.kind == EventKind::Put);
    let now = now.filter(|node| Node::of(node).is_some());
    let same = match (before.and_then(Node::of), now.and_then(Node::of)) {
        (None, None) => true,
        (Some(before), Some(now)) => before.has_lease_of(&now),
        _ => false,
    };
    if same || at(server, &lease_key(event.entry.key.name()), event.rev)?.is_some() {
        return Ok(None);
    }
    let lease = |node: &Entry, rev| leases_of(server, &[(node, rev)]).pop();
    let prev = before.and_then(|before| lease(before, before.modified));
    let kind = if now.is_some() { EventKind::Put } else { EventKind::Delete };
    let entry = now.or(before).and_then(|node| lease(node, event.rev));
    Ok(entry.map(|entry| Event { rev: event.rev, kind, entry, prev }))
}

fn at(server: &Inner, key: &Key, rev: Rev) -> Result<Option<Entry>, ApiError> {
    server.store.get(key, Some(rev)).map_err(expired)
}
