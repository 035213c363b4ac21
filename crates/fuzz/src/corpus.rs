//! The corpora on disk: one folder a target, one file an input, named by what is in it.
//!
//! It stores reproducers and never removes anything.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Where the corpora are.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// A target's inputs with their files' names, in order of these.
///
/// # Errors
/// When the folder cannot be read.
pub fn load(target: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut inputs = Vec::new();
    for entry in fs::read_dir(root().join(target))? {
        let entry = entry?;
        inputs.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?));
    }
    inputs.sort();
    Ok(inputs)
}

/// Keeps an input that found a defect; returns its file.
///
/// # Errors
/// When it cannot be written.
pub fn keep(target: &str, what: &str, input: &[u8]) -> io::Result<PathBuf> {
    let folder = root().join(target);
    fs::create_dir_all(&folder)?;
    // Equal inputs get equal names.
    let digest = toono_images::Digest::of(input).hex();
    let path = folder.join(format!("{what}-{}", digest.get(..12).unwrap_or_default()));
    fs::write(&path, input)?;
    Ok(path)
}
