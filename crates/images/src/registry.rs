//! Speaks the OCI distribution protocol to one registry for the length of one pull.
//!
//! Manifests and blobs by GET, redirects (to the storage behind a registry), and anonymous bearer
//! tokens as public registries want them. It checks no digest and writes no file.

use std::{collections::BTreeMap, str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::time::timeout;
use toono_http::client::{BadEndpoint, Connection, Endpoint};

use crate::{auth, error::PullError, manifest::ACCEPTED_TYPES, reference::ImageRef};

/// The largest manifest or token; registries themselves refuse manifests over 4 MiB.
pub const MAX_DOCUMENT_BYTES: usize = 4 << 20;
/// The most redirects for one request.
pub const MAX_REDIRECTS: usize = 5;
/// A registry that does not begin to answer by then is taken as unreachable.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// A transfer in which nothing arrives for so long is broken.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

const DOCKER_HUB: &str = "registry-1.docker.io";
/// Where distributions keep the certificates that they trust.
const SYSTEM_CERTIFICATES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Where the registries are.
#[derive(Debug, Clone, Default)]
pub struct RegistryConfig {
    /// For a registry's host (with port), the addresses to try in order. A registry without an
    /// entry is asked at its own name over TLS.
    pub endpoints: BTreeMap<String, Vec<Endpoint>>,
}

/// A text that is not `HOST=URL[,URL…]`.
#[derive(Debug, thiserror::Error)]
pub enum BadRegistry {
    /// There is no `=`.
    #[error("`{0}` is not HOST=URL[,URL…]")]
    NoUrl(String),
    /// One of the URLs.
    #[error(transparent)]
    Url(#[from] BadEndpoint),
}

impl RegistryConfig {
    /// Adds `HOST=URL[,URL…]`, such as `lab.toono.io=http://100.64.0.1:5000`.
    ///
    /// # Errors
    /// [`BadRegistry`] when the text is not of this form.
    pub fn add(&mut self, text: &str) -> Result<(), BadRegistry> {
        let (host, urls) =
            text.split_once('=').ok_or_else(|| BadRegistry::NoUrl(text.to_owned()))?;
        let endpoints = urls.split(',').map(Endpoint::from_str).collect::<Result<_, _>>()?;
        self.endpoints.insert(host.to_owned(), endpoints);
        Ok(())
    }

    pub(crate) fn endpoints_of(&self, image: &ImageRef) -> Vec<Endpoint> {
        if let Some(endpoints) = self.endpoints.get(image.registry()) {
            return endpoints.clone();
        }
        let host = match image.registry() {
            "docker.io" => DOCKER_HUB,
            other => other,
        };
        format!("https://{host}").parse().into_iter().collect()
    }
}

/// One registry, and one connection to it that is used for request after request.
pub(crate) struct Registry {
    image: ImageRef,
    endpoint: Endpoint,
    tls: Arc<rustls::ClientConfig>,
    connection: Option<Connection>,
    token: Option<String>,
}

impl Registry {
    pub(crate) fn new(image: &ImageRef, endpoint: Endpoint) -> Self {
        // Without TLS no certificate is read: parsing the system's takes memory.
        let roots = if endpoint.tls { system_roots() } else { rustls::RootCertStore::empty() };
        Self {
            image: image.clone(),
            tls: tls_config(roots),
            endpoint,
            connection: None,
            token: None,
        }
    }

    pub(crate) fn address(&self) -> String {
        self.endpoint.to_string()
    }

    /// The manifest with this tag or digest.
    pub(crate) async fn manifest(&mut self, reference: &str) -> Result<Bytes, PullError> {
        let path = format!("/v2/{}/manifests/{reference}", self.image.repository());
        let response = self.fetch(&path, 0).await?;
        self.collect(response).await
    }

    /// A blob from `offset` on; the status tells whether the registry heeded the offset.
    pub(crate) async fn blob(
        &mut self,
        digest: &crate::digest::Digest,
        offset: u64,
    ) -> Result<Response<Incoming>, PullError> {
        let path = format!("/v2/{}/blobs/{digest}", self.image.repository());
        self.fetch(&path, offset).await
    }

    /// Reads a small body whole.
    pub(crate) async fn collect(&self, response: Response<Incoming>) -> Result<Bytes, PullError> {
        let body = Limited::new(response.into_body(), MAX_DOCUMENT_BYTES);
        match timeout(IDLE_TIMEOUT, body.collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) => Err(self.interrupted(&error)),
            Err(_) => Err(self.interrupted(&"nothing came for a minute")),
        }
    }

    pub(crate) fn interrupted(&self, reason: &dyn std::fmt::Display) -> PullError {
        PullError::Interrupted {
            image: Box::new(self.image.clone()),
            endpoint: self.address(),
            reason: reason.to_string(),
        }
    }

    async fn fetch(&mut self, path: &str, offset: u64) -> Result<Response<Incoming>, PullError> {
        let mut response = self.request(path, offset).await?;
        if response.status() == StatusCode::UNAUTHORIZED && self.token.is_none() {
            self.authenticate(&response).await?;
            response = self.request(path, offset).await?;
        }
        let response = self.follow(response, offset).await?;
        let (image, endpoint) = (Box::new(self.image.clone()), self.address());
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            StatusCode::NOT_FOUND => Err(PullError::NotFound { image, endpoint }),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(PullError::Denied { image, endpoint })
            }
            status => Err(PullError::Status { image, endpoint, status: status.as_u16() }),
        }
    }

    async fn request(&mut self, path: &str, offset: u64) -> Result<Response<Incoming>, PullError> {
        let mut request = Request::get(path).header(header::ACCEPT, ACCEPTED_TYPES);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let mut connection = match self.connection.take().filter(|open| !open.is_closed()) {
            Some(connection) => connection,
            None => self.connect(&self.endpoint).await?,
        };
        let response = self.send(&mut connection, request, offset).await?;
        self.connection = Some(connection);
        Ok(response)
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<Connection, PullError> {
        Connection::open(endpoint, &self.tls).await.map_err(|error| self.unreachable(error))
    }

    async fn send(
        &self,
        connection: &mut Connection,
        mut request: http::request::Builder,
        offset: u64,
    ) -> Result<Response<Incoming>, PullError> {
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
        }
        let request = request
            .header(header::USER_AGENT, "toono")
            .body(toono_http::empty())
            .map_err(|error| self.interrupted(&error))?;
        match timeout(RESPONSE_TIMEOUT, connection.send(request)).await {
            Ok(response) => response.map_err(|error| self.unreachable(error)),
            Err(_) => Err(self.interrupted(&"no answer came within a minute")),
        }
    }

    fn unreachable(&self, source: toono_http::client::ClientError) -> PullError {
        PullError::Unreachable { image: Box::new(self.image.clone()), source: Arc::new(source) }
    }

    /// Follows redirects. They go to other hosts, which must not see the token.
    async fn follow(
        &self,
        mut response: Response<Incoming>,
        offset: u64,
    ) -> Result<Response<Incoming>, PullError> {
        let mut at = self.endpoint.clone();
        for _ in 0..MAX_REDIRECTS {
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location = response.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
            let (next, path) = location
                .and_then(|location| resolve(&at, location))
                .ok_or_else(|| self.interrupted(&"a redirect leads nowhere"))?;
            let mut connection = match self.endpoint.tls || !next.tls {
                true => self.connect(&next).await?,
                // The registry itself has no TLS, so no certificates were read yet.
                false => Connection::open(&next, &tls_config(system_roots()))
                    .await
                    .map_err(|error| self.unreachable(error))?,
            };
            response = self.send(&mut connection, Request::get(path), offset).await?;
            at = next;
        }
        Err(self.interrupted(&"there are too many redirects"))
    }

    /// Gets an anonymous token from where the registry says.
    async fn authenticate(&mut self, refusal: &Response<Incoming>) -> Result<(), PullError> {
        let denied =
            || PullError::Denied { image: Box::new(self.image.clone()), endpoint: self.address() };
        let challenge = refusal
            .headers()
            .get(header::WWW_AUTHENTICATE)
            .and_then(|value| value.to_str().ok())
            .and_then(auth::Challenge::parse)
            .ok_or_else(denied)?;
        let default_scope = format!("repository:{}:pull", self.image.repository());
        let url = challenge.url(&default_scope);
        let (endpoint, path) = resolve(&self.endpoint, &url).ok_or_else(denied)?;
        let tls = if endpoint.tls { tls_config(system_roots()) } else { self.tls.clone() };
        let mut connection =
            Connection::open(&endpoint, &tls).await.map_err(|error| self.unreachable(error))?;
        let response = self.send(&mut connection, Request::get(path), 0).await?;
        if response.status() != StatusCode::OK {
            return Err(denied());
        }
        let body = self.collect(response).await?;
        let token = auth::token(&body).ok_or_else(denied)?;
        self.token = Some(token);
        // The refusal's body was not read, so its connection is of no more use.
        self.connection = None;
        Ok(())
    }
}

/// A URL, absolute or relative to an endpoint, as an endpoint and a path.
fn resolve(base: &Endpoint, location: &str) -> Option<(Endpoint, String)> {
    let uri: Uri = location.parse().ok()?;
    let path = uri.path_and_query()?.as_str().to_owned();
    let endpoint = match (uri.scheme_str(), uri.authority()) {
        (Some(scheme), Some(authority)) => format!("{scheme}://{authority}").parse().ok()?,
        (None, None) => base.clone(),
        _ => return None,
    };
    Some((endpoint, path))
}

fn system_roots() -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    for file in SYSTEM_CERTIFICATES {
        if let Ok(certificates) = CertificateDer::pem_file_iter(file) {
            roots.add_parsable_certificates(certificates.flatten());
            break;
        }
    }
    roots
}

fn tls_config(roots: rustls::RootCertStore) -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::DEFAULT_VERSIONS);
    match versions {
        Ok(builder) => Arc::new(builder.with_root_certificates(roots).with_no_client_auth()),
        // ring has cipher suites for both versions, so this cannot be; an empty trust store
        // through the process' default provider refuses every peer, which is the safe answer.
        Err(_) => Arc::new(
            rustls::ClientConfig::builder()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth(),
        ),
    }
}
