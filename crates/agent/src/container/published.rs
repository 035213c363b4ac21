//! Files of a volume that change all at once, under the eyes of whoever reads them.
//!
//! As with the kubelet, the files are in a directory of their own, `..data` is a link to it, and each name of the
//! volume is a link through `..data`. An update makes another directory and moves `..data` there.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
};

use super::projection::Payload;

/// The link that moves.
const DATA: &str = "..data";
/// The link that is about to take its place.
const NEXT: &str = "..data_tmp";
/// Names that begin with this are not for pods.
const OWN: &str = "..";

/// Makes the volume at `root`, which exists, hold just these files, which are that group's if there is
/// one. Whether it held others before.
pub(super) fn publish(root: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    let old = fs::read_link(root.join(DATA)).ok().map(|name| root.join(name));
    let same = old.as_ref().is_some_and(|old| holds(old, payload).unwrap_or(false));
    let kept = match old.filter(|_| same) {
        Some(kept) => kept,
        None => write(root, payload, group)?,
    };
    let names: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &names {
        let link = root.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    // What a power cut left half-way goes, too.
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let wanted = match name.to_str() {
            Some(DATA) => true,
            Some(own) if own.starts_with(OWN) => path == kept,
            Some(name) => names.contains(name),
            None => false,
        };
        if !wanted {
            remove(&path)?;
        }
    }
    Ok(!same)
}

/// Writes the files into a new directory, and lets `..data` lead there.
fn write(root: &Path, payload: &Payload, group: Option<u32>) -> io::Result<PathBuf> {
    let now = jiff::Timestamp::now();
    let name = format!("..{}.{:09}", now.strftime("%Y_%m_%d_%H_%M_%S"), now.subsec_nanosecond());
    let made = root.join(&name);
    fs::create_dir(&made)?;
    fs::set_permissions(&made, fs::Permissions::from_mode(0o755))?;
    for (path, file) in payload {
        let path = made.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))?;
        if file.owner.is_some() {
            chown(&path, file.owner, None)?;
        }
    }
    if let Some(group) = group {
        give(&made, group)?;
    }
    let next = root.join(NEXT);
    if fs::symlink_metadata(&next).is_ok() {
        remove(&next)?;
    }
    symlink(&name, &next)?;
    fs::rename(&next, root.join(DATA))?;
    Ok(made)
}

/// Gives a directory and all in it to a group; what is made in a directory later is the group's, too.
fn give(path: &Path, group: u32) -> io::Result<()> {
    chown(path, None, Some(group))?;
    let kind = fs::symlink_metadata(path)?;
    if kind.is_dir() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o2755))?;
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), group)?;
        }
    }
    Ok(())
}

/// Whether a directory holds just these files.
fn holds(dir: &Path, payload: &Payload) -> io::Result<bool> {
    for (path, file) in payload {
        let path = dir.join(path);
        let found = fs::symlink_metadata(&path)?;
        let mode = found.permissions().mode() & 0o777;
        let owned = file.owner.is_none_or(|owner| owner == found.uid());
        if mode != file.mode || !owned || fs::read(&path)? != file.bytes {
            return Ok(false);
        }
    }
    Ok(count(dir)? == payload.len())
}

fn count(dir: &Path) -> io::Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        files += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(files)
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::container::projection::File;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |text: &str| File { bytes: text.into(), mode: 0o640, owner: None };
        files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    /// All that a pod sees, by the names that it uses.
    fn seen(root: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with(".."))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_update_is_seen_whole_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert!(publish(root, &payload(&[("a", "1"), ("x/y", "2"), ("gone", "")]), None).unwrap());
        assert!(!publish(root, &payload(&[("a", "1"), ("x/y", "2"), ("gone", "")]), None).unwrap());
        assert_eq!(fs::read_link(root.join("a")).unwrap(), Path::new("..data/a"));
        assert_eq!(fs::read_to_string(root.join("x/y")).unwrap(), "2");
        assert_eq!(fs::metadata(root.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        let before = fs::canonicalize(root.join("..data")).unwrap();
        let open = fs::File::open(root.join("a")).unwrap();

        assert!(publish(root, &payload(&[("a", "3"), ("x/z", "4")]), None).unwrap());
        assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "3");
        assert_eq!(seen(root), ["a", "x"]);
        assert!(!before.exists() && !root.join("x/y").exists());
        assert_eq!(io::read_to_string(open).unwrap(), "1", "who has it open reads on");
        let mut other = payload(&[("a", "3"), ("x/z", "4")]);
        other.get_mut("a").unwrap().mode = 0o600;
        assert!(publish(root, &other, None).unwrap(), "a mode counts, too");
    }

    #[test]
    fn a_group_gets_all_that_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let own = fs::metadata(root).unwrap().gid();
        let group = if nix::unistd::geteuid().is_root() { 4321 } else { own };
        publish(root, &payload(&[("a", "1"), ("x/y", "2")]), Some(group)).unwrap();
        for (path, mode) in [("a", 0o640), ("x", 0o2755), ("x/y", 0o640)] {
            let found = fs::metadata(root.join(path)).unwrap();
            assert_eq!((found.gid(), found.permissions().mode() & 0o7777), (group, mode), "{path}");
        }
    }

    #[test]
    fn what_was_begun_and_not_finished_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        publish(root, &payload(&[("a", "1")]), None).unwrap();
        fs::create_dir(root.join("..2020_01_01_00_00_00.000000001")).unwrap();
        symlink("..2020_01_01_00_00_00.000000001", root.join("..data_tmp")).unwrap();
        fs::remove_file(root.join("a")).unwrap();
        assert!(!publish(root, &payload(&[("a", "1")]), None).unwrap());
        assert_eq!(fs::read_dir(root).unwrap().count(), 3, "the link, its directory and the name");
        fs::write(root.join("..data/a"), "torn").unwrap();
        assert!(publish(root, &payload(&[("a", "1")]), None).unwrap());
        assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "1");
    }
}
