//! Dial-back: the cloud asked for a way in, so the node opens one connection and serves on it.

use std::sync::Arc;

use http::{Request, StatusCode, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Semaphore;
use toono_wire::path;

use crate::{cloud::Cloud, join::chain, kubelet::Kubelet};

/// Tunnels at once. The cloud sends all its requests through one; more only come from replicas.
const MAX_TUNNELS: usize = 8;
/// Requests at once in one tunnel, each perhaps with a process and a terminal.
const MAX_STREAMS: u32 = 64;

/// Opens tunnels when they are asked for.
#[derive(Debug, Clone)]
pub(crate) struct Tunnels {
    cloud: Cloud,
    kubelet: Kubelet,
    slots: Arc<Semaphore>,
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
enum TunnelError {
    #[error(transparent)]
    Link(#[from] toono_http::client::ClientError),
    #[error("the request cannot be made")]
    Request(#[from] http::Error),
    #[error("the server answered {0} instead of switching protocols")]
    Refused(StatusCode),
    #[error("the tunnel broke")]
    Broken(#[from] hyper::Error),
}

impl Tunnels {
    pub(crate) fn new(cloud: Cloud, kubelet: Kubelet) -> Self {
        Self { cloud, kubelet, slots: Arc::new(Semaphore::new(MAX_TUNNELS)) }
    }

    /// Opens a tunnel for this ticket, beside everything else.
    pub(crate) fn dial_back(&self, ticket: u64) {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            tracing::warn!(MAX_TUNNELS, "the cloud asks for too many tunnels");
            return;
        };
        let this = self.clone();
        tokio::spawn(async move {
            if let Err(error) = this.serve(ticket).await {
                tracing::debug!(error = chain(&error), "tunnel ended");
            }
            drop(slot);
        });
    }

    async fn serve(&self, ticket: u64) -> Result<(), TunnelError> {
        let mut connection = self.cloud.connect_for(ticket).await?;
        let request = Request::post(path::TUNNEL)
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, path::TUNNEL_PROTOCOL)
            .header(path::TICKET_HEADER, ticket.to_string())
            .body(toono_http::empty())?;
        let response = connection.send(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(TunnelError::Refused(response.status()));
        }
        let stream = hyper::upgrade::on(response).await?;
        let kubelet = self.kubelet.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let kubelet = kubelet.clone();
            async move { Ok::<_, std::convert::Infallible>(kubelet.answer(request).await) }
        });
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .serve_connection(stream, service)
            .await?;
        Ok(())
    }
}
