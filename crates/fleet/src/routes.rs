//! The fleet's requests: who may ask what, how bodies are read, how answers are written.

use std::sync::Arc;

use bytes::BytesMut;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use toono_api::{ApiError, UserInfo, user::GROUP_MASTERS};
use toono_http::Body;
use toono_session::{PodDigest, ReferentDigest};
use toono_wire::{
    bundle::Bundle,
    path,
    referent::{ReferentKind, ReferentName},
};

use crate::{
    bundles::{Named, News},
    calls::{Refusal, code},
    certificates,
    fleet::Inner,
    identities, join,
    objects::{PodObject, ReferentObject},
    overview, parts, peers, report, secrets, sockets, tunnel,
};

/// A join is a status of some KB and a small certificate request.
const JOIN_LIMIT: usize = 256 * 1024;
/// A report after a long silence holds the status of every pod; 110 pods take about 1 MB.
const REPORT_LIMIT: usize = 8 * 1024 * 1024;
/// What a server hears in some seconds: of eight million nodes, two bytes each at most.
const PEER_LIMIT: usize = 24 * 1024 * 1024;
/// A certificate request of an elliptic curve is less than 1 KB.
const CERTIFICATE_LIMIT: usize = 8 * 1024;
/// A request to rotate has one field.
const ROTATE_LIMIT: usize = 1024;

/// Answers one request.
pub(crate) async fn answer(inner: Arc<Inner>, request: Request<Body>) -> Response<Body> {
    match route(&inner, request).await {
        Ok(response) => response,
        Err(refusal) => {
            let code =
                StatusCode::from_u16(refusal.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut response = json_response(&refusal.status);
            *response.status_mut() = code;
            if matches!(code, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            response
        }
    }
}

async fn route(inner: &Arc<Inner>, request: Request<Body>) -> Result<Response<Body>, Refusal> {
    let user = request.extensions().get::<UserInfo>().cloned().unwrap_or_else(UserInfo::anonymous);
    if let Some(node) = user.node_name() {
        identities::check(inner, node, request.extensions())?;
    }
    let known = match request.uri().path() {
        path::JOIN
        | path::CERTIFICATE
        | path::REPORT
        | path::TUNNEL
        | path::ROTATE
        | path::PEER => Method::POST,
        path::SESSION | path::SOCKET | path::BUNDLE | path::POOL | path::OVERVIEW => Method::GET,
        _ => return Err(ApiError::UnknownPath.into()),
    };
    if request.method() != known {
        return Err(ApiError::MethodNotAllowed.into());
    }
    match request.uri().path() {
        path::JOIN => {
            let body = read(request, JOIN_LIMIT).await?;
            let joined = join::join(inner, &user, body).await?;
            Ok(json_response(&joined))
        }
        path::CERTIFICATE => {
            let node = node(&user)?.to_owned();
            let shown = request.extensions().clone();
            let body = read(request, CERTIFICATE_LIMIT).await?;
            Ok(json_response(&certificates::renew(inner, &node, &shown, &body).await?))
        }
        path::SESSION => Ok(json_response(&join::session(inner, node(&user)?)?)),
        path::BUNDLE => bundle(inner, node(&user)?, request.uri().query()).await,
        path::POOL => parts::answer(inner, node(&user)?, request.uri().query()).await,
        path::REPORT => {
            let node = node(&user)?;
            let body = read(request, REPORT_LIMIT).await?;
            Ok(json_response(&report::report(inner, node, body).await?))
        }
        path::PEER => {
            peers::server(&user)?;
            let news = read(request, PEER_LIMIT).await?;
            peers::accept(inner, &news)?;
            let mut response = Response::new(toono_http::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok(response)
        }
        path::TUNNEL => Ok(tunnel::accept(inner, node(&user)?, request)?),
        path::SOCKET => Ok(sockets::accept(inner, node(&user)?, request)?),
        path::ROTATE => {
            administrator(&user, "rotate the cluster's secret")?;
            let body = read(request, ROTATE_LIMIT).await?;
            Ok(json_response(&secrets::rotate(inner, body).await?))
        }
        _ => {
            administrator(&user, "see the fleet's overview")?;
            Ok(json_response(&overview::overview(inner)))
        }
    }
}

fn administrator(user: &UserInfo, what: &str) -> Result<(), ApiError> {
    if user.is_in(GROUP_MASTERS) {
        return Ok(());
    }
    Err(ApiError::ForbiddenPath(format!("user {:?} may not {what}", user.name)))
}

/// Nodes ask for themselves only: there is no way to name another.
fn node(user: &UserInfo) -> Result<&str, ApiError> {
    user.node_name()
        .ok_or_else(|| ApiError::ForbiddenPath(format!("user {:?} is no node", user.name)))
}

async fn bundle(inner: &Inner, node: &str, query: Option<&str>) -> Result<Response<Body>, Refusal> {
    let since = query
        .unwrap_or_default()
        .split('&')
        .find_map(|pair| pair.strip_prefix("since="))
        .map_or(Ok(0), str::parse)
        .map_err(|_| ApiError::BadRequest("since: must be a revision".into()))?;
    let news = inner.state().bundles.bundle(node, since);
    let News { revision, pods: named, mut present, referents: of, mut referenced, mut digest } =
        news.ok_or_else(|| {
            ApiError::Unavailable("the server has not read its Pods yet; try again".into())
        })?;
    let mut pods = Vec::with_capacity(named.len());
    // Each pod is sent as it is at this moment, which may be newer than what the index has heard of. The digest
    // is of what is sent, so once the index has heard of it too, they are equal.
    for pod in &named {
        digest = digest.without(pod.digest);
        match as_stored(inner, node, pod).await? {
            Some((text, sent)) => {
                digest = digest.with(sent);
                pods.push(text);
            }
            None => {
                let gone = pod.uid.to_string();
                present.retain(|uid| *uid != gone);
            }
        }
    }
    let mut referents = Vec::with_capacity(of.len());
    for (name, expected) in of {
        digest = digest.without(expected);
        match referent(inner, &name).await? {
            Some((text, sent)) => {
                digest = digest.with(sent);
                referents.push(text);
            }
            None => referenced.retain(|it| *it != name),
        }
    }
    let (digest, pool) = (digest.0, parts::news(inner, node));
    Ok(json_response(&Bundle { revision, pods, present, referents, referenced, digest, pool }))
}

/// A ConfigMap or Secret as the API has it, or what an account may read, and its digest; none if it is gone meanwhile.
async fn referent(
    inner: &Inner,
    name: &ReferentName,
) -> Result<Option<(Box<RawValue>, ReferentDigest)>, Refusal> {
    if name.kind == ReferentKind::ServiceAccount {
        let made = inner.state().accounts.referent(name);
        return Ok(made.map(|(object, text)| (text, object.digest)));
    }
    let ReferentName { kind, namespace, name } = name;
    let path = format!("/api/v1/namespaces/{namespace}/{}/{name}", kind.plural());
    let text = match inner.calls.text(&path).await {
        Err(error) if code(&error) == Some(404) => return Ok(None),
        text => text?,
    };
    let (found, text) = ReferentObject::with_text(*kind, text.as_bytes())
        .map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(Some((text, found.digest)))
}

/// A pod as the API has it, and its digest; none if it is gone meanwhile, or another one has its name.
async fn as_stored(
    inner: &Inner,
    node: &str,
    pod: &Named,
) -> Result<Option<(Box<RawValue>, PodDigest)>, Refusal> {
    let text = match inner.calls.text(&pod.path()).await {
        Err(error) if code(&error) == Some(404) => return Ok(None),
        text => text?,
    };
    let unreadable = |error: serde_json::Error| ApiError::Internal(error.to_string());
    let found = PodObject::parse(text.as_bytes()).map_err(unreadable)?;
    if found.uid != pod.uid || &*found.node != node {
        return Ok(None);
    }
    let text = RawValue::from_string(text.trim_end().to_owned()).map_err(unreadable)?;
    Ok(Some((text, found.digest)))
}

async fn read<T: DeserializeOwned>(request: Request<Body>, limit: usize) -> Result<T, ApiError> {
    let mut body = request.into_body();
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| ApiError::BadRequest(format!("the body broke off: {error}")))?;
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > limit {
                return Err(ApiError::TooLarge { limit_bytes: limit });
            }
            bytes.extend_from_slice(&data);
        }
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::BadRequest(format!("the body: {error}")))
}

fn json_response(value: &impl Serialize) -> Response<Body> {
    let (code, body) = match serde_json::to_vec(value) {
        Ok(body) => (StatusCode::OK, body),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, Vec::new()),
    };
    let mut response = Response::new(toono_http::full(body));
    *response.status_mut() = code;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
