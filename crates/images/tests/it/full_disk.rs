//! A disk without room: what is told, and what is left free.

use std::{fs, path::Path, process::Command};

use toono_images::{ImageStore, ImportError, Keyring, PullError, RegistryConfig, Space};

use crate::{
    archive::Tar,
    registry::{Contents, Registry, gzip, image},
};

/// A small file system in memory, which ends with the test.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(kibibytes: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={kibibytes}k");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .status();
        assert!(mount.unwrap().success(), "this test needs root");
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn noise(bytes: usize) -> String {
    let mut state = 1u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + u8::try_from((state >> 33) % 90).unwrap())
    };
    (0..bytes).map(|_| next()).collect()
}

#[tokio::test]
async fn a_layer_that_does_not_fit_is_not_begun() {
    let disk = Disk::new(4096);
    let registry = Registry::start().await;
    let contents = Contents::of(vec![Tar::new().file("big", &noise(6 << 20)).finish()]);
    registry.push("big", &Contents { compressed: false, ..contents });
    let store = registry.store(disk.path());
    let error = store.pull(&image("big"), &Keyring::default()).await.unwrap_err();
    let PullError::NoSpace { needed, available, .. } = error else { panic!("{error}") };
    assert!(needed > 6 << 20 && available < 4 << 20, "{needed} of {available}");
    assert!(error.hint().contains("toono node image rm"), "{}", error.hint());
    let partial = fs::read_dir(disk.path().join("partial")).unwrap();
    assert!(partial.map(|it| it.unwrap().metadata().unwrap().len()).sum::<u64>() == 0);
}

#[tokio::test]
async fn unpacking_leaves_others_their_room_and_what_arrived_stays() {
    let disk = Disk::new(16 << 10);
    let registry = Registry::start().await;
    // Compressed it fits many times, unpacked it does not.
    let contents = Contents::of(vec![Tar::new().file("zeros", &"0".repeat(40 << 20)).finish()]);
    registry.push("bomb", &contents);
    let store = registry.store(disk.path());
    let error = store.pull(&image("bomb"), &Keyring::default()).await.unwrap_err();
    assert!(matches!(error, PullError::NoSpace { .. }), "{error}");
    let count = |dir: &str| fs::read_dir(disk.path().join(dir)).unwrap().count();
    assert_eq!((count("layers"), count("tmp"), count("partial")), (0, 0, 1));
    assert!(Space::of(disk.path()).unwrap().available > 15 << 20);
}

#[test]
fn a_packed_archive_does_not_fill_the_disk_either() {
    let disk = Disk::new(16 << 10);
    let elsewhere = tempfile::tempdir().unwrap();
    let archive = elsewhere.path().join("archive");
    fs::write(&archive, gzip(&Tar::new().file("zeros", &"0".repeat(40 << 20)).finish())).unwrap();
    let store = ImageStore::open(disk.path(), RegistryConfig::default()).unwrap();
    let error = store.import(&archive, None).unwrap_err();
    let ImportError::Archive { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
    assert!(Space::of(disk.path()).unwrap().available > 15 << 20);
}
