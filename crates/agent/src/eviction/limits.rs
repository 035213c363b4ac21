//! Pods that may take only so much of the node's disk: `emptyDir.sizeLimit`, and limits of `ephemeral-storage`.

use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use toono_api::Quantity;

use crate::{
    admission::amount,
    bundles,
    container::volumes::is_mount_point,
    stats::{
        self,
        disk::{self, Used},
    },
};

/// Whether anything of the pod may take only so much of the disk. Memory has its limit from the kernel.
pub(crate) fn is_bounded(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    bounded_volumes(spec).next().is_some() || spec.containers.iter().any(|it| limit(it).is_some())
}

fn bounded_volumes(spec: &PodSpec) -> impl Iterator<Item = (&str, &str, Quantity)> {
    spec.volumes.iter().flatten().filter_map(|volume| {
        let empty = volume.empty_dir.as_ref()?;
        let text = &empty.size_limit.as_ref()?.0;
        let limit: Quantity = text.parse().ok()?;
        let on_disk = empty.medium.as_deref() != Some("Memory");
        (on_disk && !limit.is_zero()).then_some((volume.name.as_str(), text.as_str(), limit))
    })
}

fn limit(container: &Container) -> Option<Quantity> {
    let limits = container.resources.as_ref()?.limits.as_ref();
    amount(limits, "ephemeral-storage").filter(|it| !it.is_zero())
}

/// What the pod in this directory takes too much of, in the kubelet's words.
pub(super) fn exceeded(dir: &Path) -> Option<String> {
    let pod = bundles::read_pod(dir)?;
    let spec = pod.spec.as_ref()?;
    let volume = |name: &str| disk::used(&dir.join("volumes").join(name));
    let fits =
        |used: Used, limit: Quantity| i64::try_from(used.bytes).is_ok_and(|it| it <= limit.units());
    for (name, text, limit) in bounded_volumes(spec) {
        if !fits(volume(name), limit) {
            return Some(format!(
                "Usage of EmptyDir volume \"{name}\" exceeds the limit \"{text}\". "
            ));
        }
    }
    let written = |container: &Container| stats::written(dir, &container.name);
    let limits = || spec.containers.iter().filter_map(|it| Some((it, limit(it)?)));
    if let Some((_, first)) = limits().next() {
        let sum = limits().skip(1).fold(first, |sum, (_, limit)| sum.saturating_add(limit));
        let mut used = Used::default();
        spec.containers.iter().for_each(|it| used += written(it));
        for name in
            spec.volumes.iter().flatten().filter(|it| it.empty_dir.is_some()).map(|it| &it.name)
        {
            if !is_mount_point(&dir.join("volumes").join(name)) {
                used += volume(name);
            }
        }
        if !fits(used, sum) {
            return Some(format!(
                "Pod ephemeral local storage usage exceeds the total limit of containers {sum}. "
            ));
        }
    }
    let (container, limit) =
        limits().find(|(container, limit)| !fits(written(container), *limit))?;
    let name = &container.name;
    Some(format!("Container {name} exceeded its local ephemeral storage limit \"{limit}\". "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::fs;

    fn with(spec: &Value) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let pod = json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": spec});
        let bytes = pod.to_string().into_bytes();
        crate::disk::write_checked(&dir.path().join("pod"), &bytes, crate::disk::Durability::Lazy)
            .unwrap();
        fs::create_dir_all(dir.path().join("volumes/v")).unwrap();
        fs::create_dir_all(dir.path().join("logs/c")).unwrap();
        dir
    }

    #[test]
    fn each_limit_has_its_words() {
        let mib = vec![1; 1 << 20];
        let volume = with(&json!({"containers": [{"name": "c"}],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]}));
        assert_eq!(exceeded(volume.path()), None);
        fs::write(volume.path().join("volumes/v/x"), &mib).unwrap();
        assert_eq!(
            exceeded(volume.path()).as_deref(),
            Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "),
            "the directory itself takes something too"
        );
        let limits = json!({"limits": {"ephemeral-storage": "2Mi"}});
        let spec = json!({"containers": [{"name": "c", "resources": limits}], "volumes": [{"name": "v", "emptyDir": {}}]});
        let pod = with(&spec);
        fs::write(pod.path().join("volumes/v/x"), &mib).unwrap();
        assert_eq!(exceeded(pod.path()), None);
        fs::write(pod.path().join("logs/c/0.log"), &mib).unwrap();
        assert_eq!(
            exceeded(pod.path()).as_deref(),
            Some("Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. ")
        );
        let roomy = json!({"limits": {"ephemeral-storage": "9Mi"}});
        let two = with(
            &json!({"containers": [{"name": "c", "resources": limits}, {"name": "d", "resources": roomy}]}),
        );
        fs::write(two.path().join("logs/c/0.log"), [mib.clone(), mib.clone(), mib].concat())
            .unwrap();
        assert_eq!(
            exceeded(two.path()).as_deref(),
            Some("Container c exceeded its local ephemeral storage limit \"2Mi\". ")
        );
    }

    #[test]
    fn only_what_is_on_the_disk_is_bounded_here() {
        let bounded = |spec: Value| {
            is_bounded(&serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap())
        };
        let volume =
            |empty: Value| json!({"containers": [], "volumes": [{"name": "v", "emptyDir": empty}]});
        assert!(bounded(volume(json!({"sizeLimit": "1Mi"}))));
        assert!(!bounded(volume(json!({"sizeLimit": "1Mi", "medium": "Memory"}))));
        assert!(!bounded(volume(json!({}))));
        let limits = json!({"limits": {"ephemeral-storage": "1Gi"}});
        assert!(bounded(json!({"containers": [{"name": "c", "resources": limits}]})));
    }
}
