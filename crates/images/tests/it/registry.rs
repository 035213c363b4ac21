//! A registry that the tests serve over HTTP: what is put into it, and what goes wrong on purpose.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::StreamExt;
use http::{Request, Response, StatusCode, header};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use toono_http::Body;
use toono_images::{ImageRef, ImageStore, RegistryConfig};

/// The host that the tests' images name; it is only ever reached through a configured endpoint.
pub const HOST: &str = "images.test";

#[derive(Default)]
pub struct State {
    content: Mutex<BTreeMap<String, Bytes>>,
    /// Requests for blobs.
    pub blob_requests: AtomicUsize,
    /// End a blob's transfer after so many bytes; 0 is never.
    pub cut_after: AtomicUsize,
    /// Ask for a token.
    pub wants_token: AtomicBool,
    /// Give tokens only to the user `u` with the password `p`.
    pub wants_user: AtomicBool,
    /// Tokens that were given; only the newest is good, and after so many requests none.
    pub tokens: AtomicUsize,
    /// How many requests a token is good for; 0 is any number.
    pub token_uses: AtomicUsize,
    pub uses: AtomicUsize,
    /// Send blob requests elsewhere.
    pub redirects: AtomicBool,
}

pub struct Registry {
    pub state: Arc<State>,
    pub address: SocketAddr,
}

/// An image to be: one tar archive per layer.
pub struct Contents {
    pub layers: Vec<Vec<u8>>,
    pub compressed: bool,
    pub architecture: String,
}

impl Registry {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = state.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = shared.clone();
                tokio::spawn(async move {
                    let answer = service_fn(move |request| {
                        let response = answer(&state, address, &request);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    // A cut transfer is an error here and is meant to be.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), answer)
                        .await;
                });
            }
        });
        Self { state, address }
    }

    pub fn store(&self, dir: &std::path::Path) -> ImageStore {
        let mut registries = RegistryConfig::default();
        registries.add(&format!("{HOST}=http://{}", self.address)).unwrap();
        ImageStore::open(dir, registries).unwrap()
    }

    /// Puts an image in; returns the digest of its manifest.
    pub fn push(&self, name: &str, contents: &Contents) -> String {
        let mut layers = vec![];
        let mut diff_ids = vec![];
        for archive in &contents.layers {
            diff_ids.push(digest_of(archive));
            let blob = if contents.compressed { gzip(archive) } else { archive.clone() };
            layers.push(self.descriptor(name, blob, "application/vnd.oci.image.layer.v1.tar"));
        }
        let config = json!({
            "architecture": contents.architecture, "os": "linux",
            "config": { "Entrypoint": ["/bin/hello"], "Cmd": null, "Env": ["A=b"],
                "WorkingDir": "/srv", "User": "app" },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = serde_json::to_vec(&config).unwrap();
        let config = self.descriptor(name, config, "application/vnd.oci.image.config.v1+json");
        self.push_manifest(
            name,
            "latest",
            &json!({
                "schemaVersion": 2, "config": config, "layers": layers,
            }),
        )
    }

    pub fn push_manifest(&self, name: &str, tag: &str, manifest: &Value) -> String {
        let bytes = Bytes::from(serde_json::to_vec(manifest).unwrap());
        let digest = digest_of(&bytes);
        for reference in [tag, &digest] {
            self.put(&format!("/v2/{name}/manifests/{reference}"), bytes.clone());
        }
        digest
    }

    /// Replaces what is at an address, whatever its digest.
    pub fn put(&self, path: &str, bytes: Bytes) {
        self.state.content.lock().unwrap().insert(path.to_owned(), bytes);
    }

    pub fn take(&self, path: &str) -> Bytes {
        self.state.content.lock().unwrap().get(path).unwrap().clone()
    }

    pub fn manifest(&self, name: &str) -> Value {
        serde_json::from_slice(&self.take(&format!("/v2/{name}/manifests/latest"))).unwrap()
    }

    pub fn blobs(&self) -> Vec<String> {
        let content = self.state.content.lock().unwrap();
        content.keys().filter(|path| path.contains("/blobs/")).cloned().collect()
    }

    fn descriptor(&self, name: &str, blob: Vec<u8>, media_type: &str) -> Value {
        let (digest, size) = (digest_of(&blob), blob.len());
        self.put(&format!("/v2/{name}/blobs/{digest}"), blob.into());
        json!({ "mediaType": media_type, "digest": digest, "size": size })
    }
}

impl Contents {
    pub fn of(layers: Vec<Vec<u8>>) -> Self {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        Self { layers, compressed: true, architecture: architecture.to_owned() }
    }
}

pub fn image(name: &str) -> ImageRef {
    format!("{HOST}/{name}").parse().unwrap()
}

pub fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(digest(&SHA256, bytes)))
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = GzEncoder::new(vec![], Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn answer<B>(state: &State, address: SocketAddr, request: &Request<B>) -> Response<Body> {
    let path = request.uri().path();
    if path == "/token" {
        assert_eq!(request.uri().query(), Some("scope=repository:secret:pull&service=test"));
        let shown = request.headers().get(header::AUTHORIZATION);
        let wants_user = state.wants_user.load(Ordering::Relaxed);
        if wants_user && shown.is_none_or(|shown| shown != "Basic dTpw") {
            return refusal("Basic realm=\"tokens\"".to_owned());
        }
        let number = state.tokens.fetch_add(1, Ordering::Relaxed) + 1;
        state.uses.store(0, Ordering::Relaxed);
        return Response::new(toono_http::full(format!(r#"{{"token":"sesame {number}"}}"#)));
    }
    let token = request.headers().get(header::AUTHORIZATION);
    if state.wants_token.load(Ordering::Relaxed) && !state.lets_in(token) {
        let challenge = format!(r#"Bearer realm="http://{address}/token",service="test""#);
        return refusal(challenge);
    }
    if path.contains("/blobs/") {
        state.blob_requests.fetch_add(1, Ordering::Relaxed);
        if state.redirects.load(Ordering::Relaxed) && !path.starts_with("/storage") {
            return Response::builder()
                .status(StatusCode::TEMPORARY_REDIRECT)
                .header(header::LOCATION, format!("http://{address}/storage{path}"))
                .body(toono_http::empty())
                .unwrap();
        }
    }
    let (path, is_storage) = match path.strip_prefix("/storage") {
        Some(path) => (path, true),
        None => (path, false),
    };
    assert!(!is_storage || token.is_none(), "the token went to another host");
    let Some(bytes) = state.content.lock().unwrap().get(path).cloned() else {
        let mut response = Response::new(toono_http::full(r#"{"errors":[]}"#));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    if path.contains("/blobs/") { blob(state, request, bytes) } else { whole(bytes) }
}

impl State {
    fn lets_in(&self, token: Option<&header::HeaderValue>) -> bool {
        let newest = format!("Bearer sesame {}", self.tokens.load(Ordering::Relaxed));
        let limit = self.token_uses.load(Ordering::Relaxed);
        let used = self.uses.fetch_add(1, Ordering::Relaxed);
        token.is_some_and(|token| *token == newest) && (limit == 0 || used < limit)
    }
}

fn refusal(challenge: String) -> Response<Body> {
    Response::builder()
        .status(StatusCode::UNAUTHORIZED)
        .header(header::WWW_AUTHENTICATE, challenge)
        .body(toono_http::full("who are you?"))
        .unwrap()
}

fn whole(bytes: Bytes) -> Response<Body> {
    Response::new(toono_http::full(bytes))
}

/// A blob from the offset asked for on; cut off where the test wants it.
fn blob<B>(state: &State, request: &Request<B>, bytes: Bytes) -> Response<Body> {
    let range = request.headers().get(header::RANGE).map(|range| range.to_str().unwrap());
    let offset = range.map(|range| {
        range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse::<usize>().unwrap()
    });
    let rest = bytes.slice(offset.unwrap_or(0)..);
    let status = if offset.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let response = Response::builder().status(status).header(header::CONTENT_LENGTH, rest.len());
    let cut = state.cut_after.load(Ordering::Relaxed);
    if cut == 0 || rest.len() <= cut {
        return response.body(toono_http::full(rest)).unwrap();
    }
    let chunks: [Result<Bytes, std::io::Error>; 2] =
        [Ok(rest.slice(..cut)), Err(std::io::ErrorKind::ConnectionReset.into())];
    let chunks = futures::stream::iter(chunks).then(|chunk| async {
        if chunk.is_err() {
            // What came before is flushed when the body makes the connection wait.
            tokio::task::yield_now().await;
        }
        chunk
    });
    response.body(toono_http::stream(chunks)).unwrap()
}
