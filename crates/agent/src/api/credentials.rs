//! Who asks, and what of it is allowed: by the token that this node got for a pod which is here, and by the rules of the
//! pod's account as the cloud told them last.
//!
//! The node knows the tokens of its pods since it asked for them, so it has no need of the keys that verify others. The
//! newest of a pod counts also when it has expired: had the cloud been there before that, there would be another.

use std::sync::Arc;

use http::{HeaderMap, header};
use jiff::Timestamp;
use toono_access::{Grant, permits};
use toono_api::{ApiError, FieldSelector, UserInfo, meta::text_at};
use toono_wire::referent::{READABLE, ReferentKind, ReferentName};

use super::asked::Asked;
use crate::{tokens, worker::Node};

/// Of whom tokens are for when they do not say, and what they are for when they do.
const AUDIENCES: [&str; 2] =
    ["https://kubernetes.default.svc.cluster.local", "https://kubernetes.default.svc"];
/// What a token says of its pod.
const PRIVATE: &str = "kubernetes.io";

/// A pod's account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Who {
    namespace: Arc<str>,
    account: Arc<str>,
    pub(super) user: UserInfo,
}

/// Whose token the request carries.
///
/// # Errors
/// 401 for none, and for any that is not of a pod of this node.
pub(super) fn authenticate(
    node: &Node,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<Who, ApiError> {
    let text = headers.get(header::AUTHORIZATION).and_then(|it| it.to_str().ok());
    let bearer = text.and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    let token = bearer.ok_or(ApiError::Unauthorized)?;
    let found = find(node, token, now);
    found.ok_or(ApiError::Unauthorized)
}

/// The token itself says whose it is; what it says is not believed, only looked up.
fn find(node: &Node, token: &str, now: Timestamp) -> Option<Who> {
    if token.len() > toono_pki::TOKEN_MAX_BYTES {
        return None;
    }
    let claims = serde_json::Value::Object(toono_pki::unverified_claims(token)?);
    let namespace = text_at(&claims, &[PRIVATE, "namespace"])?;
    let view = node.views.find(namespace, text_at(&claims, &[PRIVATE, "pod", "name"])?)?;
    if text_at(&claims, &[PRIVATE, "pod", "uid"]) != Some(view.uid.as_str()) {
        return None;
    }
    let is_for_api = |audience: &Option<String>| {
        audience.as_ref().is_none_or(|it| AUDIENCES.contains(&it.as_str()))
    };
    let all = tokens::all(&view.dir).into_iter();
    let kept = all.filter(|it| is_for_api(&it.audience)).find(|it| it.is(token, now))?;
    let user = UserInfo::service_account(namespace, &kept.account);
    Some(Who { namespace: namespace.into(), account: kept.account.into(), user })
}

impl Who {
    /// Whether the account may read this, as far as the node was told.
    ///
    /// # Errors
    /// 403 if not, 503 if the node was told nothing of the account.
    pub(super) fn authorize(
        &self,
        node: &Node,
        asked: &Asked,
        fields: Option<&FieldSelector>,
    ) -> Result<(), ApiError> {
        let (namespace, name) = (self.namespace.clone(), self.account.clone());
        let name = ReferentName { kind: ReferentKind::ServiceAccount, namespace, name };
        let content = node.referents.find(&name).map_err(ApiError::Internal)?;
        let grants = content.and_then(|content| {
            serde_json::from_slice::<Vec<Grant>>(content.data.get(READABLE)?).ok()
        });
        let unknown = || {
            let text = format!("{}, and does not know what {name} may read", super::answers::ALONE);
            ApiError::Unavailable(text)
        };
        let grants = grants.ok_or_else(unknown)?;
        let attributes = asked.attributes(&self.user, fields);
        match permits(&grants, &attributes) {
            true => Ok(()),
            false => Err(toono_access::forbidden(&attributes, "")),
        }
    }
}
