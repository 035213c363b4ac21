//! Hands the pool's part on to the neighbours, while the cloud says that this node is the hub.
//!
//! A neighbour shows its node certificate, and the cloud's word that it is of this pool. It asks for what is
//! new since what it has, and is answered when there is something.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{Request, Response, StatusCode};
use rustls::ServerConfig;
use tokio::{
    net::TcpListener,
    time::{Instant, sleep, timeout_at},
};
use toono_http::{Body, Handler, PeerCertificates, server::Limits};
use toono_wire::{
    path,
    pool::{Pass, Version},
};

use super::Pool;
use crate::join::chain;

/// What a neighbour asks for.
pub(super) const PATH: &str = "/pool";
/// How long a neighbour waits for something new.
pub(super) const WAIT: Duration = Duration::from_secs(50);
/// Neighbours at once. A pool may have more nodes; those ask the cloud.
const MOST_NEIGHBOURS: usize = 512;
/// Before a port that is taken, or an address that is not there yet, is tried again.
const AGAIN: Duration = Duration::from_secs(10);

impl Pool {
    pub(super) async fn serve_neighbours(&self) {
        let mut hubs = self.inner.hub.subscribe();
        loop {
            let hub = hubs.borrow_and_update().clone();
            let Some(hub) = hub.filter(|hub| self.is_hub(Some(hub))) else {
                if hubs.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let serving = self.serve(hub.address, hub.port, async {
                let _ = hubs.wait_for(|now| !self.is_hub(now.as_ref())).await;
            });
            if let Err(error) = serving.await {
                tracing::warn!(error, "this node cannot serve its pool");
                sleep(AGAIN).await;
            }
        }
    }

    async fn serve(
        &self,
        address: IpAddr,
        port: u16,
        until: impl Future<Output = ()>,
    ) -> Result<(), String> {
        let tls = toono_pki::peer_server_config(&self.inner.ca_pem, &self.inner.credentials.own());
        let tls: Arc<ServerConfig> = tls.map_err(|error| chain(&error))?;
        let at = SocketAddr::new(address, port);
        let listener = TcpListener::bind(at).await.map_err(|error| format!("{at}: {error}"))?;
        tracing::info!(%at, "serving the pool's part to the neighbours");
        let this = self.clone();
        let handler: Handler = Arc::new(move |request| {
            let this = this.clone();
            // What it is asked has no body.
            let request = request.map(drop);
            Box::pin(async move { this.answer(&request).await })
        });
        let limits = Limits { connections: MOST_NEIGHBOURS, ..Limits::default() };
        toono_http::server::serve(listener, Some(tls), handler, limits, until).await;
        Ok(())
    }

    async fn answer(&self, request: &Request<()>) -> Response<Body> {
        if request.uri().path() != PATH {
            return status(StatusCode::NOT_FOUND);
        }
        if self.neighbour(request).is_none() {
            return status(StatusCode::FORBIDDEN);
        }
        let Some((since, wait)) = asked(request.uri().query().unwrap_or_default()) else {
            return status(StatusCode::BAD_REQUEST);
        };
        let until = Instant::now() + wait.min(WAIT);
        let mut version = self.inner.version.subscribe();
        // Ends at the latest when it is time; then there is nothing new.
        let _ = timeout_at(until, version.wait_for(|now| *now != since)).await;
        match self.held().tell(since) {
            Some(frames) => Response::new(toono_http::full(frames)),
            None => status(StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    /// The node that asks, if the cloud says that it is of this pool.
    pub(super) fn neighbour(&self, request: &Request<()>) -> Option<String> {
        let certificates = request.extensions().get::<PeerCertificates>()?;
        let user = certificates.read_once(|chain| {
            chain.first().and_then(|leaf| toono_pki::subject(leaf).ok()).map(|it| it.common_name)
        });
        let pass = request.headers().get(path::PASS_HEADER).and_then(|pass| pass.to_str().ok());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let (user, pass) = (user?, pass?.parse::<Pass>().ok()?);
        let node = user.strip_prefix("system:node:")?;
        self.held().admits(node, &pass, now).then(|| node.to_owned())
    }
}

/// What a query asks for.
fn asked(query: &str) -> Option<(Version, Duration)> {
    let field = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name));
    let revision = field("since=").unwrap_or("0").parse().ok()?;
    let digest = u64::from_str_radix(field("digest=").unwrap_or("0"), 16).ok()?;
    let wait = field("wait=").unwrap_or("0").parse().ok()?;
    Some((Version { revision, digest }, Duration::from_secs(wait)))
}

pub(super) fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(toono_http::empty());
    *response.status_mut() = status;
    response
}
