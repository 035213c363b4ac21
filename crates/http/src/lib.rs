//! HTTP over TCP and TLS: the accept loop, client connections, body types and their limits.
//!
//! It knows no path and no resource. TLS settings come from outside as `rustls` configs.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use rustls_pki_types::CertificateDer;

mod activity;
pub mod client;
pub mod http2;
pub mod server;

/// Any error that a body may end with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of every request and response that crosses a crate boundary.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
/// Answers requests. It cannot fail: an error is a response.
pub type Handler =
    Arc<dyn Fn(http::Request<Body>) -> BoxFuture<'static, http::Response<Body>> + Send + Sync>;

/// The peer's address, in a request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteAddr(pub SocketAddr);

/// The verified certificate chain that the peer showed (leaf first), in a request's extensions.
#[derive(Debug, Clone)]
pub struct PeerCertificates(pub Arc<[CertificateDer<'static>]>);

/// A body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body of no bytes.
#[must_use]
pub fn empty() -> Body {
    http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body of the chunks that a stream yields.
pub fn stream<S, E>(chunks: S) -> Body
where
    S: futures::Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
{
    use futures::StreamExt;
    http_body_util::StreamBody::new(
        chunks.map(|chunk| chunk.map(http_body::Frame::data).map_err(Into::into)),
    )
    .boxed_unsync()
}
