//! Signed tokens of service accounts: JWS in its compact form (RFC 7515), ES256 and nothing else.
//!
//! A token's header chooses no algorithm: whatever is not ES256 under a known key is refused. What the
//! claims mean, and whether they still hold, is not looked at here.

use std::{fs, path::Path};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PublicKeyData};
use ring::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
        UnparsedPublicKey,
    },
};
use serde_json::{Map, Value, json};

use crate::{
    PkiError,
    authority::{file_error, read_file, write_file},
};

/// Longest token that is looked at. Ours have about 1 KB; one with many audiences a few.
pub const TOKEN_MAX_BYTES: usize = 16 * 1024;
const ALGORITHM: &str = "ES256";
/// An uncompressed P-256 point: a tag, then both coordinates.
const POINT_BYTES: usize = 65;
const COORDINATE_BYTES: usize = 32;

/// The key that signs tokens, and by which they are verified.
pub struct TokenKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    id: String,
}

/// Why a token is not one of ours. The token is not repeated: it may be nearly a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadJwt {
    /// Not three parts of base64url, the first two JSON objects.
    #[error("the token is malformed")]
    Malformed,
    /// Longer than [`TOKEN_MAX_BYTES`].
    #[error("the token is longer than {TOKEN_MAX_BYTES} bytes")]
    TooLong,
    /// The header asks for something other than a plain ES256 signature.
    #[error("the token's algorithm is not {ALGORITHM}")]
    Algorithm,
    /// No key of ours has the key's name in the header.
    #[error("the token is signed by an unknown key")]
    UnknownKey,
    /// The signature does not belong to what is signed.
    #[error("the token's signature is wrong")]
    Signature,
}

// === impl TokenKey ===

impl TokenKey {
    /// The key in a PKCS#8 PEM file, made there if it does not exist.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds no P-256 key.
    pub fn load_or_create(path: &Path) -> Result<Self, PkiError> {
        if path.exists() {
            return Self::from_pem(&read_file(path)?);
        }
        let made = new_pair()?;
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(|source| file_error("write", dir, source))?;
        }
        write_file(path, &made.serialize_pem(), 0o600)?;
        Self::of_pair(&made)
    }

    /// A key that exists only in memory.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate() -> Result<Self, PkiError> {
        Self::of_pair(&new_pair()?)
    }

    fn from_pem(pem: &str) -> Result<Self, PkiError> {
        Self::of_pair(&KeyPair::from_pem(pem).map_err(|error| malformed(error.to_string()))?)
    }

    fn of_pair(key: &KeyPair) -> Result<Self, PkiError> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &key.serialize_der(),
            &random,
        )
        .map_err(|error| malformed(error.to_string()))?;
        let hash = digest(&SHA256, &key.subject_public_key_info());
        Ok(Self { pair, random, id: URL_SAFE_NO_PAD.encode(hash) })
    }

    /// The key's name in headers of tokens: the hash of its public half, as Kubernetes makes it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A token with these claims.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn sign(&self, claims: &Value) -> Result<String, PkiError> {
        let header = json!({"alg": ALGORITHM, "kid": self.id});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let mut token = format!("{}.{}", encode(&header), encode(claims));
        let signature = self
            .pair
            .sign(&self.random, token.as_bytes())
            .map_err(|_| malformed("it cannot sign: no randomness".to_owned()))?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// The claims of a token that this key signed.
    ///
    /// # Errors
    /// When it is no token, or another's.
    pub fn verify(&self, token: &str) -> Result<Map<String, Value>, BadJwt> {
        if token.len() > TOKEN_MAX_BYTES {
            return Err(BadJwt::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(BadJwt::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(BadJwt::Malformed)?;
        if claims.contains('.') {
            return Err(BadJwt::Malformed);
        }
        self.check_header(&object(header)?)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| BadJwt::Malformed)?;
        let public = self.pair.public_key().as_ref();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public)
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| BadJwt::Signature)?;
        object(claims)
    }

    fn check_header(&self, header: &Map<String, Value>) -> Result<(), BadJwt> {
        // `crit` names extensions that must be understood, and we know none (RFC 7515, 4.1.11).
        if header.get("alg").and_then(Value::as_str) != Some(ALGORITHM)
            || header.contains_key("crit")
        {
            return Err(BadJwt::Algorithm);
        }
        match header.get("kid") {
            None => Ok(()),
            Some(id) if id.as_str() == Some(&self.id) => Ok(()),
            Some(_) => Err(BadJwt::UnknownKey),
        }
    }

    /// The public half as a JSON Web Key (RFC 7517).
    #[must_use]
    pub fn public_jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        debug_assert_eq!(point.len(), POINT_BYTES);
        let coordinates = point.get(1..).unwrap_or_default();
        let (x, y) = coordinates.split_at(COORDINATE_BYTES.min(coordinates.len()));
        json!({"use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": ALGORITHM,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The claims of a token that nothing is known of yet: for telling whether it may be ours at all.
/// What it answers must not be trusted.
#[must_use]
pub fn unverified_claims(token: &str) -> Option<Map<String, Value>> {
    if token.len() > TOKEN_MAX_BYTES {
        return None;
    }
    let mut parts = token.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() { None } else { object(claims).ok() }
}

fn object(part: &str) -> Result<Map<String, Value>, BadJwt> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| BadJwt::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| BadJwt::Malformed)
}

fn new_pair() -> Result<KeyPair, PkiError> {
    KeyPair::generate()
        .map_err(|source| PkiError::Sign { what: "the key of tokens".into(), source })
}

fn malformed(reason: String) -> PkiError {
    PkiError::Malformed { what: "the key of tokens", reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Value {
        json!({"iss": "me", "aud": ["you"], "n": 1})
    }

    fn token(header: &Value, claims: &Value, signature: &[u8]) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.{}", encode(header), encode(claims), URL_SAFE_NO_PAD.encode(signature))
    }

    #[test]
    fn what_is_signed_is_verified_by_the_same_key_only() {
        let (key, other) = (TokenKey::generate().unwrap(), TokenKey::generate().unwrap());
        let signed = key.sign(&claims()).unwrap();
        assert_eq!(Value::Object(key.verify(&signed).unwrap()), claims());
        assert_eq!(other.verify(&signed), Err(BadJwt::UnknownKey));
        let jwk = key.public_jwk();
        assert_eq!((&jwk["crv"], &jwk["kid"]), (&json!("P-256"), &json!(key.id())));
        assert_eq!(jwk["x"].as_str().unwrap().len(), 43);
        // Another key under our key's name signs nothing for us.
        let forged = TokenKey { id: key.id.clone(), ..other };
        assert_eq!(key.verify(&forged.sign(&claims()).unwrap()), Err(BadJwt::Signature));
    }

    #[test]
    fn the_key_is_kept_in_its_file() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("pki/sa.key");
        let signed = TokenKey::load_or_create(&path).unwrap().sign(&claims()).unwrap();
        assert!(TokenKey::load_or_create(&path).unwrap().verify(&signed).is_ok());
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&path, "no key").unwrap();
        assert!(matches!(TokenKey::load_or_create(&path), Err(PkiError::Malformed { .. })));
    }

    #[test]
    fn headers_choose_no_algorithm() {
        let key = TokenKey::generate().unwrap();
        let signed = key.sign(&claims()).unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signed.rsplit_once('.').unwrap().1).unwrap();
        let id = key.id();
        for (header, why) in [
            (json!({"alg": "none", "kid": id}), BadJwt::Algorithm),
            (json!({"alg": "None", "kid": id}), BadJwt::Algorithm),
            (json!({"alg": "HS256", "kid": id}), BadJwt::Algorithm),
            (json!({"alg": "RS256", "kid": id}), BadJwt::Algorithm),
            (json!({"alg": null, "kid": id}), BadJwt::Algorithm),
            (json!({"kid": id}), BadJwt::Algorithm),
            (json!({"alg": "ES256", "kid": id, "crit": ["x"]}), BadJwt::Algorithm),
            (json!({"alg": "ES256", "kid": "x"}), BadJwt::UnknownKey),
            (json!({"alg": "ES256", "kid": 1}), BadJwt::UnknownKey),
            // Right in every word, but not what was signed.
            (json!({"alg": "ES256", "kid": id, "typ": "JWT"}), BadJwt::Signature),
        ] {
            for signature in [&signature[..], &[], &[0; 64]] {
                assert_eq!(key.verify(&token(&header, &claims(), signature)), Err(why), "{header}");
            }
        }
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let key = TokenKey::generate().unwrap();
        let signed = key.sign(&claims()).unwrap();
        for at in 0..signed.len() {
            for byte in *b"A.-_=~ " {
                let mut changed = signed.clone().into_bytes();
                if changed[at] == byte {
                    continue;
                }
                changed[at] = byte;
                assert!(key.verify(std::str::from_utf8(&changed).unwrap()).is_err(), "byte {at}");
            }
            assert!(key.verify(&signed[..at]).is_err(), "cut at {at}");
        }
        assert!(key.verify(&format!("{signed}A")).is_err());
        assert!(key.verify(&format!("{signed}=")).is_err());
        assert_eq!(key.verify(&"a".repeat(TOKEN_MAX_BYTES + 1)), Err(BadJwt::TooLong));
    }
}
