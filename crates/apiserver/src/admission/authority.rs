//! What may be written depends on who writes: nobody grants what they do not hold, and a node writes only
//! its own. It must not change objects.

use serde_json::Value;
use toono_access::{Attributes, Kind, NodeWrite, Object, Request, ResourceRequest, restrict};
use toono_api::{ApiError, Resource, UserInfo, user::GROUP_MASTERS};
use toono_mvcc::Key;

use super::{Operation, Review, certificates, static_upgrades};
use crate::server::ApiServer;

const RBAC: &str = "rbac.authorization.k8s.io";

/// Whether who writes may write this.
///
/// # Errors
/// The refusal.
pub(super) fn check(review: &Review<'_>, object: &Value) -> Result<(), ApiError> {
    if review.operation != Operation::Delete {
        check_grant(review, object)?;
        certificates::check(review, object)?;
        static_upgrades::check(review, object)?;
    }
    let new = (review.operation != Operation::Delete).then_some(object);
    check_node(review.server, review.user, &Target::of(review), review.old, new)
}

/// Whether who asks may create this below an object, such as an eviction or a token.
///
/// # Errors
/// The refusal.
pub(crate) fn check_subresource(
    server: &ApiServer,
    user: &UserInfo,
    resource: &Resource,
    (namespace, name, subresource): (&str, &str, &str),
    body: &Value,
) -> Result<(), ApiError> {
    let target = Target { verb: "create", resource, subresource, namespace, name };
    check_node(server, user, &target, None, Some(body))
}

/// What a write is about.
struct Target<'a> {
    verb: &'static str,
    resource: &'a Resource,
    subresource: &'a str,
    namespace: &'a str,
    name: &'a str,
}

impl<'a> Target<'a> {
    fn of(review: &Review<'a>) -> Self {
        let verb = match review.operation {
            Operation::Create => "create",
            Operation::Update => "update",
            Operation::Delete => "delete",
        };
        let Review { resource, subresource, namespace, name, .. } = *review;
        Self { verb, resource, subresource, namespace, name }
    }
}

fn check_node(
    server: &ApiServer,
    user: &UserInfo,
    target: &Target<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
) -> Result<(), ApiError> {
    let Some(node) = user.node_name() else { return Ok(()) };
    let key = Key::new("", "nodes", "", node);
    let entry = server.current(&key)?;
    let uid = entry.as_ref().and_then(|entry| toono_api::ObjectHeader::parse(&entry.value).ok());
    let uid = uid.as_ref().and_then(|header| header.metadata.uid.as_deref());
    let request = ResourceRequest {
        api_group: &target.resource.group,
        resource: &target.resource.plural,
        subresource: target.subresource,
        namespace: target.namespace,
        name: target.name,
        selector: None,
    };
    let attributes = Attributes { user, verb: target.verb, request: Request::Resource(request) };
    let write = NodeWrite { old, new, node_uid: uid };
    server.inner.gate.with(|access| restrict(&access.graph, &attributes, &write))
}

fn check_grant(review: &Review<'_>, object: &Value) -> Result<(), ApiError> {
    if review.resource.group != RBAC || review.user.is_in(GROUP_MASTERS) {
        return Ok(());
    }
    let Some(kind) = Kind::of_plural(&review.resource.plural) else { return Ok(()) };
    let parse = |object: &Value| {
        Object::parse(kind, object.to_string().as_bytes())
            .map_err(|error| ApiError::BadRequest(error.to_string()))
    };
    let (old, new) = (review.old.map(parse).transpose()?, parse(object)?);
    let gate = &review.server.inner.gate;
    gate.with(|access| access.check_grant(review.user, review.namespace, old.as_ref(), &new))
}
