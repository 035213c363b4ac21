//! `serviceaccounts/NAME/token`: makes a token on request (`TokenRequest`).

use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use toono_api::{
    ApiError, FieldError, GroupResource, ObjectHeader, kinds,
    meta::{at, items_at, text_at},
};
use toono_http::Body;
use toono_mvcc::{Entry, Key};

use super::{Claims, Reference};
use crate::{
    encode, respond,
    server::{ApiServer, key},
    verbs::{Call, whole_seconds},
};

/// What a token lasts when nobody says.
const DEFAULT_SECONDS: i64 = 60 * 60;
const MIN_SECONDS: i64 = 10 * 60;
const MAX_SECONDS: i64 = 1 << 32;
/// Programs older than bound tokens read their token once. The kubelet asks for exactly this time for
/// them; such a token lasts a year, and a warning tells when it would have ended.
const WARNED_SECONDS: i64 = 60 * 60 + 7;
const EXTENDED_SECONDS: i64 = 365 * 24 * 60 * 60;
const GROUP: &str = "authentication.k8s.io";

/// Answers a `TokenRequest` with the token in its status.
///
/// # Errors
/// When the account or what the token shall be bound to is not there, or the request is malformed.
pub(crate) fn create(call: &Call<'_>, body: &Value) -> Result<Response<Body>, ApiError> {
    let (server, target) = (call.server, &call.target);
    let dry_run = call.query.dry_run()?;
    let (namespace, name) = (target.namespace, target.name);
    check_place(body, namespace, name)?;
    let account = server.existing(&target.resource, namespace, name)?;
    let seconds = seconds(body)?;
    let now = Timestamp::from_second(ApiServer::now().as_second()).unwrap_or_default();
    let asked: Vec<String> = items_at(body, &["spec", "audiences"])
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    let audiences = if asked.is_empty() { server.inner.issuer.audiences().to_vec() } else { asked };
    let reference = at(body, &["spec", "boundObjectRef"]).filter(|reference| !reference.is_null());
    let bound = match reference {
        None => Bound::default(),
        Some(reference) => Bound::find(server, namespace, name, reference)?,
    };
    let extended = seconds == WARNED_SECONDS
        && bound.pod.is_some()
        && audiences.iter().all(|one| server.inner.issuer.audiences().contains(one));
    let after = |seconds| now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
    let claims = Claims {
        audiences: audiences.clone(),
        issued: now,
        expires: after(if extended { EXTENDED_SECONDS } else { seconds }),
        warn_after: extended.then(|| after(seconds)),
        id: uuid::Uuid::new_v4().to_string(),
        namespace: namespace.to_owned(),
        account: reference_to(&account, name)?,
        pod: bound.pod,
        node: bound.node,
        secret: bound.secret,
    };
    let token = match dry_run {
        true => String::new(),
        false => server
            .inner
            .issuer
            .sign(&claims)
            .map_err(|error| ApiError::Internal(error.to_string()))?,
    };
    let mut spec = json!({"audiences": audiences, "expirationSeconds": seconds,
        "boundObjectRef": null});
    encode::set(&mut spec, "boundObjectRef", reference.cloned().unwrap_or(Value::Null));
    let answer = json!({"kind": "TokenRequest", "apiVersion": format!("{GROUP}/v1"),
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": whole_seconds(now)},
        "spec": spec,
        "status": {"token": token, "expirationTimestamp": whole_seconds(after(seconds))}});
    Ok(respond::json(StatusCode::CREATED, answer.to_string()))
}

fn invalid(name: &str, cause: FieldError) -> ApiError {
    ApiError::Invalid {
        kind: "TokenRequest".to_owned(),
        group: GROUP.to_owned(),
        name: name.to_owned(),
        causes: vec![cause],
    }
}

/// Name and namespace in the body may be left out, but not differ.
fn check_place(body: &Value, namespace: &str, name: &str) -> Result<(), ApiError> {
    for (field, expected, why) in [
        ("name", name, "must match the service account name if specified"),
        ("namespace", namespace, "must match the service account namespace if specified"),
    ] {
        let given = text_at(body, &["metadata", field]).unwrap_or_default();
        if !given.is_empty() && given != expected {
            let path = format!("metadata.{field}");
            return Err(invalid(name, FieldError::invalid_text(path, given, why)));
        }
    }
    Ok(())
}

fn seconds(body: &Value) -> Result<i64, ApiError> {
    let path = "spec.expirationSeconds";
    let given = at(body, &["spec", "expirationSeconds"]).filter(|value| !value.is_null());
    let seconds = match given {
        None => return Ok(DEFAULT_SECONDS),
        Some(value) => value.as_i64().ok_or_else(|| {
            ApiError::BadRequest(format!(
                "TokenRequest in version \"v1\" cannot be handled as a TokenRequest: {path} must be an integer"
            ))
        })?,
    };
    let why = match seconds {
        ..MIN_SECONDS => "may not specify a duration less than 10 minutes",
        seconds if seconds > MAX_SECONDS => "may not specify a duration larger than 2^32 seconds",
        _ => return Ok(seconds),
    };
    Err(invalid("", FieldError::invalid(path, &seconds.into(), why)))
}

/// What a token is bound to besides its account.
#[derive(Default)]
struct Bound {
    pod: Option<Reference>,
    node: Option<Reference>,
    secret: Option<Reference>,
}

impl Bound {
    fn find(
        server: &ApiServer,
        namespace: &str,
        account: &str,
        reference: &Value,
    ) -> Result<Self, ApiError> {
        let text = |field| text_at(reference, &[field]).unwrap_or_default();
        let (version, kind, name) = (text("apiVersion"), text("kind"), text("name"));
        let mut bound = Self::default();
        let found = match (version, kind) {
            ("v1", "Pod") => {
                let entry = server.existing(&server.built_in(&kinds::pod::POD), namespace, name)?;
                let pod = parsed(&entry)?;
                if text_at(&pod, &["spec", "serviceAccountName"]).unwrap_or_default() != account {
                    return Err(ApiError::BadRequest(format!(
                        "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                    )));
                }
                let node = text_at(&pod, &["spec", "nodeName"]).filter(|node| !node.is_empty());
                bound.node = node.map(|node| node_of(server, node));
                bound.pod.insert(reference_to(&entry, name)?)
            }
            ("v1", "Node") => {
                let entry = server.existing(&server.built_in(&kinds::core::NODE), "", name)?;
                bound.node.insert(reference_to(&entry, name)?)
            }
            ("v1", "Secret") => {
                let row = server.built_in(&kinds::core::SECRET);
                bound.secret.insert(reference_to(&server.existing(&row, namespace, name)?, name)?)
            }
            _ => {
                let (group, version) = version.split_once('/').unwrap_or(("", version));
                return Err(ApiError::BadRequest(format!(
                    "cannot bind token to object of type {group}/{version}, Kind={kind}"
                )));
            }
        };
        let expected = text("uid");
        if !expected.is_empty() && expected != found.uid {
            return Err(ApiError::Conflict {
                resource: GroupResource { group: String::new(), resource: kind.to_owned() },
                name: name.to_owned(),
                why: format!(
                    "the UID in the bound object reference ({expected}) does not match the UID in record. The object might have been deleted and then recreated"
                ),
            });
        }
        Ok(bound)
    }
}

/// The node of a pod. A node that is not there is named without its UID.
fn node_of(server: &ApiServer, name: &str) -> Reference {
    let place: Key = key(&server.built_in(&kinds::core::NODE), "", name);
    let entry = server.current(&place).ok().flatten();
    let found = entry.and_then(|entry| reference_to(&entry, name).ok());
    found.unwrap_or_else(|| Reference { name: name.to_owned(), uid: String::new() })
}

fn reference_to(entry: &Entry, name: &str) -> Result<Reference, ApiError> {
    let header = ObjectHeader::parse(&entry.value).map_err(|error| broken(entry, &error))?;
    let uid = header.metadata.uid.unwrap_or_default().into_owned();
    Ok(Reference { name: name.to_owned(), uid })
}

fn parsed(entry: &Entry) -> Result<Value, ApiError> {
    serde_json::from_slice(&entry.value).map_err(|error| broken(entry, &error))
}

fn broken(entry: &Entry, error: &serde_json::Error) -> ApiError {
    ApiError::Internal(format!("{} is stored as no JSON: {error}", entry.key))
}
