//! The cloud side: the handler under test behind plain HTTP, and the few documents that `kubectl`
//! asks for before it opens a stream.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use toono_api::UserInfo;
use toono_apiserver::remote::{Context, NodeLink, handle, handles};
use toono_http::Body;

/// A listening server. It ends when dropped.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    /// The `Upgrade` header of each request that had one.
    pub(crate) upgrades: Arc<Mutex<Vec<String>>>,
    /// Where its clients keep their caches.
    pub(crate) home: TempDir,
    accepting: JoinHandle<()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Site {
    /// Serves the pods `web` (bound to node `edge-1`) and `pending` (bound nowhere).
    pub(crate) async fn start(link: impl NodeLink) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let context = Arc::new(Context { pods: Arc::new(pod_bytes), link: Arc::new(link) });
        let upgrades = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&upgrades);
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (context, seen) = (Arc::clone(&context), Arc::clone(&seen));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (context, seen) = (Arc::clone(&context), Arc::clone(&seen));
                    async move { Ok::<_, Infallible>(answer(&context, &seen, request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                tokio::spawn(connection);
            }
        });
        Self { address, upgrades, home: tempfile::tempdir().unwrap(), accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn answer(
    context: &Context,
    seen: &Mutex<Vec<String>>,
    request: Request<Incoming>,
) -> Response<Body> {
    if let Some(upgrade) = request.headers().get("upgrade") {
        seen.lock().unwrap().push(upgrade.to_str().unwrap().to_owned());
    }
    let path = request.uri().path().to_owned();
    if handles(&path) {
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        return handle(context, request, &UserInfo::new("kubernetes-admin", ["system:masters"]))
            .await;
    }
    let (status, document) = document(&path);
    let mut response = Response::new(toono_http::full(document.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}

fn document(path: &str) -> (StatusCode, Value) {
    let found = match path {
        "/version" => json!({"major": "1", "minor": "35", "gitVersion": "v1.35.0+toono"}),
        "/api" => json!({"kind": "APIVersions", "versions": ["v1"]}),
        "/apis" => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}),
        "/api/v1" => json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [
            {"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod",
             "shortNames": ["po"], "verbs": ["get", "list"]},
        ]}),
        _ => {
            let name = path.strip_prefix("/api/v1/namespaces/default/pods/");
            match name.and_then(pod) {
                Some(pod) => pod,
                None => {
                    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                        "reason": "NotFound", "code": 404, "message": format!("{path} not found")});
                    return (StatusCode::NOT_FOUND, status);
                }
            }
        }
    };
    (StatusCode::OK, found)
}

fn pod_bytes(namespace: &str, name: &str) -> Option<Bytes> {
    let found = pod(name).filter(|_| namespace == "default")?;
    Some(found.to_string().into())
}

fn pod(name: &str) -> Option<Value> {
    let (phase, node) = match name {
        "web" => ("Running", "edge-1"),
        "pending" => ("Pending", ""),
        _ => return None,
    };
    Some(json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "default", "uid": "5f4f9f2e-0000-4000-8000-000000000001",
            "annotations": {"kubectl.kubernetes.io/default-container": "app"}},
        "spec": {"nodeName": node, "containers": [
            {"name": "app", "image": "x", "ports": [{"containerPort": 80}]},
            {"name": "side", "image": "x"}]},
        "status": {"phase": phase},
    }))
}
