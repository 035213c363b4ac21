//! The room on the disk of the image store, and what of it images must leave to others.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use nix::sys::statvfs::statvfs;

/// What images leave free, unless a twentieth of the disk is less: the node's own records and the pods'
/// writes must find room whatever is pulled.
pub const RESERVE_BYTES: u64 = 64 << 20;
const RESERVE_DIVISOR: u64 = 20;
/// So many bytes are written between two looks at the room that is left.
const LOOK_EVERY_BYTES: u64 = 4 << 20;

/// A file system's size and what of it is free, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub capacity: u64,
    /// What may still be written.
    pub available: u64,
}

impl Space {
    /// Of the file system that holds `path`.
    ///
    /// # Errors
    /// The system's.
    pub fn of(path: &Path) -> io::Result<Self> {
        let found = statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
        Ok(Self { capacity: bytes(found.blocks()), available: bytes(found.blocks_available()) })
    }

    /// What images may still take.
    #[must_use]
    pub fn for_images(&self) -> u64 {
        self.available.saturating_sub(RESERVE_BYTES.min(self.capacity / RESERVE_DIVISOR))
    }

    /// The share that is taken, in percent, as the kubelet counts it.
    #[must_use]
    pub fn used_percent(&self) -> u64 {
        let free = self.available.saturating_mul(100).checked_div(self.capacity).unwrap_or(100);
        100u64.saturating_sub(free)
    }

    /// What is to be freed so that no more than this share is taken.
    #[must_use]
    pub fn excess_over(&self, percent: u64) -> u64 {
        let wanted = self.capacity / 100 * 100u64.saturating_sub(percent);
        wanted.saturating_sub(self.available)
    }
}

/// What is read through it goes to the disk: it ends when images would take more of that than they may.
pub(crate) struct Guarded<R> {
    reader: R,
    /// Where it goes.
    dir: PathBuf,
    since_look: u64,
}

impl<R> Guarded<R> {
    pub(crate) fn new(reader: R, dir: &Path) -> Self {
        Self { reader, dir: dir.to_owned(), since_look: 0 }
    }
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.since_look >= LOOK_EVERY_BYTES {
            self.since_look = 0;
            if Space::of(&self.dir)?.for_images() == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let length = self.reader.read(buffer)?;
        self.since_look += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_counted_as_the_kubelet_does() {
        let space = Space { capacity: 100_000, available: 14_000 };
        assert_eq!(space.used_percent(), 86);
        assert_eq!(space.excess_over(80), 6_000);
        assert_eq!(space.excess_over(90), 0);
        assert_eq!(space.for_images(), 9_000);
        let none = Space { capacity: 0, available: 0 };
        assert_eq!((none.used_percent(), none.excess_over(80), none.for_images()), (0, 0, 0));
    }

    #[test]
    fn the_reserve_of_a_large_disk_is_fixed() {
        let space = Space { capacity: 1 << 40, available: RESERVE_BYTES + 5 };
        assert_eq!(space.for_images(), 5);
        assert!(Space::of(Path::new("/")).unwrap().capacity > 0);
    }
}
