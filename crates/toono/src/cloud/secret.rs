//! The cluster secret: the ring of its epochs in a file for its owner alone.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use toono_fleet::Keyring;

use crate::{
    cloud::{kubeconfig, token},
    failure::Failure,
};

/// Its name in the data directory.
pub(crate) const FILE_NAME: &str = "cluster-secret";

/// The ring in the data directory, made there if there is none.
pub(crate) fn load_or_create(dir: &Path) -> Result<Keyring, Failure> {
    let path = path(dir);
    match fs::read_to_string(&path) {
        Ok(text) => Keyring::parse(&text).map_err(|error| unusable(&path, &error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let ring = Keyring::new(random()?, now());
            save(dir, &ring)?;
            Ok(ring)
        }
        Err(error) => Err(unusable(&path, &error)),
    }
}

/// Puts this ring in place of the one in the data directory.
pub(crate) fn save(dir: &Path, ring: &Keyring) -> Result<(), Failure> {
    let path = path(dir);
    kubeconfig::write(&path, &ring.render()).map_err(|error| unusable(&path, &error))
}

/// A secret that nobody knows yet.
pub(crate) fn random() -> Result<[u8; 32], Failure> {
    toono_pki::random_secret().ok_or_else(token::no_randomness)
}

/// Unix seconds.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}

fn path(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

fn unusable(path: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        "cluster-secret",
        format!("cannot use {}: {why}", path.display()),
        "restore the file from a backup; without it every node must join again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let made = load_or_create(dir.path()).unwrap();
        assert_eq!(load_or_create(dir.path()).unwrap(), made);
        for damaged in ["", "00", &"zz".repeat(32), &"é".repeat(32)] {
            fs::write(path(dir.path()), damaged).unwrap();
            assert!(load_or_create(dir.path()).is_err(), "{damaged}");
        }
    }
}
