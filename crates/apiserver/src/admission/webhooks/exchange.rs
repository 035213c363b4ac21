//! What a webhook is asked, `admission.k8s.io/v1` AdmissionReview, and how its answer is read.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use toono_api::{
    ApiError,
    meta::{at, items_at, text_at},
};

use super::{
    super::{Operation, Review},
    call,
    matching::{Webhook, operation},
};

/// What a webhook that allows the write says.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) warnings: Vec<String>,
    /// A JSON patch.
    pub(super) patch: Option<Value>,
}

/// Why there is no such answer.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It does not allow the write.
    Denied(ApiError),
    /// It could not be asked, or answered nonsense.
    Failed(String),
}

pub(super) async fn exchange(
    webhook: &Webhook,
    review: &Review<'_>,
    object: &Value,
) -> Result<Answer, Refusal> {
    let uid = uuid::Uuid::new_v4().to_string();
    let question = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": request(&uid, review, object)});
    let answer = call::call(webhook, review.server, &question).await.map_err(Refusal::Failed)?;
    read(webhook.name(), &uid, &answer)
}

/// The request as webhooks and their conditions see it.
pub(super) fn request(uid: &str, review: &Review<'_>, object: &Value) -> Value {
    let Review { resource, user, .. } = review;
    let kind = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
    let plural =
        json!({"group": resource.group, "version": resource.version, "resource": resource.plural});
    let new = if review.operation == Operation::Delete { &Value::Null } else { object };
    let mut request = json!({
        "uid": uid,
        "kind": kind,
        "resource": plural,
        "requestKind": kind,
        "requestResource": plural,
        "name": review.name,
        "operation": operation(review.operation),
        "userInfo": {"username": &*user.name, "uid": &*user.uid, "groups": &*user.groups},
        "object": new,
        "oldObject": review.old.unwrap_or(&Value::Null),
        "dryRun": review.dry_run,
        "options": {"kind": options(review.operation), "apiVersion": "meta.k8s.io/v1"},
    });
    let Some(fields) = request.as_object_mut() else { return request };
    for (field, value) in [("namespace", review.namespace), ("subResource", review.subresource)] {
        if !value.is_empty() {
            fields.insert(field.to_owned(), value.into());
        }
    }
    if !review.subresource.is_empty() {
        fields.insert("requestSubResource".to_owned(), review.subresource.into());
    }
    request
}

fn options(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
    }
}

fn read(name: &str, uid: &str, review: &Value) -> Result<Answer, Refusal> {
    let failed = |why: &str| Refusal::Failed(format!("received invalid webhook response: {why}"));
    if text_at(review, &["kind"]) != Some("AdmissionReview")
        || text_at(review, &["apiVersion"]) != Some("admission.k8s.io/v1")
    {
        return Err(failed(
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview",
        ));
    }
    let response = at(review, &["response"]).filter(|response| response.is_object());
    let response = response.ok_or_else(|| failed("webhook response was absent"))?;
    if text_at(response, &["uid"]) != Some(uid) {
        return Err(failed(&format!("expected response.uid={uid:?}")));
    }
    let warnings = items_at(response, &["warnings"]);
    let warnings = warnings.filter_map(Value::as_str).map(str::to_owned).collect();
    if at(response, &["allowed"]) != Some(&Value::Bool(true)) {
        return Err(Refusal::Denied(denied(name, at(response, &["status"]))));
    }
    let patch = match text_at(response, &["patch"]).filter(|patch| !patch.is_empty()) {
        None => None,
        Some(_) if text_at(response, &["patchType"]) != Some("JSONPatch") => {
            return Err(failed(
                "webhook returned response.patch but not response.patchType=JSONPatch",
            ));
        }
        Some(encoded) => {
            let bytes = STANDARD.decode(encoded).map_err(|error| failed(&error.to_string()))?;
            let patch = serde_json::from_slice(&bytes);
            Some(patch.map_err(|error| failed(&error.to_string()))?)
        }
    };
    Ok(Answer { warnings, patch })
}

/// The refusal, with the code that the webhook gave.
fn denied(name: &str, status: Option<&Value>) -> ApiError {
    let text = |field: &str| {
        status.and_then(|status| text_at(status, &[field])).filter(|text| !text.is_empty())
    };
    let why = text("message").or_else(|| text("reason"));
    let message = match why {
        Some(why) => format!("admission webhook {name:?} denied the request: {why}"),
        None => format!("admission webhook {name:?} denied the request without explanation"),
    };
    let code = status.and_then(|status| at(status, &["code"])?.as_u64());
    let code = code.and_then(|code| u16::try_from(code).ok()).filter(|code| *code >= 400);
    let reason = text("reason").unwrap_or("Forbidden").to_owned();
    ApiError::Denied { code: code.unwrap_or(403), reason, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(response: Value) -> Result<Answer, Refusal> {
        let review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
            "response": response});
        read("hook.example", "u1", &review)
    }

    #[test]
    fn answers_are_read_as_kubernetes_reads_them() {
        let patch = STANDARD.encode(r#"[{"op":"add","path":"/a","value":1}]"#);
        let allowed = answer(json!({"uid": "u1", "allowed": true, "warnings": ["old"],
            "patchType": "JSONPatch", "patch": patch}))
        .unwrap();
        assert_eq!(allowed.warnings, ["old"]);
        assert_eq!(allowed.patch.unwrap()[0]["path"], "/a");

        let Err(Refusal::Denied(error)) = answer(json!({"uid": "u1", "allowed": false,
            "status": {"message": "no", "code": 422}}))
        else {
            panic!("allowed")
        };
        assert_eq!(error.code(), 422);
        assert_eq!(error.to_string(), "admission webhook \"hook.example\" denied the request: no");

        for nonsense in [
            json!({"uid": "other", "allowed": true}),
            json!("yes"),
            json!({"uid": "u1", "allowed": true, "patch": "[]"}),
        ] {
            assert!(matches!(answer(nonsense), Err(Refusal::Failed(_))));
        }
    }
}
