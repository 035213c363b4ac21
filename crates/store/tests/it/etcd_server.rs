//! Stores in a real etcd.

use std::sync::Arc;

use http_body_util::BodyExt;
use rustls::{ClientConfig, RootCertStore};
use toono_http::client::{Connection, Endpoint};
use toono_linear::etcd_server::EtcdServer;
use toono_store::{EtcdConfig, Rev, Store};

/// How to open a store at this URL.
pub(crate) fn config(url: &str) -> EtcdConfig {
    EtcdConfig::new(vec![url.parse().unwrap()], None)
}

/// One server's store in it.
pub(crate) async fn store(etcd: &EtcdServer) -> Store {
    Store::connect(config(&etcd.url())).await.unwrap().0
}

/// Whether etcd itself has compacted this revision; asked through its JSON gateway, which knows nothing
/// of ours.
pub(crate) async fn has_forgotten(etcd: &EtcdServer, rev: Rev) -> bool {
    let endpoint: Endpoint = etcd.url().parse().unwrap();
    let mut connection = Connection::open(&endpoint, &tls()).await.unwrap();
    let revision = rev.0 / 256;
    let question = format!(r#"{{"key":"AA==","revision":"{revision}"}}"#);
    let request = http::Request::post("/v3/kv/range").body(toono_http::full(question)).unwrap();
    let answer = connection.send(request).await.unwrap().into_body().collect().await.unwrap();
    String::from_utf8_lossy(&answer.to_bytes()).contains("has been compacted")
}

/// Settings that plain HTTP does not use.
fn tls() -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Arc::new(config)
}
