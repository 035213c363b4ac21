//! Requests for certificates: who made one, and whether who approves or signs it is trusted by its signer.
//! Which part of a request each of its paths changes is not looked at here.

use serde_json::{Value, json};
use toono_access::{Attributes, Request, ResourceRequest};
use toono_api::{ApiError, Resource, UserInfo, meta::text_at, user::GROUP_MASTERS};

use super::{Operation, Review};
use crate::access::Gate;

const CERTIFICATES: &str = "certificates.k8s.io";
const REQUESTS: &str = "certificatesigningrequests";
/// Signs whatever name a client asks for, so it must not make administrators.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// Notes in a request for a certificate who made it, whatever it says itself.
pub(super) fn complete(review: &Review<'_>, object: &mut Value) {
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

fn is_certificate_request(resource: &Resource) -> bool {
    resource.group == CERTIFICATES && resource.plural == REQUESTS
}

/// Whether who writes is trusted with this.
///
/// # Errors
/// The refusal.
pub(super) fn check(review: &Review<'_>, object: &Value) -> Result<(), ApiError> {
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
