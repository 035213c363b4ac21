//! How the clients of the benchmark reach the server: the administrator's certificate, plain HTTP.

use std::{fs, path::Path, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use rustls::{ClientConfig, client::Resumption};
use toono_http::{
    client::{Connection, Endpoint},
    http2,
};
use toono_pki::Issued;

use crate::Failure;

/// Every client of Kubernetes names itself; the server records it with what is written.
const AGENT: &str = concat!("toono-sim/", env!("CARGO_PKG_VERSION"));

/// What is needed to connect.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) endpoint: Endpoint,
    tls: Arc<ClientConfig>,
    /// The same without a certificate of its own.
    anonymous: Arc<ClientConfig>,
    ca: Arc<str>,
}

impl Access {
    /// From the kubeconfig in a server's data directory.
    pub(crate) fn read(data: &Path, port: u16) -> Result<Self, Failure> {
        let text = fs::read_to_string(data.join("admin.kubeconfig"))?;
        let pem = |field: &str| -> Result<String, Failure> {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(field));
            let line = line.ok_or_else(|| format!("no {field} in the kubeconfig"))?;
            Ok(String::from_utf8(STANDARD.decode(line.trim())?)?)
        };
        let own = Issued {
            cert_pem: pem("client-certificate-data:")?,
            key_pem: pem("client-key-data:")?,
        };
        let ca = pem("certificate-authority-data:")?;
        let tls = toono_pki::client_config(&ca, Some(&own))?;
        let anonymous = toono_pki::client_config(&ca, None)?;
        let endpoint = format!("https://127.0.0.1:{port}").parse()?;
        Ok(Self { endpoint, tls, anonymous, ca: ca.into() })
    }

    /// The same server for who has this certificate. There may be thousands of them, so each remembers the
    /// sessions with one server, and no room for more.
    pub(crate) fn with(&self, own: &Issued) -> Result<Self, Failure> {
        let mut tls = ClientConfig::clone(&*toono_pki::client_config(&self.ca, Some(own))?);
        tls.resumption = Resumption::in_memory_sessions(1);
        Ok(Self { tls: Arc::new(tls), ..self.clone() })
    }

    /// A connection of HTTP/1.1 for who has a token.
    pub(crate) async fn connect_anonymously(&self) -> Result<Connection, Failure> {
        Ok(Connection::open(&self.endpoint, &self.anonymous).await?)
    }

    /// The same over a connection by TCP that there is already.
    pub(crate) async fn begin_tls(&self, stream: tokio::net::TcpStream) -> Result<(), Failure> {
        Connection::over(stream, &self.endpoint, Some(&self.anonymous)).await?;
        Ok(())
    }

    /// A connection of HTTP/1.1.
    pub(crate) async fn connect(&self) -> Result<Connection, Failure> {
        Ok(Connection::open(&self.endpoint, &self.tls).await?)
    }

    /// A connection of HTTP/2.
    pub(crate) async fn connect_http2(&self) -> Result<http2::Connection, Failure> {
        Ok(http2::Connection::open(&self.endpoint, Some(&self.tls)).await?)
    }
}

/// Sends a request with a JSON body; the answer's code and body.
pub(crate) async fn ask(
    connection: &mut Connection,
    method: http::Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), Failure> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .header("user-agent", AGENT)
        .body(toono_http::full(body))?;
    let response = connection.send(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}
