//! The accept loop: TLS handshake, HTTP/1.1 or HTTP/2 by ALPN, upgrades, and a graceful end.
//!
//! It hands every request to one [`Handler`] with the peer's address and certificates attached,
//! and knows nothing of what is asked.

use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{BoxError, Handler, PeerCertificates, RemoteAddr};

/// What one listener grants its clients.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections served at once; more wait in the kernel's backlog. The default leaves room
    /// below a limit of 20,000 file descriptors.
    pub connections: usize,
    /// A TLS handshake that takes longer is dropped.
    pub handshake: Duration,
    /// Request headers that take longer to arrive are answered by closing.
    pub header_read: Duration,
    /// Concurrent HTTP/2 streams per connection; Kubernetes' own server grants 100.
    pub http2_streams: u32,
    /// After shutdown begins, requests in flight have this long to end.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 15_000,
            handshake: Duration::from_secs(10),
            header_read: Duration::from_secs(30),
            http2_streams: 250,
            drain: Duration::from_secs(5),
        }
    }
}

/// A failed accept (no descriptors left, say) is retried after this long, not in a busy loop.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Serves `listener` until `shutdown` completes, then drains for [`Limits::drain`] at most.
///
/// With `tls` the peer must speak TLS; without, plain HTTP is served.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    handler: Handler,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let mut shutdown = pin!(shutdown);
    let (stop, stopping) = watch::channel(false);
    let slots = Arc::new(Semaphore::new(limits.connections));
    let acceptor = tls.map(TlsAcceptor::from);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((stream, peer, slot)) => {
                let connection = Connection {
                    peer,
                    handler: handler.clone(),
                    limits: limits.clone(),
                    stopping: stopping.clone(),
                };
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    connection.run(stream, acceptor).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    drop(listener);
    let _ = stop.send(true);
    if timeout(limits.drain, async { while connections.join_next().await.is_some() {} })
        .await
        .is_err()
    {
        tracing::debug!(left = connections.len(), "connections cut after the drain time");
        connections.abort_all();
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, slot))
}

struct Connection {
    peer: SocketAddr,
    handler: Handler,
    limits: Limits,
    stopping: watch::Receiver<bool>,
}

impl Connection {
    async fn run(self, stream: TcpStream, acceptor: Option<TlsAcceptor>) {
        let Some(acceptor) = acceptor else {
            return self.speak_http(stream, None).await;
        };
        match timeout(self.limits.handshake, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                let certificates = stream.get_ref().1.peer_certificates().map(|chain| {
                    PeerCertificates(chain.iter().map(|c| c.clone().into_owned()).collect())
                });
                self.speak_http(stream, certificates).await;
            }
            Ok(Err(error)) => {
                tracing::debug!(peer = %self.peer, %error, "TLS handshake failed");
            }
            Err(_) => tracing::debug!(peer = %self.peer, "TLS handshake took too long"),
        }
    }

    async fn speak_http<S>(self, stream: S, certificates: Option<PeerCertificates>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { peer, handler, limits, mut stopping } = self;
        let service = service_fn(move |request: http::Request<Incoming>| {
            let mut request = request.map(|body| body.map_err(BoxError::from).boxed_unsync());
            request.extensions_mut().insert(RemoteAddr(peer));
            if let Some(certificates) = &certificates {
                request.extensions_mut().insert(certificates.clone());
            }
            let answer = handler(request);
            async move { Ok::<_, std::convert::Infallible>(answer.await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_read)
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.http2_streams);
        let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut served = pin!(served);
        let result = tokio::select! {
            result = served.as_mut() => result,
            () = async { let _ = stopping.wait_for(|stop| *stop).await; } => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(%peer, error, "connection ended");
        }
    }
}
