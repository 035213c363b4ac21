//! What configMap, secret, downwardAPI and projected volumes hold: files with bytes and modes, not written yet.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource,
    SecretVolumeSource, ServiceAccountTokenProjection, Volume, VolumeProjection,
};
use toono_wire::referent::ReferentKind;

use super::{ConfigError, Surroundings, downward, user};
use crate::{
    referents::Content,
    tokens::{self, Wanted},
};

/// The mode of files that the pod says nothing of: the API's own default.
const DEFAULT_MODE: i32 = 0o644;
/// The mode of a token that one user is given alone, and with a group.
const OWNERS_MODE: i32 = 0o600;
const GROUPS_MODE: i32 = 0o640;

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) bytes: Vec<u8>,
    pub(super) mode: u32,
    /// Whose it is, if not root's.
    pub(super) owner: Option<u32>,
}

/// The files by their paths in the volume.
pub(super) type Payload = BTreeMap<String, File>;

/// Whether a volume is of these kinds.
pub(super) fn is_projection(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

/// Whether what it holds must not be on a disk.
pub(super) fn is_in_memory(volume: &Volume) -> bool {
    volume.config_map.is_none()
}

/// What a volume of these kinds is to hold now.
pub(super) fn payload(
    pod: &Pod,
    volume: &Volume,
    around: Surroundings<'_>,
) -> Result<Payload, ConfigError> {
    let source = Source { pod, around };
    if let Some(map) = &volume.config_map {
        source.config_map(map)
    } else if let Some(secret) = &volume.secret {
        source.secret(secret)
    } else if let Some(wanted) = &volume.downward_api {
        let items = wanted.items.as_deref().unwrap_or_default();
        source.downward(items, wanted.default_mode)
    } else if let Some(projected) = &volume.projected {
        source.projected(projected)
    } else {
        Ok(Payload::new())
    }
}

struct Source<'a> {
    pod: &'a Pod,
    around: Surroundings<'a>,
}

impl Source<'_> {
    fn config_map(&self, wanted: &ConfigMapVolumeSource) -> Result<Payload, ConfigError> {
        let items = wanted.items.as_deref();
        let optional = wanted.optional == Some(true);
        let kind = ReferentKind::ConfigMap;
        self.keys(kind, &wanted.name, items, wanted.default_mode, optional)
    }

    fn secret(&self, wanted: &SecretVolumeSource) -> Result<Payload, ConfigError> {
        let name = wanted.secret_name.as_deref().unwrap_or_default();
        let optional = wanted.optional == Some(true);
        let kind = ReferentKind::Secret;
        self.keys(kind, name, wanted.items.as_deref(), wanted.default_mode, optional)
    }

    fn keys(
        &self,
        kind: ReferentKind,
        name: &str,
        items: Option<&[KeyToPath]>,
        mode: Option<i32>,
        optional: bool,
    ) -> Result<Payload, ConfigError> {
        let Some(content) = self.around.find(self.pod, kind, name, optional)? else {
            return Ok(Payload::new());
        };
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            let Content { data, binary, .. } = content;
            let files = binary.into_iter().chain(data).map(|(key, bytes)| (key, file(bytes, mode)));
            return files.map(|(key, file)| Ok((plain(&key)?, file))).collect();
        };
        let mut payload = Payload::new();
        for item in items {
            let Some(bytes) = content.value(&item.key) else {
                if optional {
                    continue;
                }
                let what = match kind {
                    ReferentKind::ConfigMap => "configmap references non-existent config key",
                    _ => "references non-existent secret key",
                };
                return Err(ConfigError(format!("{what}: {}", item.key)));
            };
            payload.insert(plain(&item.path)?, file(bytes.clone(), item.mode.or(mode)));
        }
        Ok(payload)
    }

    fn downward(
        &self,
        items: &[DownwardAPIVolumeFile],
        mode: Option<i32>,
    ) -> Result<Payload, ConfigError> {
        let mut payload = Payload::new();
        for item in items {
            let text = match (&item.field_ref, &item.resource_field_ref) {
                (Some(field), _) => downward::field(self.pod, &field.field_path, self.around)?,
                (None, Some(wanted)) => downward::resource(self.pod, None, wanted, self.around)?,
                (None, None) => continue,
            };
            payload.insert(plain(&item.path)?, file(text.into_bytes(), item.mode.or(mode)));
        }
        Ok(payload)
    }

    /// The newest token that there is, whatever its age. Where one user or group is to read it nobody else may.
    fn token(
        &self,
        wanted: &ServiceAccountTokenProjection,
        mode: Option<i32>,
    ) -> Result<Payload, ConfigError> {
        let spec = self.pod.spec.as_ref();
        let missing =
            || ConfigError(format!("failed to fetch token: {}", self.around.token_failure));
        let kept = spec.and_then(|it| tokens::read(self.around.dir, &Wanted::by(it, wanted)));
        let bytes = kept.ok_or_else(missing)?.token.into_bytes();
        let owner = spec.and_then(user::of_all);
        let group = spec.and_then(user::group_of_volumes);
        let mode = match (owner, group) {
            (_, Some(_)) => Some(GROUPS_MODE),
            (Some(_), None) => Some(OWNERS_MODE),
            (None, None) => mode,
        };
        Ok(Payload::from([(plain(&wanted.path)?, File { owner, ..file(bytes, mode) })]))
    }

    /// All that fails is told together.
    fn projected(&self, wanted: &ProjectedVolumeSource) -> Result<Payload, ConfigError> {
        let (mut payload, mut failures) = (Payload::new(), Vec::new());
        for source in wanted.sources.iter().flatten() {
            match self.projection(source, wanted.default_mode) {
                Ok(more) => payload.extend(more),
                Err(ConfigError(text)) => failures.push(text),
            }
        }
        match failures.as_slice() {
            [] => Ok(payload),
            [one] => Err(ConfigError(one.clone())),
            several => Err(ConfigError(format!("[{}]", several.join(", ")))),
        }
    }

    fn projection(
        &self,
        source: &VolumeProjection,
        mode: Option<i32>,
    ) -> Result<Payload, ConfigError> {
        if let Some(map) = &source.config_map {
            let optional = map.optional == Some(true);
            let items = map.items.as_deref();
            self.keys(ReferentKind::ConfigMap, &map.name, items, mode, optional)
        } else if let Some(secret) = &source.secret {
            let optional = secret.optional == Some(true);
            let items = secret.items.as_deref();
            self.keys(ReferentKind::Secret, &secret.name, items, mode, optional)
        } else if let Some(wanted) = &source.downward_api {
            self.downward(wanted.items.as_deref().unwrap_or_default(), mode)
        } else if let Some(wanted) = &source.service_account_token {
            self.token(wanted, mode)
        } else {
            // A pod with any other source does not run.
            Ok(Payload::new())
        }
    }
}

fn file(bytes: Vec<u8>, mode: Option<i32>) -> File {
    let mode = u32::try_from(mode.unwrap_or(DEFAULT_MODE)).unwrap_or(0) & 0o777;
    File { bytes, mode, owner: None }
}

/// A path that stays in its volume, and out of the way of what keeps the volume.
fn plain(path: &str) -> Result<String, ConfigError> {
    let parts: Vec<&str> =
        path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let leaves = path.starts_with('/') || parts.contains(&"..");
    let first = parts.first().filter(|first| !leaves && !first.starts_with(".."));
    if first.is_none() {
        return Err(ConfigError(format!("invalid path {path:?} in a volume")));
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::tests::Home;

    fn made(home: &Home, volume: serde_json::Value) -> Result<Vec<(String, String, u32)>, String> {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "d", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"memory": "1Gi"}}}]}}))
        .unwrap();
        let volume: Volume = serde_json::from_value(volume).unwrap();
        let payload = payload(&pod, &volume, home.around()).map_err(|it| it.to_string())?;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ok(payload.into_iter().map(|(path, it)| (path, text(it.bytes), it.mode)).collect())
    }

    fn files(list: &[(&str, &str, u32)]) -> Vec<(String, String, u32)> {
        list.iter().map(|(path, text, mode)| ((*path).into(), (*text).into(), *mode)).collect()
    }

    fn home() -> Home {
        let home = Home::new();
        home.put(r#"{"kind":"ConfigMap","namespace":"d","name":"m","data":{"a":"1","b":"2"},"binaryData":{"c":"Mw=="}}"#);
        home.put(r#"{"kind":"Secret","namespace":"d","name":"s","data":{"k":"c2VjcmV0"}}"#);
        home
    }

    #[test]
    fn keys_become_files_with_their_modes() {
        let home = home();
        assert_eq!(
            made(&home, serde_json::json!({"name": "v", "configMap": {"name": "m"}})).unwrap(),
            files(&[("a", "1", 0o644), ("b", "2", 0o644), ("c", "3", 0o644)])
        );
        let items = serde_json::json!([{"key": "b", "path": "x/y"}, {"key": "c", "path": "c", "mode": 0o400}]);
        let volume = serde_json::json!({"name": "v", "configMap": {"name": "m", "defaultMode": 0o600, "items": items}});
        assert_eq!(made(&home, volume).unwrap(), files(&[("c", "3", 0o400), ("x/y", "2", 0o600)]));
        let volume = serde_json::json!({"name": "v", "secret": {"secretName": "s"}});
        assert_eq!(made(&home, volume).unwrap(), files(&[("k", "secret", 0o644)]));
    }

    #[test]
    fn what_is_missing_is_told_unless_it_may_be() {
        let home = home();
        for (source, expected) in [
            (r#"{"configMap": {"name": "x"}}"#, Err("configmap \"x\" not found")),
            (r#"{"configMap": {"name": "x", "optional": true}}"#, Ok(0)),
            (r#"{"secret": {"secretName": "x"}}"#, Err("secret \"x\" not found")),
            (
                r#"{"configMap": {"name": "m", "items": [{"key": "x", "path": "x"}]}}"#,
                Err("configmap references non-existent config key: x"),
            ),
            (
                r#"{"secret": {"secretName": "s", "optional": true, "items": [{"key": "x", "path": "x"}, {"key": "k", "path": "k"}]}}"#,
                Ok(1),
            ),
            (
                r#"{"projected": {"sources": [{"secret": {"name": "x"}}, {"configMap": {"name": "y"}}, {"secret": {"name": "s"}}]}}"#,
                Err("[secret \"x\" not found, configmap \"y\" not found]"),
            ),
            (
                r#"{"configMap": {"name": "m", "items": [{"key": "a", "path": "../a"}]}}"#,
                Err("invalid path \"../a\" in a volume"),
            ),
        ] {
            let mut volume: serde_json::Value = serde_json::from_str(source).unwrap();
            volume["name"] = "v".into();
            let found = made(&home, volume).map(|files| files.len());
            assert_eq!(found, expected.map_err(str::to_owned), "{source}");
        }
    }

    #[test]
    fn a_projected_volume_is_all_its_sources_together() {
        let volume = serde_json::json!({"name": "v", "projected": {"defaultMode": 0o440, "sources": [
            {"configMap": {"name": "m", "items": [{"key": "a", "path": "conf/a"}]}},
            {"secret": {"name": "s"}},
            {"downwardAPI": {"items": [
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "memory", "resourceFieldRef": {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"}, "mode": 0o444}]}}]}});
        assert_eq!(
            made(&home(), volume).unwrap(),
            files(&[
                ("conf/a", "1", 0o440),
                ("k", "secret", 0o440),
                ("labels", "app=\"web\"", 0o440),
                ("memory", "1024", 0o444)
            ])
        );
    }
}
