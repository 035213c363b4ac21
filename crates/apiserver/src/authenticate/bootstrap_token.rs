//! Bootstrap tokens: secrets of `kube-system` that let a machine in to become a node.

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::Value;
use subtle::ConstantTimeEq;
use toono_api::{UserInfo, meta::text_at, user::GROUP_BOOTSTRAPPERS};
use toono_mvcc::Key;
use toono_store::Store;

const TOKEN_NAMESPACE: &str = "kube-system";
const TOKEN_TYPE: &str = "bootstrap.kubernetes.io/token";

/// The user of a bootstrap token that is stored, is meant for authentication and has not expired.
pub(super) fn user(store: &Store, token: &str, now: Timestamp) -> Option<UserInfo> {
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
