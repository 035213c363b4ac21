//! Requests to the server with the node's own certificate. Where there are several servers, to the one that the
//! session speaks to: which one that is, the heartbeat decides.
//!
//! One connection serves the requests of a moment and is closed soon after: a node that has
//! nothing to say holds no connection.

use std::{
    io,
    sync::{Arc, Mutex as PlainMutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::{
    net::TcpStream,
    sync::{Mutex, Notify, watch},
    time::timeout,
};
use toono_http::client::{ClientError, Connection, Endpoint};
use toono_pki::Issued;
use toono_session::servers::ServerHash;
use toono_wire::join::Server;

use crate::{AgentError, identity::Credentials};

/// How long a connection waits for the next request: the fetch that follows a report, say.
const LINGER: Duration = Duration::from_secs(3);
/// How long a whole exchange may take. A full bundle over a slow link takes a while.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a dial waits until this node is told of the server that asks for it: an exchange on a slow link.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
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
    #[error("the link to {server} was gone while {path} was asked for")]
    Lost { server: Endpoint, path: String },
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
    way: PlainMutex<Way>,
    /// With the node's certificate of today.
    tls: PlainMutex<Arc<rustls::ClientConfig>>,
    ca_pem: String,
    slot: Mutex<Slot>,
    renewed: Notify,
    /// Wakes who waits for [`Way::servers`].
    told: Notify,
    /// The certificate was refused: it has expired, by the server's clock.
    refused: Notify,
    /// Whether the session gets answers.
    link: watch::Sender<bool>,
}

#[derive(Debug)]
struct Way {
    /// Where requests go.
    server: Endpoint,
    /// All servers, where there are several.
    servers: Vec<Server>,
}

#[derive(Debug, Default)]
struct Slot {
    connection: Option<(Endpoint, Connection)>,
    /// Counts the uses, so that only the timer of the last one closes.
    uses: u64,
}

impl Cloud {
    pub(crate) fn new(server: Endpoint, credentials: &Credentials) -> Result<Self, AgentError> {
        let ca_pem = credentials.ca_pem();
        let tls = toono_pki::node_client_config(&ca_pem, &credentials.own())?;
        let way = Way { server, servers: credentials.session().servers };
        let inner = Inner {
            way: PlainMutex::new(way),
            tls: PlainMutex::new(tls),
            ca_pem,
            slot: Mutex::default(),
            renewed: Notify::new(),
            told: Notify::new(),
            refused: Notify::new(),
            link: watch::Sender::new(false),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// From now on connections are made with this certificate.
    pub(crate) async fn show(&self, own: &Issued) -> Result<(), AgentError> {
        let tls = toono_pki::node_client_config(&self.inner.ca_pem, own)?;
        *self.inner.tls.lock().unwrap_or_else(PoisonError::into_inner) = tls;
        self.inner.slot.lock().await.connection = None;
        Ok(())
    }

    fn tls(&self) -> Arc<rustls::ClientConfig> {
        self.inner.tls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Completes once a server has refused the certificate, perhaps before this was called.
    pub(crate) async fn refused(&self) {
        self.inner.refused.notified().await;
    }

    fn way(&self) -> MutexGuard<'_, Way> {
        self.inner.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where requests go.
    pub(crate) fn server(&self) -> Endpoint {
        self.way().server.clone()
    }

    /// From now on requests go there, also those that wait for an answer of another server.
    pub(crate) fn turn_to(&self, server: Endpoint) {
        let before = std::mem::replace(&mut self.way().server, server.clone());
        if before != server {
            self.renew();
        }
    }

    /// There are these servers now.
    pub(crate) fn set_servers(&self, servers: Vec<Server>) {
        self.way().servers = servers;
        self.inner.told.notify_waiters();
    }

    /// Fetches JSON.
    pub(crate) async fn fetch<T: DeserializeOwned>(&self, path: &str) -> Result<T, CloudError> {
        self.exchange(Method::GET, path, Bytes::new()).await
    }

    /// Fetches bytes, with the headers of the answer.
    pub(crate) async fn fetch_bytes(&self, path: &str) -> Result<(HeaderMap, Bytes), CloudError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Posts JSON and reads JSON.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, CloudError> {
        self.exchange(Method::POST, path, body.into()).await
    }

    /// Deletes an object of the API.
    pub(crate) async fn delete(&self, path: &str, options: Vec<u8>) -> Result<(), CloudError> {
        self.ask(Method::DELETE, path, options.into()).await.map(drop)
    }

    /// A connection of its own, for a session's socket.
    pub(crate) async fn connect(&self) -> Result<Connection, ClientError> {
        self.connect_to(&self.server()).await
    }

    /// Whether the server that made a ticket is one that this node was told of.
    pub(crate) fn knows_owner(&self, ticket: u64) -> bool {
        self.way().servers.is_empty() || self.owner(ticket).is_some()
    }

    /// A connection of its own to the server that a ticket leads to: one of those that there are, or else the
    /// one that requests go to. A server that this node was not told of yet is waited for shortly.
    pub(crate) async fn connect_for(&self, ticket: u64) -> Result<Connection, ClientError> {
        let told = self.inner.told.notified();
        if !self.knows_owner(ticket) {
            let _ = timeout(LIST_TIMEOUT, told).await;
        }
        let owner = self.owner(ticket);
        self.connect_to(&owner.unwrap_or_else(|| self.server())).await
    }

    /// The server that made a ticket.
    fn owner(&self, ticket: u64) -> Option<Endpoint> {
        let owns = |server: &&Server| ServerHash::new(&server.name).owns_ticket(ticket);
        self.way().servers.iter().find(owns).map(endpoint)
    }

    async fn connect_to(&self, server: &Endpoint) -> Result<Connection, ClientError> {
        Connection::open(server, &self.tls()).await
    }

    /// A connection by TCP alone: it shows that the server can be reached, and costs that next to nothing.
    pub(crate) async fn reach(&self) -> io::Result<TcpStream> {
        let server = self.server();
        let stream = TcpStream::connect((server.host.as_str(), server.port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// The next request goes by this connection of [`reach`](Self::reach).
    pub(crate) async fn go_on(&self, stream: TcpStream) -> Result<(), ClientError> {
        let server = self.server();
        let tls = server.tls.then(|| self.tls());
        let connection = Connection::over(stream, &server, tls.as_ref()).await?;
        let mut slot = self.inner.slot.lock().await;
        slot.connection = Some((server, connection));
        self.close_later(&mut slot);
        Ok(())
    }

    /// The link came back after a gap: what waits for a connection of before has failed. TCP would
    /// find out by itself, but only when its next retransmission is due, perhaps in minutes.
    pub(crate) fn renew(&self) {
        self.inner.renewed.notify_waiters();
    }

    /// The session gets answers, or does not any more.
    pub(crate) fn set_link(&self, is_up: bool) {
        self.inner.link.send_if_modified(|known| std::mem::replace(known, is_up) != is_up);
    }

    /// Whether the session gets answers; not before the first.
    pub(crate) fn link(&self) -> watch::Receiver<bool> {
        self.inner.link.subscribe()
    }

    /// Completes when the link comes back the next time.
    pub(crate) async fn renewed(&self) {
        self.inner.renewed.notified().await;
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, CloudError> {
        let (_, bytes) = self.ask(method, path, body).await?;
        serde_json::from_slice(&bytes).map_err(|error| CloudError::Broken {
            server: self.server(),
            path: path.to_owned(),
            reason: error.to_string(),
        })
    }

    /// Every request may be sent twice without harm.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(HeaderMap, Bytes), CloudError> {
        let (server, path_asked) = (self.server(), path.to_owned());
        // The slot's guard goes with a future that is dropped, and the connection amid a
        // response has been taken out of the slot by then.
        tokio::select! {
            result = timeout(EXCHANGE_TIMEOUT, self.attempt(&method, path, &body)) => {
                result.unwrap_or(Err(CloudError::TimedOut { server, path: path_asked }))
            }
            () = self.inner.renewed.notified() => {
                Err(CloudError::Lost { server, path: path_asked })
            }
        }
    }

    async fn attempt(
        &self,
        method: &Method,
        path: &str,
        body: &Bytes,
    ) -> Result<(HeaderMap, Bytes), CloudError> {
        let mut slot = self.inner.slot.lock().await;
        let server = self.server();
        let broken = |reason: String| CloudError::Broken {
            server: server.clone(),
            path: path.to_owned(),
            reason,
        };
        let (response, connection) = self.send(&mut slot, &server, method, path, body).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = read(response).await.map_err(broken)?;
        slot.connection = Some((server.clone(), connection));
        self.close_later(&mut slot);
        drop(slot);
        if !status.is_success() {
            if status == StatusCode::UNAUTHORIZED {
                self.inner.refused.notify_one();
            }
            let path = path.to_owned();
            return Err(CloudError::Status { server, path, status, reason: reason(&bytes) });
        }
        Ok((headers, bytes))
    }

    /// Sends on the open connection, or on a new one; the server may have closed the open one.
    async fn send(
        &self,
        slot: &mut Slot,
        server: &Endpoint,
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
                    server: server.clone(),
                    path: path.to_owned(),
                    reason: error.to_string(),
                })
        };
        let open = slot.connection.take().filter(|(to, open)| to == server && !open.is_closed());
        if let Some((_, mut open)) = open
            && let Ok(response) = open.send(request()?).await
        {
            return Ok((response, open));
        }
        let mut fresh = self.connect_to(server).await?;
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

/// How a server is asked over HTTPS.
pub(crate) fn endpoint(server: &Server) -> Endpoint {
    Endpoint { tls: true, host: server.host.clone(), port: server.port }
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
