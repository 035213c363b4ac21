//! The cluster's trust: its CA, the certificates it signs, CA pins, bootstrap tokens, the key and form of
//! service accounts' tokens, statements that the CA signs, TLS settings.
//!
//! It reads and writes only the CA's two files and that key's, and decides no one's rights: it says who a
//! certificate names, not what they may do.

mod authority;
mod csr;
mod dates;
mod der;
mod jwt;
mod local;
mod peer;
mod pin;
mod request;
mod sealed;
mod statement;
mod tls;
mod token;

pub use authority::{CLIENT_LIFETIME, ClusterCa, Issued, NodeKey, SERVER_LIFETIME};
pub use csr::CertificateRequest;
pub use jwt::{BadJwt, TOKEN_MAX_BYTES, TokenKey, unverified_claims};
pub use local::LocalServer;
pub use peer::{peer_client_config, peer_server_config};
pub use pin::{BadPin, CaPin};
pub use request::{REQUEST_MAX_BYTES, requested_subject};
pub use sealed::{SealError, seal, unseal};
pub use statement::CaKeys;
pub use tls::{
    Subject, client_config, client_config_pinned, client_config_unverified, fingerprint,
    fingerprint_of_pem, lifetime_of_pem, node_client_config, pin_of, server_config, subject,
    subject_of_expired, verified_ca_pem,
};
pub use token::{BadToken, BootstrapToken};

/// Why a certificate, key or TLS setting could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file of the CA cannot be read or written.
    #[error("cannot {verb} {}", path.display())]
    File {
        /// `read` or `write`.
        verb: &'static str,
        /// Which file.
        path: std::path::PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// PEM or DER that does not hold what it should.
    #[error("{what} is not valid: {reason}")]
    Malformed {
        /// Which document.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Signing failed.
    #[error("cannot sign {what}")]
    Sign {
        /// Which certificate.
        what: String,
        /// The signer's reason.
        source: rcgen::Error,
    },
    /// TLS refuses the material.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
}

/// 32 random bytes, or none when the system has no randomness.
#[must_use]
pub fn random_secret() -> Option<[u8; 32]> {
    use ring::rand::SecureRandom as _;
    let mut secret = [0; 32];
    ring::rand::SystemRandom::new().fill(&mut secret).ok()?;
    Some(secret)
}

/// The SHA-256 of some bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    hash
}
