//! Who asks: client certificates, bootstrap tokens, or nobody; and as whom.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Extensions, HeaderMap, header};
use jiff::Timestamp;
use serde_json::Value;
use subtle::ConstantTimeEq;
use toono_api::{
    ApiError, GroupResource, UserInfo,
    meta::text_at,
    user::{ANONYMOUS, GROUP_BOOTSTRAPPERS, GROUP_MASTERS},
};
use toono_http::PeerCertificates;
use toono_mvcc::Key;
use toono_store::Store;

/// Marks a request of a part of this process, which is who it says. Nothing from a socket can carry
/// it: extensions are not on the wire.
#[derive(Debug, Clone)]
pub(crate) struct InProcess(pub(crate) UserInfo);

const TOKEN_NAMESPACE: &str = "kube-system";
const TOKEN_TYPE: &str = "bootstrap.kubernetes.io/token";

/// Identifies the user of a request.
///
/// # Errors
/// [`ApiError::Unauthorized`] when a credential is shown that is not good.
pub(crate) fn authenticate(
    store: &Store,
    extensions: &Extensions,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<UserInfo, ApiError> {
    if let Some(InProcess(user)) = extensions.get() {
        return Ok(user.clone());
    }
    if let Some(leaf) = extensions.get::<PeerCertificates>().and_then(|chain| chain.0.first()) {
        let subject = toono_pki::subject(leaf).map_err(|_| ApiError::Unauthorized)?;
        return Ok(UserInfo::new(&subject.common_name, subject.organizations));
    }
    match bearer_token(headers) {
        None => Ok(UserInfo::anonymous()),
        Some(token) => bootstrap_user(store, token, now).ok_or(ApiError::Unauthorized),
    }
}

/// Who a request acts as: the one who asks, unless its headers name another.
///
/// # Errors
/// [`ApiError::Forbidden`] for who may not act as others.
pub(crate) fn impersonate(user: UserInfo, headers: &HeaderMap) -> Result<UserInfo, ApiError> {
    if !headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
        return Ok(user);
    }
    let values = |name: &str| -> Vec<&str> {
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect()
    };
    let name = values("impersonate-user").first().copied().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| {
        ApiError::BadRequest("groups, a uid or extras were given without Impersonate-User".into())
    })?;
    if !user.is_in(GROUP_MASTERS) {
        return Err(ApiError::Forbidden {
            resource: GroupResource { group: String::new(), resource: "users".to_owned() },
            name: name.to_owned(),
            why: format!(
                "User {:?} cannot impersonate resource \"users\" in API group \"\" at the cluster scope",
                user.name
            ),
        });
    }
    Ok(match name {
        ANONYMOUS => UserInfo::anonymous(),
        name => UserInfo::new(name, values("impersonate-group")),
    })
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The user of a bootstrap token that is stored, is meant for authentication and has not expired.
fn bootstrap_user(store: &Store, token: &str, now: Timestamp) -> Option<UserInfo> {
    let token: toono_pki::BootstrapToken = token.parse().ok()?;
    let name = format!("bootstrap-token-{}", token.id());
    let entry = store.get(&Key::new("", "secrets", TOKEN_NAMESPACE, &name), None).ok()??;
    let secret: Value = serde_json::from_slice(&entry.value).ok()?;
    let data = |field: &str| STANDARD.decode(text_at(&secret, &["data", field])?).ok();
    let same = |field: &str, expected: &str| {
        let kept = data(field).unwrap_or_default();
        // In constant time, so that answers' timing tells nothing of the secret.
        bool::from(kept.ct_eq(expected.as_bytes()))
    };
    let right_secret = same("token-secret", token.secret());
    let usable = text_at(&secret, &["type"]) == Some(TOKEN_TYPE)
        && text_at(&secret, &["metadata", "deletionTimestamp"]).is_none()
        && same("token-id", token.id())
        && same("usage-bootstrap-authentication", "true")
        && is_fresh(data("expiration"), now);
    (right_secret && usable)
        .then(|| UserInfo::new(&format!("system:bootstrap:{}", token.id()), [GROUP_BOOTSTRAPPERS]))
}

/// No expiration is none; one that cannot be read has passed.
fn is_fresh(expiration: Option<Vec<u8>>, now: Timestamp) -> bool {
    expiration.is_none_or(|text| {
        let moment = String::from_utf8(text).ok().and_then(|text| text.parse::<Timestamp>().ok());
        moment.is_some_and(|moment| moment > now)
    })
}
