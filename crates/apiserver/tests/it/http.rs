//! Requests that no kubectl makes: any method, path and header, over the server's own port.

use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::Value;
use toono_http::client::Connection;
use toono_pki::Issued;

use crate::cluster::Cluster;

/// One connection to the server.
pub(crate) struct Http(Connection);

impl Http {
    /// Connects, with a client certificate if one is given.
    pub(crate) async fn connect(cluster: &Cluster, own: Option<&Issued>) -> Self {
        let tls = toono_pki::client_config(cluster.ca().cert_pem(), own).unwrap();
        let endpoint = format!("https://{}", cluster.address).parse().unwrap();
        Self(Connection::connect_tls(&endpoint, &tls).await.unwrap())
    }

    /// Sends a request; answers code and body. `headers` are pairs of name and value.
    pub(crate) async fn ask(
        &mut self,
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            Value::Null => toono_http::empty(),
            body => {
                if !headers.iter().any(|(name, _)| *name == "content-type") {
                    request = request.header("content-type", "application/json");
                }
                toono_http::full(body.to_string())
            }
        };
        let response = self.0.send(request.body(body).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        (code, serde_json::from_slice(&bytes).unwrap_or_else(|_| text()))
    }

    pub(crate) async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
        self.ask(&Method::GET, path, headers, &Value::Null).await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> (u16, Value) {
        self.ask(&Method::POST, path, &[], body).await
    }
}
