//! Which fields of a pod this node does not act on yet, so that none is ignored in silence.

use k8s_openapi::api::core::v1::{Container, EnvVarSource, PodSpec, Volume, VolumeProjection};

use crate::restart;

/// Volumes of one kind that this node makes. One of no kind is an `emptyDir`.
const VOLUMES: [&str; 5] = ["emptyDir", "hostPath", "configMap", "secret", "downwardAPI"];

/// A field that this node does not act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// Its path, such as `spec.volumes[config].configMap`.
    pub field: String,
    /// Running without it would break the pod's expectations, so its containers do not run. The
    /// others run without it, and the pod says so.
    pub blocks: bool,
}

/// Every field of the pod that this node does not act on, in the order of the pod.
#[must_use]
pub fn unsupported(spec: &PodSpec) -> Vec<Unsupported> {
    let mut found = Findings(Vec::new());
    found.block(spec.host_users == Some(false), || "spec.hostUsers".into());
    found.block(spec.runtime_class_name.is_some(), || "spec.runtimeClassName".into());
    found.block(filled(&spec.resource_claims), || "spec.resourceClaims".into());
    if let Some(security) = &spec.security_context {
        let at = |field: &str| format!("spec.securityContext.{field}");
        found.block(security.se_linux_options.is_some(), || at("seLinuxOptions"));
        found.note(security.app_armor_profile.is_some(), || at("appArmorProfile"));
    }
    for volume in spec.volumes.iter().flatten() {
        check_volume(volume, &mut found);
    }
    let init = spec.init_containers.iter().flatten().map(|it| ("spec.initContainers", it));
    for (list, container) in init.chain(spec.containers.iter().map(|it| ("spec.containers", it))) {
        let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
        found.block(!rules.iter().all(restart::acts), || {
            format!("{list}[{}].restartPolicyRules", container.name)
        });
        check_container(&format!("{list}[{}]", container.name), container, &mut found);
    }
    found.0
}

fn check_volume(volume: &Volume, found: &mut Findings) {
    if let Some(projected) = &volume.projected {
        for source in projected.sources.iter().flatten() {
            if let Some(kind) = unsupported_projection(source) {
                found.block(true, || {
                    format!("spec.volumes[{}].projected.sources[].{kind}", volume.name)
                });
            }
        }
        return;
    }
    found.block(is_huge(volume), || format!("spec.volumes[{}].emptyDir.medium", volume.name));
    let kind = serde_json::to_value(volume).ok().and_then(|value| {
        let unknown = |key: &&String| !VOLUMES.contains(&key.as_str()) && *key != "name";
        value.as_object()?.keys().find(unknown).map(ToOwned::to_owned)
    });
    if let Some(kind) = kind {
        found.block(true, || format!("spec.volumes[{}].{kind}", volume.name));
    }
}

fn is_huge(volume: &Volume) -> bool {
    let medium = volume.empty_dir.as_ref().and_then(|it| it.medium.as_deref());
    medium.is_some_and(|medium| medium.starts_with("HugePages"))
}

fn unsupported_projection(source: &VolumeProjection) -> Option<&'static str> {
    if source.cluster_trust_bundle.is_some() {
        Some("clusterTrustBundle")
    } else if source.pod_certificate.is_some() {
        Some("podCertificate")
    } else {
        None
    }
}

fn check_container(path: &str, container: &Container, found: &mut Findings) {
    let at = |field: &str| format!("{path}.{field}");
    for variable in container.env.iter().flatten() {
        let source = variable.value_from.as_ref();
        let is_file = source.is_some_and(|it: &EnvVarSource| it.file_key_ref.is_some());
        found.block(is_file, || at(&format!("env[{}].valueFrom.fileKeyRef", variable.name)));
    }
    found.block(filled(&container.volume_devices), || at("volumeDevices"));
    for mount in container.volume_mounts.iter().flatten() {
        let here = |field: &str| at(&format!("volumeMounts[{}].{field}", mount.name));
        let to_host = mount.mount_propagation.as_deref() == Some("Bidirectional");
        found.block(to_host, || here("mountPropagation"));
    }
    if let Some(security) = &container.security_context {
        let here = |field: &str| at(&format!("securityContext.{field}"));
        found.block(security.se_linux_options.is_some(), || here("seLinuxOptions"));
        found.note(security.app_armor_profile.is_some(), || here("appArmorProfile"));
    }
}

fn filled<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

struct Findings(Vec<Unsupported>);

impl Findings {
    fn block(&mut self, present: bool, field: impl FnOnce() -> String) {
        if present {
            self.0.push(Unsupported { field: field(), blocks: true });
        }
    }

    fn note(&mut self, present: bool, field: impl FnOnce() -> String) {
        if present {
            self.0.push(Unsupported { field: field(), blocks: false });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(spec: serde_json::Value) -> Vec<(String, bool)> {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        unsupported(&spec).into_iter().map(|it| (it.field, it.blocks)).collect()
    }

    #[test]
    fn a_plain_pod_is_supported_whole() {
        let found = of(serde_json::json!({
            "hostNetwork": true,
            "securityContext": {"fsGroup": 7, "sysctls": [{"name": "x", "value": "y"}],
                "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "hostPath": {"path": "/"}}, {"name": "c"},
                {"name": "d", "configMap": {"name": "x"}}, {"name": "e", "secret": {"secretName": "x"}},
                {"name": "f", "downwardAPI": {"items": []}},
                {"name": "g", "projected": {"sources": [{"secret": {"name": "x"}}, {"serviceAccountToken": {"path": "t"}}]}}],
            "containers": [{"name": "web", "image": "x", "envFrom": [{"secretRef": {"name": "s"}}], "env": [
                {"name": "A", "value": "1"},
                {"name": "C", "valueFrom": {"secretKeyRef": {"key": "k", "name": "s"}}},
                {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}],
        }));
        assert_eq!(found, []);
    }

    #[test]
    fn every_finding_names_its_field() {
        let found = of(serde_json::json!({
            "hostUsers": false,
            "volumes": [
                {"name": "huge", "emptyDir": {"medium": "HugePages-2Mi"}},
                {"name": "disk", "persistentVolumeClaim": {"claimName": "x"}},
                {"name": "own", "projected": {"sources": [{"clusterTrustBundle": {"path": "t"}}]}}],
            "initContainers": [
                {"name": "car", "restartPolicy": "Always"}, {"name": "odd", "restartPolicy": "Never",
                    "restartPolicyRules": [{"action": "RestartAllContainers"}]}],
            "containers": [{"name": "web", "livenessProbe": {},
                "env": [{"name": "A", "valueFrom": {"fileKeyRef": {"key": "k", "path": "p", "volumeName": "v"}}}],
                "volumeMounts": [{"name": "own", "mountPath": "/o", "mountPropagation": "Bidirectional"}],
                "securityContext": {"seLinuxOptions": {"type": "t"}}}],
        }));
        let expected = [
            ("spec.hostUsers", true),
            ("spec.volumes[huge].emptyDir.medium", true),
            ("spec.volumes[disk].persistentVolumeClaim", true),
            ("spec.volumes[own].projected.sources[].clusterTrustBundle", true),
            ("spec.initContainers[odd].restartPolicyRules", true),
            ("spec.containers[web].env[A].valueFrom.fileKeyRef", true),
            ("spec.containers[web].volumeMounts[own].mountPropagation", true),
            ("spec.containers[web].securityContext.seLinuxOptions", true),
        ];
        assert_eq!(found, expected.map(|(field, blocks)| (field.to_owned(), blocks)));
    }
}
