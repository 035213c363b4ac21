//! Tokens of service accounts: how they are made, known again, and published for others to verify.
//! <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/>

mod claims;
mod of_secret;
mod publish;
mod request;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde_json::{Map, Value};
use toono_api::UserInfo;
use toono_pki::{BadJwt, TokenKey};
use toono_store::Store;

pub(crate) use claims::{BadToken, Claims, Reference};
use of_secret::SecretClaims;
pub(crate) use publish::answer;
pub(crate) use request::create;

/// Who signs tokens, and for whom they are when nobody says: Kubernetes' default for clusters of the
/// domain `cluster.local`.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// How many tokens are remembered as well signed: verifying a signature costs more than all else that is
/// done for a small request. A token that is forgotten is verified again.
pub const KNOWN_TOKENS: usize = 4096;

/// What a well signed token says.
#[derive(Debug)]
pub(crate) enum Signed {
    /// It was made on request.
    Bound(Box<Claims>),
    /// A secret holds it.
    OfSecret(SecretClaims),
}

impl Signed {
    fn of(claims: &Map<String, Value>, hash: [u8; 32]) -> Result<Self, BadToken> {
        match SecretClaims::of(claims, hash) {
            Some(found) => Ok(Self::OfSecret(found)),
            None => Ok(Self::Bound(Box::new(Claims::of(claims)?))),
        }
    }

    /// Those of the audiences that the token is for.
    ///
    /// # Errors
    /// When it is for none of them.
    pub(crate) fn meant_for(&self, wanted: &[String]) -> Result<Vec<String>, BadToken> {
        match self {
            Self::Bound(claims) => claims.meant_for(wanted),
            Self::OfSecret(claims) => claims.meant_for(wanted),
        }
    }

    /// The user whose token it is, as long as all that it depends on is there.
    ///
    /// # Errors
    /// [`BadToken::Invalidated`].
    pub(crate) fn user(&self, store: &Store, now: Timestamp) -> Result<UserInfo, BadToken> {
        match self {
            Self::Bound(claims) => claims.user(store, now),
            Self::OfSecret(claims) => claims.user(store, now),
        }
    }

    fn check_time(&self, now: Timestamp) -> Result<(), BadToken> {
        match self {
            Self::Bound(claims) => claims.check_time(now),
            Self::OfSecret(_) => Ok(()),
        }
    }
}

/// Makes tokens and knows its own.
#[derive(Debug)]
pub(crate) struct Issuer {
    key: Arc<TokenKey>,
    audiences: Vec<String>,
    /// Claims of well signed tokens by the hash of the whole token. A signature that was right stays
    /// right; all else is looked at each time.
    known: Mutex<HashMap<[u8; 32], Arc<Signed>>>,
}

impl Issuer {
    pub(crate) fn new(key: Arc<TokenKey>) -> Self {
        Self { key, audiences: vec![ISSUER.to_owned()], known: Mutex::default() }
    }

    /// For whom tokens are that this server takes.
    pub(crate) fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// What a token says that is ours and is valid at this time. Whether what it is bound to is still
    /// there is another question.
    ///
    /// # Errors
    /// Why the token is not good.
    pub(crate) fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<Signed>, BadToken> {
        if token.len() > toono_pki::TOKEN_MAX_BYTES {
            return Err(BadJwt::TooLong.into());
        }
        let hash = toono_pki::sha256(token.as_bytes());
        let found = self.known().get(&hash).cloned();
        let claims = match found {
            Some(claims) => claims,
            None => {
                let claims = Arc::new(Signed::of(&self.key.verify(token)?, hash)?);
                let mut known = self.known();
                if known.len() >= KNOWN_TOKENS {
                    known.retain(|_, claims| claims.check_time(now).is_ok());
                }
                if known.len() >= KNOWN_TOKENS {
                    known.clear();
                }
                known.insert(hash, Arc::clone(&claims));
                claims
            }
        };
        claims.check_time(now)?;
        Ok(claims)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<[u8; 32], Arc<Signed>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token with these claims.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, toono_pki::PkiError> {
        self.key.sign(&claims.to_json())
    }
}
