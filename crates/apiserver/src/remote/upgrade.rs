//! The HTTP side of switching protocols: what a client offers, and how the offer is taken.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use toono_api::ApiError;
use toono_http::Body;
use toono_streams::negotiate::{
    ACCEPTED_PROTOCOLS_HEADER, STREAM_PROTOCOL_HEADER, accept_key, is_valid_key, tokens,
};

/// The only version of WebSocket there is (RFC 6455, section 4.1).
const WEBSOCKET_VERSION: &str = "13";

/// What a client wants to speak, with its subprotocols by preference.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Offer<'a> {
    Spdy { protocols: Vec<&'a str> },
    WebSocket { key: &'a str, protocols: Vec<&'a str> },
}

impl<'a> Offer<'a> {
    /// Reads the offer of an upgrade request.
    pub(super) fn parse(headers: &'a HeaderMap) -> Result<Self, ApiError> {
        let named = |name: HeaderName| tokens(texts(headers, name));
        let upgrades =
            named(header::CONNECTION).iter().any(|token| token.eq_ignore_ascii_case("upgrade"));
        let wants = |protocol: &str| {
            upgrades
                && named(header::UPGRADE).iter().any(|token| token.eq_ignore_ascii_case(protocol))
        };
        if wants("SPDY/3.1") {
            let name = HeaderName::from_static(STREAM_PROTOCOL_HEADER);
            return Ok(Self::Spdy { protocols: named(name) });
        }
        if !wants("websocket") {
            return Err(bad("Upgrade request required"));
        }
        let one = |name: HeaderName| texts(headers, name).next().unwrap_or_default();
        if one(header::SEC_WEBSOCKET_VERSION) != WEBSOCKET_VERSION {
            return Err(bad("Sec-WebSocket-Version must be 13"));
        }
        let key = one(header::SEC_WEBSOCKET_KEY);
        if !is_valid_key(key) {
            return Err(bad("Sec-WebSocket-Key must be 16 bytes in base64"));
        }
        Ok(Self::WebSocket { key, protocols: named(header::SEC_WEBSOCKET_PROTOCOL) })
    }

    /// The response that takes the offer with a subprotocol, empty for none.
    pub(super) fn accept(&self, protocol: &'static str) -> Result<Response<Body>, ApiError> {
        let mut response = Response::new(toono_http::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        let name = match self {
            Self::Spdy { .. } => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
                HeaderName::from_static(STREAM_PROTOCOL_HEADER)
            }
            Self::WebSocket { key, .. } => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                let accept = HeaderValue::from_str(&accept_key(key));
                let accept = accept.map_err(|error| ApiError::Internal(error.to_string()))?;
                headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
                header::SEC_WEBSOCKET_PROTOCOL
            }
        };
        if !protocol.is_empty() {
            headers.insert(name, HeaderValue::from_static(protocol));
        }
        Ok(response)
    }

    /// The response when none of the client's subprotocols is known here.
    pub(super) fn refuse(&self, known: &[&'static str]) -> Response<Body> {
        let (Self::Spdy { protocols } | Self::WebSocket { protocols, .. }) = self;
        let text = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]\n",
            protocols.join(" "),
            known.join(" "),
        );
        let mut response = Response::new(toono_http::full(text));
        *response.status_mut() = StatusCode::FORBIDDEN;
        for protocol in known {
            response.headers_mut().append(
                HeaderName::from_static(ACCEPTED_PROTOCOLS_HEADER),
                HeaderValue::from_static(protocol),
            );
        }
        response
    }
}

/// The connection that the request came on, once the `101` is sent.
pub(super) fn take(request: &mut Request<Body>) -> Result<OnUpgrade, ApiError> {
    if request.extensions().get::<OnUpgrade>().is_none() {
        return Err(bad("this connection cannot be upgraded: HTTP/1.1 is needed"));
    }
    Ok(hyper::upgrade::on(request))
}

fn texts(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
}

fn bad(why: &str) -> ApiError {
    ApiError::BadRequest(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn offers_are_told_apart() {
        let mut spdy = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "SPDY/3.1")]);
        for protocol in ["v4.channel.k8s.io", "channel.k8s.io"] {
            spdy.append(STREAM_PROTOCOL_HEADER, HeaderValue::from_static(protocol));
        }
        let offer = Offer::parse(&spdy).unwrap();
        assert_eq!(offer, Offer::Spdy { protocols: vec!["v4.channel.k8s.io", "channel.k8s.io"] });

        let websocket = [
            ("connection", "Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "v5.channel.k8s.io"),
        ];
        let whole = headers(&websocket);
        let response = Offer::parse(&whole).unwrap().accept("v5.channel.k8s.io").unwrap();
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
        for missing in [0, 1, 2, 3] {
            let mut part = websocket.to_vec();
            part.remove(missing);
            assert_eq!(Offer::parse(&headers(&part)).unwrap_err().code(), 400, "without {missing}");
        }
    }
}
