//! `proxy` of pods, services and nodes: HTTP to what runs at the edge, through the node's link.
//!
//! It re-writes heads as a proxy must and passes bodies on unread. It dials no address: a Service is
//! reached at a pod behind it, a node through its own API.
//!
//! <https://kubernetes.io/docs/tasks/access-application-cluster/access-cluster-services/>

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt;
use toono_api::{
    ApiError,
    meta::{at, items_at},
};
use toono_http::{
    Body, BoxError,
    client::{Connection, Endpoint},
};

use super::{dial, node};
use crate::{ApiServer, respond, server::key, service_target};

/// Headers that concern one connection only (RFC 9110, section 7.6.1), and the credentials that are
/// for this server alone.
const NOT_PASSED_ON: [header::HeaderName; 9] = [
    header::AUTHORIZATION,
    header::CONNECTION,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Where a path below `proxy` leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Target<'a> {
    kind: Kind,
    /// Empty for nodes.
    namespace: &'a str,
    /// `http`, `https`, or empty.
    scheme: &'a str,
    name: &'a str,
    /// A number, for services also a name; empty where none is given.
    port: &'a str,
    /// The request's path up to `proxy`.
    prefix: &'a str,
    /// The path after that; empty or beginning with a slash.
    rest: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pod,
    Service,
    Node,
}

impl<'a> Target<'a> {
    fn parse(path: &'a str) -> Option<Self> {
        let rest = path.strip_prefix("/api/v1/")?;
        let segments: Vec<&str> = rest.splitn(6, '/').collect();
        let (kind, namespace, name) = match *segments.as_slice() {
            ["namespaces", namespace, "pods", name, "proxy", ..] => (Kind::Pod, namespace, name),
            ["namespaces", namespace, "services", name, "proxy", ..] => {
                (Kind::Service, namespace, name)
            }
            ["nodes", name, "proxy", ..] => (Kind::Node, "", name),
            _ => return None,
        };
        let end = path.find(&format!("/{name}/proxy"))? + name.len() + "//proxy".len();
        let (prefix, rest) = path.split_at_checked(end)?;
        let parts: Vec<&str> = name.split(':').collect();
        let (scheme, name, port) = match *parts.as_slice() {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        Some(Self { kind, namespace, scheme, name, port, prefix, rest })
    }
}

/// Whether [`handle`] answers this path.
pub(crate) fn handles(path: &str) -> bool {
    Target::parse(path).is_some()
}

/// Answers a request for which [`handles`] is true, of a user who may make it.
///
/// # Errors
/// When the target does not exist or cannot be reached.
pub(crate) async fn handle(
    server: &ApiServer,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let path = request.uri().path().to_owned();
    let target = Target::parse(&path).ok_or(ApiError::UnknownPath)?;
    if target.rest.is_empty() && request.method() == http::Method::GET && !upgrades(&request) {
        return Ok(redirect(&request, target));
    }
    if target.kind == Kind::Node {
        return to_node(server, request, target).await;
    }
    let (pod, port) = destination(server, target)?;
    let stream = dial::dial(&server.inner.remote, target.namespace, &pod, port).await?;
    let tls = match target.scheme {
        "" | "http" => None,
        "https" => Some(toono_pki::client_config_unverified().map_err(unavailable)?),
        other => return Err(ApiError::BadRequest(format!("unknown scheme {other:?}"))),
    };
    let endpoint = Endpoint { tls: tls.is_some(), host: target.name.to_owned(), port };
    let mut connection =
        Connection::over(stream, &endpoint, tls.as_ref()).await.map_err(unavailable)?;
    let mut request = request;
    let upgrade = upgrades(&request).then(|| hyper::upgrade::on(&mut request));
    let forwarded = forwarded(request, target)?;
    let mut response = connection.send(forwarded).await.map_err(unavailable)?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let theirs = hyper::upgrade::on(&mut response);
        let answer = Response::from_parts(response.into_parts().0, toono_http::empty());
        if let Some(ours) = upgrade {
            tokio::spawn(splice(ours, theirs, connection));
        }
        return Ok(answer);
    }
    let response = response.map(|body| body.map_err(BoxError::from).boxed_unsync());
    Ok(respond::keeping(returned(response, target.prefix), Alive { _connection: connection }))
}

/// Keeps the connection open as long as the response's body is read.
struct Alive {
    _connection: Connection,
}

fn upgrades(request: &Request<Body>) -> bool {
    request.headers().contains_key(header::UPGRADE)
}

/// Relative links of a page need the slash.
fn redirect(request: &Request<Body>, target: Target<'_>) -> Response<Body> {
    let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
    let mut response = Response::new(toono_http::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::from_str(&format!("{}/{query}", target.prefix)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// The pod and port that a path means.
fn destination(server: &ApiServer, target: Target<'_>) -> Result<(String, u16), ApiError> {
    let Target { kind, namespace, name, port, .. } = target;
    if kind == Kind::Service {
        let found = service_target::of(server, namespace, name, port)?;
        return Ok((found.pod, found.port));
    }
    if !port.is_empty() {
        let number = port.parse().map_err(|_| {
            ApiError::BadRequest(format!(
                "invalid pod request {name:?}: port {port:?} is no number"
            ))
        })?;
        return Ok((name.to_owned(), number));
    }
    let pods = server.built_in(&toono_api::kinds::pod::POD);
    let entry = server.existing(&pods, namespace, name)?;
    let pod = crate::encode::decode(&pods, &entry)?;
    let declared = items_at(&pod, &["spec", "containers"])
        .flat_map(|container| items_at(container, &["ports"]))
        .find_map(|port| u16::try_from(at(port, &["containerPort"])?.as_u64()?).ok());
    let usual = if target.scheme == "https" { 443 } else { 80 };
    Ok((name.to_owned(), declared.unwrap_or(usual)))
}

/// The node's own API has the paths of a kubelet.
async fn to_node(
    server: &ApiServer,
    request: Request<Body>,
    target: Target<'_>,
) -> Result<Response<Body>, ApiError> {
    let nodes = server.built_in(&toono_api::kinds::core::NODE);
    let key = key(&nodes, "", target.name);
    if server.current(&key)?.is_none() {
        return Err(ApiError::NotFound {
            resource: nodes.group_resource(),
            name: target.name.to_owned(),
        });
    }
    let forwarded = forwarded(request, target)?;
    let (parts, body) = forwarded.into_parts();
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let mut asked = node::request(parts.method, target.name, path, body)?;
    *asked.headers_mut() = parts.headers;
    let link = server.inner.remote.link.send(target.name, asked);
    let response = link.await.map_err(|error| ApiError::from(&error))?;
    Ok(returned(response, target.prefix))
}

/// The request as the target gets it.
fn forwarded(request: Request<Body>, target: Target<'_>) -> Result<Request<Body>, ApiError> {
    let (mut parts, body) = request.into_parts();
    let path = if target.rest.is_empty() { "/" } else { target.rest };
    let query = parts.uri.query().map_or_else(String::new, |query| format!("?{query}"));
    parts.uri = format!("{path}{query}")
        .parse::<Uri>()
        .map_err(|error| ApiError::BadRequest(format!("the path is too odd: {error}")))?;
    let upgrade = parts.headers.get(header::UPGRADE).cloned();
    strip(&mut parts.headers);
    parts.headers.remove("impersonate-user");
    if let Some(protocol) = upgrade {
        parts.headers.insert(header::UPGRADE, protocol);
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    parts.extensions = http::Extensions::new();
    parts.version = http::Version::HTTP_11;
    Ok(Request::from_parts(parts, body))
}

/// The response as the client gets it.
fn returned(mut response: Response<Body>, prefix: &str) -> Response<Body> {
    strip(response.headers_mut());
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let absolute = location.filter(|location| location.starts_with('/'));
    if let Some(location) = absolute
        && !location.starts_with(prefix)
        && let Ok(moved) = HeaderValue::from_str(&format!("{prefix}{location}"))
    {
        response.headers_mut().insert(header::LOCATION, moved);
    }
    response
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    for name in named {
        headers.remove(&name);
    }
    for name in NOT_PASSED_ON {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

/// Copies both ways until either ends.
async fn splice(
    ours: hyper::upgrade::OnUpgrade,
    theirs: hyper::upgrade::OnUpgrade,
    _connection: Connection,
) {
    use hyper_util::rt::TokioIo;
    match futures::try_join!(ours, theirs) {
        Ok((ours, theirs)) => {
            let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
            if let Err(error) = tokio::io::copy_bidirectional(&mut ours, &mut theirs).await {
                tracing::debug!(%error, "a proxied connection broke");
            }
        }
        Err(error) => tracing::debug!(%error, "a proxied connection was not upgraded"),
    }
}

fn unavailable(error: impl std::error::Error) -> ApiError {
    let cause = error.source().map_or_else(String::new, |source| format!(": {source}"));
    ApiError::Unavailable(format!("error trying to reach service: {error}{cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_pods_services_and_nodes() {
        let parsed = |path| {
            let t = Target::parse(path)?;
            Some((t.kind, t.namespace, t.scheme, t.name, t.port, t.prefix, t.rest))
        };
        let pod = "/api/v1/namespaces/shop/pods/https:till:8443/proxy";
        assert_eq!(
            parsed("/api/v1/namespaces/shop/pods/https:till:8443/proxy/a/b"),
            Some((Kind::Pod, "shop", "https", "till", "8443", pod, "/a/b"))
        );
        let service = "/api/v1/namespaces/shop/services/till:http/proxy";
        assert_eq!(
            parsed("/api/v1/namespaces/shop/services/till:http/proxy/"),
            Some((Kind::Service, "shop", "", "till", "http", service, "/"))
        );
        let node = "/api/v1/nodes/proxy/proxy";
        assert_eq!(
            parsed("/api/v1/nodes/proxy/proxy/stats/summary"),
            Some((Kind::Node, "", "", "proxy", "", node, "/stats/summary"))
        );
        let bare = "/api/v1/namespaces/proxy/pods/proxy/proxy";
        assert_eq!(parsed(bare), Some((Kind::Pod, "proxy", "", "proxy", "", bare, "")));
        for other in [
            "/api/v1/namespaces/shop/pods/till",
            "/api/v1/namespaces/shop/pods/till/log",
            "/api/v1/namespaces/shop/configmaps/a/proxy",
            "/api/v1/nodes/a",
        ] {
            assert_eq!(parsed(other), None, "{other}");
        }
    }

    #[test]
    fn credentials_and_what_concerns_one_connection_stay_here() {
        let request = Request::get("/api/v1/namespaces/a/pods/b/proxy/x?y=1")
            .header("authorization", "Bearer secret")
            .header("connection", "keep-alive, x-mine")
            .header("x-mine", "1")
            .header("accept", "text/html")
            .body(toono_http::empty())
            .unwrap();
        let path = request.uri().path().to_owned();
        let request = forwarded(request, Target::parse(&path).unwrap()).unwrap();
        assert_eq!(request.uri(), "/x?y=1");
        let names: Vec<_> = request.headers().keys().map(header::HeaderName::as_str).collect();
        assert_eq!(names, ["accept"]);
        let mut response = Response::new(toono_http::empty());
        response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/login"));
        let response = returned(response, "/api/v1/namespaces/a/pods/b/proxy");
        assert_eq!(response.headers()[header::LOCATION], "/api/v1/namespaces/a/pods/b/proxy/login");
    }
}
