//! What a node may write, looked at with the object in hand: its own Node but for what steers work, the status
//! of pods bound to it, mirror pods, its own lease and `CSINode`, tokens of its pods.
//!
//! Beyond Kubernetes' rules a node may not move itself to another pool nor rewrite what the fleet wrote on its
//! Node, for that would steer workloads just as a `node-restriction.kubernetes.io` label does.

use std::{borrow::Cow, collections::BTreeSet};

use serde_json::{Map, Value};
use toono_api::{
    ApiError, GroupResource,
    meta::{at, items_at, text_at},
};

use super::{
    Identity, LEASE_NAMESPACE, MIRROR_ANNOTATION,
    graph::{Graph, Referent, all_references},
    identity,
};
use crate::{
    attributes::{Attributes, Request, ResourceRequest},
    quote::Quoted,
};

/// Label keys of Kubernetes' own domains that a node may set on itself.
const OWN_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];
/// Domains within Kubernetes' own whose labels a node may set on itself.
const OWN_LABEL_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
/// Domains whose other labels are reserved.
const KUBERNETES_DOMAINS: [&str; 2] = ["kubernetes.io", "k8s.io"];
/// The domain that is always reserved, for administrators to restrict nodes with.
const RESTRICTION_DOMAIN: &str = "node-restriction.kubernetes.io";
/// Domains of labels and annotations by which the fleet says what a node is.
const FLEET_DOMAINS: [&str; 2] = ["openyurt.io", "toono.io"];

/// A write that is about to happen.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeWrite<'a> {
    /// What is stored: of the object itself. Nothing when it is being created.
    pub old: Option<&'a Value>,
    /// What is to be stored, or the body for a subresource such as `eviction` and `token`. Nothing for a
    /// deletion.
    pub new: Option<&'a Value>,
    /// UID of the Node object of the node that asks, where it is there.
    pub node_uid: Option<&'a str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Create,
    Update,
    Delete,
}

impl Operation {
    /// As Kubernetes' messages name it.
    fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// Refuses what a node must not write. Everyone else, and every read, passes.
///
/// # Errors
/// The refusal in Kubernetes' words, or that a pod is not there.
pub fn restrict(
    graph: &Graph,
    attributes: &Attributes<'_>,
    write: &NodeWrite<'_>,
) -> Result<(), ApiError> {
    let Request::Resource(request) = &attributes.request else { return Ok(()) };
    let node = match identity(attributes.user) {
        Identity::Other => return Ok(()),
        Identity::Node(node) => Some(node),
        Identity::Unknown => None,
    };
    let operation = match (attributes.verb, write.old) {
        ("create", _) | ("update" | "patch", None) => Operation::Create,
        ("update" | "patch", Some(_)) => Operation::Update,
        ("delete" | "deletecollection", _) => Operation::Delete,
        _ => return Ok(()),
    };
    let refused = match node {
        Some(name) => Check { name, graph, request, operation, write }.check(),
        None => {
            let user = Quoted(&attributes.user.name);
            no(format!("could not determine node from user {user}"))
        }
    };
    refused.map_err(|refusal| match refusal {
        Refusal::Forbidden(why) => ApiError::Forbidden {
            resource: GroupResource {
                group: request.api_group.to_owned(),
                resource: request.resource.to_owned(),
            },
            name: named(request, write.new).to_owned(),
            why: why.into_owned(),
        },
        Refusal::NotFound { singular, name } => ApiError::NotFound {
            resource: GroupResource { group: String::new(), resource: singular.to_owned() },
            name,
        },
    })
}

/// What a refusal calls the object.
fn named<'a>(request: &ResourceRequest<'a>, new: Option<&'a Value>) -> &'a str {
    let metadata = |field| new.and_then(|new| text_at(new, &["metadata", field]));
    let candidates = [Some(request.name), metadata("name"), metadata("generateName")];
    candidates.into_iter().flatten().find(|name| !name.is_empty()).unwrap_or("Unknown")
}

enum Refusal {
    Forbidden(Cow<'static, str>),
    NotFound { singular: &'static str, name: String },
}

type Outcome = Result<(), Refusal>;

fn no(why: impl Into<Cow<'static, str>>) -> Outcome {
    Err(Refusal::Forbidden(why.into()))
}

/// The absent object, of which every field is absent.
const NOTHING: &Value = &Value::Null;

struct Check<'a> {
    name: &'a str,
    graph: &'a Graph,
    request: &'a ResourceRequest<'a>,
    operation: Operation,
    write: &'a NodeWrite<'a>,
}

impl Check<'_> {
    fn check(&self) -> Outcome {
        let request = self.request;
        match (request.api_group, request.resource, request.subresource) {
            ("", "pods", "") => self.pod(),
            ("", "pods", "status") => self.pod_status(),
            ("", "pods", "eviction") => self.eviction(),
            ("", "pods", other) => no(format!(
                "unexpected pod subresource {}, only 'status' and 'eviction' are allowed",
                Quoted(other)
            )),
            ("", "nodes", _) => self.node(),
            ("", "persistentvolumeclaims", "status") => self.claim_status(),
            ("", "persistentvolumeclaims", _) => no("may only update PVC status"),
            ("", "serviceaccounts", "token") if self.operation == Operation::Create => self.token(),
            ("coordination.k8s.io", "leases", _) => self.lease(),
            ("storage.k8s.io", "csinodes", _) => {
                self.same_name("can only access CSINode with the same name as the requesting node")
            }
            _ => Ok(()),
        }
    }

    fn old(&self) -> &Value {
        self.write.old.unwrap_or(NOTHING)
    }

    fn written(&self) -> &Value {
        self.write.new.unwrap_or(NOTHING)
    }

    fn quoted(&self) -> Quoted<'_> {
        Quoted(self.name)
    }

    fn is_bound_here(&self, pod: &Value) -> bool {
        text_at(pod, &["spec", "nodeName"]) == Some(self.name)
    }

    fn pod(&self) -> Outcome {
        let node = self.quoted();
        match self.operation {
            Operation::Create => self.mirror_pod(),
            Operation::Delete if self.is_bound_here(self.old()) => Ok(()),
            Operation::Delete => {
                no(format!("node {node} can only delete pods with spec.nodeName set to itself"))
            }
            Operation::Update => no(format!(
                "unexpected operation {}, node {node} can only create and delete mirror pods",
                Quoted(self.operation.name())
            )),
        }
    }

    fn mirror_pod(&self) -> Outcome {
        let (pod, node) = (self.written(), self.quoted());
        if at(pod, &["metadata", "annotations", MIRROR_ANNOTATION]).is_none() {
            let annotation = Quoted(MIRROR_ANNOTATION);
            return no(format!(
                "pod does not have {annotation} annotation, node {node} can only create mirror pods"
            ));
        }
        if !self.is_bound_here(pod) {
            return no(format!(
                "node {node} can only create pods with spec.nodeName set to itself"
            ));
        }
        let owners: Vec<&Value> = items_at(pod, &["metadata", "ownerReferences"]).collect();
        match owners.as_slice() {
            [owner] => self.mirror_owner(owner)?,
            [] => return no(self.wants_own_reference()),
            _ => {
                return no(format!(
                    "node {node} can only create pods with a single owner reference set to itself"
                ));
            }
        }
        if let Some(what) = forbidden_reference(pod) {
            return no(match what {
                "a service account" => {
                    format!("node {node} can not create pods that reference a service account")
                }
                what => format!("node {node} can not create pods that reference {what}"),
            });
        }
        Ok(())
    }

    fn wants_own_reference(&self) -> String {
        let node = self.quoted();
        format!("node {node} can only create pods with an owner reference set to itself")
    }

    fn mirror_owner(&self, owner: &Value) -> Outcome {
        let (text, node) = (|field| text_at(owner, &[field]).unwrap_or_default(), self.quoted());
        let flag = |field: &str| owner.get(field).and_then(Value::as_bool).unwrap_or(false);
        if (text("apiVersion"), text("kind"), text("name")) != ("v1", "Node", self.name) {
            return no(self.wants_own_reference());
        }
        if !flag("controller") {
            return no(format!(
                "node {node} can only create pods with a controller owner reference set to itself"
            ));
        }
        if flag("blockOwnerDeletion") {
            return no(format!(
                "node {node} must not set blockOwnerDeletion on an owner reference"
            ));
        }
        match self.write.node_uid {
            Some(uid) if uid == text("uid") => Ok(()),
            Some(uid) => {
                no(format!("node {} UID mismatch: expected {} got {uid}", self.name, text("uid")))
            }
            None => Err(Refusal::NotFound { singular: "node", name: self.name.to_owned() }),
        }
    }

    fn pod_status(&self) -> Outcome {
        let (old, new, node) = (self.old(), self.written(), self.quoted());
        if self.operation != Operation::Update {
            return no(format!("unexpected operation {}", Quoted(self.operation.name())));
        }
        if !self.is_bound_here(old) {
            return no(format!(
                "node {node} can only update pod status for pods with spec.nodeName set to itself"
            ));
        }
        if !changed_keys(old, new, "labels").is_empty() {
            return no(format!("node {node} cannot update labels through pod status"));
        }
        let claims = |pod| -> Vec<_> {
            items_at(pod, &["status", "resourceClaimStatuses"])
                .map(|claim| (claim.get("name"), claim.get("resourceClaimName")))
                .collect()
        };
        if claims(old) != claims(new) {
            return no(format!("node {node} cannot update resource claim statues"));
        }
        Ok(())
    }

    fn eviction(&self) -> Outcome {
        if self.operation != Operation::Create {
            return no(format!("unexpected operation {}", self.operation.name()));
        }
        let name = match self.request.name {
            "" => text_at(self.written(), &["metadata", "name"]).unwrap_or_default(),
            name => name,
        };
        if name.is_empty() {
            return no("could not determine pod from request data");
        }
        match self.graph.pod(self.request.namespace, name) {
            Some((node, _)) if node == self.name => Ok(()),
            Some(_) => no(format!(
                "node {} can only evict pods with spec.nodeName set to itself",
                self.name
            )),
            None => Err(Refusal::NotFound { singular: "pod", name: name.to_owned() }),
        }
    }

    fn node(&self) -> Outcome {
        let node = self.quoted();
        let requested = match self.request.name {
            "" => text_at(self.written(), &["metadata", "name"]).unwrap_or_default(),
            name => name,
        };
        if requested != self.name {
            let other = Quoted(requested);
            return no(format!("node {node} is not allowed to modify node {other}"));
        }
        match self.operation {
            Operation::Create => self.own_node_creation(),
            Operation::Update => self.own_node_update(),
            Operation::Delete => Ok(()),
        }
    }

    fn own_node_creation(&self) -> Outcome {
        let (new, node) = (self.written(), self.quoted());
        if present(new, &["spec", "configSource"]).is_some() {
            return no(format!(
                "node {node} is not allowed to create pods with a non-nil configSource"
            ));
        }
        let labels = reserved_labels(NOTHING, new);
        if !labels.is_empty() {
            let labels = labels.join(", ");
            return no(format!("node {node} is not allowed to set the following labels: {labels}"));
        }
        let annotations = reserved_annotations(NOTHING, new);
        if !annotations.is_empty() {
            let annotations = annotations.join(", ");
            return no(format!(
                "node {node} is not allowed to set the following annotations: {annotations}"
            ));
        }
        Ok(())
    }

    fn own_node_update(&self) -> Outcome {
        let (old, new, node) = (self.old(), self.written(), self.quoted());
        let config = |object| present(object, &["spec", "configSource"]);
        if config(new).is_some() && config(new) != config(old) {
            return no(format!(
                "node {node} is not allowed to update configSource to a new non-nil configSource"
            ));
        }
        let taints = |object| items_at(object, &["spec", "taints"]);
        if !taints(old).eq(taints(new)) {
            return no(format!("node {node} is not allowed to modify taints"));
        }
        let labels = reserved_labels(old, new);
        if !labels.is_empty() {
            return no(format!("is not allowed to modify labels: {}", labels.join(", ")));
        }
        let annotations = reserved_annotations(old, new);
        if !annotations.is_empty() {
            return no(format!("is not allowed to modify annotations: {}", annotations.join(", ")));
        }
        Ok(())
    }

    fn claim_status(&self) -> Outcome {
        if self.operation != Operation::Update {
            return no(format!("unexpected operation {}", Quoted(self.operation.name())));
        }
        if without_reported_fields(self.old()) != without_reported_fields(self.written()) {
            let node = self.quoted();
            return no(format!(
                "node {node} is not allowed to update fields other than status.capacity and \
                 status.conditions"
            ));
        }
        Ok(())
    }

    fn token(&self) -> Outcome {
        let reference = at(self.written(), &["spec", "boundObjectRef"]).unwrap_or(NOTHING);
        let text = |field| text_at(reference, &[field]).unwrap_or_default();
        let (name, uid) = (text("name"), text("uid"));
        if text("apiVersion") != "v1" || text("kind") != "Pod" || name.is_empty() {
            return no("node requested token not bound to a pod");
        }
        if uid.is_empty() {
            return no("node requested token with a pod binding without a uid");
        }
        match self.graph.pod(self.request.namespace, name) {
            None => Err(Refusal::NotFound { singular: "pod", name: name.to_owned() }),
            Some((_, other)) if other != uid => no(format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The \
                 object might have been deleted and then recreated"
            )),
            Some((node, _)) if node != self.name => {
                no("node requested token bound to a pod scheduled on a different node")
            }
            Some(_) => Ok(()),
        }
    }

    fn lease(&self) -> Outcome {
        if self.request.namespace != LEASE_NAMESPACE {
            let namespace = Quoted(LEASE_NAMESPACE);
            return no(format!("can only access leases in the {namespace} system namespace"));
        }
        self.same_name("can only access node lease with the same name as the requesting node")
    }

    /// At creation the object tells its name, and the path does not.
    fn same_name(&self, refusal: &'static str) -> Outcome {
        let name = match self.operation {
            Operation::Create => text_at(self.written(), &["metadata", "name"]).unwrap_or_default(),
            Operation::Update | Operation::Delete => self.request.name,
        };
        if name == self.name { Ok(()) } else { no(refusal) }
    }
}

/// The first thing that a mirror pod refers to and must not.
fn forbidden_reference(pod: &Value) -> Option<&'static str> {
    let refers = |kind| all_references(pod).any(|(found, name)| found == kind && !name.is_empty());
    let trusts = items_at(pod, &["spec", "volumes"])
        .flat_map(|volume| items_at(volume, &["projected", "sources"]))
        .any(|source| present(source, &["clusterTrustBundle"]).is_some());
    let ephemeral =
        items_at(pod, &["spec", "volumes"]).any(|volume| present(volume, &["ephemeral"]).is_some());
    let claims = items_at(pod, &["spec", "resourceClaims"]).next().is_some();
    [
        (refers(Referent::ServiceAccount), "a service account"),
        (refers(Referent::Secret), "secrets"),
        (refers(Referent::ConfigMap), "configmaps"),
        (trusts, "clustertrustbundles"),
        (refers(Referent::PersistentVolumeClaim) || ephemeral, "persistentvolumeclaims"),
        (claims, "resourceclaims"),
    ]
    .into_iter()
    .find_map(|(refers, what)| refers.then_some(what))
}

fn present<'v>(object: &'v Value, path: &[&str]) -> Option<&'v Value> {
    at(object, path).filter(|value| !value.is_null())
}

fn texts<'v>(object: &'v Value, field: &str) -> Option<&'v Map<String, Value>> {
    at(object, &["metadata", field])?.as_object()
}

/// Keys of a map in the metadata that are added, removed or changed.
fn changed_keys<'v>(old: &'v Value, new: &'v Value, field: &str) -> BTreeSet<&'v str> {
    let (old, new) = (texts(old, field), texts(new, field));
    let value = |map: Option<&'v Map<String, Value>>, key: &str| map.and_then(|map| map.get(key));
    let keys = old.into_iter().chain(new).flat_map(Map::keys);
    keys.filter(|key| value(old, key) != value(new, key)).map(String::as_str).collect()
}

fn domain(key: &str) -> &str {
    key.split_once('/').map_or("", |(domain, _)| domain)
}

fn is_within(domain: &str, parent: &str) -> bool {
    domain == parent || domain.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
}

fn reserved_labels<'v>(old: &'v Value, new: &'v Value) -> Vec<&'v str> {
    changed_keys(old, new, "labels").into_iter().filter(|key| is_reserved_label(key)).collect()
}

fn is_reserved_label(key: &str) -> bool {
    let within = |parents: &[&str]| parents.iter().any(|parent| is_within(domain(key), parent));
    let own = OWN_LABELS.contains(&key) || within(&OWN_LABEL_DOMAINS);
    within(&[RESTRICTION_DOMAIN]) || within(&FLEET_DOMAINS) || (within(&KUBERNETES_DOMAINS) && !own)
}

fn reserved_annotations<'v>(old: &'v Value, new: &'v Value) -> Vec<&'v str> {
    let fleet = |key: &&str| FLEET_DOMAINS.iter().any(|parent| is_within(domain(key), parent));
    changed_keys(old, new, "annotations").into_iter().filter(fleet).collect()
}

/// A claim without what its node reports, and without what every write changes.
fn without_reported_fields(claim: &Value) -> Value {
    const REPORTED: [&str; 4] =
        ["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"];
    let mut claim = claim.clone();
    for (part, fields) in
        [("metadata", &["resourceVersion", "managedFields"][..]), ("status", &REPORTED)]
    {
        let Some(part) = claim.get_mut(part).and_then(Value::as_object_mut) else { continue };
        for field in fields {
            part.remove(*field);
        }
    }
    claim
}
