//! An archive of images as a set of named files that can be read in any order.
//!
//! The tar is not unpacked: each file is read from where it lies in it. Nothing here knows what the files
//! mean.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Take},
    path::{Component, Path, PathBuf},
};

use tar::{Archive, EntryType};

use crate::{
    compression::{Compression, decompressed},
    space::Guarded,
};

/// More than any archive of images has files.
pub const MAX_ARCHIVE_ENTRIES: usize = 100_000;
/// Links from file to file in an archive that are followed.
const MAX_LINKS: usize = 8;

/// The files of one archive.
#[derive(Debug)]
pub(crate) struct ArchiveFiles {
    file: File,
    entries: BTreeMap<PathBuf, Entry>,
}

#[derive(Debug)]
enum Entry {
    /// Its place and length in the archive.
    File { at: u64, length: u64 },
    /// `docker save` stores a layer that occurs twice as a link to its first place.
    Link(PathBuf),
}

impl ArchiveFiles {
    /// Opens an archive. One that is compressed, or is no file that can be read in any order, is first
    /// copied to `copy`, uncompressed.
    pub(crate) fn open(archive: &Path, copy: &Path) -> io::Result<Self> {
        let opened = File::open(archive)?;
        if !opened.metadata()?.is_file() {
            return Self::copied(BufReader::new(opened), copy);
        }
        let mut reader = BufReader::new(opened);
        if Compression::of(reader.fill_buf()?) != Compression::None {
            return Self::copied(reader, copy);
        }
        let mut file = reader.into_inner();
        file.rewind()?;
        Self::of(file)
    }

    fn copied(reader: impl BufRead + 'static, copy: &Path) -> io::Result<Self> {
        let mut options = File::options();
        let mut file = options.read(true).write(true).create_new(true).open(copy)?;
        let dir = copy.parent().unwrap_or(copy);
        io::copy(&mut Guarded::new(decompressed(reader)?, dir), &mut file)?;
        file.rewind()?;
        Self::of(file)
    }

    fn of(file: File) -> io::Result<Self> {
        let mut entries = BTreeMap::new();
        let mut archive = Archive::new(&file);
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            let Some(name) = plain(&entry.path()?) else { continue };
            let found = match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => {
                    Entry::File { at: entry.raw_file_position(), length: entry.size() }
                }
                EntryType::Symlink => {
                    let target = entry.link_name()?.unwrap_or_default();
                    let parent = name.parent().unwrap_or(Path::new(""));
                    let Some(target) = plain(&parent.join(target)) else { continue };
                    Entry::Link(target)
                }
                EntryType::Link => {
                    let Some(target) = plain(&entry.link_name()?.unwrap_or_default()) else {
                        continue;
                    };
                    Entry::Link(target)
                }
                _ => continue,
            };
            entries.insert(name, found);
            if entries.len() > MAX_ARCHIVE_ENTRIES {
                let reason = format!("it has more than {MAX_ARCHIVE_ENTRIES} files");
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
        }
        Ok(Self { file, entries })
    }

    /// A file's length.
    pub(crate) fn size(&self, name: &str) -> Option<u64> {
        self.find(name).map(|(_, length)| length)
    }

    /// A file's content, read once from its start.
    pub(crate) fn reader(&self, name: &str) -> io::Result<BufReader<Take<File>>> {
        let (at, length) = self.find(name).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("{name} is not in the archive"))
        })?;
        // The clone shares the position; only one reader is in use at a time.
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(at))?;
        Ok(BufReader::new(file.take(length)))
    }

    /// A small file's content.
    pub(crate) fn read(&self, name: &str, limit: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut reader = self.reader(name)?.take(limit as u64 + 1);
        reader.read_to_end(&mut bytes)?;
        if bytes.len() > limit {
            let reason = format!("{name} has more than {limit} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        Ok(bytes)
    }

    fn find(&self, name: &str) -> Option<(u64, u64)> {
        let mut name = plain(Path::new(name))?;
        for _ in 0..MAX_LINKS {
            match self.entries.get(&name)? {
                Entry::File { at, length } => return Some((*at, *length)),
                Entry::Link(target) => name.clone_from(target),
            }
        }
        None
    }
}

/// A name without `.` and `..`; none where it leads out of the archive.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => {
                if !plain.pop() {
                    return None;
                }
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    (!plain.as_os_str().is_empty()).then_some(plain)
}
