//! Which fields of a pod this node does not act on yet, so that none is ignored in silence.

use k8s_openapi::api::core::v1::{Container, EnvVarSource, PodSpec, Volume};

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
    let on = Some(true);
    found.block(spec.host_pid == on, || "spec.hostPID".into());
    found.block(spec.host_ipc == on, || "spec.hostIPC".into());
    found.block(spec.host_users == Some(false), || "spec.hostUsers".into());
    found.block(spec.share_process_namespace == on, || "spec.shareProcessNamespace".into());
    found.block(spec.runtime_class_name.is_some(), || "spec.runtimeClassName".into());
    found.block(filled(&spec.resource_claims), || "spec.resourceClaims".into());
    found.block(filled(&spec.readiness_gates), || "spec.readinessGates".into());
    found.note(filled(&spec.ephemeral_containers), || "spec.ephemeralContainers".into());
    found.note(filled(&spec.image_pull_secrets), || "spec.imagePullSecrets".into());
    if let Some(security) = &spec.security_context {
        let at = |field: &str| format!("spec.securityContext.{field}");
        found.block(filled(&security.sysctls), || at("sysctls"));
        found.block(security.se_linux_options.is_some(), || at("seLinuxOptions"));
        found.note(security.app_armor_profile.is_some(), || at("appArmorProfile"));
        found.note(security.fs_group.is_some(), || at("fsGroup"));
        found.note(security.seccomp_profile.is_some(), || at("seccompProfile"));
    }
    for volume in spec.volumes.iter().flatten() {
        check_volume(volume, &mut found);
    }
    let init = spec.init_containers.iter().flatten().map(|it| ("spec.initContainers", it));
    for (list, container) in init.chain(spec.containers.iter().map(|it| ("spec.containers", it))) {
        check_container(&format!("{list}[{}]", container.name), container, &mut found);
    }
    found.0
}

fn check_volume(volume: &Volume, found: &mut Findings) {
    if volume.empty_dir.is_some() || volume.host_path.is_some() {
        return;
    }
    // What admission adds to every pod must not keep every pod from running.
    let injected = volume.projected.is_some() && volume.name.starts_with("kube-api-access-");
    let kind = serde_json::to_value(volume).ok().and_then(|value| {
        value.as_object()?.keys().find(|key| *key != "name").map(ToOwned::to_owned)
    });
    // A volume of no kind is an emptyDir.
    if let Some(kind) = kind {
        let field = format!("spec.volumes[{}].{kind}", volume.name);
        found.0.push(Unsupported { field, blocks: !injected });
    }
}

fn check_container(path: &str, container: &Container, found: &mut Findings) {
    let at = |field: &str| format!("{path}.{field}");
    found.block(container.restart_policy.is_some(), || at("restartPolicy"));
    found.block(filled(&container.env_from), || at("envFrom"));
    for variable in container.env.iter().flatten() {
        let source = variable.value_from.as_ref();
        if let Some(kind) = source.and_then(unsupported_source) {
            found.block(true, || at(&format!("env[{}].valueFrom.{kind}", variable.name)));
        }
    }
    found.block(filled(&container.volume_devices), || at("volumeDevices"));
    for mount in container.volume_mounts.iter().flatten() {
        let here = |field: &str| at(&format!("volumeMounts[{}].{field}", mount.name));
        found.block(mount.sub_path_expr.is_some(), || here("subPathExpr"));
        let propagation = mount.mount_propagation.as_deref();
        found.block(propagation.is_some_and(|it| it != "None"), || here("mountPropagation"));
    }
    if let Some(security) = &container.security_context {
        let here = |field: &str| at(&format!("securityContext.{field}"));
        found.block(security.proc_mount.as_deref() == Some("Unmasked"), || here("procMount"));
        found.block(security.se_linux_options.is_some(), || here("seLinuxOptions"));
        found.note(security.app_armor_profile.is_some(), || here("appArmorProfile"));
        found.note(security.seccomp_profile.is_some(), || here("seccompProfile"));
    }
    found.note(container.liveness_probe.is_some(), || at("livenessProbe"));
    found.note(container.readiness_probe.is_some(), || at("readinessProbe"));
    found.note(container.startup_probe.is_some(), || at("startupProbe"));
    if let Some(lifecycle) = &container.lifecycle {
        found.note(lifecycle.post_start.is_some(), || at("lifecycle.postStart"));
        found.note(lifecycle.pre_stop.is_some(), || at("lifecycle.preStop"));
    }
}

fn unsupported_source(source: &EnvVarSource) -> Option<&'static str> {
    if source.config_map_key_ref.is_some() {
        Some("configMapKeyRef")
    } else if source.secret_key_ref.is_some() {
        Some("secretKeyRef")
    } else if source.resource_field_ref.is_some() {
        Some("resourceFieldRef")
    } else if source.file_key_ref.is_some() {
        Some("fileKeyRef")
    } else {
        None
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
            "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "hostPath": {"path": "/"}}],
            "containers": [{"name": "web", "image": "x", "env": [
                {"name": "A", "value": "1"},
                {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}],
        }));
        assert_eq!(found, []);
    }

    #[test]
    fn every_finding_names_its_field() {
        let found = of(serde_json::json!({
            "hostPID": true,
            "volumes": [
                {"name": "conf", "configMap": {"name": "x"}},
                {"name": "kube-api-access-x", "projected": {"sources": []}}],
            "initContainers": [{"name": "car", "restartPolicy": "Always"}],
            "containers": [{"name": "web", "livenessProbe": {},
                "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"key": "k", "name": "s"}}}],
                "securityContext": {"procMount": "Unmasked"}}],
        }));
        let expected = [
            ("spec.hostPID", true),
            ("spec.volumes[conf].configMap", true),
            ("spec.volumes[kube-api-access-x].projected", false),
            ("spec.initContainers[car].restartPolicy", true),
            ("spec.containers[web].env[A].valueFrom.secretKeyRef", true),
            ("spec.containers[web].securityContext.procMount", true),
            ("spec.containers[web].livenessProbe", false),
        ];
        assert_eq!(found, expected.map(|(field, blocks)| (field.to_owned(), blocks)));
    }
}
