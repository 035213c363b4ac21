//! What pods name of ConfigMaps, Secrets and service accounts, and what the fleet reads of those.

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;
use toono_session::ReferentDigest;
use toono_wire::referent::{Referent, ReferentKind, ReferentName};

/// The account of a pod that names none.
const DEFAULT_ACCOUNT: &str = "default";

/// What the fleet reads of a `v1.PodSpec`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodSpec {
    pub(super) node_name: Option<String>,
    containers: Option<Vec<Container>>,
    init_containers: Option<Vec<Container>>,
    ephemeral_containers: Option<Vec<Container>>,
    volumes: Option<Vec<Volume>>,
    image_pull_secrets: Option<Vec<Named>>,
    service_account_name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    env: Option<Vec<Variable>>,
    env_from: Option<Vec<EnvFrom>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Variable {
    value_from: Option<ValueFrom>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ValueFrom {
    config_map_key_ref: Option<Named>,
    secret_key_ref: Option<Named>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct EnvFrom {
    config_map_ref: Option<Named>,
    secret_ref: Option<Named>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Volume {
    config_map: Option<Named>,
    secret: Option<SecretVolume>,
    projected: Option<Projected>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SecretVolume {
    secret_name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Projected {
    sources: Option<Vec<Source>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Source {
    config_map: Option<Named>,
    secret: Option<Named>,
    service_account_token: Option<IgnoredAny>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Named {
    name: String,
}

impl PodSpec {
    /// In order, each once.
    pub(super) fn references(self) -> Vec<(ReferentKind, Box<str>)> {
        let mut found = Found(Vec::new());
        let lists = [self.containers, self.init_containers, self.ephemeral_containers];
        for container in lists.into_iter().flatten().flatten() {
            for variable in container.env.into_iter().flatten() {
                let source = variable.value_from.unwrap_or_default();
                found.config_map(source.config_map_key_ref);
                found.secret(source.secret_key_ref);
            }
            for source in container.env_from.into_iter().flatten() {
                found.config_map(source.config_map_ref);
                found.secret(source.secret_ref);
            }
        }
        let mut holds_token = false;
        for volume in self.volumes.into_iter().flatten() {
            found.config_map(volume.config_map);
            found.secret(volume.secret.map(|it| Named { name: it.secret_name }));
            let sources = volume.projected.and_then(|it| it.sources);
            for source in sources.into_iter().flatten() {
                found.config_map(source.config_map);
                found.secret(source.secret);
                holds_token |= source.service_account_token.is_some();
            }
        }
        if holds_token {
            let name = self.service_account_name.unwrap_or_else(|| DEFAULT_ACCOUNT.to_owned());
            found.add(ReferentKind::ServiceAccount, Some(Named { name }));
        }
        self.image_pull_secrets.into_iter().flatten().for_each(|it| found.secret(Some(it)));
        found.0.sort_unstable();
        found.0.dedup();
        found.0
    }
}

struct Found(Vec<(ReferentKind, Box<str>)>);

impl Found {
    fn config_map(&mut self, named: Option<Named>) {
        self.add(ReferentKind::ConfigMap, named);
    }

    fn secret(&mut self, named: Option<Named>) {
        self.add(ReferentKind::Secret, named);
    }

    fn add(&mut self, kind: ReferentKind, named: Option<Named>) {
        let name = named.map(|it| it.name).filter(|name| !name.is_empty());
        self.0.extend(name.map(|name| (kind, name.into())));
    }
}

/// What the fleet keeps of a ConfigMap or Secret.
#[derive(Debug, Clone)]
pub(crate) struct ReferentObject {
    pub(crate) name: ReferentName,
    pub(crate) revision: u64,
    pub(crate) digest: ReferentDigest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored<'a> {
    metadata: super::Meta,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    binary_data: Option<&'a RawValue>,
    #[serde(default)]
    r#type: Option<String>,
    #[serde(default)]
    immutable: Option<bool>,
}

/// The text cannot be that of a ConfigMap or Secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadReferent {
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("the object has no name that one could have")]
    Name,
}

impl ReferentObject {
    /// Of an object as the API has it.
    pub(crate) fn parse(kind: ReferentKind, json: &[u8]) -> Result<Self, BadReferent> {
        Self::read(kind, json, |_| Ok(())).map(|(object, ())| object)
    }

    /// As [`parse`](Self::parse), with what of it travels to nodes.
    pub(crate) fn with_text(
        kind: ReferentKind,
        json: &[u8],
    ) -> Result<(Self, Box<RawValue>), BadReferent> {
        Self::read(kind, json, |referent| serde_json::value::to_raw_value(referent))
    }

    fn read<T>(
        kind: ReferentKind,
        json: &[u8],
        take: impl FnOnce(&Referent<'_>) -> Result<T, serde_json::Error>,
    ) -> Result<(Self, T), BadReferent> {
        let stored: Stored<'_> = serde_json::from_slice(json)?;
        let referent = Referent {
            kind,
            namespace: stored.metadata.namespace.as_str().into(),
            name: stored.metadata.name.as_str().into(),
            data: stored.data,
            binary_data: stored.binary_data,
            r#type: stored.r#type.as_deref().map(Into::into),
            immutable: stored.immutable,
        };
        let name = referent.named().ok_or(BadReferent::Name)?;
        let digest = ReferentDigest::of(&referent)?;
        let taken = take(&referent)?;
        Ok((Self { name, revision: stored.metadata.revision(), digest }, taken))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_to_name_one_is_seen_once() {
        let spec = json!({
            "nodeName": "n", "imagePullSecrets": [{"name": "pull"}, {}],
            "containers": [{"name": "c", "image": "i", "env": [
                    {"name": "A", "value": "1"},
                    {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "b", "key": "k", "optional": true}}},
                    {"name": "C", "valueFrom": {"secretKeyRef": {"name": "c", "key": "k"}}},
                    {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "envFrom": [{"configMapRef": {"name": "b"}}, {"prefix": "P", "secretRef": {"name": "d"}}]}],
            "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "init"}}]}],
            "ephemeralContainers": null,
            "volumes": [
                {"name": "v", "configMap": {"name": "e"}}, {"name": "w", "secret": {"secretName": "f"}},
                {"name": "x", "emptyDir": {}},
                {"name": "y", "projected": {"sources": [
                    {"configMap": {"name": "g"}}, {"secret": {"name": "h"}}, {"downwardAPI": {}},
                    {"serviceAccountToken": {"path": "t"}}]}}]});
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let texts: Vec<String> = spec
            .references()
            .into_iter()
            .map(|(kind, name)| format!("{}/{name}", kind.plural()))
            .collect();
        assert_eq!(
            texts.join(" "),
            "configmaps/b configmaps/e configmaps/g secrets/c secrets/d secrets/f secrets/h secrets/init secrets/pull serviceaccounts/default"
        );
    }

    #[test]
    fn what_travels_is_what_pods_see() {
        let object = json!({"kind": "Secret", "apiVersion": "v1", "type": "Opaque",
            "metadata": {"name": "n", "namespace": "d", "resourceVersion": "7", "annotations": {"a": "b"}},
            "data": {"k": "djE="}});
        let (read, text) =
            ReferentObject::with_text(ReferentKind::Secret, object.to_string().as_bytes()).unwrap();
        assert_eq!((read.revision, read.name.to_string()), (7, "secrets/d/n".to_owned()));
        let expected = json!({"kind": "Secret", "namespace": "d", "name": "n", "type": "Opaque", "data": {"k": "djE="}});
        assert_eq!(serde_json::from_str::<serde_json::Value>(text.get()).unwrap(), expected);
        let sent: Referent<'_> = serde_json::from_str(text.get()).unwrap();
        assert_eq!(ReferentDigest::of(&sent).unwrap(), read.digest, "as the node computes it");
    }
}
