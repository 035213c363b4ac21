//! Into running containers: `log`, `exec`, `attach` and `portforward` of pods.
//!
//! This owns the way from a client's HTTP request to the node's stream and back. It re-frames
//! bytes and never interprets what a container reads or writes. It dials nobody: a node is reached
//! through [`NodeLink`] only. Who may ask is decided before [`handle`] is called.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use toono_api::{ApiError, GroupResource, UserInfo};
use toono_http::Body;

mod command;
pub(crate) mod dial;
mod forward;
mod link;
mod log;
mod node;
mod pod;
pub(crate) mod proxy;
mod pump;
mod query;
mod upgrade;

pub use link::{LinkError, NodeLink};
pub(crate) use node::request as node_request;
pub use node::{MAX_NODE_ERROR, NODE_ANSWER_TIMEOUT, UPLINK_QUEUE};
pub use pump::{
    DOWNLINK_QUEUE, IDLE_TIMEOUT, LINGER, OUTPUT_HIGH_WATER, READ_CHUNK, STREAMS_TIMEOUT,
};

/// Finds a pod by namespace and name and returns it as JSON, as it is now.
pub type PodLookup = Arc<dyn Fn(&str, &str) -> Option<Bytes> + Send + Sync>;

/// What [`handle`] needs besides the request.
#[derive(Clone)]
pub struct Context {
    /// The pods.
    pub pods: PodLookup,
    /// The nodes.
    pub link: Arc<dyn NodeLink>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

/// What a client may ask of a running pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subresource {
    Log,
    Exec,
    Attach,
    PortForward,
}

/// The pod and subresource that a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Target<'a> {
    namespace: &'a str,
    pod: &'a str,
    subresource: Subresource,
}

impl<'a> Target<'a> {
    fn parse(path: &'a str) -> Option<Self> {
        let rest = path.strip_prefix("/api/v1/namespaces/")?;
        let mut segments = rest.split('/');
        let (namespace, pods, pod) = (segments.next()?, segments.next()?, segments.next()?);
        let subresource = match segments.next()? {
            "log" => Subresource::Log,
            "exec" => Subresource::Exec,
            "attach" => Subresource::Attach,
            "portforward" => Subresource::PortForward,
            _ => return None,
        };
        let whole = segments.next().is_none() && pods == "pods";
        whole.then_some(Self { namespace, pod, subresource })
    }
}

/// Whether [`handle`] answers this path: `/api/v1/namespaces/NS/pods/POD/` and one of `log`,
/// `exec`, `attach`, `portforward`.
#[must_use]
pub fn handles(path: &str) -> bool {
    Target::parse(path).is_some()
}

/// Answers a request for which [`handles`] is true, of a user who may make it.
///
/// An exec, attach or portforward goes on after the `101` response, in a task of its own that ends
/// with the client's connection. The request must still carry hyper's upgrade extension.
pub async fn handle(context: &Context, request: Request<Body>, user: &UserInfo) -> Response<Body> {
    match respond(context, request, user).await {
        Ok(response) => response,
        Err(error) => refuse(&error),
    }
}

async fn respond(
    context: &Context,
    mut request: Request<Body>,
    user: &UserInfo,
) -> Result<Response<Body>, ApiError> {
    let uri = request.uri().clone();
    let target = Target::parse(uri.path()).ok_or(ApiError::UnknownPath)?;
    let allowed = match target.subresource {
        Subresource::Log => request.method() == Method::GET,
        _ => request.method() == Method::GET || request.method() == Method::POST,
    };
    if !allowed {
        return Err(ApiError::MethodNotAllowed);
    }
    let query = query::Query::parse(uri.query().unwrap_or_default());
    let found = (context.pods)(target.namespace, target.pod).ok_or_else(|| ApiError::NotFound {
        resource: GroupResource { group: String::new(), resource: "pods".to_owned() },
        name: target.pod.to_owned(),
    })?;
    let pod = pod::Pod::parse(&found)?;
    tracing::debug!(user = %user.name, path = uri.path(), node = pod.node(), "into a pod");
    match target.subresource {
        Subresource::Log => log::respond(context, target, &pod, &query).await,
        Subresource::Exec | Subresource::Attach => {
            command::respond(context, &mut request, target, &pod, &query).await
        }
        Subresource::PortForward => forward::respond(context, &mut request, target, &pod),
    }
}

/// A `metav1.Status` as response.
fn refuse(error: &ApiError) -> Response<Body> {
    let mut response = Response::new(toono_http::full(error.to_status().to_string()));
    *response.status_mut() =
        StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    if let ApiError::TooManyRequests { retry_after_seconds, .. } = error {
        response.headers_mut().insert(header::RETRY_AFTER, (*retry_after_seconds).into());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_four_subresources_are_handled() {
        for path in [
            "/api/v1/namespaces/default/pods/web/log",
            "/api/v1/namespaces/default/pods/web/exec",
            "/api/v1/namespaces/default/pods/web/attach",
            "/api/v1/namespaces/default/pods/web/portforward",
        ] {
            assert!(handles(path), "{path}");
        }
        for path in [
            "/api/v1/namespaces/default/pods/web",
            "/api/v1/namespaces/default/pods/web/status",
            "/api/v1/namespaces/default/pods/web/log/more",
            "/api/v1/namespaces/default/services/web/log",
            "/apis/apps/v1/namespaces/default/pods/web/log",
        ] {
            assert!(!handles(path), "{path}");
        }
    }
}
