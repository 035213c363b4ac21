//! The node's own API, as far as the cloud asks for it through a tunnel: the kubelet's paths.
//!
//! Errors are plain text with a status, as the kubelet's are; the API server passes them on.

mod cadvisor;
mod exec;
mod exposition;
mod frames;
mod logs;
mod metrics;
mod port_forward;
pub(crate) mod query;
mod self_told;
mod summary;

use std::{collections::BTreeMap, sync::Arc};

use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use toono_http::Body;

use crate::{
    stats::{Depth, Measured, Stats},
    views::{PodView, Views},
    worker::Node,
};
use query::Query;

/// What a page of metrics is.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers the requests of tunnels.
#[derive(Debug, Clone)]
pub(crate) struct Kubelet {
    node: Arc<Node>,
    views: Views,
    stats: Stats,
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
    pub(crate) fn new(node: Arc<Node>, stats: Stats) -> Self {
        Self { views: node.views.clone(), node, stats }
    }

    /// Answers one request; a stream goes on in the response's body.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let answered = match parts.as_slice() {
            ["healthz"] => Ok(plain(StatusCode::OK, "ok")),
            ["pods"] => self_told::pods(&self.node).await,
            ["configz"] => Ok(json(&self_told::configuration(&self.node))),
            ["stats", "summary"] => self.summary(&query).await,
            ["toono", "usage"] => self.usage().await,
            ["metrics"] => self.page(Depth::Kernel, metrics::own).await,
            ["metrics", "resource"] => self.page(Depth::Kernel, metrics::resource).await,
            ["metrics", "cadvisor"] => self.page(Depth::Files, cadvisor::page).await,
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

    async fn summary(&self, query: &Query) -> Result<Response<Body>, Refusal> {
        let only_kernel = query.flag(&["only_cpu_and_memory"]);
        let measured = self.measure(if only_kernel { Depth::Kernel } else { Depth::Files }).await?;
        let images = self.node.images.list().unwrap_or_default();
        // Several names of one image are one.
        let sizes: BTreeMap<String, u64> =
            images.iter().map(|it| (it.digest.to_string(), it.size)).collect();
        Ok(json(&summary::render(&measured, sizes.values().sum())))
    }

    /// For the cloud's metrics API: see [`toono_wire::usage`].
    async fn usage(&self) -> Result<Response<Body>, Refusal> {
        let measured = self.measure(Depth::Kernel).await?;
        let told = serde_json::to_value(self_told::usage(&measured));
        told.map(|value| json(&value)).map_err(|error| Refusal::internal(error.to_string()))
    }

    async fn page(
        &self,
        depth: Depth,
        render: fn(&Measured) -> String,
    ) -> Result<Response<Body>, Refusal> {
        let mut response = plain(StatusCode::OK, &render(&self.measure(depth).await?));
        let kind = header::HeaderValue::from_static(METRICS_TYPE);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        Ok(response)
    }

    async fn measure(&self, depth: Depth) -> Result<Measured, Refusal> {
        let failed = || Refusal::internal("the node cannot be measured");
        self.stats.measure(depth).await.ok_or_else(failed)
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

fn json(value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(toono_http::full(value.to_string()));
    let kind = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(toono_http::full(text.to_owned()));
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
