//! The node's own API, as far as the cloud asks for it through a tunnel: the kubelet's paths.
//!
//! Errors are plain text with a status, as the kubelet's are; the API server passes them on.

mod exec;
mod frames;
mod logs;
mod port_forward;
mod query;

use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use toono_http::Body;

use crate::views::{PodView, Views};
use query::Query;

/// Answers the requests of tunnels.
#[derive(Debug, Clone)]
pub(crate) struct Kubelet {
    views: Views,
}

/// A refusal: what to say and with which status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) text: String,
}

/// A container that a path names.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: String,
    pub(crate) view: PodView,
}

impl Refusal {
    pub(crate) fn bad_request(text: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text: text.into() }
    }

    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, text: text.into() }
    }

    pub(crate) fn internal(text: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, text: text.into() }
    }
}

impl Kubelet {
    pub(crate) fn new(views: Views) -> Self {
        Self { views }
    }

    /// Answers one request; a stream goes on in the response's body.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let answered = match parts.as_slice() {
            ["healthz"] => Ok(plain(StatusCode::OK, "ok")),
            ["containerLogs", namespace, pod, container] => {
                match self.target(namespace, pod, container) {
                    Ok(target) => logs::answer(&self.views, &target, &query),
                    Err(refusal) => Err(refusal),
                }
            }
            ["exec", namespace, pod, container] => match self.target(namespace, pod, container) {
                Ok(target) => exec::exec(&target, &query, request.into_body()).await,
                Err(refusal) => Err(refusal),
            },
            ["attach", namespace, pod, container] => match self.target(namespace, pod, container) {
                Ok(target) => exec::attach(&target, &query, request.into_body()).await,
                Err(refusal) => Err(refusal),
            },
            ["portForward", namespace, pod] => match self.pod(namespace, pod) {
                Ok(view) => port_forward::answer(&view, &query, request.into_body()).await,
                Err(refusal) => Err(refusal),
            },
            _ => Err(Refusal::not_found("404 page not found")),
        };
        answered.unwrap_or_else(|refusal| plain(refusal.status, &refusal.text))
    }

    fn pod(&self, namespace: &str, pod: &str) -> Result<PodView, Refusal> {
        let missing = || Refusal::not_found(format!("pod \"{pod}\" does not exist"));
        self.views.find(namespace, pod).ok_or_else(missing)
    }

    fn target(&self, namespace: &str, pod: &str, container: &str) -> Result<Target, Refusal> {
        let view = self.pod(namespace, pod)?;
        if !view.containers.contains_key(container) {
            let text = format!("container \"{container}\" is not found in pod \"{pod}\"");
            return Err(Refusal::not_found(text));
        }
        let (namespace, pod) = (namespace.to_owned(), pod.to_owned());
        Ok(Target { namespace, pod, container: container.to_owned(), view })
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(toono_http::full(text.to_owned()));
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
