//! Bodies of requests: how many bytes, within what time, in which encoding.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use toono_api::{ApiError, protobuf};
use toono_http::Body;

use crate::{
    json::{self, Document},
    limits, yaml,
};

/// The object that a body is, in JSON, YAML or Kubernetes' protobuf; null when there is none. A body
/// without a type is taken for JSON.
pub(crate) async fn object(headers: &HeaderMap, body: Body) -> Result<Document, ApiError> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    match given.unwrap_or("").split(';').next().unwrap_or("").trim() {
        protobuf::MEDIA_TYPE => match &*bytes(body).await? {
            [] => Ok(Document::default()),
            bytes => protobuf::decode(bytes)
                .map(Document::from)
                .map_err(|error| ApiError::BadRequest(error.to_string())),
        },
        "application/yaml" => yaml::parse(&bytes(body).await?)
            .map_err(|error| ApiError::BadRequest(format!("the body is no YAML: {error}"))),
        media_type @ "application/cbor" => Err(ApiError::UnsupportedMediaType(format!(
            "the body of the request was in an unknown format ({media_type}) - accepted media \
                 types include: application/json, application/yaml, {}",
            protobuf::MEDIA_TYPE
        ))),
        _ => json(&bytes(body).await?),
    }
}

/// Reads JSON; null when there is nothing.
pub(crate) fn json(body: &[u8]) -> Result<Document, ApiError> {
    json::parse(body).map_err(|error| ApiError::BadRequest(format!("the body is no JSON: {error}")))
}

/// The whole body, if it is not too long and does not take too long.
pub(crate) async fn bytes(mut body: Body) -> Result<Bytes, ApiError> {
    let read = async {
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame
                .map_err(|error| ApiError::BadRequest(format!("the body broke off: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limits::BODY_MAX_BYTES {
                return Err(ApiError::TooLarge { limit_bytes: limits::BODY_MAX_BYTES });
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.freeze())
    };
    match tokio::time::timeout(limits::BODY_TIMEOUT, read).await {
        Ok(read) => read,
        Err(_) => Err(ApiError::Timeout("the request's body did not arrive in time".to_owned())),
    }
}
