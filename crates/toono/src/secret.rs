//! The cluster secret: 32 random bytes, hexadecimal, in a file for its owner alone.

use std::{fs, path::Path};

use crate::{failure::Failure, kubeconfig, token};

/// The secret in `path`, made there if the file does not exist.
pub(crate) fn load_or_create(path: &Path) -> Result<[u8; 32], Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        Failure::new(
            "cluster-secret",
            format!("cannot use {}: {why}", path.display()),
            "restore the file from a backup; without it every node must join again",
        )
    };
    match fs::read_to_string(path) {
        Ok(text) => parse(text.trim()).ok_or_else(|| failed(&"it is not 64 hexadecimal digits")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let secret = toono_pki::random_secret().ok_or_else(token::no_randomness)?;
            let text: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
            kubeconfig::write(path, &format!("{text}\n")).map_err(|error| failed(&error))?;
            Ok(secret)
        }
        Err(error) => Err(failed(&error)),
    }
}

fn parse(text: &str) -> Option<[u8; 32]> {
    let mut secret = [0; 32];
    if text.len() != 2 * secret.len() || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in secret.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster-secret");
        let made = load_or_create(&path).unwrap();
        assert_eq!(load_or_create(&path).unwrap(), made);
        for damaged in ["", "00", &"zz".repeat(32), &"é".repeat(32)] {
            fs::write(&path, damaged).unwrap();
            assert!(load_or_create(&path).is_err(), "{damaged}");
        }
    }
}
