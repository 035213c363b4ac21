//! Unpacks one layer's tar archive into an empty directory, as overlayfs wants it.
//!
//! Every path of the archive is resolved by the kernel beneath the directory (`openat2` with
//! `RESOLVE_BENEATH`), so neither `..` nor a symbolic link nor a hard link reaches outside of it.
//! Whiteouts (OCI image specification, "layer.md") become overlayfs' own: a character device 0/0
//! for a deleted name, the attribute `trusted.overlay.opaque` for a directory that hides what is
//! below. Nothing here knows where the bytes come from.

use std::{
    ffi::{CString, OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2},
    sys::{
        stat::{
            FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, makedev, mkdirat, mknodat,
            utimensat,
        },
        time::TimeSpec,
    },
    unistd::{Gid, LinkatFlags, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat},
};
use tar::{Archive, Entry, EntryType};

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
const XATTR_PREFIX: &str = "SCHILY.xattr.";

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

/// What an entry says of a file besides its content.
struct Metadata {
    owner: Uid,
    group: Gid,
    mode: Mode,
    modified: TimeSpec,
    attributes: Vec<(CString, Vec<u8>)>,
}

impl Metadata {
    fn of<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Self> {
        let mut attributes = Vec::new();
        if let Some(extensions) = entry.pax_extensions()? {
            for extension in extensions {
                let extension = extension?;
                let Ok(key) = extension.key() else { continue };
                let Some(name) = key.strip_prefix(XATTR_PREFIX) else { continue };
                // `trusted.` is the kernel's: an archive must not speak overlayfs.
                if !name.starts_with("trusted.") {
                    let value = extension.value_bytes().to_owned();
                    attributes.push((CString::new(name)?, value));
                }
            }
        }
        let header = entry.header();
        let number = |value: u64| u32::try_from(value).map_err(io::Error::other);
        let modified = i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0);
        Ok(Self {
            owner: Uid::from_raw(number(header.uid()?)?),
            group: Gid::from_raw(number(header.gid()?)?),
            mode: Mode::from_bits_truncate(header.mode()? & 0o7777),
            modified: TimeSpec::new(modified, 0),
            attributes,
        })
    }

    fn apply(&self, parent: BorrowedFd<'_>, name: &OsStr, is_symlink: bool) -> io::Result<()> {
        fchownat(parent, name, Some(self.owner), Some(self.group), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if !is_symlink {
            // After the owner: changing that clears the set-user-ID bit.
            fchmodat(parent, name, self.mode, FchmodatFlags::FollowSymlink)?;
            for (attribute, value) in &self.attributes {
                set_attribute(parent, name, attribute, value)?;
            }
        }
        set_time(parent, name, self.modified)
    }
}

/// The path as one beneath the root: without `.`, never absolute, never `..`.
fn beneath(path: &OsStr) -> Result<PathBuf, UnpackError> {
    let path = Path::new(path);
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(UnpackError::Escape { path: path.to_owned() });
            }
        }
    }
    if clean.components().count() > MAX_PATH_DEPTH {
        return Err(UnpackError::TooLarge { limit: MAX_PATH_DEPTH as u64, of: "nested folders" });
    }
    Ok(clean)
}

fn whiteout(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let bytes = name.as_bytes();
    if bytes == OPAQUE_MARKER {
        return set_attribute(parent.as_fd(), OsStr::new("."), c"trusted.overlay.opaque", b"y");
    }
    if bytes.starts_with(AUFS_PREFIX) {
        return Ok(());
    }
    let hidden = OsStr::from_bytes(bytes.strip_prefix(WHITEOUT_PREFIX).unwrap_or(bytes));
    if hidden.is_empty() || hidden == "." || hidden == ".." {
        return Err(io::ErrorKind::InvalidData.into());
    }
    replace(parent, hidden)?;
    mknodat(parent, hidden, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))?;
    Ok(())
}

fn make_directory(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    for _ in 0..2 {
        match mkdirat(parent, name, Mode::S_IRWXU) {
            Ok(()) => return Ok(()),
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(parent, name, flags, Mode::empty()) {
            Ok(_) => return Ok(()),
            Err(Errno::ENOTDIR | Errno::ELOOP) => replace(parent, name)?,
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
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

fn set_time(parent: BorrowedFd<'_>, name: &OsStr, modified: TimeSpec) -> io::Result<()> {
    utimensat(parent, name, &modified, &modified, UtimensatFlags::NoFollowSymlink)?;
    Ok(())
}

/// Through `/proc/self/fd`: the descriptors are `O_PATH`, which `fsetxattr` refuses.
#[expect(unsafe_code, reason = "no crate of ours wraps lsetxattr")]
fn set_attribute(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    attribute: &std::ffi::CStr,
    value: &[u8],
) -> io::Result<()> {
    let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_bytes());
    let path = CString::new(path)?;
    // SAFETY: both strings end with a zero and `value` is as long as said; all outlive the call.
    let result = unsafe {
        libc::lsetxattr(path.as_ptr(), attribute.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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
