//! Files that survive a power cut: whole or not at all, and recognised when they are damaged.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::AgentError;

/// What a checked file starts with; the number is the format's version.
const MAGIC: &str = "toono1";

/// Whether a write must have reached the disk before it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Synced, with its directory.
    Synced,
    /// Only whole: after a power cut the file may be older, empty or missing.
    Lazy,
}

/// Replaces a file by these bytes, behind a header with their length and checksum.
pub(crate) fn write_checked(
    path: &Path,
    payload: &[u8],
    durability: Durability,
) -> Result<(), AgentError> {
    let mut bytes =
        format!("{MAGIC} {:08x} {}\n", crc32c::crc32c(payload), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    replace(path, &bytes, 0o600, durability)
}

/// The bytes of a checked file. None when it is missing or damaged, which is logged.
pub(crate) fn read_checked(path: &Path) -> Result<Option<Vec<u8>>, AgentError> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed("read", path))?,
    };
    let payload = verify(bytes);
    if payload.is_none() {
        tracing::warn!(path = %path.display(), "the file is damaged and is not used");
    }
    Ok(payload)
}

fn verify(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let payload = bytes.split_off(end + 1);
    let head = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let mut fields = head.split(' ');
    let whole = fields.next() == Some(MAGIC)
        && u32::from_str_radix(fields.next()?, 16).ok()? == crc32c::crc32c(&payload)
        && fields.next()?.parse() == Ok(payload.len());
    whole.then_some(payload)
}

/// Replaces a file by these bytes and nothing else.
pub(crate) fn replace(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    durability: Durability,
) -> Result<(), AgentError> {
    let temporary = temporary(path);
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        if durability == Durability::Synced {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)?;
        if durability == Durability::Synced {
            sync_parent(path)?;
        }
        Ok(())
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        failed("write", path)(source)
    })
}

/// Deletes a tree; no error when there is none.
pub(crate) fn remove_tree(path: &Path) -> Result<(), AgentError> {
    ignore_missing(fs::remove_dir_all(path)).map_err(failed("delete", path))
}

/// Makes a directory and those above it.
pub(crate) fn make_dir(path: &Path) -> Result<(), AgentError> {
    fs::create_dir_all(path).map_err(failed("make", path))
}

/// An error of this path.
pub(crate) fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AgentError {
    let path = path.to_owned();
    move |source| AgentError::Disk { verb, path, source }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_or_flipped_file_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        assert_eq!(read_checked(&path).unwrap(), None);
        write_checked(&path, b"{\"a\":1}", Durability::Synced).unwrap();
        assert_eq!(read_checked(&path).unwrap().unwrap(), b"{\"a\":1}");
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(read_checked(&path).unwrap(), None, "cut at {length}");
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            fs::write(&path, &flipped).unwrap();
            let read = read_checked(&path).unwrap();
            assert!(read.is_none_or(|read| read == b"{\"a\":1}"), "flipped at {at}");
        }
    }

    #[test]
    fn nothing_is_left_of_a_failed_write() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("taken");
        fs::create_dir(&taken).unwrap();
        fs::write(taken.join("x"), "").unwrap();
        assert!(write_checked(&taken, b"x", Durability::Lazy).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
