//! Tokens that a secret of type `kubernetes.io/service-account-token` holds. They name no time and no
//! audience: one is good for this server as long as its secret holds it and its account is the same.

use jiff::Timestamp;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;
use toono_api::{UserInfo, meta::text_at};
use toono_mvcc::Key;
use toono_store::Store;

use super::claims::{BadToken, Reference, is_alive};

/// Who signs them, as they say.
const ISSUER: &str = "kubernetes/serviceaccount";
const PREFIX: &str = "kubernetes.io/serviceaccount/";

/// The claims of such a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretClaims {
    /// The hash of the whole token, to compare it with what the secret holds.
    hash: [u8; 32],
    namespace: String,
    secret: String,
    account: Reference,
}

impl SecretClaims {
    /// Reads verified claims; `None` when they are no such token's.
    pub(super) fn of(claims: &Map<String, Value>, hash: [u8; 32]) -> Option<Self> {
        if claims.get("iss")?.as_str()? != ISSUER {
            return None;
        }
        let text = |name: &str| {
            let text = claims.get(&format!("{PREFIX}{name}"))?.as_str()?;
            (!text.is_empty()).then(|| text.to_owned())
        };
        let account =
            Reference { name: text("service-account.name")?, uid: text("service-account.uid")? };
        let (namespace, secret) = (text("namespace")?, text("secret.name")?);
        let read = Self { hash, namespace, secret, account };
        let subject = format!("system:serviceaccount:{}:{}", read.namespace, read.account.name);
        (claims.get("sub")?.as_str()? == subject).then_some(read)
    }

    /// Such a token is for this server alone.
    ///
    /// # Errors
    /// When that is not wanted.
    pub(super) fn meant_for(&self, wanted: &[String]) -> Result<Vec<String>, BadToken> {
        if wanted.iter().any(|one| one == super::ISSUER) {
            return Ok(vec![super::ISSUER.to_owned()]);
        }
        let claimed = vec![super::ISSUER.to_owned()];
        Err(BadToken::Audience { claimed, wanted: wanted.to_vec() })
    }

    /// The user whose token it is, as long as the secret holds it and the account is there.
    ///
    /// # Errors
    /// [`BadToken::Invalidated`].
    pub(super) fn user(&self, store: &Store, now: Timestamp) -> Result<UserInfo, BadToken> {
        let account = Key::new("", "serviceaccounts", &self.namespace, &self.account.name);
        if !self.is_held(store) || !is_alive(store, &account, &self.account.uid, now) {
            return Err(BadToken::Invalidated);
        }
        let user = UserInfo::service_account(&self.namespace, &self.account.name);
        Ok(user.with_uid(&self.account.uid))
    }

    fn is_held(&self, store: &Store) -> bool {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let key = Key::new("", "secrets", &self.namespace, &self.secret);
        let Ok(Some(entry)) = store.get(&key, None) else { return false };
        let Ok(secret) = serde_json::from_slice::<Value>(&entry.value) else { return false };
        let held = text_at(&secret, &["data", "token"]).and_then(|text| STANDARD.decode(text).ok());
        // In constant time, so that answers' timing tells nothing of the secret.
        held.is_some_and(|held| bool::from(toono_pki::sha256(&held).ct_eq(&self.hash)))
            && text_at(&secret, &["metadata", "deletionTimestamp"]).is_none()
    }
}
