//! The kinds that are asked and not kept: who somebody is (`authentication.k8s.io`) and what they may do
//! (`authorization.k8s.io`). A review is answered with its status filled in.

mod rights;

use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use toono_api::{ApiError, Resource, UserInfo, meta::at, meta::items_at, meta::text_at};
use toono_http::Body;

use crate::{
    authenticate, encode, respond,
    server::ApiServer,
    verbs::{Call, whole_seconds},
};

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// Whether objects of the kind are answered here and never stored.
pub(crate) fn handles(resource: &Resource) -> bool {
    resource.stored_group == AUTHENTICATION || resource.stored_group == AUTHORIZATION
}

/// Answers a review. `review` is decoded: it has the fields and types of its kind, and nothing else.
///
/// # Errors
/// When the review does not say what it must.
pub(crate) fn answer(
    call: &Call<'_>,
    mut review: Value,
    warnings: &[String],
) -> Result<Response<Body>, ApiError> {
    let (server, user, resource) = (call.server, call.user, &*call.target.resource);
    let status = match &*resource.kind {
        "SelfSubjectReview" => json!({"userInfo": user_json(user)}),
        "TokenReview" => token_review(server, &review)?,
        "SelfSubjectAccessReview" => rights::of_self(server, user, resource, &review)?,
        "SubjectAccessReview" => rights::of_other(server, resource, &review)?,
        "LocalSubjectAccessReview" => {
            rights::of_other_in(server, resource, call.target.namespace, &review)?
        }
        "SelfSubjectRulesReview" => {
            let namespace = text_at(&review, &["spec", "namespace"]).unwrap_or_default();
            if namespace.is_empty() {
                return Err(ApiError::BadRequest("no namespace on request".to_owned()));
            }
            let rules = server.inner.gate.with(|access| access.rules_for(user, namespace));
            serde_json::to_value(rules).map_err(|error| ApiError::Internal(error.to_string()))?
        }
        _ => return Err(ApiError::MethodNotAllowed),
    };
    let metadata = encode::metadata(&mut review)?;
    metadata.insert("creationTimestamp".to_owned(), Value::Null);
    if &*resource.kind == "SelfSubjectReview" {
        metadata.insert("creationTimestamp".to_owned(), whole_seconds(ApiServer::now()).into());
    }
    encode::set(&mut review, "status", status);
    let mut response = respond::json(StatusCode::CREATED, review.to_string());
    respond::warn(&mut response, warnings);
    Ok(response)
}

/// A user as `authentication.k8s.io` writes it.
fn user_json(user: &UserInfo) -> Value {
    let mut fields = Map::new();
    fields.insert("username".to_owned(), (&*user.name).into());
    if !user.uid.is_empty() {
        fields.insert("uid".to_owned(), (&*user.uid).into());
    }
    fields.insert("groups".to_owned(), json!(&*user.groups));
    if !user.extra.is_empty() {
        fields.insert("extra".to_owned(), json!(&*user.extra));
    }
    Value::Object(fields)
}

fn token_review(server: &ApiServer, review: &Value) -> Result<Value, ApiError> {
    let token = text_at(review, &["spec", "token"]).unwrap_or_default();
    if token.is_empty() {
        return Err(ApiError::BadRequest(
            "token is required for TokenReview in authentication".to_owned(),
        ));
    }
    let audiences: Vec<String> = items_at(review, &["spec", "audiences"])
        .filter_map(|audience| audience.as_str().map(str::to_owned))
        .collect();
    Ok(match authenticate::holder(server, token, &audiences) {
        Ok(holder) => json!({"authenticated": true, "user": user_json(&holder.user),
            "audiences": holder.audiences}),
        Err(error) => {
            json!({"user": {}, "error": format!("[invalid bearer token, {error}]")})
        }
    })
}

/// The user that a review's spec describes.
fn user_of(spec: &Value) -> UserInfo {
    let text = |field| text_at(spec, &[field]).unwrap_or_default();
    let words = |value: &Value| -> Vec<String> {
        let items = value.as_array().into_iter().flatten();
        items.filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let groups = at(spec, &["groups"]).map(words).unwrap_or_default();
    let extra = at(spec, &["extra"]).and_then(Value::as_object).into_iter().flatten();
    UserInfo {
        name: text("user").into(),
        uid: text("uid").into(),
        // Just those that are given: a review adds nobody to a group.
        groups: groups.into(),
        extra: std::sync::Arc::new(extra.map(|(key, value)| (key.clone(), words(value))).collect()),
    }
}
