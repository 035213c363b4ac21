//! Room on file systems, and what a directory takes of it.

use std::{collections::HashSet, fs, os::unix::fs::MetadataExt, path::Path};

/// The unit that `stat` counts blocks in, whatever the file system's own.
const BLOCK_BYTES: u64 = 512;

/// A file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) capacity: u64,
    /// What a user may still take; root may take more.
    pub(crate) available: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
    /// Which file system it is.
    pub(crate) device: u64,
}

/// What files take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

impl Space {
    /// The file system of a path; zeros where that cannot be told.
    pub(crate) fn of(path: &Path) -> Self {
        let Ok(it) = nix::sys::statvfs::statvfs(path) else { return Self::default() };
        Self {
            capacity: it.blocks().saturating_mul(it.fragment_size()),
            available: it.blocks_available().saturating_mul(it.fragment_size()),
            inodes: it.files(),
            inodes_free: it.files_free(),
            device: fs::metadata(path).map_or(0, |it| it.dev()),
        }
    }

    pub(crate) fn used(&self) -> u64 {
        self.capacity.saturating_sub(self.available)
    }
}

impl std::ops::AddAssign for Used {
    fn add_assign(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.inodes = self.inodes.saturating_add(other.inodes);
    }
}

/// What a directory takes, with all that is below it on its own file system. What several names lead to
/// is counted once; what cannot be looked at, or has just gone, is not.
pub(crate) fn used(dir: &Path) -> Used {
    let mut used = Used::default();
    let Ok(root) = fs::symlink_metadata(dir) else { return used };
    let mut seen = HashSet::new();
    let mut dirs = vec![dir.to_owned()];
    used += Used { bytes: root.blocks().saturating_mul(BLOCK_BYTES), inodes: 1 };
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.dev() != root.dev()
                || metadata.nlink() > 1 && !metadata.is_dir() && !seen.insert(metadata.ino())
            {
                continue;
            }
            used += Used { bytes: metadata.blocks().saturating_mul(BLOCK_BYTES), inodes: 1 };
            if metadata.is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_once_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let empty = used(dir.path());
        assert_eq!(empty.inodes, 1);
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/x"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(dir.path().join("a/x"), dir.path().join("y")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("root")).unwrap();
        let full = used(dir.path());
        assert_eq!(full.inodes, 4, "the directory, the one in it, a file, a link");
        let grown = full.bytes - empty.bytes;
        assert!((1 << 20..(1 << 20) + 100_000).contains(&grown), "{grown}");
        assert_eq!(used(&dir.path().join("none")), Used::default());
    }

    #[test]
    fn a_file_system_has_room_and_a_number() {
        let space = Space::of(Path::new("/"));
        assert!(space.capacity >= space.available && space.capacity > 0);
        assert_eq!(space.used(), space.capacity - space.available);
    }
}
