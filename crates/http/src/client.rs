//! Client connections: one TCP or TLS connection, HTTP/1.1, requests one after another.
//!
//! There is no pool: a caller that wants a connection to linger keeps it, one that does not drops
//! it. The agent relies on that, because an idle edge node must hold no TCP connection.

use std::{fmt, io, str::FromStr, sync::Arc, time::Duration};

use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::Body;

/// DNS, TCP and TLS together may take this long; a satellite link needs some seconds.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Where to connect: the scheme, host and port of a URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// TLS or not.
    pub tls: bool,
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    /// The port, explicit or the scheme's own.
    pub port: u16,
}

/// A text that is not `http(s)://HOST[:PORT]`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not http://HOST[:PORT] or https://HOST[:PORT]")]
pub struct BadEndpoint(pub String);

/// Why a request got no response.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No TCP connection.
    #[error("cannot connect to {endpoint}")]
    Connect {
        /// Where to.
        endpoint: Endpoint,
        /// The system's reason.
        source: io::Error,
    },
    /// The TLS handshake failed; the source tells a refused certificate from a broken link.
    #[error("no TLS with {endpoint}")]
    Tls {
        /// Where to.
        endpoint: Endpoint,
        /// The handshake's reason, a `rustls::Error` inside where TLS itself refused.
        source: io::Error,
    },
    /// Nothing answered within [`CONNECT_TIMEOUT`].
    #[error("{endpoint} did not answer within {} s", CONNECT_TIMEOUT.as_secs())]
    TimedOut {
        /// Where to.
        endpoint: Endpoint,
    },
    /// The connection broke before the response's head arrived.
    #[error("the request to {endpoint} failed")]
    Request {
        /// Where to.
        endpoint: Endpoint,
        /// What HTTP says.
        source: hyper::Error,
    },
}

/// One open connection. Dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    endpoint: Endpoint,
    sender: http1::SendRequest<Body>,
    driver: JoinHandle<()>,
}

impl Connection {
    /// Connects. `tls` is used when the endpoint's scheme is https.
    ///
    /// # Errors
    /// [`ClientError::Connect`], [`ClientError::Tls`] or [`ClientError::TimedOut`].
    pub async fn open(
        endpoint: &Endpoint,
        tls: &Arc<rustls::ClientConfig>,
    ) -> Result<Self, ClientError> {
        if endpoint.tls {
            Self::connect_tls(endpoint, tls).await
        } else {
            Self::connect_plain(endpoint).await
        }
    }

    /// Connects without TLS, whatever the endpoint's scheme.
    ///
    /// # Errors
    /// [`ClientError::Connect`] or [`ClientError::TimedOut`].
    pub async fn connect_plain(endpoint: &Endpoint) -> Result<Self, ClientError> {
        let stream = plain_stream(endpoint).await?;
        Self::speak_http(endpoint, stream).await
    }

    /// Connects with TLS, whatever the endpoint's scheme.
    ///
    /// # Errors
    /// [`ClientError::Connect`], [`ClientError::Tls`] or [`ClientError::TimedOut`].
    pub async fn connect_tls(
        endpoint: &Endpoint,
        tls: &Arc<rustls::ClientConfig>,
    ) -> Result<Self, ClientError> {
        let stream = tls_stream(endpoint, tls).await?;
        Self::speak_http(endpoint, stream).await
    }

    /// Speaks over a stream that is connected already, with TLS if `tls` is given; the peer must then
    /// show a certificate for the endpoint's host.
    ///
    /// # Errors
    /// [`ClientError::Tls`], [`ClientError::TimedOut`] or [`ClientError::Request`].
    pub async fn over<S>(
        stream: S,
        endpoint: &Endpoint,
        tls: Option<&Arc<rustls::ClientConfig>>,
    ) -> Result<Self, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(tls) = tls else { return Self::speak_http(endpoint, stream).await };
        let refused = |source| ClientError::Tls { endpoint: endpoint.clone(), source };
        let name = ServerName::try_from(endpoint.host.clone())
            .map_err(|error| refused(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let stream = within_deadline(endpoint, async {
            TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.map_err(refused)
        })
        .await?;
        Self::speak_http(endpoint, stream).await
    }

    async fn speak_http<S>(endpoint: &Endpoint, stream: S) -> Result<Self, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| ClientError::Request { endpoint: endpoint.clone(), source })?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection ended");
            }
        });
        Ok(Self { endpoint: endpoint.clone(), sender, driver })
    }

    /// Sends one request and awaits the head of its response. The `Host` header is set here; the
    /// request's URI is the path and query alone.
    ///
    /// # Errors
    /// [`ClientError::Request`]; the connection is then of no more use.
    pub async fn send(
        &mut self,
        mut request: http::Request<Body>,
    ) -> Result<http::Response<Incoming>, ClientError> {
        if let Ok(host) = http::HeaderValue::try_from(self.endpoint.authority()) {
            request.headers_mut().entry(http::header::HOST).or_insert(host);
        }
        let failed = |source| ClientError::Request { endpoint: self.endpoint.clone(), source };
        self.sender.ready().await.map_err(failed)?;
        self.sender.send_request(request).await.map_err(failed)
    }

    /// Whether the peer has closed, or an error ended the connection.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed() || self.driver.is_finished()
    }
}

/// A TCP connection, in time.
pub(crate) async fn plain_stream(endpoint: &Endpoint) -> Result<TcpStream, ClientError> {
    within_deadline(endpoint, tcp(endpoint)).await
}

/// A TLS connection, in time.
pub(crate) async fn tls_stream(
    endpoint: &Endpoint,
    tls: &Arc<rustls::ClientConfig>,
) -> Result<TlsStream<TcpStream>, ClientError> {
    within_deadline(endpoint, async {
        let stream = tcp(endpoint).await?;
        let refused = |source| ClientError::Tls { endpoint: endpoint.clone(), source };
        let name = ServerName::try_from(endpoint.host.clone())
            .map_err(|error| refused(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        TlsConnector::from(tls.clone()).connect(name, stream).await.map_err(refused)
    })
    .await
}

async fn tcp(endpoint: &Endpoint) -> Result<TcpStream, ClientError> {
    let failed = |source| ClientError::Connect { endpoint: endpoint.clone(), source };
    let stream =
        TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

async fn within_deadline<T>(
    endpoint: &Endpoint,
    connecting: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    timeout(CONNECT_TIMEOUT, connecting)
        .await
        .unwrap_or_else(|_| Err(ClientError::TimedOut { endpoint: endpoint.clone() }))
}

// === impl Endpoint ===

impl Endpoint {
    /// `HOST:PORT` as in a `Host` header, IPv6 in brackets.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl Endpoint {
    /// The absolute URL of a path here.
    ///
    /// # Errors
    /// When the path is none.
    pub fn url(&self, path: &str) -> Result<http::Uri, http::Error> {
        http::Uri::builder()
            .scheme(if self.tls { "https" } else { "http" })
            .authority(self.authority())
            .path_and_query(path)
            .build()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadEndpoint(text.to_owned());
        let uri: http::Uri = text.parse().map_err(|_| bad())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad()),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(bad());
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(bad)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { tls, host, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_parse_and_print() {
        let cases = [
            ("https://10.0.0.1:6443", "https://10.0.0.1:6443"),
            ("https://cloud.example", "https://cloud.example:443"),
            ("http://registry:5000/", "http://registry:5000"),
            ("https://[fd00::1]:6443", "https://[fd00::1]:6443"),
        ];
        for (text, printed) in cases {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), printed);
        }
        for text in ["", "10.0.0.1:6443", "ftp://x", "https://", "https://x/path", "https://x?q"] {
            assert_eq!(text.parse::<Endpoint>(), Err(BadEndpoint(text.to_owned())));
        }
    }
}
