//! How a webhook is reached: by the URL that an administrator configured, or through the node's link
//! of a pod behind a Service. Always with TLS.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use toono_api::meta::{at, text_at};
use toono_http::client::{Connection, Endpoint};

use super::matching::Webhook;
use crate::{ApiServer, limits, remote::dial, service_target};

/// Kubernetes' own default of `timeoutSeconds`.
const TIMEOUT_SECONDS: u64 = 10;
/// The CAs of the machine, for URLs without a `caBundle`.
const SYSTEM_CAS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Sends the question; the answer's JSON, or what went wrong.
pub(super) async fn call(
    webhook: &Webhook,
    server: &ApiServer,
    question: &Value,
) -> Result<Value, String> {
    let seconds = at(webhook.spec(), &["timeoutSeconds"]).and_then(Value::as_u64);
    let limit = Duration::from_secs(seconds.unwrap_or(TIMEOUT_SECONDS));
    let target = Target::read(webhook.spec())?;
    let url = target.url();
    let asked = async {
        let mut connection = target.connect(server).await?;
        let request = Request::post(&target.path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(toono_http::full(question.to_string()))
            .map_err(|error| error.to_string())?;
        let response = connection.send(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), limits::BODY_MAX_BYTES).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        if status != StatusCode::OK {
            return Err(format!("the server answered {status}"));
        }
        serde_json::from_slice(&body).map_err(|error| format!("the answer is no JSON: {error}"))
    };
    let failed = |why: String| format!("failed to call webhook: Post {url:?}: {why}");
    match tokio::time::timeout(limit, asked).await {
        Ok(answer) => answer.map_err(failed),
        Err(_) => Err(failed("context deadline exceeded".to_owned())),
    }
}

struct Target {
    endpoint: Endpoint,
    path: String,
    /// Namespace, name and port of a Service.
    service: Option<(String, String, u16)>,
    tls: Arc<rustls::ClientConfig>,
}

impl Target {
    fn read(webhook: &Value) -> Result<Self, String> {
        let config = at(webhook, &["clientConfig"]).unwrap_or(&Value::Null);
        let tls = tls(text_at(config, &["caBundle"]))?;
        if let Some(url) = text_at(config, &["url"]) {
            let uri: http::Uri = url.parse().map_err(|error| format!("{url:?}: {error}"))?;
            let host = uri.authority().map_or("", http::uri::Authority::as_str);
            let endpoint: Endpoint =
                format!("https://{host}").parse().map_err(|error| format!("{error}"))?;
            let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
            return Ok(Self { endpoint, path: path.to_owned(), service: None, tls });
        }
        let text = |field: &str| text_at(config, &["service", field]).unwrap_or_default();
        let (namespace, name) = (text("namespace").to_owned(), text("name").to_owned());
        let port = at(config, &["service", "port"]).and_then(Value::as_u64).unwrap_or(443);
        let port = u16::try_from(port).map_err(|error| error.to_string())?;
        let host = format!("{name}.{namespace}.svc");
        let path = if text("path").is_empty() { "/" } else { text("path") }.to_owned();
        let endpoint = Endpoint { tls: true, host, port };
        Ok(Self { endpoint, path, service: Some((namespace, name, port)), tls })
    }

    fn url(&self) -> String {
        format!("https://{}:{}{}", self.endpoint.host, self.endpoint.port, self.path)
    }

    async fn connect(&self, server: &ApiServer) -> Result<Connection, String> {
        let connection = match &self.service {
            None => Connection::connect_tls(&self.endpoint, &self.tls).await,
            Some((namespace, name, port)) => {
                let target = service_target::of(server, namespace, name, &port.to_string())
                    .map_err(|error| error.to_string())?;
                let stream =
                    dial::dial(&server.inner.remote, namespace, &target.pod, target.port).await;
                let stream = stream.map_err(|error| error.to_string())?;
                Connection::over(stream, &self.endpoint, Some(&self.tls)).await
            }
        };
        connection.map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
        })
    }
}

fn tls(bundle: Option<&str>) -> Result<Arc<rustls::ClientConfig>, String> {
    let pem = match bundle.filter(|bundle| !bundle.is_empty()) {
        Some(bundle) => STANDARD.decode(bundle).map_err(|error| format!("caBundle: {error}"))?,
        None => std::fs::read(SYSTEM_CAS)
            .map_err(|error| format!("no caBundle is given, and {SYSTEM_CAS}: {error}"))?,
    };
    let pem = String::from_utf8(pem).map_err(|error| format!("caBundle: {error}"))?;
    toono_pki::client_config(&pem, None).map_err(|error| format!("caBundle: {error}"))
}
