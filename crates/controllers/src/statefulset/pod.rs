//! The pods of a stateful set and the claims for their storage.

use k8s_openapi::api::{
    apps::v1::{StatefulSet, StatefulSetSpec},
    core::v1::{PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume},
};
use serde_json::{Value, json};

use super::view::{INDEX_LABEL, NAME_LABEL, REVISION_LABEL, View};
use crate::podcontrol::pod_from_template;

/// The pod of an ordinal.
pub(super) fn pod(
    set: &StatefulSet,
    view: &View<'_>,
    template: &PodTemplateSpec,
    revision: &str,
    ordinal: i32,
) -> Pod {
    let mut pod = pod_from_template(set, template);
    let name = view.pod_name(ordinal);
    pod.metadata.name = Some(name.clone());
    pod.metadata.generate_name = None;
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    labels.insert(NAME_LABEL.to_owned(), name.clone());
    labels.insert(INDEX_LABEL.to_owned(), ordinal.to_string());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = view.spec.service_name.clone().filter(|service| !service.is_empty());
    let claims = claim_names(view, ordinal);
    let mut volumes: Vec<Volume> = claims
        .iter()
        .map(|(volume, claim)| Volume {
            name: volume.clone(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.clone(),
                read_only: None,
            }),
            ..Volume::default()
        })
        .collect();
    let others = spec.volumes.take().unwrap_or_default().into_iter();
    volumes.extend(others.filter(|volume| claims.iter().all(|(name, _)| *name != volume.name)));
    spec.volumes = Some(volumes).filter(|volumes| !volumes.is_empty());
    pod
}

/// The volumes that are claims, with the names of the claims of an ordinal.
pub(super) fn claim_names(view: &View<'_>, ordinal: i32) -> Vec<(String, String)> {
    let templates = view.spec.volume_claim_templates.iter().flatten();
    let names = templates.filter_map(|template| template.metadata.name.clone());
    names.map(|name| (name.clone(), format!("{name}-{}-{ordinal}", view.name))).collect()
}

/// The claims of an ordinal as they are created.
pub(super) fn claims(view: &View<'_>, spec: &StatefulSetSpec, ordinal: i32) -> Vec<Value> {
    let selected = spec.selector.match_labels.clone().unwrap_or_default();
    let templates = spec.volume_claim_templates.iter().flatten();
    templates
        .map(|template| {
            let volume = template.metadata.name.as_deref().unwrap_or_default();
            let mut labels = template.metadata.labels.clone().unwrap_or_default();
            labels.extend(selected.clone());
            json!({
                "metadata": {
                    "name": format!("{volume}-{}-{ordinal}", view.name),
                    "labels": labels,
                    "annotations": template.metadata.annotations,
                },
                "spec": template.spec,
            })
        })
        .collect()
}
