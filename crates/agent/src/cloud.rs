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
use tokio::{
    sync::{Mutex, Notify},
    time::timeout,
};
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
    renewed: Notify,
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
        let inner = Inner { server, tls, slot: Mutex::default(), renewed: Notify::new() };
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

    /// The link came back after a gap: what waits for a connection of before starts over. TCP would
    /// find out by itself, but only when its next retransmission is due, perhaps in minutes.
    pub(crate) fn renew(&self) {
        self.inner.renewed.notify_waiters();
    }

    /// Every request may be sent twice without harm.
    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, CloudError> {
        loop {
            // The slot's guard goes with a future that is dropped, and the connection amid a
            // response has been taken out of the slot by then.
            tokio::select! {
                result = timeout(EXCHANGE_TIMEOUT, self.attempt(&method, path, &body)) => {
                    let timed_out = || CloudError::TimedOut {
                        server: self.inner.server.clone(),
                        path: path.to_owned(),
                    };
                    return result.unwrap_or_else(|_| Err(timed_out()));
                }
                () = self.inner.renewed.notified() => {}
            }
        }
    }

    async fn attempt<T: DeserializeOwned>(
        &self,
        method: &Method,
        path: &str,
        body: &Bytes,
    ) -> Result<T, CloudError> {
        let broken = |reason: String| CloudError::Broken {
            server: self.inner.server.clone(),
            path: path.to_owned(),
            reason,
        };
        let mut slot = self.inner.slot.lock().await;
        let (response, connection) = self.send(&mut slot, method, path, body).await?;
        let status = response.status();
        let bytes = read(response).await.map_err(broken)?;
        slot.connection = Some(connection);
        self.close_later(&mut slot);
        drop(slot);
        if !status.is_success() {
            let (server, path) = (self.inner.server.clone(), path.to_owned());
            return Err(CloudError::Status { server, path, status, reason: reason(&bytes) });
        }
        serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))
    }

    /// Sends on the open connection, or on a new one; the server may have closed the open one.
    async fn send(
        &self,
        slot: &mut Slot,
        method: &Method,
        path: &str,
        body: &Bytes,
    ) -> Result<(Response<Incoming>, Connection), CloudError> {
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
            return Ok((response, open));
        }
        let mut fresh = self.connect().await?;
        let response = fresh.send(request()?).await?;
        Ok((response, fresh))
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
