//! A small disk for tests, which gets full.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// 256 KiB of memory, mounted.
pub(crate) struct Small(PathBuf);

impl Small {
    pub(crate) fn mount(at: &Path) -> Self {
        let mut command = Command::new("mount");
        let command = command.args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(at);
        assert!(command.status().unwrap().success(), "this test needs root");
        Self(at.to_owned())
    }

    pub(crate) fn fill(&self) {
        let mut file = File::create(self.filler()).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }

    pub(crate) fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
