//! Statements that the CA's key signs and everyone who holds its certificate can check.
//!
//! What is signed must begin with a text that says what it is: a certificate begins with an ASN.1 sequence
//! and a token with base64url, so that no statement can pass for either.

use rcgen::SigningKey as _;
use ring::{
    hmac,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256,
        UnparsedPublicKey, VerificationAlgorithm,
    },
};
use x509_parser::{
    prelude::{FromDer as _, X509Certificate},
    public_key::PublicKey,
};

use crate::{ClusterCa, PkiError, tls::certificates};

/// The keys of a cluster's CA certificates, by which its statements are checked.
pub struct CaKeys {
    keys: Vec<(&'static dyn VerificationAlgorithm, Vec<u8>)>,
}

impl ClusterCa {
    /// Signs a statement, by ECDSA on P-256 with SHA-256 if the CA is one that this program made.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn sign_statement(&self, statement: &[u8]) -> Result<Vec<u8>, PkiError> {
        let signed = self.key().sign(statement);
        signed.map_err(|source| PkiError::Sign { what: "a statement".into(), source })
    }

    /// A secret that is the same at each server of the cluster and after each start, and tells nothing of the CA's
    /// key: HMAC-SHA256 under that key over what it is for. No two purposes may be one text.
    #[must_use]
    pub fn secret_for(&self, purpose: &[u8]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.key().serialize_der());
        let mut context = hmac::Context::with_key(&key);
        context.update(b"toono secret\0");
        context.update(purpose);
        let mut secret = [0; 32];
        for (place, byte) in secret.iter_mut().zip(context.sign().as_ref()) {
            *place = *byte;
        }
        secret
    }
}

impl CaKeys {
    /// The keys of the certificates in `ca_pem`.
    ///
    /// # Errors
    /// When one is no certificate, or its key of no kind that a CA here can have.
    pub fn of_pem(ca_pem: &str) -> Result<Self, PkiError> {
        let what = "the CA certificate";
        let malformed = |reason: String| PkiError::Malformed { what, reason };
        let mut keys = Vec::new();
        for certificate in certificates(ca_pem, what)? {
            let (_, parsed) = X509Certificate::from_der(&certificate)
                .map_err(|error| malformed(error.to_string()))?;
            let bits = parsed.public_key().subject_public_key.data.to_vec();
            let algorithm = parsed.public_key().parsed().ok().and_then(|key| algorithm(&key));
            let algorithm =
                algorithm.ok_or_else(|| malformed("its key is of no known kind".into()))?;
            keys.push((algorithm, bits));
        }
        Ok(Self { keys })
    }

    /// Whether one of the keys signed the statement.
    #[must_use]
    pub fn vouch_for(&self, statement: &[u8], signature: &[u8]) -> bool {
        let mut keys = self.keys.iter();
        keys.any(|(algorithm, key)| {
            UnparsedPublicKey::new(*algorithm, key).verify(statement, signature).is_ok()
        })
    }
}

/// What signs with such a key does so by this.
fn algorithm(key: &PublicKey<'_>) -> Option<&'static dyn VerificationAlgorithm> {
    match key {
        PublicKey::EC(point) if point.key_size() == 256 => Some(&ECDSA_P256_SHA256_ASN1),
        PublicKey::EC(point) if point.key_size() == 384 => Some(&ECDSA_P384_SHA384_ASN1),
        PublicKey::RSA(_) => Some(&RSA_PKCS1_2048_8192_SHA256),
        PublicKey::Unknown(bits) if bits.len() == 32 => Some(&ED25519),
        _ => None,
    }
}

impl std::fmt::Debug for CaKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaKeys").field("keys", &self.keys.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_the_cas_or_nobodys() {
        let (ca, other) = (ClusterCa::generate().unwrap(), ClusterCa::generate().unwrap());
        let keys = CaKeys::of_pem(ca.cert_pem()).unwrap();
        let signature = ca.sign_statement(b"toono test\0yes").unwrap();
        assert!(keys.vouch_for(b"toono test\0yes", &signature));
        assert!(!keys.vouch_for(b"toono test\0no", &signature));
        assert!(!keys.vouch_for(b"toono test\0yes", &signature[1..]));
        assert!(!keys.vouch_for(b"toono test\0yes", b""));
        let both = format!("{}{}", other.cert_pem(), ca.cert_pem());
        assert!(CaKeys::of_pem(&both).unwrap().vouch_for(b"toono test\0yes", &signature));
        let other = CaKeys::of_pem(other.cert_pem()).unwrap();
        assert!(!other.vouch_for(b"toono test\0yes", &signature));
        assert!(CaKeys::of_pem("").is_err());
    }

    #[test]
    fn a_secret_is_the_cas_and_its_purposes() {
        let (ca, other) = (ClusterCa::generate().unwrap(), ClusterCa::generate().unwrap());
        assert_eq!(ca.secret_for(b"a"), ca.secret_for(b"a"));
        assert_ne!(ca.secret_for(b"a"), ca.secret_for(b"b"));
        assert_ne!(ca.secret_for(b"a"), other.secret_for(b"a"));
    }
}
