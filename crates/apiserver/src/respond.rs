//! Responses: JSON, errors as `Status`, warnings.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use serde_json::Value;
use toono_api::ApiError;
use toono_http::Body;

/// Most warnings of one response: clients print each.
const WARNINGS_MAX: usize = 10;

/// A JSON response.
pub(crate) fn json(status: StatusCode, body: impl Into<bytes::Bytes>) -> Response<Body> {
    typed(status, HeaderValue::from_static("application/json"), body)
}

/// A response with a content type.
pub(crate) fn typed(
    status: StatusCode,
    content_type: HeaderValue,
    body: impl Into<bytes::Bytes>,
) -> Response<Body> {
    let mut response = Response::new(toono_http::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A JSON value with code 200.
pub(crate) fn value(value: &Value) -> Response<Body> {
    json(StatusCode::OK, value.to_string())
}

/// A plain text with code 200.
pub(crate) fn text(text: impl Into<bytes::Bytes>) -> Response<Body> {
    typed(StatusCode::OK, HeaderValue::from_static("text/plain; charset=utf-8"), text)
}

/// The error as a `Status` with its code.
pub(crate) fn error(error: &ApiError) -> Response<Body> {
    let status = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if status.is_server_error() {
        tracing::warn!(%error, code = error.code(), "request failed");
    }
    let mut response = json(status, error.to_status().to_string());
    if let ApiError::TooManyRequests { retry_after_seconds, .. } = error {
        response.headers_mut().insert(header::RETRY_AFTER, (*retry_after_seconds).into());
    }
    if *error == ApiError::Unauthorized {
        let scheme = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

/// Adds RFC 7234 warnings (code 299), which clients show to people.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings.iter().take(WARNINGS_MAX) {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(header_value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, header_value);
        }
    }
}

/// The response, keeping something as long as its body lasts.
pub(crate) fn keeping(
    response: Response<Body>,
    kept: impl Send + Unpin + 'static,
) -> Response<Body> {
    response.map(|body| Keeping { body, _kept: kept }.boxed_unsync())
}

struct Keeping<K> {
    body: Body,
    _kept: K,
}

impl<K: Unpin> http_body::Body for Keeping<K> {
    type Data = bytes::Bytes;
    type Error = toono_http::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
