//! Owners, modes, times and attributes of what is unpacked.

use std::{
    ffi::{CString, OsStr},
    io::{self, Read},
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
};

use nix::{
    fcntl::AtFlags,
    sys::{
        stat::{FchmodatFlags, Mode, UtimensatFlags, fchmodat, utimensat},
        time::TimeSpec,
    },
    unistd::{Gid, Uid, fchownat},
};
use tar::Entry;

const XATTR_PREFIX: &str = "SCHILY.xattr.";

/// What an entry says of a file besides its content.
pub(super) struct Metadata {
    owner: Uid,
    group: Gid,
    mode: Mode,
    pub(super) modified: TimeSpec,
    attributes: Vec<(CString, Vec<u8>)>,
}

impl Metadata {
    pub(super) fn of<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Self> {
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
        let old = header.as_old();
        let id = |field: &[u8], value: io::Result<u64>| match value {
            Ok(value) => u32::try_from(value).map_err(io::Error::other),
            // Left empty it is 0, as other readers of archives take it.
            Err(_) if field.iter().all(|byte| matches!(byte, 0 | b' ')) => Ok(0),
            Err(error) => Err(error),
        };
        let modified = i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0);
        Ok(Self {
            owner: Uid::from_raw(id(&old.uid, header.uid())?),
            group: Gid::from_raw(id(&old.gid, header.gid())?),
            mode: Mode::from_bits_truncate(header.mode()? & 0o7777),
            modified: TimeSpec::new(modified, 0),
            attributes,
        })
    }

    pub(super) fn apply(
        &self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        is_symlink: bool,
    ) -> io::Result<()> {
        fchownat(parent, name, Some(self.owner), Some(self.group), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if !is_symlink {
            // After the owner: changing that clears the set-user-ID bit.
            fchmodat(parent, name, self.mode, FchmodatFlags::FollowSymlink)?;
            for (attribute, value) in &self.attributes {
                match set_attribute(parent, name, attribute, value) {
                    // A file system without attributes is no reason to refuse an image.
                    Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                    other => other?,
                }
            }
        }
        set_time(parent, name, self.modified)
    }
}

pub(super) fn set_time(parent: BorrowedFd<'_>, name: &OsStr, modified: TimeSpec) -> io::Result<()> {
    utimensat(parent, name, &modified, &modified, UtimensatFlags::NoFollowSymlink)?;
    Ok(())
}

/// Through `/proc/self/fd`: the descriptors are `O_PATH`, which `fsetxattr` refuses.
#[expect(unsafe_code, reason = "no crate of ours wraps lsetxattr")]
pub(super) fn set_attribute(
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
