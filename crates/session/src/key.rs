//! Keys: derived from the cluster secret on every use, kept nowhere; sealing and opening with them.
//!
//! ```text
//! K    = HKDF-SHA256(secret of the epoch, "toono session" ‖ node uid ‖ generation)
//! up   = HKDF-Expand(K, "toono up")
//! down = HKDF-Expand(K, "toono down" ‖ server instance)
//! ```
//!
//! The cipher is ChaCha20-Poly1305: it needs no key schedule, which matters when each datagram has
//! a key of its own, and is as fast on boxes without AES instructions.

use ring::{aead, digest, hkdf};
use toono_wire::datagram::TAG;

const KEY: usize = 32;

/// The secret of one epoch, as every server of the cluster holds it.
#[derive(Clone)]
pub struct ClusterSecret {
    epoch: u8,
    prk: hkdf::Prk,
}

impl ClusterSecret {
    /// `bytes` must be random and known to the cluster's servers alone.
    #[must_use]
    pub fn new(epoch: u8, bytes: &[u8; 32]) -> Self {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"toono cluster secret");
        Self { epoch, prk: salt.extract(bytes) }
    }

    /// The number that datagrams name it by.
    #[must_use]
    pub fn epoch(&self) -> u8 {
        self.epoch
    }

    /// The key of one identity of one node.
    #[must_use]
    pub fn session_key(&self, uid: &NodeUid, generation: u16) -> SessionKey {
        SessionKey(expand(&self.prk, &[b"toono session", &uid.0, &generation.to_be_bytes()]))
    }
}

impl std::fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterSecret").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// A Node's `metadata.uid` in 16 bytes: the first half of its SHA-256, so that uids of any text
/// have one length in the table and in the key derivation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeUid([u8; 16]);

impl NodeUid {
    /// From the text in `metadata.uid`.
    #[must_use]
    pub fn new(uid: &str) -> Self {
        let hash = digest::digest(&digest::SHA256, uid.as_bytes());
        let mut short = [0; 16];
        for (place, byte) in short.iter_mut().zip(hash.as_ref()) {
            *place = *byte;
        }
        Self(short)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// `K`: what a node is granted when it joins, and what a server derives again for each datagram.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKey(pub(crate) [u8; KEY]);

impl SessionKey {
    /// As in [`SessionGrant::key_hex`](toono_wire::join::SessionGrant::key_hex).
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let mut key = [0; KEY];
        hex::decode_to_slice(text, &mut key).ok()?;
        Some(Self(key))
    }

    pub(crate) fn uplink(&self) -> Cipher {
        Cipher::new(&self.0, &[b"toono up"])
    }

    pub(crate) fn downlink(&self, instance: u64) -> Cipher {
        Cipher::new(&self.0, &[b"toono down", &instance.to_be_bytes()])
    }
}

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKey(…)")
    }
}

/// One direction's AEAD.
pub(crate) struct Cipher(aead::LessSafeKey);

impl Cipher {
    fn new(key: &[u8; KEY], info: &[&[u8]]) -> Self {
        let prk = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, key);
        #[expect(
            clippy::expect_used,
            reason = "HKDF-SHA256 yields up to 255 × 32 bytes, and 32 are asked"
        )]
        let okm = prk.expand(info, &aead::CHACHA20_POLY1305).expect("32 bytes of HKDF");
        Self(aead::LessSafeKey::new(okm.into()))
    }

    /// Encrypts `body` in place and returns the tag over it and `header`.
    pub(crate) fn seal(
        &self,
        nonce: [u8; aead::NONCE_LEN],
        header: &[u8],
        body: &mut [u8],
    ) -> [u8; TAG] {
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        #[expect(
            clippy::expect_used,
            reason = "sealing fails only beyond 256 GiB; bodies are below 96 bytes"
        )]
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, aead::Aad::from(header), body)
            .expect("a short body");
        let mut out = [0; TAG];
        for (place, byte) in out.iter_mut().zip(tag.as_ref()) {
            *place = *byte;
        }
        out
    }

    /// Decrypts `body` in place when `tag` vouches for it and `header`.
    pub(crate) fn open(
        &self,
        nonce: [u8; aead::NONCE_LEN],
        header: &[u8],
        body: &mut [u8],
        tag: [u8; TAG],
    ) -> Option<()> {
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        self.0
            .open_in_place_separate_tag(
                nonce,
                aead::Aad::from(header),
                aead::Tag::from(tag),
                body,
                0..,
            )
            .ok()
            .map(|_| ())
    }
}

/// The nonce of an uplink datagram: `counter ‖ salt`.
pub(crate) fn uplink_nonce(counter: u64, salt: u32) -> [u8; aead::NONCE_LEN] {
    nonce(counter, salt)
}

/// The nonce of a downlink datagram: the instance's counter, which alone never repeats, then the salt of the
/// node's start that it is for. A node whose disk was set back may count as an earlier start did; what was
/// said to that one does not open with its own salt.
pub(crate) fn downlink_nonce(counter: u64, salt: u32) -> [u8; aead::NONCE_LEN] {
    nonce(counter, salt)
}

fn nonce(high: u64, low: u32) -> [u8; aead::NONCE_LEN] {
    ((u128::from(high) << 32) | u128::from(low))
        .to_be_bytes()
        .last_chunk()
        .copied()
        .unwrap_or_default()
}

fn expand(prk: &hkdf::Prk, info: &[&[u8]]) -> [u8; KEY] {
    let mut out = [0; KEY];
    #[expect(
        clippy::expect_used,
        reason = "HKDF-SHA256 yields up to 255 × 32 bytes, and 32 are asked"
    )]
    prk.expand(info, hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut out))
        .expect("32 bytes of HKDF");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_counter_then_salt() {
        assert_eq!(
            uplink_nonce(0x0102_0304_0506_0708, 0x090a_0b0c),
            [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
        );
        assert_eq!(downlink_nonce(1, 2), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
    }

    #[test]
    fn keys_depend_on_every_input() {
        let uid = NodeUid::new("a");
        let base = ClusterSecret::new(1, &[7; 32]).session_key(&uid, 1);
        assert_eq!(
            base,
            ClusterSecret::new(9, &[7; 32]).session_key(&uid, 1),
            "the epoch only names the secret"
        );
        assert_ne!(base, ClusterSecret::new(1, &[8; 32]).session_key(&uid, 1));
        assert_ne!(base, ClusterSecret::new(1, &[7; 32]).session_key(&uid, 2));
        assert_ne!(base, ClusterSecret::new(1, &[7; 32]).session_key(&NodeUid::new("b"), 1));
        assert_eq!(SessionKey::from_hex(&base.to_hex()), Some(base));
    }
}
