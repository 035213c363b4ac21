//! What a pod mounts of its host: whether it is there, and of the right kind.

use std::{collections::BTreeSet, fs, os::unix::fs::FileTypeExt, path::PathBuf};

use k8s_openapi::api::core::v1::{HostPathVolumeSource, Pod};

use super::{ConfigError, volumes::mounted};

/// Looks whether the host has what the containers mount of it, or makes it where the pod asks for that.
/// What is not there is told in the kubelet's words.
pub(crate) fn check_all(pod: &Pod) -> Result<(), Vec<String>> {
    let spec = pod.spec.as_ref();
    let volumes = spec.and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let mounts: BTreeSet<&str> = spec.map(mounted).unwrap_or_default();
    let mut failures = Vec::new();
    for volume in volumes.iter().filter(|volume| mounts.contains(volume.name.as_str())) {
        if let Some(Err(ConfigError(text))) = volume.host_path.as_ref().map(check) {
            failures
                .push(format!("MountVolume.SetUp failed for volume \"{}\" : {text}", volume.name));
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures) }
}

/// The path, which is of the kind that the pod says; made where it says so.
pub(super) fn check(wanted: &HostPathVolumeSource) -> Result<PathBuf, ConfigError> {
    let path = PathBuf::from(&wanted.path);
    let kind = wanted.type_.as_deref().unwrap_or_default();
    let failed = |reason: &str| {
        ConfigError(format!("hostPath type check failed: {} {reason}", path.display()))
    };
    let made = match kind {
        "DirectoryOrCreate" | "" if !path.exists() => fs::create_dir_all(&path),
        "FileOrCreate" if !path.exists() => fs::File::create(&path).map(drop),
        _ => Ok(()),
    };
    made.map_err(|error| failed(&format!("cannot be made: {error}")))?;
    let found = fs::metadata(&path).ok().map(|it| it.file_type());
    let is = |test: fn(&fs::FileType) -> bool| found.as_ref().is_some_and(test);
    let (fits, what) = match kind {
        "Directory" | "DirectoryOrCreate" => (is(fs::FileType::is_dir), "a directory"),
        "File" | "FileOrCreate" => (is(fs::FileType::is_file), "a file"),
        "Socket" => (is(FileTypeExt::is_socket), "a socket file"),
        "CharDevice" => (is(FileTypeExt::is_char_device), "a character device"),
        "BlockDevice" => (is(FileTypeExt::is_block_device), "a block device"),
        _ => (true, ""),
    };
    if fits { Ok(path) } else { Err(failed(&format!("is not {what}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_checked_by_type() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str, kind: &str| HostPathVolumeSource {
            path: dir.path().join(name).display().to_string(),
            type_: Some(kind.to_owned()),
        };
        for (kind, what) in [
            ("Directory", "a directory"),
            ("File", "a file"),
            ("Socket", "a socket file"),
            ("CharDevice", "a character device"),
            ("BlockDevice", "a block device"),
        ] {
            let wanted = path("none", kind);
            let text = format!("hostPath type check failed: {} is not {what}", wanted.path);
            assert_eq!(check(&wanted), Err(ConfigError(text)));
        }
        let device =
            HostPathVolumeSource { path: "/dev/null".into(), type_: Some("CharDevice".into()) };
        assert!(check(&device).is_ok());
        assert!(check(&path("new", "DirectoryOrCreate")).is_ok());
        assert!(check(&path("new", "File")).is_err());
        assert!(check(&path("file", "FileOrCreate")).is_ok());
        assert!(check(&path("plain", "")).is_ok());
    }
}
