//! From a layer's archive to a directory under its final name.
//!
//! A layer is known by the digest of its uncompressed archive (the configuration's `diff_id`), so it is here
//! once, however it came.

use std::{
    fs,
    io::{self, BufRead, Read},
    path::{Path, PathBuf},
};

use crate::{
    compression::decompressed,
    digest::{Digest, Hasher},
    error::is_full,
    space::Guarded,
    store::{discard, publish},
    unpack::{UnpackError, unpack},
};

/// Why there is no such layer now.
#[derive(Debug)]
pub(crate) enum LayerError {
    Unpack(UnpackError),
    Corrupted {
        got: Digest,
    },
    /// There is no room for it.
    Full,
    Disk(io::Error),
}

/// Unpacks an archive, compressed or not, in `tree`, and publishes that as `destination`.
pub(crate) fn install<R: BufRead + 'static>(
    archive: R,
    diff_id: &Digest,
    tree: PathBuf,
    destination: &Path,
) -> Result<(), LayerError> {
    let tree = Temporary(tree);
    fs::create_dir(&tree.0).map_err(disk)?;
    let got = unpack_all(archive, &tree.0).map_err(|error| match &error {
        UnpackError::Archive(source) | UnpackError::Entry { source, .. } if is_full(source) => {
            LayerError::Full
        }
        _ => LayerError::Unpack(error),
    })?;
    if got != *diff_id {
        return Err(LayerError::Corrupted { got });
    }
    publish(&tree.0, destination).map_err(disk)
}

/// Returns the digest of the uncompressed archive.
fn unpack_all<R: BufRead + 'static>(archive: R, tree: &Path) -> Result<Digest, UnpackError> {
    let reader = decompressed(archive).map_err(UnpackError::Archive)?;
    let mut hashing = Hashing { reader: Guarded::new(reader, tree), hasher: Hasher::new() };
    unpack(&mut hashing, tree)?;
    // An archive may end in padding that unpacking does not read.
    io::copy(&mut hashing, &mut io::sink()).map_err(UnpackError::Archive)?;
    Ok(hashing.hasher.finish())
}

/// Hashes what is read through it.
struct Hashing {
    reader: Guarded<Box<dyn Read>>,
    hasher: Hasher,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.hasher.update(buffer.get(..length).unwrap_or_default());
        Ok(length)
    }
}

/// A path that is deleted when it goes out of scope. A tree that was published is not there.
pub(crate) struct Temporary(pub(crate) PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = discard(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "cannot delete");
        }
    }
}

fn disk(error: io::Error) -> LayerError {
    if is_full(&error) { LayerError::Full } else { LayerError::Disk(error) }
}
