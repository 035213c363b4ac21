//! What a mirror pod offers its node becomes a file there, and what runs from files runs whatever the cluster's rules
//! say. So whoever changes such an offer must be allowed what a `YurtStaticSet` needs.

use serde_json::Value;
use toono_access::{Attributes, Request, ResourceRequest};
use toono_api::{
    ApiError,
    meta::{at, text_at},
};

use super::{Operation, Review};

const MIRROR: [&str; 3] = ["metadata", "annotations", "kubernetes.io/config.mirror"];
const OFFER: [&str; 3] = ["metadata", "annotations", toono_wire::upgrade::OFFER];
const GROUP: &str = "apps.openyurt.io";
const SETS: &str = "yurtstaticsets";

/// Whether who writes may offer this.
///
/// # Errors
/// The refusal.
pub(super) fn check(review: &Review<'_>, object: &Value) -> Result<(), ApiError> {
    let resource = review.resource;
    let is_pod = resource.group.is_empty() && resource.plural == "pods";
    let old = review.old.and_then(|old| text_at(old, &OFFER));
    let new = text_at(object, &OFFER);
    let offers = review.operation == Operation::Update && new.is_some() && new != old;
    if !is_pod || !offers || at(object, &MIRROR).is_none() {
        return Ok(());
    }
    let request = ResourceRequest {
        api_group: GROUP,
        resource: SETS,
        namespace: review.namespace,
        ..ResourceRequest::default()
    };
    let attributes =
        Attributes { user: review.user, verb: "update", request: Request::Resource(request) };
    let allowed = review.server.inner.gate.require(&attributes);
    allowed.map_err(|_| ApiError::Forbidden {
        resource: resource.group_resource(),
        name: review.name.to_owned(),
        why: format!(
            "annotation {} of a mirror pod says what its node is to run: user {:?} needs \"update\" on \
             {SETS}.{GROUP} in namespace {:?} for that",
            toono_wire::upgrade::OFFER, review.user.name, review.namespace
        ),
    })
}
