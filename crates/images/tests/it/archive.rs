//! Tar archives as the tests want them, also those that no honest tool writes.

use tar::{Builder, EntryType, Header};

pub struct Tar(Builder<Vec<u8>>);

impl Tar {
    pub fn new() -> Self {
        Self(Builder::new(vec![]))
    }

    pub fn file(self, path: &str, content: &str) -> Self {
        self.entry(path, EntryType::Regular, 0o644, (0, 0), "", content.as_bytes())
    }

    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(path, EntryType::Directory, mode, (0, 0), "", b"")
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Symlink, 0o777, (0, 0), target, b"")
    }

    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Link, 0o644, (0, 0), target, b"")
    }

    pub fn entry(
        mut self,
        path: &str,
        kind: EntryType,
        mode: u32,
        owner: (u64, u64),
        link: &str,
        content: &[u8],
    ) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        // The crate's own setters refuse names that lead outside.
        let raw = header.as_old_mut();
        raw.name[..path.len()].copy_from_slice(path.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    /// Extended attributes of the entry that follows.
    pub fn attributes(mut self, attributes: &[(&str, &[u8])]) -> Self {
        let keys = attributes.iter().map(|(name, _)| format!("SCHILY.xattr.{name}"));
        let keys: Vec<String> = keys.collect();
        let values = attributes.iter().map(|(_, value)| *value);
        self.0.append_pax_extensions(keys.iter().map(String::as_str).zip(values)).unwrap();
        self
    }

    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}
