//! Nodes' certificates after the first: a node asks for another one by the one that it has, which may have expired
//! while it was away. What stands for its right is its Node: who deletes it ends the node's membership.
//!
//! The one that was asked by stays good beside the new one, since an answer may be lost.

use std::sync::Arc;

use http::Extensions;
use serde_json::json;
use toono_api::ApiError;
use toono_http::PeerCertificates;
use toono_wire::join::{CertificateReply, CertificateRequest};

use crate::{
    calls::{Refusal, modify},
    fleet::Inner,
    join::{NODES, written},
    objects::{ANNOTATION_CERTIFICATE, set},
};

/// The certificates of an identity of today, by parts of their fingerprints; 0 is none. They tell a handful of
/// certificates of one name apart, and are kept for each of a million nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Certificates {
    newest: u32,
    /// The one that the newest was asked for by.
    before: u32,
}

impl Certificates {
    /// As a Node's annotation tells them: fingerprints in hexadecimal, the newest last.
    pub(crate) fn parse(annotation: &str) -> Self {
        let mut last = annotation.rsplit(',').map(|text| u64::from_str_radix(text, 16).ok());
        let mut next = || last.next().flatten().map_or(0, short);
        Self { newest: next(), before: next() }
    }

    /// Whether this fingerprint is one of them; where none is known, any is.
    pub(crate) fn allow(self, fingerprint: u64) -> bool {
        self.newest == 0 || [self.newest, self.before].contains(&short(fingerprint))
    }
}

/// Never 0, which is none.
fn short(fingerprint: u64) -> u32 {
    (fingerprint >> 32) as u32 | 1
}

/// As a Node's annotation tells them.
pub(crate) fn annotation(before: Option<u64>, newest: u64) -> String {
    match before {
        Some(before) => format!("{before:016x},{newest:016x}"),
        None => format!("{newest:016x}"),
    }
}

/// `POST /fleet/v1/certificate`. That the one shown is of today's identity has been checked.
pub(crate) async fn renew(
    inner: &Arc<Inner>,
    node: &str,
    shown: &Extensions,
    request: &CertificateRequest,
) -> Result<CertificateReply, Refusal> {
    if inner.state().table.named(node).is_none() {
        let why = format!("node {node:?} is no member; hint: join it with a new token");
        return Err(ApiError::ForbiddenPath(why).into());
    }
    let certificate_pem = inner
        .ca
        .sign_node_csr(&request.csr_pem, node, inner.config.certificate_lifetime)
        .map_err(|error| ApiError::BadRequest(format!("csr_pem: {error}")))?;
    let newest = toono_pki::fingerprint_of_pem(&certificate_pem)
        .map_err(|error| ApiError::Internal(error.to_string()))?;
    let shown = shown.get::<PeerCertificates>().and_then(PeerCertificates::leaf);
    let told = annotation(shown.map(toono_pki::fingerprint), newest);
    let path = format!("{NODES}/{node}");
    let changed = modify(&inner.calls, &path, "", |node| {
        set(node, &["metadata", "annotations", ANNOTATION_CERTIFICATE], json!(told));
        true
    })
    .await?;
    let object = written(&changed)?;
    let now = inner.now();
    inner.state().admit(&object, now);
    tracing::info!(node, "a new certificate");
    Ok(CertificateReply { certificate_pem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_two_count() {
        let (first, second, third) = (0xa1 << 32, 0xb3 << 32, 0xc5 << 32);
        let joined = Certificates::parse(&annotation(None, first));
        assert!(joined.allow(first) && !joined.allow(second) && !joined.allow(0));
        let renewed = Certificates::parse(&annotation(Some(second), third));
        assert!(renewed.allow(second) && renewed.allow(third) && !renewed.allow(first));
        assert!(Certificates::parse("").allow(first), "a Node that tells none has any");
    }
}
