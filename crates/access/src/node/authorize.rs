//! The node authorizer: a node reads itself and what its pods refer to; what is no node's secret goes by the
//! rules that all nodes share. What a node writes is looked at again by [`restriction`](super::restriction),
//! when the object is known.

use std::{borrow::Cow, sync::LazyLock};

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::{
    Identity, LEASE_NAMESPACE,
    graph::{Graph, Referent},
    identity,
};
use crate::{
    attributes::{Attributes, Request, ResourceRequest},
    bootstrap::node_rules,
    decision::Decision,
    quote::Quoted,
    rule,
};

/// Why not; empty where Kubernetes says nothing.
type Refusal = Cow<'static, str>;

/// The rules that all nodes share.
static SHARED: LazyLock<Vec<PolicyRule>> = LazyLock::new(node_rules);

/// Asks the node authorizer alone.
pub(crate) fn decide(graph: &Graph, attributes: &Attributes<'_>) -> Decision {
    let name = match identity(attributes.user) {
        Identity::Other => return Decision::no_opinion(""),
        Identity::Unknown => {
            let user = Quoted(&attributes.user.name);
            return Decision::no_opinion(format!("unknown node for user {user}"));
        }
        Identity::Node(name) => name,
    };
    let node = Node { name, graph };
    let special = match &attributes.request {
        Request::Resource(request) => node.special(attributes.verb, request),
        Request::NonResource { .. } => None,
    };
    match special {
        Some(Ok(())) => Decision::allow(""),
        Some(Err(reason)) => Decision::no_opinion(reason),
        None if SHARED.iter().any(|rule| rule::allows(rule, attributes)) => Decision::allow(""),
        None => Decision::no_opinion(""),
    }
}

struct Node<'a> {
    name: &'a str,
    graph: &'a Graph,
}

fn refuse(reason: impl Into<Cow<'static, str>>) -> Result<(), Refusal> {
    Err(reason.into())
}

impl Node<'_> {
    /// The answer for the resources that nodes do not share; `None` for the others.
    fn special(&self, verb: &str, request: &ResourceRequest<'_>) -> Option<Result<(), Refusal>> {
        use Referent::{ConfigMap, PersistentVolumeClaim, ResourceClaim, Secret};
        Some(match (request.api_group, request.resource) {
            ("", "secrets") => self.read_referenced(verb, Secret, request),
            ("", "configmaps") => self.read_referenced(verb, ConfigMap, request),
            ("", "persistentvolumeclaims") if request.subresource == "status" => {
                self.write_claim_status(verb, request)
            }
            ("", "persistentvolumeclaims") => {
                self.get_referenced(verb, PersistentVolumeClaim, request)
            }
            ("", "persistentvolumes") => self.get_volume(verb, request),
            ("", "serviceaccounts") => self.service_account(verb, request),
            ("", "nodes") => self.node(verb, request),
            ("", "pods") => self.pod(verb, request),
            ("resource.k8s.io", "resourceclaims") => {
                self.get_referenced(verb, ResourceClaim, request)
            }
            // Nothing tells yet which of these are a node's.
            ("storage.k8s.io", "volumeattachments") | ("resource.k8s.io", "resourceslices") => {
                self.unrelated()
            }
            ("coordination.k8s.io", "leases") => self.lease(verb, request),
            ("storage.k8s.io", "csinodes") => self.csi_node(verb, request),
            _ => return None,
        })
    }

    fn unrelated(&self) -> Result<(), Refusal> {
        refuse(format!("no relationship found between node '{}' and this object", self.name))
    }

    fn referenced(&self, kind: Referent, request: &ResourceRequest<'_>) -> Result<(), Refusal> {
        if request.name.is_empty() {
            refuse("No Object name found")
        } else if self.graph.refers(self.name, kind, request.namespace, request.name) {
            Ok(())
        } else {
            self.unrelated()
        }
    }

    fn read_referenced(
        &self,
        verb: &str,
        kind: Referent,
        request: &ResourceRequest<'_>,
    ) -> Result<(), Refusal> {
        if !matches!(verb, "get" | "list" | "watch") {
            refuse("can only read resources of this type")
        } else if !request.subresource.is_empty() {
            refuse("cannot read subresource")
        } else if request.namespace.is_empty() {
            refuse("can only read namespaced object of this type")
        } else {
            self.referenced(kind, request)
        }
    }

    fn get_referenced(
        &self,
        verb: &str,
        kind: Referent,
        request: &ResourceRequest<'_>,
    ) -> Result<(), Refusal> {
        only_get(verb, request)?;
        self.referenced(kind, request)
    }

    fn get_volume(&self, verb: &str, request: &ResourceRequest<'_>) -> Result<(), Refusal> {
        only_get(verb, request)?;
        if request.name.is_empty() {
            refuse("No Object name found")
        } else if self.graph.claims_volume(self.name, request.name) {
            Ok(())
        } else {
            self.unrelated()
        }
    }

    fn write_claim_status(&self, verb: &str, request: &ResourceRequest<'_>) -> Result<(), Refusal> {
        if !matches!(verb, "update" | "patch") {
            return refuse("can only get/update/patch this type");
        }
        self.referenced(Referent::PersistentVolumeClaim, request)
    }

    fn service_account(&self, verb: &str, request: &ResourceRequest<'_>) -> Result<(), Refusal> {
        if verb == "get" && request.subresource.is_empty() {
            self.referenced(Referent::ServiceAccount, request)
        } else if verb != "create" || request.name.is_empty() {
            refuse("can only create tokens for individual service accounts")
        } else if request.subresource != "token" {
            refuse("can only create token subresource of serviceaccount")
        } else {
            self.referenced(Referent::ServiceAccount, request)
        }
    }

    fn lease(&self, verb: &str, request: &ResourceRequest<'_>) -> Result<(), Refusal> {
        if !writes_own(verb) {
            refuse("can only get, create, update, patch, or delete a node lease")
        } else if request.namespace != LEASE_NAMESPACE {
            let namespace = Quoted(LEASE_NAMESPACE);
            refuse(format!("can only access leases in the {namespace} system namespace"))
        } else if verb != "create" && request.name != self.name {
            refuse("can only access node lease with the same name as the requesting node")
        } else {
            Ok(())
        }
    }

    fn csi_node(&self, verb: &str, request: &ResourceRequest<'_>) -> Result<(), Refusal> {
        if !writes_own(verb) {
            refuse("can only get, create, update, patch, or delete a CSINode")
        } else if !request.subresource.is_empty() {
            refuse("cannot authorize CSINode subresources")
        } else if verb != "create" && request.name != self.name {
            refuse("can only access CSINode with the same name as the requesting node")
        } else {
            Ok(())
        }
    }

    fn node(&self, verb: &str, request: &ResourceRequest<'_>) -> Result<(), Refusal> {
        match (request.subresource, verb) {
            // Which node, the restriction of writes looks at.
            ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
            ("", "get" | "list" | "watch") => match request.name {
                own if own == self.name => Ok(()),
                "" => refuse(format!(
                    "node '{}' cannot read all nodes, only its own Node object",
                    self.name
                )),
                other => refuse(format!(
                    "node '{}' cannot read '{other}', only its own Node object",
                    self.name
                )),
            },
            _ => refuse(""),
        }
    }

    fn pod(&self, verb: &str, request: &ResourceRequest<'_>) -> Result<(), Refusal> {
        match (request.subresource, verb) {
            // Which pods, the restriction of writes looks at.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                Ok(())
            }
            ("", "get") => self.own_pod(request),
            ("", "list" | "watch") => {
                let selected =
                    request.selector.and_then(|selector| selector.exact("spec.nodeName"));
                match selected {
                    Some(node) if node == self.name => Ok(()),
                    _ if !request.name.is_empty() => self.own_pod(request),
                    _ => refuse("can only list/watch pods with spec.nodeName field selector"),
                }
            }
            _ => refuse(""),
        }
    }

    fn own_pod(&self, request: &ResourceRequest<'_>) -> Result<(), Refusal> {
        if request.name.is_empty() {
            return refuse("No Object name found");
        }
        match self.graph.pod(request.namespace, request.name) {
            Some((node, _)) if node == self.name => Ok(()),
            _ => self.unrelated(),
        }
    }
}

fn only_get(verb: &str, request: &ResourceRequest<'_>) -> Result<(), Refusal> {
    if verb != "get" {
        refuse("can only get individual resources of this type")
    } else if !request.subresource.is_empty() {
        refuse("cannot get subresource")
    } else {
        Ok(())
    }
}

fn writes_own(verb: &str) -> bool {
    matches!(verb, "get" | "create" | "update" | "patch" | "delete")
}
