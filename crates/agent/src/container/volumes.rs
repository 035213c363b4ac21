//! Volumes of the kinds that need nothing from the cloud: `emptyDir` and `hostPath`.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, HostPathVolumeSource, PodSpec, Volume,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use toono_api::Quantity;
use toono_sandbox::Mount;

use super::ConfigError;

/// What the memory of a pod's volume is called in the node's table of mounts.
const MEMORY_SOURCE: &str = "toono";

/// The mounts of one container, in the order of the pod.
pub(super) fn mounts(
    dir: &Path,
    pod: &PodSpec,
    container: &Container,
) -> Result<Vec<Mount>, ConfigError> {
    let mut mounts = Vec::new();
    for wanted in container.volume_mounts.iter().flatten() {
        let volume = pod.volumes.iter().flatten().find(|it| it.name == wanted.name);
        let volume =
            volume.ok_or_else(|| ConfigError(format!("the pod has no volume {}", wanted.name)))?;
        // What admission adds to every pod and this node does not have yet; the pod's status says so.
        let Some(root) = source(dir, volume)? else { continue };
        let source = match wanted.sub_path.as_deref().filter(|path| !path.is_empty()) {
            None => root,
            Some(path) => sub_path(&root, path)?,
        };
        mounts.push(Mount::Bind {
            source,
            target: wanted.mount_path.clone().into(),
            read_only: wanted.read_only == Some(true),
        });
    }
    Ok(mounts)
}

/// Releases the memory of a pod's volumes, before its directory is deleted.
pub(crate) fn release(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir.join("volumes")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if is_mount_point(&path) {
            umount2(&path, MntFlags::MNT_DETACH)?;
        }
    }
    Ok(())
}

fn source(dir: &Path, volume: &Volume) -> Result<Option<PathBuf>, ConfigError> {
    if let Some(host) = &volume.host_path {
        return host_path(host).map(Some);
    }
    if volume.projected.is_some() {
        return Ok(None);
    }
    let path = dir.join("volumes").join(&volume.name);
    let empty = volume.empty_dir.clone().unwrap_or_default();
    empty_dir(&path, &empty)
        .map_err(|error| ConfigError(format!("cannot make the volume {}: {error}", volume.name)))?;
    Ok(Some(path))
}

/// A directory that lives as long as the pod, whoever its containers run as.
fn empty_dir(path: &Path, wanted: &EmptyDirVolumeSource) -> io::Result<()> {
    fs::create_dir_all(path)?;
    if wanted.medium.as_deref() == Some("Memory") && !is_mount_point(path) {
        let limit = wanted.size_limit.as_ref().and_then(|it| it.0.parse::<Quantity>().ok());
        let options = limit.map(|limit| format!("size={},mode=0777", limit.units()));
        let options = options.as_deref().unwrap_or("mode=0777");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some(MEMORY_SOURCE), path, Some("tmpfs"), flags, Some(options))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))
}

fn host_path(wanted: &HostPathVolumeSource) -> Result<PathBuf, ConfigError> {
    let path = PathBuf::from(&wanted.path);
    let kind = wanted.type_.as_deref().unwrap_or_default();
    let failed = |reason: String| {
        ConfigError(format!("hostPath type check failed: {} {reason}", path.display()))
    };
    let made = match kind {
        "DirectoryOrCreate" => fs::create_dir_all(&path),
        "" if !path.exists() => fs::create_dir_all(&path),
        "FileOrCreate" if !path.exists() => fs::File::create(&path).map(drop),
        _ => Ok(()),
    };
    made.map_err(|error| failed(format!("cannot be made: {error}")))?;
    let found = fs::metadata(&path).map_err(|error| failed(error.to_string()))?.file_type();
    let fits = match kind {
        "Directory" | "DirectoryOrCreate" => found.is_dir(),
        "File" | "FileOrCreate" => found.is_file(),
        "Socket" => found.is_socket(),
        "CharDevice" => found.is_char_device(),
        "BlockDevice" => found.is_block_device(),
        _ => true,
    };
    if fits { Ok(path) } else { Err(failed(format!("is not a {kind}"))) }
}

/// A path below a volume, which may hold links that a container has made.
fn sub_path(root: &Path, path: &str) -> Result<PathBuf, ConfigError> {
    let failed = |reason: String| ConfigError(format!("subPath {path}: {reason}"));
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if !plain {
        return Err(failed("it must stay below the volume".to_owned()));
    }
    let broken = |error: io::Error| failed(error.to_string());
    let root = fs::canonicalize(root).map_err(broken)?;
    let mut full = root.clone();
    // Part by part, so that nothing is made on the far side of a link.
    for part in Path::new(path).components() {
        full.push(part);
        if fs::symlink_metadata(&full).is_err() {
            fs::create_dir(&full).map_err(broken)?;
        }
        full = fs::canonicalize(&full).map_err(broken)?;
        if !full.starts_with(&root) {
            return Err(failed("it leaves the volume".to_owned()));
        }
    }
    Ok(full)
}

fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| fs::symlink_metadata(path).map(|it| it.dev()).ok();
    path.parent().is_some_and(|parent| device(path) != device(parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_become_binds() {
        let dir = tempfile::tempdir().unwrap();
        let spec: PodSpec = serde_json::from_value(serde_json::json!({
            "volumes": [{"name": "a", "emptyDir": {}}, {"name": "h", "hostPath": {"path": dir.path(), "type": "Directory"}}],
            "containers": [{"name": "c", "volumeMounts": [
                {"name": "a", "mountPath": "/a", "subPath": "x/y"},
                {"name": "h", "mountPath": "/h", "readOnly": true}]}],
        }))
        .unwrap();
        let mounts = mounts(dir.path(), &spec, &spec.containers[0]).unwrap();
        let expected = Mount::Bind {
            source: fs::canonicalize(dir.path()).unwrap().join("volumes/a/x/y"),
            target: "/a".into(),
            read_only: false,
        };
        assert_eq!(mounts[0], expected);
        let Mount::Bind { source, read_only: true, .. } = &mounts[1] else { panic!("{mounts:?}") };
        assert_eq!(source, dir.path());
        let mode = fs::metadata(dir.path().join("volumes/a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o777);
    }

    #[test]
    fn a_sub_path_cannot_leave_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        for bad in ["../x", "/etc", "link", "a/../../x"] {
            assert!(sub_path(dir.path(), bad).is_err(), "{bad}");
        }
        assert!(sub_path(dir.path(), "fine").is_ok());
    }

    #[test]
    fn host_paths_are_checked_by_type() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str, kind: &str| HostPathVolumeSource {
            path: dir.path().join(name).display().to_string(),
            type_: Some(kind.to_owned()),
        };
        assert!(host_path(&path("none", "Directory")).is_err());
        assert!(host_path(&path("new", "DirectoryOrCreate")).is_ok());
        assert!(host_path(&path("new", "File")).is_err());
        assert!(host_path(&path("file", "FileOrCreate")).is_ok());
        assert!(host_path(&path("plain", "")).is_ok());
    }
}
