//! Real applications out of Debian's packages, as layers of images: what a package needs is downloaded once, and
//! none of its scripts is run.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Downloads outlive a test: only the first one needs a network.
const CACHE: &str = env!("CARGO_TARGET_TMPDIR");
/// What no program of these images reads, and is most of what the packages hold.
const LEFT_OUT: [&str; 8] = [
    "usr/share/doc/",
    "usr/share/man/",
    "usr/share/locale/",
    "/gconv/",
    "/ensurepip/",
    "/lib2to3/",
    "/pydoc_data/",
    "/perl5/",
];

/// A package's closure: what it needs to run, and itself, by the names of their archives.
pub(crate) struct Packages(BTreeMap<OsString, PathBuf>);

impl Packages {
    /// As apt would bring it to a machine on which nothing is installed.
    pub(crate) fn of(name: &str) -> Self {
        let dir = Path::new(CACHE).join("debian").join(name);
        if !dir.exists() {
            download(name, &dir);
        }
        let archives = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap());
        let archives = archives.filter(|entry| entry.path().extension() == Some("deb".as_ref()));
        let found: BTreeMap<_, _> = archives.map(|it| (it.file_name(), it.path())).collect();
        assert!(!found.is_empty(), "{} holds no packages: remove it", dir.display());
        Self(found)
    }

    /// What both need, then what each needs beyond that.
    pub(crate) fn split(mut self, mut other: Self) -> [Self; 3] {
        let names = |it: &Self| it.0.keys().cloned().collect::<BTreeSet<_>>();
        let shared: BTreeSet<_> = names(&self).intersection(&names(&other)).cloned().collect();
        let both = shared.iter().filter_map(|name| {
            other.0.remove(name);
            self.0.remove_entry(name)
        });
        let both = Self(both.collect());
        [both, self, other]
    }

    /// Their files, with owners and modes as the packages have them, as one layer.
    pub(crate) fn layer(&self) -> Vec<u8> {
        let mut layer = tar::Builder::new(Vec::new());
        let mut directories = BTreeSet::new();
        for archive in self.0.values() {
            let mut child = Command::new("dpkg-deb")
                .arg("--fsys-tarfile")
                .arg(archive)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap_or_else(|error| panic!("dpkg-deb: {error}; these tests need Debian"));
            let mut files = tar::Archive::new(child.stdout.take().unwrap());
            for entry in files.entries().unwrap() {
                add(&mut layer, &mut directories, entry.unwrap());
            }
            // The archive is padded after its end.
            std::io::copy(&mut files.into_inner(), &mut std::io::sink()).unwrap();
            let status = child.wait().unwrap();
            assert!(status.success(), "dpkg-deb {}: {status}", archive.display());
        }
        layer.into_inner().unwrap()
    }
}

/// Copies an entry; paths of packages begin with `./`, those of layers do not.
fn add(
    layer: &mut tar::Builder<Vec<u8>>,
    directories: &mut BTreeSet<PathBuf>,
    entry: tar::Entry<'_, impl Read>,
) {
    let plain = |path: &Path| path.strip_prefix("./").unwrap_or(path).to_owned();
    let path = plain(&entry.path().unwrap());
    let kind = entry.header().entry_type();
    let text = path.to_str().unwrap();
    let is_left_out = LEFT_OUT.iter().any(|part| text.contains(part));
    // Many packages have the same directories.
    let is_known = kind.is_dir() && !directories.insert(path.clone());
    if text.is_empty() || is_left_out || is_known {
        return;
    }
    let mut header = entry.header().clone();
    let target = entry.link_name().unwrap().map(std::borrow::Cow::into_owned);
    match target {
        Some(target) if kind.is_hard_link() => {
            layer.append_link(&mut header, &path, plain(&target)).unwrap();
        }
        Some(target) => layer.append_link(&mut header, &path, target).unwrap(),
        None => layer.append_data(&mut header, &path, entry).unwrap(),
    }
}

/// Has apt bring a package and all it needs into a new directory.
fn download(name: &str, dir: &Path) {
    let parent = dir.parent().unwrap();
    fs::create_dir_all(parent).unwrap();
    let new = tempfile::Builder::new().prefix("new-").tempdir_in(parent).unwrap();
    fs::create_dir(new.path().join("partial")).unwrap();
    // To apt nothing is installed, so everything that is needed is downloaded.
    fs::write(new.path().join("status"), "").unwrap();
    let option = |key: &str, file: &str| format!("{key}={}", new.path().join(file).display());
    let options = [
        option("Dir::State::status", "status"),
        option("Dir::State::extended_states", "extended"),
        option("Dir::Cache::archives", ""),
        "Dir::Cache::pkgcache=".to_owned(),
        "Dir::Cache::srcpkgcache=".to_owned(),
        "APT::Sandbox::User=root".to_owned(),
        // Nothing is installed, so nobody who installs has to wait.
        "Debug::NoLocking=true".to_owned(),
    ];
    let output = Command::new("apt-get")
        .args(["-q", "-y", "--no-install-recommends", "--download-only"])
        .args(options.iter().flat_map(|option| ["-o", option]))
        .args(["install", name])
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("apt-get: {error}; these tests need Debian"));
    assert!(
        output.status.success(),
        "apt-get cannot download {name}, of which a test image is made: is there a network, and was `apt-get \
         update` run lately?\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let new = new.keep();
    if let Err(error) = fs::rename(&new, dir) {
        let _ = fs::remove_dir_all(&new);
        panic!("{}: {error}", dir.display());
    }
}
