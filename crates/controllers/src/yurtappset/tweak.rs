//! What is different in one pool: tweaks on top of the template. Pure.
//!
//! All tweaks that reach a pool count, in the order of their list: first the replicas and images of each of
//! them, then the patches of each of them. Of two that say different things the later one holds, and it is noted.

use std::collections::HashMap;

use serde_json::{Value, json};
use toono_apply::{PatchError, PatchKind};

use super::app::{Patch, Tweak};

/// What patches have in place of the pool's name.
const POOL_NAME: &str = "{{nodepool-name}}";
/// What patches may change; the rest is what makes the workload that of its set and pool.
const MAY_CHANGE: [&str; 3] = ["/spec", "/metadata/labels", "/metadata/annotations"];

/// A patch that cannot be applied. Tweaks and patches are counted from 1.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("patch {patch} of tweak {tweak} ({operation} {path}): {why}")]
pub(super) struct TweakError {
    tweak: usize,
    patch: usize,
    operation: String,
    path: String,
    why: String,
}

/// Applies tweaks, each with its place in the set's list, to the workload of `pool`; what is to be noted.
pub(super) fn apply(
    workload: &mut Value,
    tweaks: &[(usize, &Tweak)],
    pool: &str,
) -> Result<Vec<String>, TweakError> {
    let mut notes = Notes::default();
    for (place, tweak) in tweaks {
        if let Some(replicas) = tweak.replicas {
            notes.says(*place, "replicas", &json!(replicas));
            if let Some(spec) = workload.get_mut("spec").and_then(Value::as_object_mut) {
                spec.insert("replicas".to_owned(), replicas.into());
            }
        }
        for (container, image) in &tweak.images {
            notes.says(*place, &format!("the image of {container}"), &json!(image));
            if !set_image(workload, container, image) {
                notes.told.push(format!(
                    "tweak {} names a container {container}, which the template does not have",
                    place + 1
                ));
            }
        }
    }
    for (place, tweak) in tweaks {
        for (index, patch) in tweak.patches.iter().enumerate() {
            let value = named(&patch.value, pool);
            if !patch.path.ends_with("/-") {
                notes.says(*place, &patch.path, &value);
            }
            apply_patch(workload, patch, value).map_err(|why| TweakError {
                tweak: place + 1,
                patch: index + 1,
                operation: patch.operation.clone(),
                path: patch.path.clone(),
                why,
            })?;
        }
    }
    Ok(notes.told)
}

/// Who said what, and what others said differently after.
#[derive(Default)]
struct Notes {
    said: HashMap<String, (usize, Value)>,
    told: Vec<String>,
}

impl Notes {
    fn says(&mut self, place: usize, what: &str, value: &Value) {
        let before = self.said.insert(what.to_owned(), (place, value.clone()));
        if let Some((other, said)) = before.filter(|(other, said)| *other != place && said != value)
        {
            self.told.push(format!(
                "{what}: tweak {} ({value}) goes before tweak {} ({said})",
                place + 1,
                other + 1
            ));
        }
    }
}

/// Whether there is such a container.
fn set_image(workload: &mut Value, container: &str, image: &str) -> bool {
    let mut found = false;
    for list in ["containers", "initContainers"] {
        let list = workload.pointer_mut(&format!("/spec/template/spec/{list}"));
        for one in list.and_then(Value::as_array_mut).into_iter().flatten() {
            if one.get("name").and_then(Value::as_str) == Some(container)
                && let Some(fields) = one.as_object_mut()
            {
                fields.insert("image".to_owned(), image.into());
                found = true;
            }
        }
    }
    found
}

fn apply_patch(workload: &mut Value, patch: &Patch, value: Value) -> Result<(), String> {
    let below = |may: &str| {
        let rest = patch.path.strip_prefix(may);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if !MAY_CHANGE.into_iter().any(below) {
        return Err(format!("patches may change {} and what is below", MAY_CHANGE.join(", ")));
    }
    let operation = json!({"op": patch.operation, "path": patch.path, "value": value});
    toono_apply::apply(PatchKind::Json, workload, json!([operation]), None).map_err(|error| {
        let why = match error {
            PatchError::DoesNotApply(why) | PatchError::Malformed(why) => why,
            other => other.to_string(),
        };
        let why = why.strip_prefix("operation 0 failed: ").unwrap_or(&why);
        format!("it does not apply: {why}; is the path there in the template?")
    })
}

/// A value with the pool's name where it is asked for, in keys too.
fn named(value: &Value, pool: &str) -> Value {
    match value {
        Value::String(text) => text.replace(POOL_NAME, pool).into(),
        Value::Array(items) => items.iter().map(|item| named(item, pool)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, field)| (name.replace(POOL_NAME, pool), named(field, pool)))
            .collect(),
        plain => plain.clone(),
    }
}
