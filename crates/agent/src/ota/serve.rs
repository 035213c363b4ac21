//! Where people and programs of this node ask and answer: the requests that OpenYurt's hub knows, on a socket of
//! the data directory that only its owner may open, and by TCP where that was asked for.

use std::{convert::Infallible, fs, io, os::unix::fs::PermissionsExt, time::Duration};

use futures::FutureExt;
use http::{Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, UnixListener},
    time::sleep,
};
use toono_http::{Body, Handler, server};
use toono_wire::upgrade;

use super::{Ota, Refused};
use crate::join::chain;

/// The socket's name in the data directory.
pub const SOCKET: &str = "ota.sock";
/// What is offered, and how far it is: JSON, one [`OfferState`](super::OfferState) a row.
const OFFERS: &str = "/openyurt.io/v1/upgrades";
/// Owner only: who may approve is who may do anything on this machine.
const MODE: u32 = 0o600;
/// Before a listener is tried again.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);
/// A client that says nothing holds its connection no longer than this.
const HEADER_READ: Duration = Duration::from_secs(10);
/// For programs of one machine.
const LIMITS: server::Limits = server::Limits {
    connections: 16,
    handshake: HEADER_READ,
    handshakes: 1,
    header_read: HEADER_READ,
    idle: Duration::from_secs(30),
    http2_streams: 16,
    drain: Duration::from_secs(1),
};

impl Ota {
    /// For as long as the agent lives.
    pub(crate) async fn serve(self) {
        let socket = async {
            loop {
                let error = match self.listen().await {
                    Ok(never) => match never {},
                    Err(error) => error,
                };
                tracing::warn!(error = chain(&error), "upgrades cannot be approved on this node");
                sleep(LISTEN_AGAIN).await;
            }
        };
        tokio::join!(socket, self.serve_tcp());
    }

    async fn listen(&self) -> io::Result<Infallible> {
        let path = self.inner.node.data.join(SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(MODE))?;
        loop {
            let (stream, _) = listener.accept().await?;
            let this = self.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = this.reply(&request);
                async move { Ok::<_, Infallible>(answer) }
            });
            tokio::spawn(async move {
                let served = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_READ)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                if let Err(error) = served {
                    tracing::debug!(%error, "connection ended");
                }
            });
        }
    }

    async fn serve_tcp(&self) {
        let Some(address) = self.inner.listen else { return };
        loop {
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    let this = self.clone();
                    let handler: Handler = std::sync::Arc::new(move |request| {
                        let answer = this.reply(&request);
                        async move { answer }.boxed()
                    });
                    server::serve(listener, None, handler, LIMITS, std::future::pending()).await;
                }
                Err(error) => tracing::warn!(%address, %error, "upgrades cannot be approved there"),
            }
            sleep(LISTEN_AGAIN).await;
        }
    }

    fn reply<B>(&self, request: &Request<B>) -> Response<Body> {
        // A page that somebody looks at on this machine is no one who may approve.
        if request.headers().contains_key(header::ORIGIN) {
            return text(StatusCode::FORBIDDEN, "no requests of web pages are answered here");
        }
        let path = request.uri().path();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match (request.method(), parts.as_slice()) {
            (&Method::GET, ["pods"]) => json(&self.pod_list()),
            (&Method::GET, _) if path == OFFERS => json(&json!(self.states())),
            (&Method::POST, ["openyurt.io", "v1", "namespaces", namespace, "pods", pod, what]) => {
                match *what {
                    "upgrade" => self.approve(namespace, pod),
                    "imagepull" => self.pull_ahead(namespace, pod),
                    _ => not_found(),
                }
            }
            _ => not_found(),
        }
    }

    fn approve(&self, namespace: &str, pod: &str) -> Response<Body> {
        match self.answer(namespace, pod, true) {
            Err(refused) => refusal(&refused),
            Ok(_) if *self.inner.cloud.link().borrow() => {
                text(StatusCode::OK, &format!("Start updating pod {namespace}/{pod}"))
            }
            Ok(_) => text(
                StatusCode::ACCEPTED,
                &format!(
                    "Pod {namespace}/{pod} is approved; the link to the cloud is down, so what needs it \
                     happens when it is back"
                ),
            ),
        }
    }

    fn pull_ahead(&self, namespace: &str, pod: &str) -> Response<Body> {
        match self.answer(namespace, pod, false) {
            Err(refused) => refusal(&refused),
            Ok(_) => {
                text(StatusCode::OK, &format!("Start pulling images of pod {namespace}/{pod}"))
            }
        }
    }

    /// A `v1.PodList`, with the condition that tells whether an upgrade is offered.
    fn pod_list(&self) -> Value {
        let item = |pod: k8s_openapi::api::core::v1::Pod| {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let needed = if super::Offered::of(pod.clone()).is_some() { "True" } else { "False" };
            let mut value = serde_json::to_value(&pod).unwrap_or_default();
            let status = self.outbox().status_of(&uid);
            let status = status.and_then(|text| serde_json::from_str(&text).ok());
            let mut status: Value = status.unwrap_or_else(|| json!({}));
            if let Some(fields) = status.as_object_mut() {
                let conditions = fields.entry("conditions").or_insert_with(|| json!([]));
                if let Some(list) = conditions.as_array_mut() {
                    list.push(json!({"type": upgrade::NEEDED, "status": needed}));
                }
            }
            if let Some(fields) = value.as_object_mut() {
                fields.insert("status".to_owned(), status);
            }
            value
        };
        let items: Vec<Value> = self.pods().into_iter().map(item).collect();
        json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items})
    }
}

fn refusal(refused: &Refused) -> Response<Body> {
    let status = match refused {
        Refused::NoPod { .. } => StatusCode::NOT_FOUND,
        Refused::NotOffered { .. } => StatusCode::FORBIDDEN,
        Refused::Disk(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    text(status, &refused.to_string())
}

fn not_found() -> Response<Body> {
    text(
        StatusCode::NOT_FOUND,
        "there are GET /pods, GET /openyurt.io/v1/upgrades, and \
         POST /openyurt.io/v1/namespaces/NAMESPACE/pods/POD/upgrade or .../imagepull",
    )
}

fn text(status: StatusCode, line: &str) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", format!("{line}\n"))
}

fn json(value: &Value) -> Response<Body> {
    answer(StatusCode::OK, "application/json", value.to_string())
}

fn answer(status: StatusCode, kind: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(toono_http::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}
