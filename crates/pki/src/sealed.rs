//! Bytes that only who knows a passphrase can read, for a place where others may read or write.
//!
//! ```text
//! version 1 | salt 16 | nonce 12 | AES-256-GCM of the bytes, with its tag
//! ```
//!
//! The key is PBKDF2-HMAC-SHA256 of the passphrase with the salt, which is new each time, so that no nonce
//! is used twice under one key.

use std::num::NonZeroU32;

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    pbkdf2,
    rand::{SecureRandom, SystemRandom},
};

const VERSION: u8 = 1;
const SALT_BYTES: usize = 16;
/// Slow enough that a guessed passphrase costs something, quick enough for a start: some 30 ms.
const ROUNDS: NonZeroU32 = NonZeroU32::new(100_000).unwrap();

/// Why sealed bytes could not be opened, or none be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The system has no randomness.
    #[error("the system gives no random bytes")]
    NoRandomness,
    /// It was sealed with another passphrase, or changed since.
    #[error("the passphrase is not the one with which this was sealed")]
    Passphrase,
    /// These are no sealed bytes of a version that is known.
    #[error("the sealed bytes have an unknown form")]
    Form,
}

/// Seals bytes.
///
/// # Errors
/// [`SealError::NoRandomness`].
pub fn seal(passphrase: &str, bytes: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut random = [0; SALT_BYTES + NONCE_LEN];
    SystemRandom::new().fill(&mut random).map_err(|_| SealError::NoRandomness)?;
    let mut sealed = vec![VERSION];
    sealed.extend(random);
    let (key, nonce) = key(passphrase, &random)?;
    let mut text = bytes.to_vec();
    key.seal_in_place_append_tag(nonce, Aad::from([VERSION]), &mut text)
        .map_err(|_| SealError::Form)?;
    sealed.extend(text);
    Ok(sealed)
}

/// Opens what [`seal`] made.
///
/// # Errors
/// When the passphrase is another one, or these are no such bytes.
pub fn unseal(passphrase: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let rest = sealed.strip_prefix(&[VERSION]).ok_or(SealError::Form)?;
    let (random, text) = rest.split_at_checked(SALT_BYTES + NONCE_LEN).ok_or(SealError::Form)?;
    let (key, nonce) = key(passphrase, random)?;
    let mut text = text.to_vec();
    let opened = key
        .open_in_place(nonce, Aad::from([VERSION]), &mut text)
        .map_err(|_| SealError::Passphrase)?;
    Ok(opened.to_vec())
}

fn key(passphrase: &str, random: &[u8]) -> Result<(LessSafeKey, Nonce), SealError> {
    let (salt, nonce) = random.split_at_checked(SALT_BYTES).ok_or(SealError::Form)?;
    let mut derived = [0; 32];
    let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
    pbkdf2::derive(algorithm, ROUNDS, salt, passphrase.as_bytes(), &mut derived);
    let key = UnboundKey::new(&AES_256_GCM, &derived).map_err(|_| SealError::Form)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Form)?;
    Ok((LessSafeKey::new(key), nonce))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_passphrase_opens_what_was_sealed() {
        let sealed = seal("a long passphrase", b"secret").unwrap();
        assert_eq!(unseal("a long passphrase", &sealed).unwrap(), b"secret");
        assert_ne!(seal("a long passphrase", b"secret").unwrap(), sealed);
        assert_eq!(unseal("another passphrase", &sealed), Err(SealError::Passphrase));
        for at in 1..sealed.len() {
            let mut changed = sealed.clone();
            // Each derivation takes its time: the ends of the parts are enough.
            if ![1, 16, 17, 28, 29, sealed.len() - 1].contains(&at) {
                continue;
            }
            changed[at] ^= 1;
            assert_eq!(unseal("a long passphrase", &changed), Err(SealError::Passphrase), "{at}");
        }
        for form in [&sealed[..20], &[], &[2, 3]] {
            assert_eq!(unseal("a long passphrase", form), Err(SealError::Form));
        }
    }
}
