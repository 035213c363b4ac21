//! A pod's volumes on the node's disk and in its memory, and the mounts of its containers.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Component, Path, PathBuf},
};

use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, Pod, PodSpec, Volume, VolumeMount,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use toono_api::Quantity;
use toono_sandbox::Mount;

use super::{
    ConfigError, Surroundings,
    environment::{Variables, expand_wholly},
    host_paths, projection, published, user,
};

/// What the memory of a pod's volume is called in the node's table of mounts.
const MEMORY_SOURCE: &str = "toono";
/// Everyone may write to a volume of the pod's own, whoever its containers run as.
const OPEN_MODE: u32 = 0o777;
/// What is made in it later is its group's, too.
const SET_GROUP: u32 = 0o2000;
/// The group of the pod's volumes may read what is written for the pod.
const GROUP_READS: u32 = 0o440;

/// Makes the pod's own volumes, and has those whose files come from elsewhere hold what they should, if any
/// container mounts them. What cannot be made stays as it was, and is told in the kubelet's words.
pub(crate) fn fill(pod: &Pod, around: Surroundings<'_>) -> Result<(), Vec<String>> {
    let spec = pod.spec.as_ref();
    let volumes = spec.and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let mounts: BTreeSet<&str> = spec.map(mounted).unwrap_or_default();
    let is_mounted = |volume: &&Volume| mounts.contains(volume.name.as_str());
    let mut failures = Vec::new();
    // The pod's own ones, too: containers see what is mounted before their keeper starts, and later mounts
    // only where the host shares its mounts.
    for volume in volumes.iter().filter(|it| it.empty_dir.is_some()) {
        failures.extend(source(pod, volume, around).err().map(|ConfigError(text)| text));
    }
    for volume in volumes.iter().filter(|it| projection::is_projection(it)).filter(is_mounted) {
        if let Err(ConfigError(text)) = fill_one(pod, volume, around) {
            failures
                .push(format!("MountVolume.SetUp failed for volume \"{}\" : {text}", volume.name));
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures) }
}

/// The names of the volumes that any container mounts.
pub(super) fn mounted(spec: &PodSpec) -> BTreeSet<&str> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let usual = containers.map(|it| &it.volume_mounts);
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|it| &it.volume_mounts);
    usual.chain(ephemeral).flatten().flatten().map(|mount| mount.name.as_str()).collect()
}

fn fill_one(pod: &Pod, volume: &Volume, around: Surroundings<'_>) -> Result<(), ConfigError> {
    let mut payload = projection::payload(pod, volume, around)?;
    let group = pod.spec.as_ref().and_then(user::group_of_volumes);
    if group.is_some() {
        payload.values_mut().for_each(|file| file.mode |= GROUP_READS);
    }
    let path = around.dir.join("volumes").join(&volume.name);
    let medium = projection::is_in_memory(volume).then(|| "Memory".to_owned());
    let place = EmptyDirVolumeSource { medium, ..EmptyDirVolumeSource::default() };
    let made = empty_dir(&path, &place, group, None)
        .and_then(|()| published::publish(&path, &payload, group));
    let changed = made.map_err(|error| ConfigError(error.to_string()))?;
    tracing::debug!(volume = volume.name, changed, "filled");
    Ok(())
}

/// The mounts of one container, in the order of the pod.
pub(super) fn mounts(
    pod: &Pod,
    container: &Container,
    variables: &Variables,
    around: Surroundings<'_>,
) -> Result<Vec<Mount>, ConfigError> {
    let volumes = || pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut mounts = Vec::new();
    for wanted in container.volume_mounts.iter().flatten() {
        let volume = volumes().find(|it| it.name == wanted.name);
        let volume =
            volume.ok_or_else(|| ConfigError(format!("the pod has no volume {}", wanted.name)))?;
        let root = source(pod, volume, around)?;
        let source = match part(wanted, variables)? {
            None => root,
            Some(path) => sub_path(&root, &path)?,
        };
        // What is not the pod's to write is never writable.
        let read_only = wanted.read_only == Some(true) || projection::is_projection(volume);
        let recursive = wanted.recursive_read_only.as_deref();
        mounts.push(Mount::Bind {
            source,
            target: wanted.mount_path.clone().into(),
            read_only,
            all_read_only: read_only && matches!(recursive, Some("Enabled" | "IfPossible")),
            follows_host: wanted.mount_propagation.as_deref() == Some("HostToContainer"),
        });
    }
    Ok(mounts)
}

/// The path in its volume that a mount wants, if not all of it.
fn part(wanted: &VolumeMount, variables: &Variables) -> Result<Option<String>, ConfigError> {
    let filled = |path: &Option<String>| path.clone().filter(|path| !path.is_empty());
    match filled(&wanted.sub_path_expr) {
        Some(expression) => expand_wholly(&expression, variables).map(Some),
        None => Ok(filled(&wanted.sub_path)),
    }
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

fn source(pod: &Pod, volume: &Volume, around: Surroundings<'_>) -> Result<PathBuf, ConfigError> {
    if let Some(host) = &volume.host_path {
        return host_paths::check(host);
    }
    let path = around.dir.join("volumes").join(&volume.name);
    if !projection::is_projection(volume) {
        let empty = volume.empty_dir.clone().unwrap_or_default();
        let spec = pod.spec.clone().unwrap_or_default();
        let group = user::group_of_volumes(&spec);
        let size = memory_size(&spec, &empty, around.allocatable.memory);
        empty_dir(&path, &empty, group, Some(size)).map_err(|error| {
            ConfigError(format!("cannot make the volume {}: {error}", volume.name))
        })?;
    }
    Ok(path)
}

/// What a volume in memory may hold: what its pod may use of memory, or less where it says so.
fn memory_size(spec: &PodSpec, wanted: &EmptyDirVolumeSource, allocatable: i64) -> i64 {
    let units = |text: &str| text.parse::<Quantity>().ok().map(|it| it.units());
    let limit = |container: &Container| {
        units(&container.resources.as_ref()?.limits.as_ref()?.get("memory")?.0)
    };
    let of_main: Option<i64> = spec.containers.iter().map(limit).sum();
    let of_init: Option<Vec<i64>> = spec.init_containers.iter().flatten().map(limit).collect();
    let of_pod = of_main.zip(of_init).map(|(main, init)| init.into_iter().fold(main, i64::max));
    let own = wanted.size_limit.as_ref().and_then(|it| units(&it.0));
    of_pod.into_iter().chain(own).filter(|it| *it > 0).fold(allocatable, i64::min)
}

/// A directory that lives as long as the pod.
fn empty_dir(
    path: &Path,
    wanted: &EmptyDirVolumeSource,
    group: Option<u32>,
    size: Option<i64>,
) -> io::Result<()> {
    if !path.exists() {
        // Whole or not at all; and once, as what its containers make of it is theirs to say.
        let new = path.with_extension("new");
        fs::create_dir_all(&new)?;
        open_to(&new, group)?;
        fs::rename(&new, path)?;
    }
    if wanted.medium.as_deref() == Some("Memory") && !is_mount_point(path) {
        let options = size.map(|bytes| format!("size={bytes},mode=0777"));
        let options = options.as_deref().unwrap_or("mode=0777");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some(MEMORY_SOURCE), path, Some("tmpfs"), flags, Some(options))?;
        open_to(path, group)?;
    }
    Ok(())
}

/// Lets everyone write to a directory, and the group have what is made in it.
fn open_to(path: &Path, group: Option<u32>) -> io::Result<()> {
    let mode = match group {
        Some(group) => {
            chown(path, None, Some(group))?;
            OPEN_MODE | SET_GROUP
        }
        None => OPEN_MODE,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
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

pub(crate) fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| fs::symlink_metadata(path).map(|it| it.dev()).ok();
    path.parent().is_some_and(|parent| device(path) != device(parent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::tests::Home;

    #[test]
    fn volumes_become_binds() {
        let home = Home::new();
        let dir = home.around().dir;
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {
            "volumes": [{"name": "a", "emptyDir": {}}, {"name": "h", "hostPath": {"path": dir, "type": "Directory"}}],
            "containers": [{"name": "c", "volumeMounts": [
                {"name": "a", "mountPath": "/a", "subPath": "x/y"},
                {"name": "a", "mountPath": "/b", "subPathExpr": "$(POD)/z"},
                {"name": "h", "mountPath": "/h", "readOnly": true, "recursiveReadOnly": "Enabled",
                    "mountPropagation": "HostToContainer"}]}],
        }}))
        .unwrap();
        let variables = vec![("POD".to_owned(), "p1".to_owned())];
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let made = mounts(&pod, container, &variables, home.around()).unwrap();
        let volume = fs::canonicalize(dir).unwrap().join("volumes/a");
        assert_eq!(made[0], Mount::bind(volume.join("x/y"), "/a".into()));
        assert_eq!(made[1], Mount::bind(volume.join("p1/z"), "/b".into()));
        let expected = Mount::Bind {
            source: dir.to_owned(),
            target: "/h".into(),
            read_only: true,
            all_read_only: true,
            follows_host: true,
        };
        assert_eq!(made[2], expected);
        let mode = fs::metadata(&volume).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o777);
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o700)).unwrap();
        mounts(&pod, container, &variables, home.around()).unwrap();
        let mode = fs::metadata(&volume).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "what a container made of it stays");
        let error = mounts(&pod, container, &Variables::new(), home.around()).unwrap_err();
        assert_eq!(error.to_string(), "missing value for POD");
    }

    #[test]
    fn volumes_are_the_groups_that_the_pod_names() {
        let home = Home::new();
        home.put(r#"{"kind":"ConfigMap","namespace":"d","name":"m","data":{"a":"1"}}"#);
        let own = fs::metadata(home.around().dir).unwrap().gid();
        let group = if nix::unistd::geteuid().is_root() { 4321 } else { own };
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "d"},
            "spec": {"securityContext": {"fsGroup": group},
                "volumes": [{"name": "e", "emptyDir": {}}, {"name": "m", "configMap": {"name": "m", "defaultMode": 0o600}}],
                "containers": [{"name": "c", "volumeMounts": [
                    {"name": "e", "mountPath": "/e"}, {"name": "m", "mountPath": "/m"}]}]}}))
        .unwrap();
        fill(&pod, home.around()).unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        mounts(&pod, container, &Variables::new(), home.around()).unwrap();
        for (path, mode) in [("e", 0o2777), ("m", 0o2777), ("m/a", 0o640)] {
            let found = fs::metadata(home.around().dir.join("volumes").join(path)).unwrap();
            assert_eq!((found.gid(), found.permissions().mode() & 0o7777), (group, mode), "{path}");
        }
    }

    #[test]
    fn memory_is_what_the_pod_may_use_of_it() {
        for (limits, own, expected) in [
            (vec![None], None, 1000),
            (vec![Some("300")], None, 300),
            (vec![Some("300"), Some("200")], None, 500),
            (vec![Some("300"), None], Some("400"), 400),
            (vec![Some("300")], Some("400"), 300),
            (vec![Some("300")], Some("0"), 300),
        ] {
            let containers = limits.iter().map(|limit| {
                serde_json::json!({"name": "c", "resources": {"limits": {"memory": limit}}})
            });
            let mut containers: Vec<_> = containers.collect();
            for (container, limit) in containers.iter_mut().zip(&limits) {
                if limit.is_none() {
                    container["resources"] = serde_json::json!({});
                }
            }
            let spec: PodSpec =
                serde_json::from_value(serde_json::json!({"containers": containers})).unwrap();
            let wanted: EmptyDirVolumeSource =
                serde_json::from_value(serde_json::json!({"sizeLimit": own})).unwrap();
            assert_eq!(memory_size(&spec, &wanted, 1000), expected, "{limits:?} {own:?}");
        }
    }

    #[test]
    fn what_is_filled_is_mounted_read_only_and_one_failure_spoils_no_other() {
        let home = Home::new();
        home.put(r#"{"kind":"ConfigMap","namespace":"d","name":"m","data":{"a":"1"}}"#);
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "d"},
            "spec": {
                "volumes": [{"name": "m", "configMap": {"name": "m"}}, {"name": "x", "configMap": {"name": "x"}},
                    {"name": "unused", "configMap": {"name": "y"}}],
                "containers": [{"name": "c", "volumeMounts": [
                    {"name": "m", "mountPath": "/m"}, {"name": "m", "mountPath": "/a", "subPath": "a"},
                    {"name": "x", "mountPath": "/x"}]}]}}))
        .unwrap();
        let failures = fill(&pod, home.around()).unwrap_err();
        assert_eq!(
            failures,
            ["MountVolume.SetUp failed for volume \"x\" : configmap \"x\" not found"]
        );
        home.put(r#"{"kind":"ConfigMap","namespace":"d","name":"x","data":{}}"#);
        assert_eq!(fill(&pod, home.around()), Ok(()));
        let dir = home.around().dir;
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let mounts = mounts(&pod, container, &Variables::new(), home.around()).unwrap();
        let sources: Vec<&PathBuf> = mounts
            .iter()
            .map(|mount| match mount {
                Mount::Bind { source, read_only: true, .. } => source,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(sources[0], &dir.join("volumes/m"));
        assert_eq!(fs::read_to_string(sources[1]).unwrap(), "1", "the file itself, not a link");
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
}
