//! Client connections of HTTP/2: many requests at once over one TCP or TLS connection, which is watched
//! by pings. It must not choose whom to connect to, nor try anything twice.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    Body,
    client::{self, ClientError, Endpoint},
};

/// A peer that has sent nothing for so long is asked for a sign of life, also when no request waits.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// No answer to that for so long, and the connection is given up.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// What one response, and the whole connection, may have on its way: HTTP's 64 KiB would make a large
/// response wait for the network at every step.
const WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// One open connection. Clones are the same connection; it closes when the last of them, and the last
/// response of it, is dropped.
#[derive(Debug, Clone)]
pub struct Connection {
    endpoint: Endpoint,
    sender: http2::SendRequest<Body>,
}

/// Why there is no response. Which of the two it is decides whether asking again is safe.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The request was not sent: the peer cannot have acted on it.
    #[error("the connection to {0} was closed before the request was sent")]
    NotSent(Endpoint),
    /// The connection broke while the response was waited for. What the peer did is not known.
    #[error("the connection to {endpoint} broke before its response")]
    Lost {
        /// Where to.
        endpoint: Endpoint,
        /// What HTTP says.
        source: hyper::Error,
    },
}

impl Connection {
    /// Connects. `tls` is needed when the endpoint's scheme is https; HTTP/2 is all that is offered then.
    ///
    /// # Errors
    /// As [`client::Connection::open`].
    pub async fn open(
        endpoint: &Endpoint,
        tls: Option<&Arc<rustls::ClientConfig>>,
    ) -> Result<Self, ClientError> {
        if endpoint.tls {
            let Some(tls) = tls else {
                let source = io::Error::new(io::ErrorKind::InvalidInput, "no CA to verify it by");
                return Err(ClientError::Tls { endpoint: endpoint.clone(), source });
            };
            let mut tls = rustls::ClientConfig::clone(tls);
            tls.alpn_protocols = vec![b"h2".to_vec()];
            let stream = client::tls_stream(endpoint, &Arc::new(tls)).await?;
            Self::over(stream, endpoint).await
        } else {
            let stream = client::plain_stream(endpoint).await?;
            Self::over(stream, endpoint).await
        }
    }

    /// Speaks over a stream that is connected already.
    ///
    /// # Errors
    /// [`ClientError::Request`].
    pub async fn over<S>(stream: S, endpoint: &Endpoint) -> Result<Self, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| ClientError::Request { endpoint: endpoint.clone(), source })?;
        let peer = endpoint.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, %peer, "connection ended");
            }
        });
        Ok(Self { endpoint: endpoint.clone(), sender })
    }

    /// Sends a request and awaits the head of its response. Its URI must be absolute, as HTTP/2 takes
    /// scheme and authority from there: see [`Endpoint::url`].
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(
        &self,
        request: http::Request<Body>,
    ) -> Result<http::Response<Incoming>, SendError> {
        let mut sender = self.sender.clone();
        if sender.ready().await.is_err() {
            return Err(SendError::NotSent(self.endpoint.clone()));
        }
        sender.try_send_request(request).await.map_err(|mut error| {
            if error.take_message().is_some() {
                SendError::NotSent(self.endpoint.clone())
            } else {
                SendError::Lost { endpoint: self.endpoint.clone(), source: error.into_error() }
            }
        })
    }

    /// Whom it is to.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether the peer has closed, or an error ended the connection.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}
