//! Who a container runs as: names and numbers of users and groups, by the image's own files.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::Path,
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::Mode,
};

use crate::spec::ContainerSpec;

/// A longer `passwd` or `group` file is not read; real ones have a few KiB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The numbers that a process gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
}

/// Resolves the container's `user[:group]` in its image, which is mounted at `root`.
pub(super) fn resolve(root: &Path, spec: &ContainerSpec) -> Result<User, String> {
    let passwd = read(root, "etc/passwd");
    let group = read(root, "etc/group");
    let mut user = resolve_in(&passwd, &group, &spec.user, &spec.supplementary_groups)?;
    if spec.only_these_groups {
        user.groups.clone_from(&spec.supplementary_groups);
    }
    // Else it could leave its own group behind, and what others may and that group may not would be
    // its to do (CVE-2022-36109).
    if !user.groups.contains(&user.gid) {
        user.groups.insert(0, user.gid);
    }
    Ok(user)
}

fn resolve_in(
    passwd: &str,
    group: &str,
    wanted: &str,
    more_groups: &[u32],
) -> Result<User, String> {
    let (user, group_wanted) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    // passwd(5): name, password, uid, gid, …
    let entry = records(passwd).find(|fields| match number {
        Some(number) => fields.get(2).is_some_and(|uid| uid.parse() == Ok(number)),
        None => fields.first() == Some(&user),
    });
    let field = |fields: &[&str], at: usize| fields.get(at).and_then(|text| text.parse().ok());
    let (uid, mut gid) = match (number, &entry) {
        (Some(uid), Some(fields)) => (uid, field(fields, 3).unwrap_or(0)),
        (Some(uid), None) => (uid, 0),
        (None, Some(fields)) => match (field(fields, 2), field(fields, 3)) {
            (Some(uid), Some(gid)) => (uid, gid),
            _ => return Err(format!("user {user}: its line in /etc/passwd is invalid")),
        },
        (None, None) => return Err(format!("user {user}: no such user in /etc/passwd")),
    };
    if let Some(wanted) = group_wanted.filter(|group| !group.is_empty()) {
        gid = match wanted.parse() {
            Ok(number) => number,
            // group(5): name, password, gid, members.
            Err(_) => records(group)
                .find(|fields| fields.first() == Some(&wanted))
                .and_then(|fields| field(&fields, 2))
                .ok_or_else(|| format!("group {wanted}: no such group in /etc/group"))?,
        };
    }
    let name = entry.as_ref().and_then(|fields| fields.first().copied());
    let mut groups: Vec<u32> = records(group)
        .filter(|fields| {
            let members = fields.get(3).copied().unwrap_or_default();
            name.is_some_and(|name| members.split(',').any(|member| member == name))
        })
        .filter_map(|fields| field(&fields, 2))
        .chain(more_groups.iter().copied())
        .collect();
    groups.sort_unstable();
    groups.dedup();
    Ok(User { uid, gid, groups })
}

fn records(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

/// The file's text; empty when there is none, as an image needs no such file.
fn read(root: &Path, path: &str) -> String {
    let mut text = String::new();
    if let Ok(fd) = open_in(root, Path::new(path), OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
        let _ = File::from(fd).take(MAX_FILE_BYTES).read_to_string(&mut text);
    }
    text
}

/// Opens a path as a process confined to `root` would see it, symbolic links and all.
pub(super) fn open_in(root: &Path, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let root = open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(openat2(&root, path, how)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/:/bin/sh\n";
    const GROUP: &str = "root:x:0:\napp:x:1001:\nweb:x:33:app,other\nempty\n";

    fn user(wanted: &str) -> Result<(u32, u32, Vec<u32>), String> {
        resolve_in(PASSWD, GROUP, wanted, &[7, 33]).map(|user| (user.uid, user.gid, user.groups))
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        assert_eq!(user(""), Ok((0, 0, vec![7, 33])));
        assert_eq!(user("app"), Ok((1000, 1001, vec![7, 33])));
        assert_eq!(user("1000"), Ok((1000, 1001, vec![7, 33])));
        assert_eq!(user("65534"), Ok((65534, 0, vec![7, 33])));
        assert_eq!(user("app:web"), Ok((1000, 33, vec![7, 33])));
        assert_eq!(user("5:6"), Ok((5, 6, vec![7, 33])));
        assert!(user("nobody").unwrap_err().contains("nobody"));
        assert!(user("app:none").unwrap_err().contains("none"));
    }
}
