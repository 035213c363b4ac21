//! How others can verify our tokens without asking us: OpenID Connect discovery and the public key.
//! <https://openid.net/specs/openid-connect-discovery-1_0.html>

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;
use toono_http::Body;

use super::ISSUER;
use crate::{respond, server::ApiServer};

const CONFIGURATION: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/openid/v1/jwks";
/// Verifiers may keep the documents for an hour.
const CACHED: HeaderValue = HeaderValue::from_static("public, max-age=3600");

/// Answers the two paths; `None` for any other.
pub(crate) fn answer(server: &ApiServer, path: &str) -> Option<Response<Body>> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let (content_type, document) = match path {
        CONFIGURATION => (
            "application/json",
            json!({"issuer": ISSUER, "jwks_uri": format!("{ISSUER}{KEYS}"),
                "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"]}),
        ),
        KEYS => {
            ("application/jwk-set+json", json!({"keys": [server.inner.issuer.key.public_jwk()]}))
        }
        _ => return None,
    };
    let content_type = HeaderValue::from_static(content_type);
    let mut response = respond::typed(StatusCode::OK, content_type, document.to_string());
    response.headers_mut().insert(header::CACHE_CONTROL, CACHED);
    Some(response)
}
