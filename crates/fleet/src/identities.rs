//! Which certificates belong to a member's identity of today. A name that joins again gets another certificate and
//! another generation; what an earlier identity was given is worth nothing here from then on.

use http::Extensions;
use toono_api::ApiError;
use toono_http::PeerCertificates;

use crate::fleet::Inner;

/// Refuses the certificate of an earlier identity of this node. Whoever acts for a node by other means, as an
/// administrator may, shows no certificate of its name; and a Node that does not tell its certificate has any.
pub(crate) fn check(inner: &Inner, node: &str, shown: &Extensions) -> Result<(), ApiError> {
    let leaf = shown.get::<PeerCertificates>().and_then(PeerCertificates::leaf);
    let Some(leaf) = leaf else { return Ok(()) };
    let known = inner.state().table.named(node).map(|(_, member)| member.certificates);
    if known.unwrap_or_default().allow(toono_pki::fingerprint(leaf)) {
        return Ok(());
    }
    let own = toono_pki::subject_of_expired(leaf)
        .is_ok_and(|subject| subject.common_name.strip_prefix("system:node:") == Some(node));
    if !own {
        return Ok(());
    }
    tracing::warn!(node, "a certificate of an earlier identity is refused");
    let why = format!(
        "the certificate is of an earlier identity of node {node:?}, which has joined again"
    );
    Err(ApiError::ForbiddenPath(why))
}
