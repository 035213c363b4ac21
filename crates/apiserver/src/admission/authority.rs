//! What may be written depends on who writes: nobody grants what they do not hold, a node writes only its
//! own, and certificates are approved and signed by whom the signer trusts. It must not change objects,
//! but for noting who asks for a certificate.

use serde_json::{Value, json};
use toono_access::{Attributes, Kind, NodeWrite, Object, Request, ResourceRequest, restrict};
use toono_api::{ApiError, Resource, UserInfo, meta::text_at, user::GROUP_MASTERS};
use toono_mvcc::Key;

use super::{Operation, Review};
use crate::{access::Gate, server::ApiServer};

const RBAC: &str = "rbac.authorization.k8s.io";
const CERTIFICATES: &str = "certificates.k8s.io";
const REQUESTS: &str = "certificatesigningrequests";
/// Signs whatever name a client asks for, so it must not make administrators.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// Notes in a request for a certificate who made it, whatever it says itself.
pub(super) fn sign_as_requester(review: &Review<'_>, object: &mut Value) {
    if !is_certificate_request(review.resource) || !review.subresource.is_empty() {
        return;
    }
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let old = review.old.and_then(|old| old.get("spec"));
    let user = review.user;
    for (field, own) in [
        ("username", json!(&*user.name)),
        ("uid", json!(&*user.uid)),
        ("groups", json!(&*user.groups)),
        ("extra", json!(&*user.extra)),
    ] {
        let value = match review.operation {
            Operation::Create => Some(own),
            Operation::Update | Operation::Delete => old.and_then(|old| old.get(field)).cloned(),
        };
        let empty = |value: &Value| match value {
            Value::String(text) => text.is_empty(),
            Value::Object(map) => map.is_empty(),
            other => other.is_null(),
        };
        match value.filter(|value| !empty(value)) {
            Some(value) => spec.insert(field.to_owned(), value),
            None => spec.remove(field),
        };
    }
}

/// Whether who writes may write this.
///
/// # Errors
/// The refusal.
pub(super) fn check(review: &Review<'_>, object: &Value) -> Result<(), ApiError> {
    if review.operation != Operation::Delete {
        check_grant(review, object)?;
        check_certificate(review, object)?;
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

fn is_certificate_request(resource: &Resource) -> bool {
    resource.group == CERTIFICATES && resource.plural == REQUESTS
}

fn check_certificate(review: &Review<'_>, object: &Value) -> Result<(), ApiError> {
    if !is_certificate_request(review.resource) {
        return Ok(());
    }
    let signer = text_at(object, &["spec", "signerName"]).unwrap_or_default();
    let refuse = |why: String| ApiError::Forbidden {
        resource: review.resource.group_resource(),
        name: review.name.to_owned(),
        why,
    };
    let certificate = |object: &Value| {
        let text = text_at(object, &["status", "certificate"]).unwrap_or_default();
        text.to_owned()
    };
    let signs = review.old.is_some_and(|old| certificate(old) != certificate(object));
    let verb = match (review.operation, review.subresource) {
        (Operation::Create, "") => {
            let csr = text_at(object, &["spec", "request"]).unwrap_or_default();
            if signer == CLIENT_SIGNER && asks_for_masters(csr) {
                return Err(refuse(format!(
                    "use of {CLIENT_SIGNER} signer with {GROUP_MASTERS} group is not allowed"
                )));
            }
            return Ok(());
        }
        (Operation::Update, "approval") => "approve",
        (Operation::Update, "status") if signs => "sign",
        _ => return Ok(()),
    };
    if may_for_signer(&review.server.inner.gate, review.user, verb, signer) {
        return Ok(());
    }
    Err(refuse(format!("user not permitted to {verb} requests with signerName {signer:?}")))
}

/// A permission for one signer, or for all of a domain.
fn may_for_signer(gate: &Gate, user: &UserInfo, verb: &str, signer: &str) -> bool {
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    [signer, &format!("{domain}/*")].into_iter().any(|name| {
        let request = ResourceRequest {
            api_group: CERTIFICATES,
            resource: "signers",
            name,
            ..ResourceRequest::default()
        };
        gate.require(&Attributes { user, verb, request: Request::Resource(request) }).is_ok()
    })
}

/// Whether a certificate request in base64 names the administrators' group. One that cannot be read is
/// refused elsewhere.
fn asks_for_masters(csr: &str) -> bool {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let pem = STANDARD.decode(csr).ok().and_then(|pem| String::from_utf8(pem).ok());
    pem.and_then(|pem| toono_pki::requested_subject(&pem).ok())
        .is_some_and(|subject| subject.organizations.iter().any(|group| group == GROUP_MASTERS))
}
