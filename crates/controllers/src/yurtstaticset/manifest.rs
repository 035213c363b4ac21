//! The manifest of a set: the pod that nodes are to run, the revision that tells it from others, and the ConfigMap
//! that holds it.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod as WholePod, PodTemplateSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use kube::api::PostParams;
use serde_json::{Value, json};
use toono_openyurt::{YurtStaticSet, keys};
use toono_wire::upgrade::Offer;

use super::decide::Strategy;
use crate::{
    claim::controller_reference,
    context::Context,
    daemonset::upgrade::offer,
    deployment::resolve,
    error::{SyncError, is_already_exists},
    hash::template_hash,
    key::Key,
    kinds::pod::Pod,
    patch,
};

/// OpenYurt's default.
const DEFAULT_MAX_UNAVAILABLE: &str = "10%";
/// What an annotation may have at most is 256 KiB; the offer has the manifest's quotes and line ends escaped.
const MAX_MANIFEST: usize = 96 * 1024;
/// How the ConfigMap is called: this and the set's name.
const CONFIG_MAP_PREFIX: &str = "yurt-static-set-";

/// What a set wants on nodes.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) revision: String,
    /// The manifest, YAML.
    pub(super) text: String,
    template: PodTemplateSpec,
    file: String,
    ota: bool,
    max_unavailable: IntOrString,
}

/// Why a set wants nothing that a node could run.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadTemplate {
    #[error("spec.template is no pod template, so nodes keep what they run: {0}")]
    NoTemplate(serde_json::Error),
    #[error("spec.template has no containers, so nodes keep what they run")]
    Empty,
    #[error(
        "the manifest has {0} bytes, and {MAX_MANIFEST} at most reach a node; nodes keep what they run"
    )]
    TooLarge(usize),
}

impl BadTemplate {
    /// For an event.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::NoTemplate(_) | Self::Empty => "InvalidTemplate",
            Self::TooLarge(_) => "ManifestTooLarge",
        }
    }
}

/// The revision that a mirror is of, if its manifest was a set's.
pub(super) fn hash_of(pod: &Pod) -> Option<&str> {
    pod.metadata.annotation(keys::STATIC_POD_HASH)
}

pub(super) fn wanted(set: &YurtStaticSet) -> Result<Wanted, BadTemplate> {
    let template = set.spec.pod_template().map_err(BadTemplate::NoTemplate)?;
    if template.spec.as_ref().is_none_or(|spec| spec.containers.is_empty()) {
        return Err(BadTemplate::Empty);
    }
    let revision = template_hash(&template, None);
    let text = text(set, &template, &revision);
    if text.len() > MAX_MANIFEST {
        return Err(BadTemplate::TooLarge(text.len()));
    }
    let strategy = &set.spec.upgrade_strategy;
    let default = || IntOrString::String(DEFAULT_MAX_UNAVAILABLE.to_owned());
    Ok(Wanted {
        revision,
        text,
        template,
        file: set.spec.static_pod_manifest.clone(),
        ota: strategy.type_.as_deref().is_some_and(|type_| type_.eq_ignore_ascii_case(keys::OTA)),
        max_unavailable: strategy.max_unavailable.clone().unwrap_or_else(default),
    })
}

impl Wanted {
    pub(super) fn offer(&self) -> Offer {
        let offer = offer::of_template(&self.template, &self.revision);
        Offer { manifest: Some(self.text.clone()), ..offer }
    }

    pub(super) fn strategy(&self, nodes: usize) -> Strategy {
        if self.ota {
            return Strategy::Ota;
        }
        let nodes = i32::try_from(nodes).unwrap_or(i32::MAX);
        let at_once = resolve(&self.max_unavailable, nodes, true).max(1);
        Strategy::Advanced { at_once: usize::try_from(at_once).unwrap_or(1) }
    }
}

fn text(set: &YurtStaticSet, template: &PodTemplateSpec, revision: &str) -> String {
    let metadata = template.metadata.clone().unwrap_or_default();
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.insert(keys::STATIC_POD_HASH.to_owned(), revision.to_owned());
    let pod = WholePod {
        metadata: ObjectMeta {
            // A node's pod is found by the set's name.
            name: set.metadata.name.clone(),
            namespace: set.metadata.namespace.clone(),
            labels: metadata.labels,
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    };
    // Encoding has no failure: these structures have string keys only.
    let value: Value = serde_json::to_value(&pod).unwrap_or_default();
    serde_yaml_ng::to_string(&value).unwrap_or_default()
}

/// Makes the set's ConfigMap say this.
pub(super) async fn write(
    context: &Context,
    key: &Key,
    set: &YurtStaticSet,
    wanted: &Wanted,
) -> Result<(), SyncError> {
    let name = format!("{CONFIG_MAP_PREFIX}{}", key.name);
    let data = BTreeMap::from([(wanted.file.clone(), wanted.text.clone())]);
    let annotations = BTreeMap::from([(keys::STATIC_POD_HASH.to_owned(), wanted.revision.clone())]);
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(key.namespace.to_string()),
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        data: Some(data),
        ..ConfigMap::default()
    };
    let api = context.api::<ConfigMap>(&key.namespace);
    match api.create(&PostParams::default(), &map).await {
        Ok(_) => return Ok(()),
        Err(error) if is_already_exists(&error) => {}
        Err(error) => {
            return Err(SyncError::api("create the ConfigMap of", "YurtStaticSet", key)(error));
        }
    }
    let there = api.get(&name).await;
    let there = there.map_err(SyncError::api("get the ConfigMap of", "YurtStaticSet", key))?;
    if there.data == map.data && there.metadata.annotations == map.metadata.annotations {
        return Ok(());
    }
    // A key of another file name goes: readers take the one that is there.
    let old = there.data.unwrap_or_default();
    let gone =
        old.keys().filter(|known| **known != wanted.file).map(|known| (known.clone(), Value::Null));
    let mut data: serde_json::Map<String, Value> = gone.collect();
    data.insert(wanted.file.clone(), json!(wanted.text));
    let change = json!({"data": data,
        "metadata": {"annotations": {keys::STATIC_POD_HASH: wanted.revision}}});
    patch::merge(&api, &name, &change).await.map(drop).map_err(SyncError::api(
        "update the ConfigMap of",
        "YurtStaticSet",
        key,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(template: Value) -> YurtStaticSet {
        let set = json!({"metadata": {"name": "web", "namespace": "shops", "uid": "u"},
            "spec": {"staticPodManifest": "web", "template": template}});
        serde_json::from_value(set).unwrap()
    }

    fn template(image: &str) -> Value {
        json!({"metadata": {"name": "other", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": image}]}})
    }

    #[test]
    fn the_manifest_is_a_pod_that_knows_its_revision() {
        let wanted = wanted(&set(template("a:1"))).unwrap();
        let pod: WholePod = serde_yaml_ng::from_str(&wanted.text).unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some("web"));
        assert_eq!(pod.metadata.namespace.as_deref(), Some("shops"));
        assert_eq!(pod.metadata.annotations.unwrap()[keys::STATIC_POD_HASH], wanted.revision);
        assert!(wanted.text.contains("kind: Pod"), "{}", wanted.text);
        let offer = wanted.offer();
        assert_eq!((offer.images, offer.manifest), (vec!["a:1".to_owned()], Some(wanted.text)));
    }

    #[test]
    fn revisions_differ_with_the_template_alone() {
        let revision = |set: &YurtStaticSet| wanted(set).unwrap().revision;
        let one = set(template("a:1"));
        let mut other = one.clone();
        other.spec.upgrade_strategy.type_ = Some("OTA".to_owned());
        assert_eq!(revision(&one), revision(&other));
        assert_ne!(revision(&one), revision(&set(template("a:2"))));
    }

    #[test]
    fn what_no_node_could_run_is_told() {
        for (template, reason) in [
            (json!({"spec": {"containers": "none"}}), "InvalidTemplate"),
            (json!({"spec": {"containers": []}}), "InvalidTemplate"),
            (Value::Null, "InvalidTemplate"),
            (template(&"x".repeat(MAX_MANIFEST)), "ManifestTooLarge"),
        ] {
            assert_eq!(wanted(&set(template)).unwrap_err().reason(), reason);
        }
    }

    #[test]
    fn at_least_one_node_goes_on() {
        let strategy = |nodes| wanted(&set(template("a"))).unwrap().strategy(nodes);
        assert_eq!(strategy(0), Strategy::Advanced { at_once: 1 });
        assert_eq!(strategy(25), Strategy::Advanced { at_once: 3 });
    }
}
