//! Answers other nodes of the pool: with layers, and with who has them.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Instant, sleep, sleep_until, timeout},
};
use toono_http::{Body, Handler, server::Limits};
use toono_images::{BlobReader, Digest};
use toono_wire::pool::{BadLayerRequest, LayerRequest, LayerSources, LayerWish, node_key};

use super::{Layers, peers::address};
use crate::{join::chain, pool::hub::status};

/// Neighbours that are connected at once.
const MOST_CONNECTIONS: usize = 64;
/// Before a port that is taken, or an address that is not there yet, is tried again.
const AGAIN: Duration = Duration::from_secs(60);
/// All layers that are sent together are no more than so many bytes a second, a third of a gigabit: the LAN is the
/// pods' too.
const BYTES_PER_SECOND: u64 = 40 << 20;
/// Who takes nothing for so long is sent nothing more.
const STALL: Duration = Duration::from_secs(30);
/// Chunks that wait for the connection.
const CHUNKS: usize = 2;
/// Whether the certificate was renewed is looked at so often.
const RENEWAL_LOOK: Duration = Duration::from_secs(60 * 60);

/// Spreads what is sent over time: whoever sends waits for its turn, so all get the same.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<Option<Instant>>);

impl Pace {
    /// When so many bytes may be sent.
    fn turn(&self, bytes: usize, now: Instant) -> Instant {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = free.map_or(now, |free| free.max(now));
        let nanos = (bytes as u64).saturating_mul(1_000_000_000) / BYTES_PER_SECOND;
        *free = Some(turn + Duration::from_nanos(nanos));
        turn
    }
}

impl Layers {
    /// Serves at this node's own address, wherever that is, while it is in a pool.
    pub(super) async fn serve(&self) {
        let follower = self.inner.pool.follow();
        loop {
            let Some(address) = self.own_address() else {
                follower.changed().await;
                continue;
            };
            let certificate = self.inner.pool.inner.credentials.own().cert_pem;
            let until = async {
                while self.own_address() == Some(address)
                    && self.inner.pool.inner.credentials.own().cert_pem == certificate
                {
                    let _ = timeout(RENEWAL_LOOK, follower.changed()).await;
                }
            };
            if let Err(error) = self.serve_at(address, until).await {
                tracing::warn!(error, "layers are not served to the neighbours");
                sleep(AGAIN).await;
            }
        }
    }

    fn own_address(&self) -> Option<IpAddr> {
        let record = self.inner.pool.record(&node_key(self.own()))?;
        address(&record).filter(|_| self.is_pooled())
    }

    async fn serve_at(&self, ip: IpAddr, until: impl Future<Output = ()>) -> Result<(), String> {
        let inner = &self.inner.pool.inner;
        let tls = toono_pki::peer_server_config(&inner.ca_pem, &inner.credentials.own());
        let tls = tls.map_err(|error| chain(&error))?;
        let at = SocketAddr::new(ip, self.inner.port);
        let listener = TcpListener::bind(at).await.map_err(|error| format!("{at}: {error}"))?;
        tracing::debug!(%at, "serving layers to the neighbours");
        let this = self.clone();
        let handler: Handler = Arc::new(move |request| {
            let (this, request) = (this.clone(), request.map(drop));
            Box::pin(async move { this.answer(&request).await })
        });
        let limits = Limits { connections: MOST_CONNECTIONS, ..Limits::default() };
        toono_http::server::serve(listener, Some(tls), handler, limits, until).await;
        Ok(())
    }

    async fn answer(&self, request: &Request<()>) -> Response<Body> {
        let Some(neighbour) = self.inner.pool.neighbour(request) else {
            return status(StatusCode::FORBIDDEN);
        };
        let is_post = request.method() == Method::POST;
        if !is_post && request.method() != Method::GET {
            return status(StatusCode::NOT_FOUND);
        }
        let query = request.uri().query().unwrap_or_default();
        let asked = match LayerRequest::parse(is_post, request.uri().path(), query) {
            Ok(asked) => asked,
            Err(BadLayerRequest::NoOffset) => return status(StatusCode::BAD_REQUEST),
            Err(BadLayerRequest::Unknown) => return status(StatusCode::NOT_FOUND),
        };
        let Ok(blob) = format!("sha256:{}", asked.hex).parse::<Digest>() else {
            return status(StatusCode::NOT_FOUND);
        };
        match asked.wish {
            LayerWish::Bytes { from } => self.send_layer(&neighbour, &blob, from).await,
            LayerWish::Sources { claims, without } => {
                let found = self.sources(&neighbour, &blob, &without, claims);
                let sources = LayerSources { from: found.from, keep: found.keep };
                Response::new(toono_http::full(sources.encode()))
            }
            wish @ (LayerWish::Have | LayerWish::Lack) => {
                self.note(&neighbour, &blob, wish == LayerWish::Have);
                Response::new(toono_http::empty())
            }
        }
    }

    async fn send_layer(&self, neighbour: &str, blob: &Digest, offset: u64) -> Response<Body> {
        let Ok(permit) = self.inner.uploads.clone().try_acquire_owned() else {
            return status(StatusCode::SERVICE_UNAVAILABLE);
        };
        let reader = match self.inner.store.blob(blob, offset, neighbour).await {
            Ok(Some(reader)) => reader,
            Ok(None) => return status(StatusCode::NOT_FOUND),
            Err(error) => {
                tracing::warn!(%blob, %error, "a layer that is kept cannot be read");
                return status(StatusCode::NOT_FOUND);
            }
        };
        let length = reader.left();
        let (chunks, mut sent) = mpsc::channel(CHUNKS);
        tokio::spawn(self.clone().upload(reader, chunks, permit));
        let body = futures::stream::poll_fn(move |context| sent.poll_recv(context));
        let mut response = Response::new(toono_http::stream(body));
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        response
    }

    /// Ends with the layer, with its reader, or when nobody takes it.
    async fn upload(
        self,
        mut reader: BlobReader,
        chunks: mpsc::Sender<std::io::Result<Bytes>>,
        _permit: OwnedSemaphorePermit,
    ) {
        loop {
            let next = tokio::select! {
                next = reader.next() => next,
                () = chunks.closed() => return,
            };
            let Some(next) = next.transpose() else { return };
            let length = next.as_ref().map_or(0, Bytes::len);
            sleep_until(self.inner.pace.turn(length, Instant::now())).await;
            let is_last = next.is_err();
            if !matches!(timeout(STALL, chunks.send(next)).await, Ok(Ok(()))) || is_last {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_spread_over_time() {
        let (pace, now) = (Pace::default(), Instant::now());
        let second = usize::try_from(BYTES_PER_SECOND).unwrap();
        assert_eq!(pace.turn(second, now), now);
        assert_eq!(pace.turn(second / 2, now), now + Duration::from_secs(1));
        assert_eq!(pace.turn(1, now), now + Duration::from_millis(1500));
        let later = now + Duration::from_secs(60);
        assert_eq!(pace.turn(1, later), later, "nothing is saved up");
    }
}
