//! The store's directory: the few file operations that the journal is made of, and the lock that keeps
//! other processes out. It must not know what is in the files.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::OpenError;

/// The lock's file. It stays when the store is closed; the lock is what counts.
const LOCK: &str = "lock";

/// What the journal asks of a directory. Names are file names in it. Behind a trait so that the tests
/// can cut the power between any two of these calls, and in the middle of one.
pub(crate) trait Disk: Send + Sync + 'static {
    /// The directory, for messages.
    fn dir(&self) -> &Path;
    /// The names of all files.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Reads a file from its beginning.
    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>>;
    /// Makes a file, empty even if there was one. Its name is durable after [`Disk::sync_dir`].
    fn create(&self, name: &str) -> io::Result<Box<dyn Append>>;
    /// Cuts a file to `len` bytes, makes those durable, and appends after them.
    fn resume(&self, name: &str, len: u64) -> io::Result<Box<dyn Append>>;
    /// Gives a file another name, replacing what had it. Durable after [`Disk::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes all names durable.
    fn sync_dir(&self) -> io::Result<()>;
}

/// A file that grows at its end.
pub(crate) trait Append: Send {
    /// Writes zeros after the end, which stays where it is: what is appended next takes their place. As long
    /// as there is such room, a sync writes data alone, and not the file's size and place on the disk with it.
    fn reserve(&mut self, bytes: usize) -> io::Result<()>;
    /// Writes all of `bytes` at the end.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was appended durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// A directory of the file system, locked for this process.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    handle: File,
    /// Released by the kernel when this is dropped, also by `kill -9`.
    _lock: Flock<File>,
}

impl Directory {
    /// Creates the directory if it is not there, only for this user as it holds the cluster's secrets,
    /// and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { action, path, source }
        };
        if !path.is_dir() {
            create_dir(path).map_err(failed("create", path))?;
        }
        let lock_path = path.join(LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(failed("open", &lock_path))?;
        let lock =
            Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(
                |(_, errno)| match errno {
                    Errno::EWOULDBLOCK => OpenError::Taken { dir: path.to_owned() },
                    errno => failed("lock", &lock_path)(errno.into()),
                },
            )?;
        let handle = File::open(path).map_err(failed("open", path))?;
        Ok(Self { path: path.to_owned(), handle, _lock: lock })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

fn create_dir(path: &Path) -> io::Result<()> {
    // `parent` of a bare relative name is the empty path.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    DirBuilder::new().mode(0o700).create(path)?;
    File::open(parent)?.sync_all()
}

impl Disk for Directory {
    fn dir(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is no text is not one of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(self.file(name))?))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Append>> {
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(self.file(name))?;
        Ok(Box::new(Growing { file, end: 0 }))
    }

    fn resume(&self, name: &str, len: u64) -> io::Result<Box<dyn Append>> {
        let file = OpenOptions::new().write(true).open(self.file(name))?;
        file.set_len(len)?;
        file.sync_all()?;
        Ok(Box::new(Growing { file, end: len }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.file(from), self.file(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.file(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

/// A file and where it ends, which zeros may follow.
struct Growing {
    file: File,
    end: u64,
}

impl Append for Growing {
    fn reserve(&mut self, bytes: usize) -> io::Result<()> {
        self.file.write_all_at(&vec![0; bytes], self.end)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.end)?;
        self.end = self.end.saturating_add(bytes.len() as u64);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}
