//! What unpacking keeps, and what it refuses.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::Path,
};

use tar::EntryType;
use toono_images::{Image, Keyring, PullError, UnpackError};

use crate::{
    archive::Tar,
    registry::{Contents, Registry, image},
};

async fn unpack(dir: &Path, archive: Vec<u8>) -> Result<Image, PullError> {
    let registry = Registry::start().await;
    registry.push("x", &Contents::of(vec![archive]));
    registry.store(dir).pull(&image("x"), &Keyring::default()).await
}

#[tokio::test]
async fn owners_modes_times_links_and_attributes_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    // A capability in its second version: CAP_NET_RAW, effective.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let archive = Tar::new()
        .dir("./", 0o751)
        .dir("./home/", 0o1777)
        .entry("home/su", EntryType::Regular, 0o4755, (1000, 1001), "", b"#!")
        .hard_link("home/same", "home/su")
        .symlink("lib", "usr/lib")
        .file("usr/lib/deep/file", "implied parents")
        .attributes(&[("security.capability", &capability), ("trusted.overlay.opaque", b"y")])
        .file("ping", "")
        .entry("fifo", EntryType::Fifo, 0o600, (0, 0), "", b"")
        .finish();
    let pulled = unpack(dir.path(), archive).await.unwrap();
    let root = pulled.layers.first().unwrap();
    let of = |path: &str| fs::symlink_metadata(root.join(path)).unwrap();
    assert_eq!(of("").permissions().mode() & 0o7777, 0o751);
    assert_eq!(of("home").permissions().mode() & 0o7777, 0o1777);
    assert_eq!((of("home/su").uid(), of("home/su").gid()), (1000, 1001));
    assert_eq!(of("home/su").permissions().mode() & 0o7777, 0o4755);
    assert_eq!(of("home/su").ino(), of("home/same").ino());
    for path in ["home", "home/su", "lib"] {
        assert_eq!(of(path).mtime(), 1_000_000_000, "{path}");
    }
    assert_eq!(fs::read_link(root.join("lib")).unwrap(), Path::new("usr/lib"));
    assert_eq!(fs::read_to_string(root.join("usr/lib/deep/file")).unwrap(), "implied parents");
    assert!(of("fifo").file_type().is_fifo());
    assert_eq!(attribute(&root.join("ping"), c"security.capability").unwrap(), capability);
    assert_eq!(attribute(&root.join("ping"), c"trusted.overlay.opaque"), None);
}

#[tokio::test]
async fn whiteouts_become_overlayfs_own() {
    let dir = tempfile::tempdir().unwrap();
    let archive = Tar::new()
        .dir("etc", 0o755)
        .file("etc/.wh.gone", "")
        .dir("var", 0o755)
        .file("var/.wh..wh..opq", "")
        .file("var/new", "")
        .file(".wh..wh.plnk", "")
        .finish();
    let pulled = unpack(dir.path(), archive).await.unwrap();
    let root = pulled.layers.first().unwrap();
    let gone = fs::symlink_metadata(root.join("etc/gone")).unwrap();
    assert!(gone.file_type().is_char_device());
    assert_eq!(gone.rdev(), 0);
    assert_eq!(attribute(&root.join("var"), c"trusted.overlay.opaque").unwrap(), b"y");
    assert_eq!(attribute(&root.join("etc"), c"trusted.overlay.opaque"), None);
    let names = |path: &str| fs::read_dir(root.join(path)).unwrap().count();
    assert_eq!((names(""), names("etc"), names("var")), (2, 1, 1));
}

#[tokio::test]
async fn a_whiteout_hides_lower_layers_only() {
    let dir = tempfile::tempdir().unwrap();
    let archive = Tar::new()
        .file(".wh.first", "")
        .dir("first", 0o755)
        .file("first/new", "")
        .dir("second", 0o755)
        .file("second/new", "")
        .file(".wh.second", "")
        .file("third", "kept")
        .file(".wh.third", "")
        .file(".wh.fourth", "")
        .file("fourth", "kept")
        .finish();
    let pulled = unpack(dir.path(), archive).await.unwrap();
    let root = pulled.layers.first().unwrap();
    for name in ["first", "second"] {
        assert!(root.join(name).join("new").is_file(), "{name}");
        let opaque = attribute(&root.join(name), c"trusted.overlay.opaque");
        assert_eq!(opaque.as_deref(), Some(&b"y"[..]), "{name}");
    }
    for name in ["third", "fourth"] {
        assert_eq!(fs::read_to_string(root.join(name)).unwrap(), "kept");
    }
}

#[tokio::test]
async fn long_names_are_kept_whole() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let mut archive = tar::Builder::new(vec![]);
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    archive.append_data(&mut header.clone(), &long, &b"x"[..]).unwrap();
    header.set_entry_type(EntryType::Symlink);
    header.set_size(0);
    archive.append_link(&mut header, "link", &long).unwrap();
    let pulled = unpack(dir.path(), archive.into_inner().unwrap()).await.unwrap();
    let root = pulled.layers.first().unwrap();
    assert_eq!(fs::read_to_string(root.join("link")).unwrap(), "x");
}

#[tokio::test]
async fn an_archive_cannot_reach_outside() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    let out = outside.path().to_str().unwrap();
    let archives = [
        ("dots", Tar::new().file("a/../../new", "x")),
        ("absolute symlink", Tar::new().symlink("way", out).file("way/new", "x")),
        ("relative symlink", Tar::new().symlink("way", "../../..").file("way/new", "x")),
        (
            "two steps",
            Tar::new()
                .dir("a", 0o755)
                .symlink("a/up", "..")
                .symlink("way", "a/up/..")
                .file("way/new", "x"),
        ),
        ("hard link", Tar::new().hard_link("here", victim.to_str().unwrap())),
        ("hard link by dots", Tar::new().hard_link("here", "../../victim")),
        (
            "hard link through symlink",
            Tar::new().symlink("way", out).hard_link("here", "way/victim"),
        ),
        ("whiteout", Tar::new().symlink("way", out).file("way/.wh.victim", "")),
        ("whiteout of dots", Tar::new().file("a/.wh...", "")),
    ];
    for (name, archive) in archives {
        let dir = tempfile::tempdir().unwrap();
        let error = unpack(dir.path(), archive.finish()).await.unwrap_err();
        let PullError::Layer { source, .. } = &error else { panic!("{name}: {error}") };
        let escapes = matches!(**source, UnpackError::Escape { .. });
        // An absolute name is taken as one in the layer, and there is nothing by it.
        let nothing = ["hard link", "whiteout of dots"].contains(&name);
        assert!(escapes || nothing, "{name}: {source:?}");
        assert_eq!(fs::read_dir(dir.path().join("layers")).unwrap().count(), 0, "{name}");
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0, "{name}");
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    // An absolute name is one in the layer, as other runtimes take it.
    let dir = tempfile::tempdir().unwrap();
    let absolute =
        Tar::new().file(&format!("{out}/new"), "x").hard_link("/too", &format!("{out}/new"));
    let pulled = unpack(dir.path(), absolute.finish()).await.unwrap();
    let root = pulled.layers.first().unwrap();
    assert_eq!(fs::read_to_string(root.join("too")).unwrap(), "x");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    // A symbolic link may point anywhere: it is the container that follows it.
    let dir = tempfile::tempdir().unwrap();
    unpack(dir.path(), Tar::new().symlink("mtab", "/proc/mounts").finish()).await.unwrap();
}

#[tokio::test]
async fn a_later_entry_wins() {
    let dir = tempfile::tempdir().unwrap();
    let archive = Tar::new()
        .file("a", "first")
        .file("a", "second")
        .dir("d", 0o755)
        .file("d/x", "")
        .file("d", "now a file")
        .symlink("s", "a")
        .file("s", "not through the link")
        .file("f", "")
        .dir("f", 0o700)
        .finish();
    let pulled = unpack(dir.path(), archive).await.unwrap();
    let root = pulled.layers.first().unwrap();
    let text = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    assert_eq!(
        (text("a"), text("d"), text("s")),
        ("second".to_owned(), "now a file".to_owned(), "not through the link".to_owned())
    );
    assert!(root.join("f").is_dir());
}

#[expect(unsafe_code, reason = "no crate of ours wraps lgetxattr")]
fn attribute(path: &Path, name: &std::ffi::CStr) -> Option<Vec<u8>> {
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    let mut value = vec![0u8; 256];
    // SAFETY: the strings end with a zero and the buffer is as long as said.
    let length = unsafe {
        libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    value.truncate(usize::try_from(length).ok()?);
    Some(value)
}
