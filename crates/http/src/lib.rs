//! HTTP over TCP and TLS: the accept loop, client connections, body types and their limits.
//!
//! It knows no path and no resource. TLS settings come from outside as `rustls` configs.

use std::{
    any::Any,
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use rustls_pki_types::CertificateDer;

mod activity;
pub mod client;
pub mod http2;
pub mod server;
mod turns;

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

/// The verified certificate chain that the peer showed, in a request's extensions. Clones are of the same
/// connection.
#[derive(Debug, Clone)]
pub struct PeerCertificates {
    chain: Arc<[CertificateDer<'static>]>,
    read: Arc<OnceLock<Arc<dyn Any + Send + Sync>>>,
}

impl PeerCertificates {
    /// The chain, leaf first.
    #[must_use]
    pub fn new(chain: Arc<[CertificateDer<'static>]>) -> Self {
        Self { chain, read: Arc::default() }
    }

    /// The peer's own certificate.
    #[must_use]
    pub fn leaf(&self) -> Option<&CertificateDer<'static>> {
        self.chain.first()
    }

    /// What `read` makes of the chain (leaf first). It is kept for the connection, which has one chain for
    /// all its requests, so each connection is to be read in one way.
    pub fn read_once<T: Clone + Send + Sync + 'static>(
        &self,
        read: impl Fn(&[CertificateDer<'static>]) -> T,
    ) -> T {
        let kept = self.read.get_or_init(|| Arc::new(read(&self.chain)));
        kept.downcast_ref::<T>().map_or_else(|| read(&self.chain), T::clone)
    }
}

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
