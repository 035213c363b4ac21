//! A CA pin: what a joining node knows of the cluster before it trusts anything.

use std::{fmt, str::FromStr};

use ring::digest::{SHA256, digest};

const PREFIX: &str = "sha256:";

/// The SHA-256 of a CA's SubjectPublicKeyInfo (DER), printed as `sha256:HEX` like kubeadm's
/// `--discovery-token-ca-cert-hash`
/// (<https://kubernetes.io/docs/reference/setup-tools/kubeadm/kubeadm-join/>).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CaPin([u8; 32]);

/// A text that is no pin.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not sha256: followed by 64 hexadecimal digits")]
pub struct BadPin(pub String);

impl CaPin {
    /// The pin of a public key, given its DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn of_spki(spki_der: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, spki_der).as_ref());
        Self(hash)
    }

    /// Whether this is the pin of that public key.
    #[must_use]
    pub fn matches(&self, spki_der: &[u8]) -> bool {
        // Both sides are public, so the comparison's timing tells nothing.
        *self == Self::of_spki(spki_der)
    }
}

impl fmt::Display for CaPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", hex::encode(self.0))
    }
}

impl fmt::Debug for CaPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for CaPin {
    type Err = BadPin;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadPin(text.to_owned());
        let digits = text.trim().strip_prefix(PREFIX).ok_or_else(bad)?;
        let mut hash = [0; 32];
        hex::decode_to_slice(digits, &mut hash).map_err(|_| bad())?;
        Ok(Self(hash))
    }
}
