//! Network namespaces: made, named, opened, entered, listed and deleted. It owns `/run/netns`, where
//! `ip netns` keeps them too, so that a person can look into ours with the tools they know. It must not
//! know what is inside a namespace.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// Where named namespaces are mounted, as `ip-netns(8)` has it.
pub const NETNS_DIR: &str = "/run/netns";

/// The namespace of the calling thread. Not `/proc/self`, which is the main thread's.
const CURRENT: &str = "/proc/thread-self/ns/net";

/// The longest name of a namespace: a file name's limit.
const NAME_MAX: usize = 255;

/// An open network namespace. It lives at least as long as this handle; clones share it.
#[derive(Debug, Clone)]
pub struct NetNs {
    file: Arc<File>,
    label: Arc<str>,
}

/// What failed about a network namespace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetNsError {
    /// The name cannot be a file in [`NETNS_DIR`].
    #[error("{name:?} cannot name a network namespace")]
    Name {
        /// The refused name.
        name: String,
    },
    /// A namespace of this name exists.
    #[error("the network namespace {name} exists already")]
    Exists {
        /// Its name.
        name: String,
    },
    /// No namespace of this name exists.
    #[error("there is no network namespace {name}")]
    Missing {
        /// The name asked for.
        name: String,
    },
    /// The kernel refused.
    #[error("cannot {action} the network namespace {name}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// The namespace: a name, or a path of `/proc`.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A sysctl could not be read or written.
    #[error("cannot {action} the sysctl {key} in the network namespace {name}")]
    Sysctl {
        /// `read` or `write`.
        action: &'static str,
        /// The key with slashes, such as `net/ipv4/ip_forward`.
        key: String,
        /// The namespace.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Makes the namespace `name`. Fails when it exists.
pub fn create(name: &str) -> Result<NetNs, NetNsError> {
    let path = path_of(name)?;
    let refused =
        |action| move |source| NetNsError::Refused { action, name: name.to_owned(), source };
    fs::create_dir_all(NETNS_DIR).map_err(refused("make the directory of"))?;
    OpenOptions::new().write(true).create_new(true).mode(0o444).open(&path).map_err(|error| {
        match error.kind() {
            io::ErrorKind::AlreadyExists => NetNsError::Exists { name: name.to_owned() },
            _ => refused("name")(error),
        }
    })?;
    let made = on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        mount(Some(CURRENT), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        Ok(())
    });
    if let Err(error) = made.and_then(|inner: io::Result<()>| inner) {
        // Best effort: the file that we made has nothing mounted on it, and the cause is what matters.
        let _ = fs::remove_file(&path);
        return Err(refused("create")(error));
    }
    open(name)
}

/// The namespace `name`, made if it does not exist. The flag says whether it was made. A name that is left
/// over with no namespace mounted on it (after a crash or a power cut) is made whole.
pub fn ensure(name: &str) -> Result<(NetNs, bool), NetNsError> {
    match open(name) {
        Ok(netns) => Ok((netns, false)),
        Err(NetNsError::Missing { .. }) => {
            delete(name)?;
            create(name).map(|netns| (netns, true))
        }
        Err(error) => Err(error),
    }
}

/// Opens the namespace `name`.
pub fn open(name: &str) -> Result<NetNs, NetNsError> {
    let path = path_of(name)?;
    let missing = || NetNsError::Missing { name: name.to_owned() };
    let file = File::open(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => missing(),
        _ => NetNsError::Refused { action: "open", name: name.to_owned(), source },
    })?;
    // A plain file is only the mount point of a namespace that is gone.
    if is_namespace(&file) {
        Ok(NetNs { file: Arc::new(file), label: name.into() })
    } else {
        Err(missing())
    }
}

/// Opens the namespace that the main thread of the process `pid` is in.
pub fn of_pid(pid: i32) -> Result<NetNs, NetNsError> {
    open_proc(&format!("/proc/{pid}/ns/net"))
}

/// Opens the namespace that the calling thread is in.
pub fn current() -> Result<NetNs, NetNsError> {
    open_proc(CURRENT)
}

/// Deletes the name. The namespace itself goes when the last process and handle in it are gone. No error when
/// there is no such name.
pub fn delete(name: &str) -> Result<(), NetNsError> {
    let path = path_of(name)?;
    let refused = |action, source| NetNsError::Refused { action, name: name.to_owned(), source };
    // More than one mount can lie on the same name; each detach takes the topmost.
    loop {
        match umount2(&path, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            Err(nix::Error::EINVAL | nix::Error::ENOENT) => break,
            Err(error) => return Err(refused("unmount", error.into())),
        }
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(refused("remove the name of", error))
        }
        _ => Ok(()),
    }
}

/// The names of all namespaces that start with `prefix`, sorted; also those that are names only.
pub fn list(prefix: &str) -> Result<Vec<String>, NetNsError> {
    let refused =
        |source| NetNsError::Refused { action: "list", name: format!("{prefix}*"), source };
    let entries = match fs::read_dir(NETNS_DIR) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(refused(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry.map_err(refused)?.file_name().into_string()
            && name.starts_with(prefix)
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

impl NetNs {
    /// What to call this namespace in messages: its name, or the path that it was opened by.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Device and inode, which tell two namespaces apart.
    pub fn identity(&self) -> Result<(u64, u64), NetNsError> {
        let metadata = self.file.metadata().map_err(|source| self.refused("identify", source))?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// Runs `work` on a thread of its own inside this namespace, waits for it and returns its value. `setns`
    /// is per thread, so the caller stays where it is. Blocks the caller for as long as `work` takes.
    pub fn run<T, F>(&self, work: F) -> Result<T, NetNsError>
    where
        T: Send,
        F: FnOnce() -> T + Send,
    {
        on_thread(|| {
            setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })
        .and_then(|entered: io::Result<T>| entered)
        .map_err(|source| self.refused("enter", source))
    }

    /// Writes a sysctl below `/proc/sys` (`net/ipv4/ip_forward`), unless it has that value already.
    pub fn write_sysctl(&self, key: &str, value: &str) -> Result<(), NetNsError> {
        if self.read_sysctl(key)? == value {
            return Ok(());
        }
        let path = Path::new("/proc/sys").join(key);
        self.run(|| fs::write(path, value))?
            .map_err(|source| self.sysctl_error("write", key, source))
    }

    /// Reads a sysctl below `/proc/sys`, without the closing newline.
    pub fn read_sysctl(&self, key: &str) -> Result<String, NetNsError> {
        let path = Path::new("/proc/sys").join(key);
        let value = self.run(|| fs::read_to_string(path))?;
        value
            .map(|text| text.trim_end().to_owned())
            .map_err(|source| self.sysctl_error("read", key, source))
    }

    fn sysctl_error(&self, action: &'static str, key: &str, source: io::Error) -> NetNsError {
        NetNsError::Sysctl { action, key: key.to_owned(), name: self.label.to_string(), source }
    }

    fn refused(&self, action: &'static str, source: io::Error) -> NetNsError {
        NetNsError::Refused { action, name: self.label.to_string(), source }
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for NetNs {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Runs `work` on a fresh thread and waits for it. A panic of `work` goes on in the caller.
fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work)?;
        thread.join().or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn open_proc(path: &str) -> Result<NetNs, NetNsError> {
    let file = File::open(path).map_err(|source| NetNsError::Refused {
        action: "open",
        name: path.to_owned(),
        source,
    })?;
    Ok(NetNs { file: Arc::new(file), label: path.into() })
}

fn is_namespace(file: &File) -> bool {
    nix::sys::statfs::fstatfs(file)
        .is_ok_and(|status| status.filesystem_type() == nix::sys::statfs::NSFS_MAGIC)
}

fn path_of(name: &str) -> Result<PathBuf, NetNsError> {
    let plain = !name.is_empty()
        && name.len() <= NAME_MAX
        && name != "."
        && name != ".."
        && !name.contains(['/', '\0']);
    if plain {
        Ok(Path::new(NETNS_DIR).join(name))
    } else {
        Err(NetNsError::Name { name: name.to_owned() })
    }
}
