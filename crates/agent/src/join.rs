//! Becoming a member: a token and a pin buy an identity, once.

use std::io;

use http::{Request, StatusCode, header};
use serde_json::Value;
use toono_http::client::{ClientError, Connection};
use toono_pki::{NodeKey, client_config_pinned, verified_ca_pem};
use toono_wire::{
    bundle::Bundle,
    join::{JoinRequest, JoinResponse},
    path,
};

use crate::{
    AgentError, Bootstrap, Config, bundles::Bundles, cloud, identity::Identity, pool::Pool,
    retry::Retry,
};

/// What one try came to, short of success.
enum Failure {
    /// It will not get better.
    Final(AgentError),
    /// The network, or a server that is busy or starting.
    Passing(String),
}

/// Joins, however long the network takes. Nothing is written before the server has agreed, and
/// nothing stays behind when it refuses.
pub(crate) async fn join(config: &Config, status: Value) -> Result<Identity, AgentError> {
    let bootstrap = config.bootstrap.as_ref().ok_or(AgentError::NoBootstrap)?;
    // One key for all tries: a server that accepted it and whose answer was lost knows it again.
    let key = NodeKey::generate(&config.name)?;
    let request = JoinRequest {
        node_name: config.name.clone(),
        pool: config.pool.clone(),
        csr_pem: key.csr_pem.clone(),
        status,
    };
    let mut retry = Retry::default();
    let joined = loop {
        match attempt(config, bootstrap, &request).await {
            Ok(joined) => break joined,
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Passing(reason)) => {
                let delay = retry.delay();
                tracing::warn!(server = %config.server, reason, ?delay, "cannot join yet");
                tokio::time::sleep(delay).await;
            }
        }
    };
    let revision = joined.bundle_revision;
    let pool = joined.pool.clone();
    let identity = Identity::of_join(&config.name, key.key_pem, joined);
    identity.save(&config.data)?;
    if let Some(news) = pool {
        Pool::learn(&config.data, &identity, news)?;
    }
    if revision > 0 {
        // It is new, so the cloud knows what it is to have: nothing, and need not be asked.
        let nothing = Bundle {
            revision,
            pods: Vec::new(),
            present: Vec::new(),
            referents: Vec::new(),
            referenced: Vec::new(),
            digest: 0,
            pool: None,
        };
        Bundles::load(&config.data)?.store(&nothing)?;
    }
    tracing::info!(node = config.name, uid = identity.node_uid, "joined");
    Ok(identity)
}

async fn attempt(
    config: &Config,
    bootstrap: &Bootstrap,
    request: &JoinRequest,
) -> Result<JoinResponse, Failure> {
    let server = || config.server.clone();
    let bad = |reason: String| Failure::Final(AgentError::BadJoin { server: server(), reason });
    let tls =
        client_config_pinned(bootstrap.ca_pin).map_err(|error| Failure::Final(error.into()))?;
    // The pin is the only proof of the server, so there is no join without TLS.
    let mut connection = Connection::connect_tls(&config.server, &tls)
        .await
        .map_err(|error| judge(config, error))?;
    let body = serde_json::to_vec(request).map_err(|error| bad(error.to_string()))?;
    let request = Request::post(path::JOIN)
        .header(header::AUTHORIZATION, format!("Bearer {}", bootstrap.token))
        .header(header::CONTENT_TYPE, "application/json")
        .body(toono_http::full(body))
        .map_err(|error| bad(error.to_string()))?;
    let response = connection.send(request).await.map_err(|error| judge(config, error))?;
    let status = response.status();
    let body = cloud::read(response).await.map_err(Failure::Passing)?;
    if status.is_success() {
        let joined: JoinResponse =
            serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?;
        verified_ca_pem(&joined.ca_pem, bootstrap.ca_pin)
            .map_err(|error| Failure::Final(error.into()))?;
        return Ok(joined);
    }
    let reason = cloud::reason(&body);
    Err(match status {
        StatusCode::UNAUTHORIZED => Failure::Final(AgentError::TokenRefused { server: server() }),
        StatusCode::CONFLICT => {
            let name = config.name.clone();
            Failure::Final(AgentError::NameTaken { server: server(), name, reason })
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Failure::Passing(reason),
        _ if status.is_server_error() => Failure::Passing(format!("{status}: {reason}")),
        _ => {
            let status = status.as_u16();
            Failure::Final(AgentError::JoinRefused { server: server(), status, reason })
        }
    })
}

/// A certificate that does not fit the pin is final; anything else on the way is the network.
fn judge(config: &Config, error: ClientError) -> Failure {
    match error {
        ClientError::Tls { source, .. } if is_certificate_error(&source) => {
            Failure::Final(AgentError::WrongCa { server: config.server.clone(), source })
        }
        other => Failure::Passing(chain(&other)),
    }
}

fn is_certificate_error(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(
        inner,
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
    )
}

/// An error with its causes, for a log line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
