//! Speaks the OCI distribution protocol to one registry for the length of one pull.
//!
//! Manifests and blobs by GET, redirects (to the storage behind a registry), passwords and bearer tokens.
//! It checks no digest and writes no file.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use rustls::ClientConfig;
use tokio::time::timeout;
use toono_http::client::{ClientError, Connection, Endpoint};

use crate::{
    auth::{self, Challenge, Realm},
    digest::Digest,
    error::PullError,
    keyring::Credentials,
    manifest::ACCEPTED_TYPES,
    reference::ImageRef,
    registries::Source,
    tls::{self, BadTlsFile, TlsSettings},
};

/// The largest manifest or token; registries themselves refuse manifests over 4 MiB.
pub const MAX_DOCUMENT_BYTES: usize = 4 << 20;
/// The most redirects for one request.
pub const MAX_REDIRECTS: usize = 5;
/// A registry that does not begin to answer by then is taken as unreachable.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// A transfer in which nothing arrives for so long is broken.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// One registry, and one connection to it that is used for request after request.
pub(crate) struct Registry {
    image: ImageRef,
    source: Source,
    credentials: Option<Credentials>,
    tls: Arc<ClientConfig>,
    /// For other hosts that the registry names.
    others_tls: Option<Arc<ClientConfig>>,
    connection: Option<Connection>,
    /// What each request shows, once the registry has asked for it.
    authorization: Option<HeaderValue>,
}

/// A blob that begins to arrive.
pub(crate) struct Blob {
    pub(crate) body: Incoming,
    /// The offset of its first byte: 0 where the registry did not heed the one that was asked for.
    pub(crate) starts_at: u64,
}

impl Registry {
    pub(crate) fn new(
        image: &ImageRef,
        source: Source,
        credentials: Option<Credentials>,
    ) -> Result<Self, PullError> {
        let tls = if source.endpoint.tls { source.tls.client() } else { tls::unused() };
        Ok(Self {
            tls: tls.map_err(|source| bad_tls(image, source))?,
            image: image.clone(),
            source,
            credentials,
            others_tls: None,
            connection: None,
            authorization: None,
        })
    }

    pub(crate) fn address(&self) -> String {
        self.source.endpoint.to_string()
    }

    /// The manifest with this tag or digest.
    pub(crate) async fn manifest(&mut self, reference: &str) -> Result<Bytes, PullError> {
        let path = self.path("manifests", reference);
        let response = self.fetch(&path, 0).await?;
        self.collect(response.into_body()).await
    }

    /// A blob from `offset` on.
    pub(crate) async fn blob(&mut self, digest: &Digest, offset: u64) -> Result<Blob, PullError> {
        let path = self.path("blobs", &digest.to_string());
        let response = self.fetch(&path, offset).await?;
        let starts_at = match response.status() {
            StatusCode::PARTIAL_CONTENT => range_start(response.headers()).unwrap_or(offset),
            _ => 0,
        };
        Ok(Blob { body: response.into_body(), starts_at })
    }

    /// Reads a small body whole.
    pub(crate) async fn collect(&self, body: Incoming) -> Result<Bytes, PullError> {
        let body = Limited::new(body, MAX_DOCUMENT_BYTES);
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

    fn path(&self, kind: &str, reference: &str) -> String {
        format!("{}/{}/{kind}/{reference}", self.source.prefix, self.image.repository())
    }

    async fn fetch(&mut self, path: &str, offset: u64) -> Result<Response<Incoming>, PullError> {
        let mut response = self.request(path, offset).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            // Also in the midst of a pull: tokens last some minutes, layers take longer.
            self.authenticate(response.headers()).await?;
            response = self.request(path, offset).await?;
        }
        let response = self.follow(response, offset).await?;
        let (image, endpoint) = (Box::new(self.image.clone()), self.address());
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            StatusCode::NOT_FOUND => Err(PullError::NotFound { image, endpoint }),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.denied()),
            status => Err(PullError::Status { image, endpoint, status: status.as_u16() }),
        }
    }

    async fn request(&mut self, path: &str, offset: u64) -> Result<Response<Incoming>, PullError> {
        let mut request = Request::get(path).header(header::ACCEPT, ACCEPTED_TYPES);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let mut connection = match self.connection.take().filter(|open| !open.is_closed()) {
            Some(connection) => connection,
            None => self.connect(&self.source.endpoint, &self.tls).await?,
        };
        let response = self.send(&mut connection, request, offset).await?;
        self.connection = Some(connection);
        Ok(response)
    }

    async fn connect(
        &self,
        endpoint: &Endpoint,
        tls: &Arc<ClientConfig>,
    ) -> Result<Connection, PullError> {
        Connection::open(endpoint, tls).await.map_err(|error| self.unreachable(error))
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

    fn unreachable(&self, source: ClientError) -> PullError {
        PullError::Unreachable { image: Box::new(self.image.clone()), source: Arc::new(source) }
    }

    fn denied(&self) -> PullError {
        PullError::Denied {
            image: Box::new(self.image.clone()),
            endpoint: self.address(),
            user: self.credentials.as_ref().map(|it| it.username.clone()),
        }
    }

    /// Follows redirects. They go to other hosts, which must not see what the registry is shown.
    async fn follow(
        &mut self,
        mut response: Response<Incoming>,
        offset: u64,
    ) -> Result<Response<Incoming>, PullError> {
        let mut at = self.source.endpoint.clone();
        for _ in 0..MAX_REDIRECTS {
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location = response.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
            let (next, path) = location
                .and_then(|location| resolve(&at, location))
                .ok_or_else(|| self.interrupted(&"a redirect leads nowhere"))?;
            let tls = self.tls_of(&next)?;
            let mut connection = self.connect(&next, &tls).await?;
            response = self.send(&mut connection, Request::get(path), offset).await?;
            at = next;
        }
        Err(self.interrupted(&"there are too many redirects"))
    }

    /// The registry's own settings are for itself; others must have what the system trusts.
    fn tls_of(&mut self, endpoint: &Endpoint) -> Result<Arc<ClientConfig>, PullError> {
        if !endpoint.tls || *endpoint == self.source.endpoint {
            return Ok(self.tls.clone());
        }
        if let Some(tls) = &self.others_tls {
            return Ok(tls.clone());
        }
        let tls = TlsSettings::default().client();
        let tls = tls.map_err(|source| bad_tls(&self.image, source))?;
        Ok(self.others_tls.insert(tls).clone())
    }

    /// Gets what the registry asks to be shown.
    async fn authenticate(&mut self, refusal: &HeaderMap) -> Result<(), PullError> {
        let shown = match Challenge::of(refusal).ok_or_else(|| self.denied())? {
            Challenge::Basic => self.credentials.as_ref().map(Credentials::basic),
            Challenge::Bearer(realm) => Some(format!("Bearer {}", self.token(&realm).await?)),
        };
        let shown = shown.and_then(|text| HeaderValue::try_from(text).ok());
        let mut shown = shown.ok_or_else(|| self.denied())?;
        shown.set_sensitive(true);
        if self.authorization.as_ref() == Some(&shown) {
            return Err(self.denied());
        }
        self.authorization = Some(shown);
        // The refusal's body was not read, so its connection is of no more use.
        self.connection = None;
        Ok(())
    }

    /// A token, for the user or for anybody.
    async fn token(&mut self, realm: &Realm) -> Result<String, PullError> {
        let default_scope = format!("repository:{}:pull", self.image.repository());
        let url = realm.url(&default_scope);
        let found = resolve(&self.source.endpoint, &url);
        let (endpoint, path) = found.ok_or_else(|| self.denied())?;
        let mut request = Request::get(path);
        // A registry that has TLS does not get its users' passwords sent about in the open.
        let may_see = endpoint.tls || !self.source.endpoint.tls;
        if let Some(credentials) = self.credentials.as_ref().filter(|_| may_see) {
            request = request.header(header::AUTHORIZATION, credentials.basic());
        }
        let tls = self.tls_of(&endpoint)?;
        let mut connection = self.connect(&endpoint, &tls).await?;
        let response = self.send(&mut connection, request, 0).await?;
        match response.status() {
            StatusCode::OK => {}
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                let (image, endpoint) = (Box::new(self.image.clone()), endpoint.to_string());
                return Err(PullError::Status { image, endpoint, status: status.as_u16() });
            }
            _ => return Err(self.denied()),
        }
        let body = self.collect(response.into_body()).await?;
        auth::token(&body).ok_or_else(|| self.denied())
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

/// The first byte of `Content-Range: bytes FIRST-LAST/ALL`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

fn bad_tls(image: &ImageRef, source: BadTlsFile) -> PullError {
    PullError::Tls { image: Box::new(image.clone()), source }
}
