//! The fleet's requests: who may ask what, how bodies are read, how answers are written.

use std::sync::Arc;

use bytes::BytesMut;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use toono_api::{ApiError, UserInfo, user::GROUP_MASTERS};
use toono_http::Body;
use toono_wire::{bundle::Bundle, path};

use crate::{
    bundles::{Named, News},
    calls::{Refusal, code},
    fleet::Inner,
    join,
    objects::PodObject,
    overview, report, secrets, sockets, tunnel,
};

/// A join is a status of some KB and a small certificate request.
const JOIN_LIMIT: usize = 256 * 1024;
/// A report after a long silence holds the status of every pod; 110 pods take about 1 MB.
const REPORT_LIMIT: usize = 8 * 1024 * 1024;
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
    let known = match request.uri().path() {
        path::JOIN | path::REPORT | path::TUNNEL | path::ROTATE => Method::POST,
        path::SESSION | path::SOCKET | path::BUNDLE | path::OVERVIEW => Method::GET,
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
        path::SESSION => Ok(json_response(&join::session(inner, node(&user)?)?)),
        path::BUNDLE => bundle(inner, node(&user)?, request.uri().query()).await,
        path::REPORT => {
            let node = node(&user)?;
            let body = read(request, REPORT_LIMIT).await?;
            Ok(json_response(&report::report(inner, node, body).await?))
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
    let News { revision, pods: named, present } = news.ok_or_else(|| {
        ApiError::Unavailable("the server has not read its Pods yet; try again".into())
    })?;
    let mut pods = Vec::with_capacity(named.len());
    for pod in &named {
        pods.extend(as_stored(inner, node, pod).await?);
    }
    Ok(json_response(&Bundle { revision, pods, present }))
}

/// A pod as the API has it, which may be newer than what the bundle tells; none if it is gone meanwhile, or
/// another one has its name: the next bundle says so.
async fn as_stored(
    inner: &Inner,
    node: &str,
    pod: &Named,
) -> Result<Option<Box<RawValue>>, Refusal> {
    let text = match inner.calls.text(&pod.path()).await {
        Err(error) if code(&error) == Some(404) => return Ok(None),
        text => text?,
    };
    let unreadable = |error: serde_json::Error| ApiError::Internal(error.to_string());
    let found = PodObject::parse(text.as_bytes()).map_err(unreadable)?;
    if found.uid != pod.uid || &*found.node != node {
        return Ok(None);
    }
    Ok(Some(RawValue::from_string(text.trim_end().to_owned()).map_err(unreadable)?))
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
