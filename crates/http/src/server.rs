//! The accept loop: TLS handshake, HTTP/1.1 or HTTP/2 by ALPN, upgrades, and a graceful end.
//!
//! When thousands connect at once, handshakes take turns of their own: requests on connections that stand
//! do not wait behind them.
//!
//! It hands every request to one [`Handler`] with the peer's address and certificates attached,
//! and knows nothing of what is asked.

use std::{future::Future, io, net::SocketAddr, num::NonZero, pin::pin, sync::Arc, time::Duration};

use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{BoxError, Handler, PeerCertificates, RemoteAddr, activity::Activity, turns::Turns};

/// What one listener grants its clients.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections served at once; more wait in the kernel's backlog. The default leaves room
    /// below a limit of 20,000 file descriptors.
    pub connections: usize,
    /// A TLS handshake that takes longer is dropped.
    pub handshake: Duration,
    /// TLS handshakes that compute at once. The default is as many as there are processors.
    pub handshakes: usize,
    /// Request headers that take longer to arrive are answered by closing.
    pub header_read: Duration,
    /// A connection on which nothing is asked for so long is closed. Kubernetes' own server grants
    /// 90 s.
    pub idle: Duration,
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
            handshakes: std::thread::available_parallelism().map_or(1, NonZero::get),
            header_read: Duration::from_secs(30),
            idle: Duration::from_secs(90),
            http2_streams: 250,
            drain: Duration::from_secs(5),
        }
    }
}

/// A failed accept (no descriptors left, say) is retried after this long, not in a busy loop.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// A peer that has said nothing for so long is probed, so that one that lost its power or its NAT
/// entry does not hold a connection until the next write to it fails.
const KEEPALIVE_IDLE_SECONDS: u32 = 60;
/// Between two probes.
const KEEPALIVE_INTERVAL_SECONDS: u32 = 15;
/// Unanswered probes that end a connection.
const KEEPALIVE_PROBES: u32 = 4;

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
    let turns = Arc::new(Turns::new(limits.handshakes));
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
                    turns: turns.clone(),
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
    keep_alive(&stream)?;
    Ok((stream, peer, slot))
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    setsockopt(stream, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE_SECONDS)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL_SECONDS)?;
    setsockopt(stream, sockopt::TcpKeepCount, &KEEPALIVE_PROBES)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    Ok(())
}

struct Connection {
    peer: SocketAddr,
    handler: Handler,
    limits: Limits,
    stopping: watch::Receiver<bool>,
    turns: Arc<Turns>,
}

impl Connection {
    async fn run(self, stream: TcpStream, acceptor: Option<TlsAcceptor>) {
        let Some(acceptor) = acceptor else {
            return self.speak_http(stream, None).await;
        };
        let accepted = self.turns.take(acceptor.accept(stream));
        match timeout(self.limits.handshake, accepted).await {
            Ok(Ok(stream)) => {
                let certificates = stream.get_ref().1.peer_certificates().map(|chain| {
                    PeerCertificates::new(chain.iter().map(|c| c.clone().into_owned()).collect())
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
        let Self { peer, handler, limits, mut stopping, turns: _ } = self;
        let activity = Activity::new();
        let asked = activity.clone();
        let service = service_fn(move |request: http::Request<Incoming>| {
            let mut request = request.map(|body| body.map_err(BoxError::from).boxed_unsync());
            request.extensions_mut().insert(RemoteAddr(peer));
            if let Some(certificates) = &certificates {
                request.extensions_mut().insert(certificates.clone());
            }
            let in_use = asked.begin();
            let answer = handler(request);
            async move {
                let answer = answer.await.map(|body| in_use.until_end_of(body));
                Ok::<_, std::convert::Infallible>(answer)
            }
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
            result = served.as_mut() => Some(result),
            () = async { let _ = stopping.wait_for(|stop| *stop).await; } => None,
            () = activity.idle(limits.idle) => None,
        };
        let result = match result {
            Some(result) => result,
            None => {
                served.as_mut().graceful_shutdown();
                // Responses under way, and clients who do not take the goodbye, have this long.
                timeout(limits.drain, served).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = result {
            tracing::debug!(%peer, error, "connection ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::oneshot,
    };

    use super::*;
    use crate::Body;

    /// Long enough for a busy machine, short enough to wait for.
    const IDLE: Duration = Duration::from_millis(300);
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A server without TLS whose every response is this; it ends with the sender.
    async fn server(answer: fn() -> Body) -> (SocketAddr, oneshot::Sender<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let handler: Handler =
            Arc::new(move |_| Box::pin(async move { http::Response::new(answer()) }));
        let limits = Limits { idle: IDLE, ..Limits::default() };
        tokio::spawn(serve(listener, None, handler, limits, async {
            let _ = stopped.await;
        }));
        (address, stop)
    }

    #[tokio::test]
    async fn connections_on_which_nothing_is_asked_are_closed() {
        let (address, _stop) = server(crate::empty).await;
        // HTTP/2's preface with empty settings, and HTTP/1.1's nothing at all.
        let preface: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        for opening in [preface, b"".as_slice()] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(opening).await.unwrap();
            let mut said = Vec::new();
            timeout(PATIENCE, stream.read_to_end(&mut said)).await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_slow_response_is_no_idle_connection() {
        let (address, _stop) = server(|| {
            crate::stream(futures::stream::unfold(0, |sent| async move {
                tokio::time::sleep(IDLE / 2).await;
                (sent < 5).then(|| (Ok::<_, io::Error>(Bytes::from_static(b"x")), sent + 1))
            }))
        })
        .await;
        let endpoint = format!("http://{address}").parse().unwrap();
        let mut connection = crate::client::Connection::connect_plain(&endpoint).await.unwrap();
        let request = http::Request::builder().uri("/").body(crate::empty()).unwrap();
        let answer = timeout(PATIENCE, connection.send(request)).await.unwrap().unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "xxxxx");
    }
}
