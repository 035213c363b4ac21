//! The workload of one pool: the template, what makes it that pool's, and its tweaks. Pure.
//!
//! Tweaks are applied to what Go's types would have written, as patches are written for that: an empty
//! `strategy` and empty `resources` are there. What makes a workload that of its set and pool is put on before
//! patches, so that they find it, and after, so that none of them takes it away.

use serde_json::{Map, Value, json};
use toono_api::decode::{DecodeError, decode};
use toono_openyurt::keys::{
    CONTROLLER_REVISION_HASH, NODE_POOL, POOL_NAME, REF_NODE_POOL, REF_YURT_APP_SET,
};

use super::{
    app::{App, Kind, Tweak},
    tweak::{self, TweakError},
};
use crate::patch::map_at;

/// What a pool's workload is to be, but for its name, its revision and defaults.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rendered {
    pub(super) kind: Kind,
    pub(super) labels: Map<String, Value>,
    pub(super) annotations: Map<String, Value>,
    pub(super) spec: Value,
    /// What somebody should know of it.
    pub(super) notes: Vec<String>,
}

/// No workload can be made for a pool.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RenderError {
    #[error(transparent)]
    Tweak(#[from] TweakError),
    #[error("the template with its tweaks is no {kind}: {why}")]
    Shape { kind: &'static str, why: String },
}

/// The workload of `pool`, with the tweaks at these places of the set's list.
pub(super) fn render(
    app: &App,
    set: &str,
    pool: &str,
    tweaks: &[usize],
) -> Result<Rendered, RenderError> {
    let template = &app.template;
    let mut workload = json!({
        "apiVersion": "apps/v1",
        "kind": app.kind.name(),
        "metadata": {"labels": template.labels, "annotations": template.annotations},
        "spec": template.spec,
    });
    let mut notes = notes_of(app, pool);
    fill(&mut workload, app.kind);
    let selects = has_selector(&workload);
    identify(&mut workload, set, pool, selects);
    let tweaks: Vec<(usize, &Tweak)> = tweaks
        .iter()
        .filter_map(|place| app.tweaks.get(*place).map(|tweak| (*place, tweak)))
        .collect();
    notes.extend(tweak::apply(&mut workload, &tweaks, pool)?);
    identify(&mut workload, set, pool, selects);
    canonical(app.kind, workload, notes)
}

/// What is odd about the template in this pool.
fn notes_of(app: &App, pool: &str) -> Vec<String> {
    let elsewhere = app.template.spec.pointer("/template/spec/nodeSelector");
    let elsewhere = elsewhere.and_then(|selector| selector.get(NODE_POOL)?.as_str());
    let elsewhere = elsewhere.filter(|named| *named != pool);
    let note =
        |named| format!("the template's nodeSelector names pool {named}; its pods go to {pool}");
    elsewhere.map(note).into_iter().collect()
}

/// Puts in what Go writes though it is empty.
fn fill(workload: &mut Value, kind: Kind) {
    let strategy = match kind {
        Kind::Deployment => "strategy",
        Kind::StatefulSet => "updateStrategy",
    };
    let _ = map_at(workload, &["spec", strategy]);
    let _ = map_at(workload, &["spec", "template", "metadata"]);
    for list in ["containers", "initContainers"] {
        let list = workload.pointer_mut(&format!("/spec/template/spec/{list}"));
        for container in list.and_then(Value::as_array_mut).into_iter().flatten() {
            let _ = map_at(container, &["resources"]);
        }
    }
}

fn has_selector(workload: &Value) -> bool {
    workload.pointer("/spec/selector").and_then(Value::as_object).is_some_and(|all| {
        all.values().any(|part| match part {
            Value::Object(labels) => !labels.is_empty(),
            Value::Array(expressions) => !expressions.is_empty(),
            _ => false,
        })
    })
}

/// Makes it the workload of this set and pool. Without a selector of its own it would select all pods of the
/// pool's sets, so the set's name goes into the one it is given.
fn identify(workload: &mut Value, set: &str, pool: &str, selects: bool) {
    let own = [(POOL_NAME, pool), (REF_YURT_APP_SET, set)];
    put(workload, &["metadata", "labels"], own);
    put(workload, &["metadata", "annotations"], [(REF_NODE_POOL, pool)]);
    let selected = if selects { &own[..1] } else { &own[..] };
    put(workload, &["spec", "selector", "matchLabels"], selected.iter().copied());
    put(workload, &["spec", "template", "metadata", "labels"], selected.iter().copied());
    put(workload, &["spec", "template", "spec", "nodeSelector"], [(NODE_POOL, pool)]);
}

fn put<'a>(
    workload: &mut Value,
    path: &[&str],
    entries: impl IntoIterator<Item = (&'a str, &'a str)>,
) {
    if let Some(map) = map_at(workload, path) {
        map.extend(entries.into_iter().map(|(key, value)| (key.to_owned(), value.into())));
    }
}

/// One form of what can be written in several, without what no workload has.
fn canonical(kind: Kind, workload: Value, mut notes: Vec<String>) -> Result<Rendered, RenderError> {
    let shape = |why: String| RenderError::Shape { kind: kind.name(), why };
    let row = kind.row().ok_or_else(|| shape("the program does not know it".to_owned()))?;
    let decoded = decode(row.message, workload)
        .map_err(|DecodeError { path, why }| shape(format!("{path}: {why}")))?;
    let mut workload = decoded.object;
    notes.extend(
        decoded
            .unknown_fields
            .iter()
            .map(|field| format!("{field} is no field of a {} and is left out", kind.name())),
    );
    let mut part = |name| map_at(&mut workload, &["metadata", name]).map(std::mem::take);
    let (labels, annotations) = (part("labels"), part("annotations"));
    Ok(Rendered {
        kind,
        labels: labels.unwrap_or_default(),
        annotations: annotations.unwrap_or_default(),
        spec: workload.get_mut("spec").map(Value::take).unwrap_or_default(),
        notes,
    })
}

impl Rendered {
    /// The spec whose pods say that they are of this revision.
    pub(super) fn spec_of(&self, revision: &str) -> Value {
        let mut spec = self.spec.clone();
        put(&mut spec, &["template", "metadata", "labels"], [(CONTROLLER_REVISION_HASH, revision)]);
        spec
    }

    /// The labels of a workload that is of this revision.
    pub(super) fn labels_of(&self, revision: &str) -> Map<String, Value> {
        let mut labels = self.labels.clone();
        labels.insert(CONTROLLER_REVISION_HASH.to_owned(), revision.into());
        labels
    }
}
