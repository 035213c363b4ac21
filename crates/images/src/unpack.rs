//! Unpacks one layer's tar archive into an empty directory, as overlayfs wants it.
//!
//! Every path of the archive is resolved by the kernel beneath the directory (`openat2` with
//! `RESOLVE_BENEATH`), so neither `..` nor a symbolic link nor a hard link reaches outside of it.
//! Whiteouts (OCI image specification, "layer.md") become overlayfs' own: a character device 0/0
//! for a deleted name, the attribute `trusted.overlay.opaque` for a directory that hides what is
//! below. Nothing here knows where the bytes come from.

mod metadata;

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2},
    sys::{
        stat::{FileStat, Mode, SFlag, fstatat, makedev, mkdirat, mknodat},
        time::TimeSpec,
    },
    unistd::{LinkatFlags, UnlinkatFlags, linkat, symlinkat, unlinkat},
};
use tar::{Archive, Entry, EntryType};

use metadata::{Metadata, set_attribute, set_time};

/// More than any sane layer; ends a compressed bomb before it ends the disk.
pub const MAX_LAYER_BYTES: u64 = 32 << 30;
/// More than any sane layer has files.
pub const MAX_LAYER_ENTRIES: u64 = 4_000_000;
/// Deeper trees are refused: removing them recursively needs stack.
pub const MAX_PATH_DEPTH: usize = 256;

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";
/// Names of AUFS' own bookkeeping in old images.
const AUFS_PREFIX: &[u8] = b".wh..wh.";
const OPAQUE: &std::ffi::CStr = c"trusted.overlay.opaque";

/// Why a layer was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// A name that leads outside.
    #[error("`{}` leads out of the layer", path.display())]
    Escape {
        /// The name in the archive.
        path: PathBuf,
    },
    /// An entry could not be made.
    #[error("cannot create `{}`", path.display())]
    Entry {
        /// The name in the archive.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The archive cannot be read.
    #[error("the archive cannot be read")]
    Archive(#[source] io::Error),
    /// One of this module's limits.
    #[error("it has more than {limit} {of}")]
    TooLarge {
        /// How many.
        limit: u64,
        /// What.
        of: &'static str,
    },
}

/// Where an unpacking goes, and what is left to do at its end.
struct Target {
    root: OwnedFd,
    /// A directory's time changes as files are put into it, so it is set last.
    directory_times: Vec<(PathBuf, TimeSpec)>,
    bytes: u64,
}

/// Unpacks an uncompressed archive into `dir`, an empty directory.
///
/// # Errors
/// [`UnpackError`]; the directory is then half-filled and the caller's to remove.
pub fn unpack(archive: impl Read, dir: &Path) -> Result<(), UnpackError> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open(dir, flags, Mode::empty()).map_err(|errno| entry_error(dir, errno))?;
    let mut target = Target { root, directory_times: Vec::new(), bytes: 0 };
    let mut archive = Archive::new(archive);
    let mut entries = 0;
    for entry in archive.entries().map_err(UnpackError::Archive)? {
        entries += 1;
        if entries > MAX_LAYER_ENTRIES {
            return Err(UnpackError::TooLarge { limit: MAX_LAYER_ENTRIES, of: "files" });
        }
        target.add(entry.map_err(UnpackError::Archive)?)?;
    }
    target.finish()
}

impl Target {
    fn add<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<(), UnpackError> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let raw = entry.path_bytes().into_owned();
        let path = beneath(OsStr::from_bytes(&raw))?;
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            return self.root_entry(&mut entry);
        };
        let parent = self.parent(&path)?;
        if name.as_bytes().starts_with(WHITEOUT_PREFIX) {
            return whiteout(&parent, &name).map_err(|error| failed(&path, error));
        }
        match kind {
            EntryType::Link => self.hard_link(&entry, &parent, &name, &path),
            _ => self.node(&mut entry, kind, &parent, &name, &path),
        }
    }

    /// An entry for the layer's own root, `./`.
    fn root_entry<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), UnpackError> {
        let path = PathBuf::from(".");
        let metadata = Metadata::of(entry).map_err(UnpackError::Archive)?;
        metadata
            .apply(self.root.as_fd(), OsStr::new("."), false)
            .map_err(|error| failed(&path, error))?;
        self.directory_times.push((path, metadata.modified));
        Ok(())
    }

    fn node<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        kind: EntryType,
        parent: &OwnedFd,
        name: &OsStr,
        path: &Path,
    ) -> Result<(), UnpackError> {
        let metadata = Metadata::of(entry).map_err(UnpackError::Archive)?;
        let failed = |error| failed(path, error);
        match kind {
            EntryType::Directory => {
                make_directory(parent, name).map_err(failed)?;
                self.directory_times.push((path.to_owned(), metadata.modified));
            }
            EntryType::Symlink => {
                let link = entry.link_name_bytes().map(|link| link.into_owned());
                let link = link.ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
                replace(parent, name).map_err(failed)?;
                symlinkat(OsStr::from_bytes(&link), parent, name)
                    .map_err(|errno| failed(errno.into()))?;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                // A FIFO's fields need not hold numbers.
                let number = |field: io::Result<Option<u32>>| match kind {
                    EntryType::Fifo => Ok(0),
                    _ => field.map(Option::unwrap_or_default),
                };
                let major = number(entry.header().device_major()).map_err(failed)?;
                let minor = number(entry.header().device_minor()).map_err(failed)?;
                let file_kind = match kind {
                    EntryType::Char => SFlag::S_IFCHR,
                    EntryType::Block => SFlag::S_IFBLK,
                    _ => SFlag::S_IFIFO,
                };
                replace(parent, name).map_err(failed)?;
                let number = makedev(major.into(), minor.into());
                mknodat(parent, name, file_kind, Mode::empty(), number)
                    .map_err(|errno| failed(errno.into()))?;
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.bytes = self.bytes.saturating_add(entry.size());
                if self.bytes > MAX_LAYER_BYTES {
                    return Err(UnpackError::TooLarge { limit: MAX_LAYER_BYTES, of: "bytes" });
                }
                replace(parent, name).map_err(failed)?;
                let flags = OFlag::O_CREAT
                    | OFlag::O_EXCL
                    | OFlag::O_WRONLY
                    | OFlag::O_NOFOLLOW
                    | OFlag::O_CLOEXEC;
                let file = openat(parent, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
                    .map_err(|errno| failed(errno.into()))?;
                io::copy(entry, &mut File::from(file)).map_err(failed)?;
            }
            // Anything else (a volume label, a vendor's extension) is no file.
            _ => return Ok(()),
        }
        metadata.apply(parent.as_fd(), name, kind == EntryType::Symlink).map_err(failed)
    }

    fn hard_link<R: Read>(
        &self,
        entry: &Entry<'_, R>,
        parent: &OwnedFd,
        name: &OsStr,
        path: &Path,
    ) -> Result<(), UnpackError> {
        let raw = entry.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default();
        let source = beneath(OsStr::from_bytes(&raw))?;
        let existing = self
            .open(&source, OFlag::O_PATH | OFlag::O_NOFOLLOW)
            .map_err(|error| escape_or(&source, error))?;
        replace(parent, name).map_err(|error| failed(path, error))?;
        linkat(&existing, "", parent, name, LinkatFlags::AT_EMPTY_PATH)
            .map_err(|errno| entry_error(path, errno))
    }

    /// Opens the directory that holds `path`, creating what is missing of it.
    fn parent(&self, path: &Path) -> Result<OwnedFd, UnpackError> {
        let parent = path.parent().unwrap_or(Path::new(""));
        match self.open_directory(parent) {
            Ok(fd) => return Ok(fd),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(escape_or(path, errno)),
        }
        let mut prefix = PathBuf::new();
        let mut at = self.open_directory(&prefix).map_err(|errno| escape_or(path, errno))?;
        for component in parent.components() {
            let name = component.as_os_str();
            match mkdirat(&at, name, Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(entry_error(path, errno)),
            }
            prefix.push(name);
            at = self.open_directory(&prefix).map_err(|errno| escape_or(path, errno))?;
        }
        Ok(at)
    }

    fn open_directory(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.open(path, OFlag::O_PATH | OFlag::O_DIRECTORY)
    }

    fn open(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        openat2(&self.root, path, how)
    }

    fn finish(self) -> Result<(), UnpackError> {
        for (path, modified) in &self.directory_times {
            // A later entry may have replaced the directory by something else.
            if let Ok(directory) = self.open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
                set_time(directory.as_fd(), OsStr::new("."), *modified)
                    .map_err(|error| failed(path, error))?;
            }
        }
        Ok(())
    }
}

/// The path as one beneath the layer's root: without `.`, never `..`.
fn beneath(path: &OsStr) -> Result<PathBuf, UnpackError> {
    let path = Path::new(path);
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            // The layer's root is meant, not the machine's.
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(UnpackError::Escape { path: path.to_owned() });
            }
        }
    }
    if clean.components().count() > MAX_PATH_DEPTH {
        return Err(UnpackError::TooLarge { limit: MAX_PATH_DEPTH as u64, of: "nested folders" });
    }
    Ok(clean)
}

/// Hides what lower layers have by this name. What this layer itself has by it stays, whichever of the two
/// comes first in the archive: a whiteout is about lower layers only.
fn whiteout(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let bytes = name.as_bytes();
    if bytes == OPAQUE_MARKER {
        return set_attribute(parent.as_fd(), OsStr::new("."), OPAQUE, b"y");
    }
    if bytes.starts_with(AUFS_PREFIX) {
        return Ok(());
    }
    let hidden = OsStr::from_bytes(bytes.strip_prefix(WHITEOUT_PREFIX).unwrap_or(bytes));
    if hidden.is_empty() || hidden == "." || hidden == ".." {
        return Err(io::ErrorKind::InvalidData.into());
    }
    match stat(parent, hidden) {
        Err(Errno::ENOENT) => {
            mknodat(parent, hidden, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))?;
            Ok(())
        }
        Ok(found) if kind_of(&found) == SFlag::S_IFDIR => {
            set_attribute(parent.as_fd(), hidden, OPAQUE, b"y")
        }
        Ok(_) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn make_directory(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let found = match mkdirat(parent, name, Mode::S_IRWXU) {
        Ok(()) => return Ok(()),
        Err(Errno::EEXIST) => stat(parent, name)?,
        Err(errno) => return Err(errno.into()),
    };
    if kind_of(&found) == SFlag::S_IFDIR {
        return Ok(());
    }
    replace(parent, name)?;
    mkdirat(parent, name, Mode::S_IRWXU)?;
    if is_whiteout(&found) {
        // It hid a lower directory, which this one must not be merged with.
        set_attribute(parent.as_fd(), name, OPAQUE, b"y")?;
    }
    Ok(())
}

fn stat(parent: &OwnedFd, name: &OsStr) -> Result<FileStat, Errno> {
    fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

fn kind_of(found: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT
}

fn is_whiteout(found: &FileStat) -> bool {
    kind_of(found) == SFlag::S_IFCHR && found.st_rdev == makedev(0, 0)
}

/// Removes what has this name, so that a later entry of an archive wins over an earlier one.
fn replace(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(Errno::EISDIR) => {
            let mut path = OsString::from(format!("/proc/self/fd/{}/", parent.as_raw_fd()));
            path.push(name);
            std::fs::remove_dir_all(path)
        }
        Err(errno) => Err(errno.into()),
    }
}

fn failed(path: &Path, source: io::Error) -> UnpackError {
    UnpackError::Entry { path: path.to_owned(), source }
}

fn entry_error(path: &Path, errno: Errno) -> UnpackError {
    failed(path, errno.into())
}

/// `EXDEV` is how the kernel says that a path leaves the directory it must stay beneath.
fn escape_or(path: &Path, errno: Errno) -> UnpackError {
    if errno == Errno::EXDEV {
        UnpackError::Escape { path: path.to_owned() }
    } else {
        entry_error(path, errno)
    }
}
