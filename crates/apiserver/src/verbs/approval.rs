//! Certificate requests have two sides of one status: who approves writes `Approved` and `Denied`,
//! who signs writes all else, and neither can touch the other's.

use jiff::Timestamp;
use serde_json::{Map, Value};
use toono_api::meta::{at, items_at, text_at};

use super::create::whole_seconds;

/// The conditions that only the approval writes.
const APPROVAL: [&str; 2] = ["Approved", "Denied"];

/// `old` with the approval of `sent`.
pub(super) fn with_approval_of(old: &Value, sent: &Value, now: Timestamp) -> Value {
    let conditions = chosen(old, false).into_iter().chain(chosen(sent, true)).collect();
    let mut merged = old.clone();
    set_conditions(&mut merged, conditions, old, now);
    merged
}

/// `new`, a status write, with the approval of `old`.
pub(super) fn with_kept_approval(new: &Value, old: &Value, now: Timestamp) -> Value {
    let conditions = chosen(old, true).into_iter().chain(chosen(new, false)).collect();
    let mut merged = new.clone();
    set_conditions(&mut merged, conditions, old, now);
    merged
}

fn type_of(condition: &Value) -> &str {
    text_at(condition, &["type"]).unwrap_or_default()
}

fn chosen(object: &Value, approval: bool) -> Vec<Value> {
    let all = items_at(object, &["status", "conditions"]);
    all.filter(|one| APPROVAL.contains(&type_of(one)) == approval).cloned().collect()
}

/// Sets them; a new one gets its times.
fn set_conditions(object: &mut Value, mut conditions: Vec<Value>, old: &Value, now: Timestamp) {
    let now = whole_seconds(now);
    for condition in &mut conditions {
        let before = items_at(old, &["status", "conditions"])
            .find(|one| type_of(one) == type_of(condition))
            .cloned();
        let same_status = before
            .as_ref()
            .is_some_and(|before| text_at(before, &["status"]) == text_at(condition, &["status"]));
        let transition = before.as_ref().and_then(|one| at(one, &["lastTransitionTime"])).cloned();
        let Some(fields) = condition.as_object_mut() else { continue };
        if before.is_none() {
            fields.entry("lastUpdateTime").or_insert_with(|| now.clone().into());
        }
        let kept = transition.filter(|_| same_status);
        fields
            .entry("lastTransitionTime")
            .or_insert_with(|| kept.unwrap_or_else(|| now.clone().into()));
    }
    let Some(fields) = object.as_object_mut() else { return };
    let status = fields.entry("status").or_insert_with(|| Map::new().into());
    let Some(status) = status.as_object_mut() else { return };
    if conditions.is_empty() {
        status.remove("conditions");
    } else {
        status.insert("conditions".to_owned(), conditions.into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn approver_and_signer_write_each_their_own() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let failed = json!({"type": "Failed", "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z"});
        let old = json!({"spec": {"a": 1}, "status": {"conditions": [failed]}});
        let sent = json!({"spec": {"a": 2}, "status": {"certificate": "mine",
            "conditions": [{"type": "Approved", "status": "True"}]}});
        let approved = with_approval_of(&old, &sent, now);
        assert_eq!(
            approved,
            json!({"spec": {"a": 1}, "status": {"conditions": [failed,
                {"type": "Approved", "status": "True", "lastUpdateTime": "2026-01-01T00:00:00Z",
                 "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
        );
        let signed = json!({"status": {"certificate": "x", "conditions": [
            {"type": "Denied", "status": "True"}]}});
        let kept = with_kept_approval(&signed, &approved, now);
        assert_eq!(kept["status"]["certificate"], "x");
        let types: Vec<_> = items_at(&kept, &["status", "conditions"]).map(type_of).collect();
        assert_eq!(types, ["Approved"], "a denial is not the signer's to write");
    }
}
