//! Whose credentials a pod's images are pulled with: those of its pull secrets, as far as this node has them.

use k8s_openapi::api::core::v1::Pod;
use toono_images::Keyring;
use toono_wire::referent::{ReferentKind, ReferentName};

use crate::referents::{Content, Referents};

/// The type and the key of a pull secret, and of one in the older form.
const DOCKER_CONFIG: (&str, &str) = ("kubernetes.io/dockerconfigjson", ".dockerconfigjson");
const DOCKER_CFG: (&str, &str) = ("kubernetes.io/dockercfg", ".dockercfg");

/// What a pod's `imagePullSecrets` came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PullSecrets {
    pub(crate) keyring: Keyring,
    /// Names that are not there, which is no reason not to try.
    pub(crate) missing: Vec<String>,
}

/// Reads them.
///
/// # Errors
/// A text that names the secret that is there and cannot be read. It tells nothing of what is in it.
pub(crate) fn of(pod: &Pod, referents: &Referents) -> Result<PullSecrets, String> {
    let mut found = PullSecrets::default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let wanted = pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
    for reference in wanted.filter(|reference| !reference.name.is_empty()) {
        let name = ReferentName {
            kind: ReferentKind::Secret,
            namespace: namespace.into(),
            name: reference.name.as_str().into(),
        };
        match referents.find(&name)? {
            Some(content) => add(&mut found.keyring, &content)
                .map_err(|error| format!("pull secret \"{}\": {error}", reference.name))?,
            None => found.missing.push(reference.name.clone()),
        }
    }
    Ok(found)
}

/// A secret of another type has nothing to say here.
fn add(keyring: &mut Keyring, content: &Content) -> Result<(), toono_images::BadPullSecret> {
    let value = |(kind, key): (&str, &str)| {
        let bytes = content.data.get(key).filter(|_| content.kind == kind)?;
        (!bytes.is_empty()).then_some(bytes)
    };
    if let Some(json) = value(DOCKER_CONFIG) {
        keyring.add_docker_config(json)
    } else if let Some(json) = value(DOCKER_CFG) {
        keyring.add_docker_cfg(json)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_count_by_their_type_and_may_be_missing() {
        let data = tempfile::tempdir().unwrap();
        let referents = Referents::open(data.path()).unwrap();
        let secret = |name: &str, kind: &str, key: &str, text: &str| {
            let value = k8s_openapi::ByteString(text.as_bytes().to_vec());
            json!({"kind": "Secret", "namespace": "d", "name": name, "type": kind,
                "data": {key: value}})
            .to_string()
        };
        let auth = r#"{"q.io": {"username": "u", "password": "p"}}"#;
        let texts = [
            secret("new", DOCKER_CONFIG.0, DOCKER_CONFIG.1, &format!(r#"{{"auths": {auth}}}"#)),
            secret("old", DOCKER_CFG.0, DOCKER_CFG.1, auth),
            secret("opaque", "Opaque", DOCKER_CFG.1, auth),
            secret("bad", DOCKER_CFG.0, DOCKER_CFG.1, "hunter2"),
        ];
        let known = texts.iter().map(|text| {
            referents.write(text).unwrap();
            let (name, digest) = crate::referents::told(text).unwrap();
            (name, digest.0)
        });
        referents.set(known.collect());
        let keys = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
            let pod = json!({"metadata": {"namespace": "d"},
                "spec": {"containers": [], "imagePullSecrets": names}});
            of(&serde_json::from_value(pod).unwrap(), &referents)
        };
        let image = "q.io/a".parse().unwrap();
        for (name, count) in [("new", 1), ("old", 1), ("opaque", 0)] {
            assert_eq!(keys(&[name]).unwrap().keyring.lookup(&image).len(), count, "{name}");
        }
        let found = keys(&["new", "none", ""]).unwrap();
        assert_eq!((found.keyring.lookup(&image).len(), found.missing), (1, vec!["none".into()]));
        let error = keys(&["bad"]).unwrap_err();
        assert!(error.contains("\"bad\"") && !error.contains("hunter2"), "{error}");
    }
}
