//! Files that survive a power cut: whole or not at all, and recognised when they are damaged.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::AgentError;

#[cfg(test)]
pub(crate) mod small;
mod twins;

/// What a checked file starts with; the number is the format's version.
const MAGIC: &str = "toono1";
/// They are for root alone: many hold secrets.
const MODE: u32 = 0o600;

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
    replace(path, &with_header(payload), durability)
}

/// As [`write_checked`], for a file that is written again and again, also when the disk is full by then.
pub(crate) fn rewrite_checked(
    path: &Path,
    payload: &[u8],
    durability: Durability,
) -> Result<(), AgentError> {
    twins::rewrite(path, with_header(payload), durability).map_err(failed("write", path))
}

/// As [`rewrite_checked`], for JSON without a header, which may end with empty lines.
pub(crate) fn rewrite_json(
    path: &Path,
    json: Vec<u8>,
    durability: Durability,
) -> Result<(), AgentError> {
    twins::rewrite(path, json, durability).map_err(failed("write", path))
}

fn with_header(payload: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("{MAGIC} {:08x} {}\n", crc32c::crc32c(payload), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
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
    let mut payload = bytes.split_off(end + 1);
    let head = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let mut fields = head.split(' ');
    let is_ours = fields.next() == Some(MAGIC);
    let checksum = u32::from_str_radix(fields.next()?, 16).ok()?;
    let length = fields.next()?.parse().ok()?;
    if !is_ours || payload.len() < length {
        return None;
    }
    // What follows is padding.
    payload.truncate(length);
    (crc32c::crc32c(&payload) == checksum).then_some(payload)
}

/// Whether it failed because the disk, or the user's share of it, has no room left.
pub(crate) fn is_full(error: &AgentError) -> bool {
    let AgentError::Disk { source, .. } = error else { return false };
    matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Replaces a file by these bytes and nothing else.
pub(crate) fn replace(path: &Path, bytes: &[u8], durability: Durability) -> Result<(), AgentError> {
    let temporary = temporary(path);
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(MODE).open(&temporary)?;
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
    fn what_is_written_again_is_the_newest_and_padding_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        for length in [1, 9000, 3, 4096, 20_000, 20_000, 0] {
            let payload = vec![b'x'; length];
            rewrite_checked(&path, &payload, Durability::Synced).unwrap();
            assert_eq!(read_checked(&path).unwrap().unwrap(), payload);
        }
        let json = dir.path().join("json");
        for text in ["{\"a\":1}", "[]"] {
            rewrite_json(&json, text.into(), Durability::Lazy).unwrap();
            let read = fs::read(&json).unwrap();
            let read: serde_json::Value = serde_json::from_slice(&read).unwrap();
            assert_eq!(read, serde_json::from_str::<serde_json::Value>(text).unwrap());
        }
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..10]).unwrap();
        assert_eq!(read_checked(&path).unwrap(), None, "cut");
    }

    #[test]
    fn a_full_disk_takes_what_it_had_before() {
        let dir = tempfile::tempdir().unwrap();
        let disk = small::Small::mount(dir.path());
        let path = dir.path().join("boot");
        rewrite_checked(&path, b"1", Durability::Synced).unwrap();
        disk.fill();
        let new = write_checked(&dir.path().join("new"), &[7; 5000], Durability::Synced);
        assert!(is_full(&new.unwrap_err()));
        for number in 2..9 {
            let text = number.to_string();
            rewrite_checked(&path, text.as_bytes(), Durability::Synced).unwrap();
            assert_eq!(read_checked(&path).unwrap().unwrap(), text.as_bytes());
        }
        let grown = rewrite_checked(&path, &[7; 50_000], Durability::Synced);
        assert!(is_full(&grown.unwrap_err()));
        assert_eq!(read_checked(&path).unwrap().unwrap(), b"8", "what was there is whole");
        rewrite_checked(&path, b"9", Durability::Synced).unwrap();
        assert_eq!(read_checked(&path).unwrap().unwrap(), b"9");
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
