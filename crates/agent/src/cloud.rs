//! Requests to the server with the node's own certificate.
//!
//! One connection serves the requests of a moment and is closed soon after: a node that has
//! nothing to say holds no connection.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::{sync::Mutex, time::timeout};
use toono_http::client::{ClientError, Connection, Endpoint};
use toono_pki::Issued;

use crate::{AgentError, identity::Identity};

/// How long a connection waits for the next request: the fetch that follows a report, say.
const LINGER: Duration = Duration::from_secs(3);
/// How long a whole exchange may take. A full bundle over a slow link takes a while.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(120);
/// The largest response: a bundle of a few hundred pods of 64 KiB.
const MAX_RESPONSE: usize = 32 << 20;
/// How much of a refusal's text is kept.
const MAX_REASON: usize = 512;

/// A request that was not answered as it should have been.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CloudError {
    #[error(transparent)]
    Link(#[from] ClientError),
    #[error("{server} did not answer {path} within {} s", EXCHANGE_TIMEOUT.as_secs())]
    TimedOut { server: Endpoint, path: String },
    #[error("the answer of {server} to {path} broke off: {reason}")]
    Broken { server: Endpoint, path: String, reason: String },
    #[error("{server} answered {path} with {status}: {reason}")]
    Status { server: Endpoint, path: String, status: StatusCode, reason: String },
}

/// The way to the server. Clones share the connection.
#[derive(Debug, Clone)]
pub(crate) struct Cloud {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    server: Endpoint,
    tls: Arc<rustls::ClientConfig>,
    slot: Mutex<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    connection: Option<Connection>,
    /// Counts the uses, so that only the timer of the last one closes.
    uses: u64,
}

impl Cloud {
    pub(crate) fn new(server: Endpoint, identity: &Identity) -> Result<Self, AgentError> {
        let own = Issued {
            cert_pem: identity.certificate_pem.clone(),
            key_pem: identity.key_pem.clone(),
        };
        let tls = toono_pki::client_config(&identity.ca_pem, Some(&own))?;
        let inner = Inner { server, tls, slot: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn server(&self) -> &Endpoint {
        &self.inner.server
    }

    /// Fetches JSON.
    pub(crate) async fn fetch<T: DeserializeOwned>(&self, path: &str) -> Result<T, CloudError> {
        self.exchange(Method::GET, path, Bytes::new()).await
    }

    /// Posts JSON and reads JSON.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, CloudError> {
        self.exchange(Method::POST, path, body.into()).await
    }

    /// A connection of its own, for a tunnel.
    pub(crate) async fn connect(&self) -> Result<Connection, ClientError> {
        Connection::open(&self.inner.server, &self.inner.tls).await
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, CloudError> {
        let server = || self.inner.server.clone();
        let work = async {
            let mut slot = self.inner.slot.lock().await;
            let response = self.send(&mut slot, &method, path, &body).await?;
            let status = response.status();
            let read = read(response).await;
            let bytes = read.map_err(|reason| {
                slot.connection = None;
                CloudError::Broken { server: server(), path: path.to_owned(), reason }
            })?;
            self.close_later(&mut slot);
            drop(slot);
            if !status.is_success() {
                let reason = reason(&bytes);
                return Err(CloudError::Status {
                    server: server(),
                    path: path.to_owned(),
                    status,
                    reason,
                });
            }
            serde_json::from_slice(&bytes).map_err(|error| CloudError::Broken {
                server: server(),
                path: path.to_owned(),
                reason: error.to_string(),
            })
        };
        // The slot's guard is dropped with the work; a connection amid a response goes with it.
        match timeout(EXCHANGE_TIMEOUT, work).await {
            Ok(result) => result,
            Err(_) => {
                self.inner.slot.lock().await.connection = None;
                Err(CloudError::TimedOut { server: server(), path: path.to_owned() })
            }
        }
    }

    /// Sends on the open connection, or on a new one; the server may have closed the open one.
    async fn send(
        &self,
        slot: &mut Slot,
        method: &Method,
        path: &str,
        body: &Bytes,
    ) -> Result<Response<Incoming>, CloudError> {
        let request = || {
            Request::builder()
                .method(method)
                .uri(path)
                .header(header::CONTENT_TYPE, "application/json")
                .body(toono_http::full(body.clone()))
                .map_err(|error| CloudError::Broken {
                    server: self.inner.server.clone(),
                    path: path.to_owned(),
                    reason: error.to_string(),
                })
        };
        if let Some(mut open) = slot.connection.take().filter(|open| !open.is_closed())
            && let Ok(response) = open.send(request()?).await
        {
            slot.connection = Some(open);
            return Ok(response);
        }
        let mut fresh = self.connect().await?;
        let response = fresh.send(request()?).await?;
        slot.connection = Some(fresh);
        Ok(response)
    }

    fn close_later(&self, slot: &mut Slot) {
        slot.uses += 1;
        let (uses, inner) = (slot.uses, Arc::downgrade(&self.inner));
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            if let Some(inner) = inner.upgrade() {
                let mut slot = inner.slot.lock().await;
                if slot.uses == uses {
                    slot.connection = None;
                }
            }
        });
    }
}

/// The whole body of a response, up to [`MAX_RESPONSE`].
pub(crate) async fn read<B>(response: Response<B>) -> Result<Bytes, String>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<toono_http::BoxError>,
{
    let collected = Limited::new(response.into_body(), MAX_RESPONSE).collect().await;
    collected.map(http_body_util::Collected::to_bytes).map_err(|error| error.to_string())
}

/// What a refusal says: the message of a `v1.Status`, or the first of the text.
pub(crate) fn reason(body: &[u8]) -> String {
    let status: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = status.as_ref().and_then(|it| it.get("message")?.as_str());
    let text =
        message.map_or_else(|| String::from_utf8_lossy(body).into_owned(), ToOwned::to_owned);
    text.trim().chars().take(MAX_REASON).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_by_its_message() {
        assert_eq!(reason(br#"{"kind":"Status","message":"no such token"}"#), "no such token");
        assert_eq!(reason(b" plain text\n"), "plain text");
    }
}
