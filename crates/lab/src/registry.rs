//! A read-only image registry: OCI image layouts over plain HTTP, as the OCI distribution specification has
//! it. It owns the requests and the checks of their names; it writes nothing but a line of its log for each request,
//! and knows no image.

use std::convert::Infallible;
use std::io::SeekFrom;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::io::ReaderStream;

/// The most connections at once. A node pulls with a few; a whole lab stays below this.
const CONNECTIONS_MAX: usize = 256;

/// How long a client may take to send a request's header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait when no connection can be accepted, which is when descriptors are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How much of a blob is read at a time.
const CHUNK: usize = 64 * 1024;

/// The largest index of a repository that is read.
const INDEX_MAX: u64 = 1024 * 1024;

/// The header that names what is sent.
const CONTENT_DIGEST: &str = "Docker-Content-Digest";

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Serves the image layouts below `root` (`root/REPOSITORY/index.json`) until it is dropped. With a pace, each
/// answer's body is no more than so many bytes a second, as behind a slow link.
pub async fn serve(listener: TcpListener, root: PathBuf, pace: Option<NonZeroU32>) -> Infallible {
    let root: Arc<Path> = root.into();
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        // The semaphore is never closed, so this always holds a permit.
        let permit = permits.clone().acquire_owned().await.ok();
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the registry cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let root = root.clone();
        connections.spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request| {
                let root = root.clone();
                async move { Ok::<_, Infallible>(respond(&root, pace, peer, &request).await) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection to the registry ended");
            }
        });
    }
}

async fn respond(
    root: &Path,
    pace: Option<NonZeroU32>,
    peer: SocketAddr,
    request: &Request<Incoming>,
) -> Response<Body> {
    let answer = answer(root, pace, request).await;
    let mut response = answer.unwrap_or_else(Refusal::into_response);
    tracing::info!(
        %peer,
        method = %request.method(),
        path = request.uri().path(),
        range = range(request).unwrap_or_default(),
        status = response.status().as_u16(),
        "answered"
    );
    if request.method() == Method::HEAD {
        *response.body_mut() = empty();
    }
    response
}

fn range(request: &Request<Incoming>) -> Option<&str> {
    request.headers().get(RANGE).and_then(|range| range.to_str().ok())
}

async fn answer(
    root: &Path,
    pace: Option<NonZeroU32>,
    request: &Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "UNSUPPORTED",
            "this registry is read-only",
        ));
    }
    match Target::parse(request.uri().path())? {
        Target::Root => {
            let mut response = Response::new(full(b"{}".as_slice()));
            set(&mut response, CONTENT_TYPE.as_str(), "application/json");
            set(&mut response, "Docker-Distribution-API-Version", "registry/2.0");
            Ok(response)
        }
        Target::Manifest { repository, reference } => manifest(root, repository, reference).await,
        Target::Blob { repository, digest } => {
            blob(root, repository, digest, range(request), pace).await
        }
    }
}

async fn manifest(
    root: &Path,
    repository: &str,
    reference: &str,
) -> Result<Response<Body>, Refusal> {
    let unknown = || Refusal::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", reference);
    let index = read_index(root, repository).await?;
    let manifests = index.get("manifests").and_then(Value::as_array).ok_or_else(unknown)?;
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let found = manifests.iter().find(|manifest| {
        let tag =
            manifest.get("annotations").and_then(|a| text(a, "org.opencontainers.image.ref.name"));
        text(manifest, "digest").as_deref() == Some(reference) || tag.as_deref() == Some(reference)
    });
    let found = found.ok_or_else(unknown)?;
    let (digest, media_type) =
        text(found, "digest").zip(text(found, "mediaType")).ok_or_else(unknown)?;
    let path = blob_path(root, repository, &digest).ok_or_else(unknown)?;
    let mut response = file(&path, None, None).await.map_err(|_| unknown())?;
    set(&mut response, CONTENT_TYPE.as_str(), &media_type);
    set(&mut response, CONTENT_DIGEST, &digest);
    Ok(response)
}

async fn blob(
    root: &Path,
    repository: &str,
    digest: &str,
    range: Option<&str>,
    pace: Option<NonZeroU32>,
) -> Result<Response<Body>, Refusal> {
    let unknown = || Refusal::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", digest);
    let path = blob_path(root, repository, digest).ok_or_else(unknown)?;
    let mut response = file(&path, range, pace).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidInput => Refusal::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "BLOB_UPLOAD_INVALID",
            range.unwrap_or_default(),
        ),
        _ => unknown(),
    })?;
    set(&mut response, CONTENT_TYPE.as_str(), "application/octet-stream");
    set(&mut response, CONTENT_DIGEST, digest);
    set(&mut response, ACCEPT_RANGES.as_str(), "bytes");
    Ok(response)
}

async fn read_index(root: &Path, repository: &str) -> Result<Value, Refusal> {
    let unknown = || Refusal::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", repository);
    let file = File::open(root.join(repository).join("index.json")).await.map_err(|_| unknown())?;
    let mut bytes = Vec::new();
    file.take(INDEX_MAX).read_to_end(&mut bytes).await.map_err(|_| unknown())?;
    serde_json::from_slice(&bytes).map_err(|_| unknown())
}

/// The file, or the part of it that is asked for. A range that is out of it is invalid input.
async fn file(
    path: &Path,
    range: Option<&str>,
    pace: Option<NonZeroU32>,
) -> std::io::Result<Response<Body>> {
    let mut file = File::open(path).await?;
    let size = file.metadata().await?.len();
    let part = range.and_then(|range| parse_range(range, size));
    let (first, length) = match part {
        None => (0, size),
        Some(Some(part)) => part,
        Some(None) => return Err(std::io::ErrorKind::InvalidInput.into()),
    };
    file.seek(SeekFrom::Start(first)).await?;
    let stream = ReaderStream::with_capacity(file.take(length), CHUNK);
    let stream = stream.and_then(move |chunk| paced(chunk, pace)).map_ok(Frame::data);
    let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
    set(&mut response, CONTENT_LENGTH.as_str(), &length.to_string());
    if part.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let last = (first + length).saturating_sub(1);
        set(&mut response, CONTENT_RANGE.as_str(), &format!("bytes {first}-{last}/{size}"));
    }
    Ok(response)
}

/// The chunk, when it is its time.
async fn paced(chunk: Bytes, pace: Option<NonZeroU32>) -> std::io::Result<Bytes> {
    if let (Some(pace), Ok(length)) = (pace, u32::try_from(chunk.len())) {
        tokio::time::sleep(Duration::from_secs(1) * length / pace.get()).await;
    }
    Ok(chunk)
}

/// The start and the length of a single range. The outer `None` is a header to ignore (RFC 9110, section
/// 14.2), the inner one a range with nothing in it.
fn parse_range(range: &str, size: u64) -> Option<Option<(u64, u64)>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        let length = last.parse::<u64>().ok()?.min(size);
        return Some((length > 0).then(|| (size - length, length)));
    }
    let first = first.parse::<u64>().ok()?;
    let last = if last.is_empty() { u64::MAX } else { last.parse().ok()? };
    if last < first {
        return None;
    }
    let end = last.saturating_add(1).min(size);
    Some(end.checked_sub(first).filter(|length| *length > 0).map(|length| (first, length)))
}

/// What a path asks for, its names checked.
#[derive(Debug, PartialEq, Eq)]
enum Target<'a> {
    Root,
    Manifest { repository: &'a str, reference: &'a str },
    Blob { repository: &'a str, digest: &'a str },
}

impl<'a> Target<'a> {
    fn parse(path: &'a str) -> Result<Self, Refusal> {
        let unknown = || Refusal::new(StatusCode::NOT_FOUND, "NAME_INVALID", path);
        let rest = path.strip_prefix("/v2").ok_or_else(unknown)?;
        if matches!(rest, "" | "/") {
            return Ok(Self::Root);
        }
        let rest = rest.strip_prefix('/').ok_or_else(unknown)?;
        let (rest, last) = rest.rsplit_once('/').ok_or_else(unknown)?;
        let (repository, kind) = rest.rsplit_once('/').ok_or_else(unknown)?;
        match kind {
            _ if !is_repository(repository) => Err(unknown()),
            "manifests" if is_tag(last) || is_digest(last) => {
                Ok(Self::Manifest { repository, reference: last })
            }
            "blobs" if is_digest(last) => Ok(Self::Blob { repository, digest: last }),
            _ => Err(unknown()),
        }
    }
}

/// Lower-case words with single separators, joined by slashes: never a path that leads elsewhere.
fn is_repository(name: &str) -> bool {
    let word =
        |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.len() <= 255
        && name.split('/').all(|part| {
            let bytes = part.as_bytes();
            let plain = bytes.iter().all(|b| word(Some(b)) || matches!(b, b'.' | b'_' | b'-'));
            plain && word(bytes.first()) && word(bytes.last()) && !part.contains("..")
        })
}

fn is_tag(tag: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (1..=128).contains(&tag.len()) && tag.bytes().all(plain) && !tag.starts_with(['.', '-'])
}

fn is_digest(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
    })
}

fn blob_path(root: &Path, repository: &str, digest: &str) -> Option<PathBuf> {
    let name = digest.strip_prefix("sha256:").filter(|_| is_digest(digest))?;
    Some(root.join(repository).join("blobs/sha256").join(name))
}

/// A refusal in the specification's form.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    status: StatusCode,
    code: &'static str,
    detail: String,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, detail: &str) -> Self {
        Self { status, code, detail: detail.to_owned() }
    }

    fn into_response(self) -> Response<Body> {
        let body = json!({"errors": [{"code": self.code, "message": self.detail}]});
        let mut response = Response::new(full(body.to_string()));
        *response.status_mut() = self.status;
        set(&mut response, CONTENT_TYPE.as_str(), "application/json");
        response
    }
}

fn set(response: &mut Response<Body>, name: &'static str, value: &str) {
    // Names are ours and values were checked or made here; one that HTTP forbids is left out.
    if let (Ok(name), Ok(value)) =
        (http::HeaderName::try_from(name), http::HeaderValue::try_from(value))
    {
        response.headers_mut().insert(name, value);
    }
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

fn empty() -> Body {
    http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_ask_for_what_they_say() {
        let digest = format!("sha256:{}", "0f".repeat(32));
        assert_eq!(Target::parse("/v2/"), Ok(Target::Root));
        assert_eq!(
            Target::parse("/v2/toono/busybox/manifests/1.0"),
            Ok(Target::Manifest { repository: "toono/busybox", reference: "1.0" })
        );
        let path = format!("/v2/toono/busybox/blobs/{digest}");
        assert_eq!(
            Target::parse(&path),
            Ok(Target::Blob { repository: "toono/busybox", digest: &digest })
        );
        for bad in [
            "/",
            "/v1/",
            "/v2x",
            "/v2/a",
            "/v2/manifests/1",
            "/v2/../etc/manifests/1",
            "/v2/a/../b/manifests/1",
            "/v2/A/manifests/1",
            "/v2/a/blobs/1",
            "/v2/a/blobs/sha256:../../x",
            "/v2/a/manifests/..",
            "/v2/a/tags/list",
            "/v2//manifests/1",
            "/v2/a%2fb/manifests/1",
        ] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges() {
        for (range, part) in [
            ("bytes=0-", Some(Some((0, 10)))),
            ("bytes=4-", Some(Some((4, 6)))),
            ("bytes=4-5", Some(Some((4, 2)))),
            ("bytes=4-99", Some(Some((4, 6)))),
            ("bytes=-3", Some(Some((7, 3)))),
            ("bytes=-99", Some(Some((0, 10)))),
            ("bytes=10-", Some(None)),
            ("bytes=-0", Some(None)),
            ("bytes=5-4", None),
            ("bytes=0-1,3-4", None),
            ("lines=1-2", None),
            ("bytes=", None),
        ] {
            assert_eq!(parse_range(range, 10), part, "{range}");
        }
    }
}
