//! `grpc`: the health protocol `grpc.health.v1`, in as much of gRPC as its one call takes.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, header};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;
use toono_http::http2::Connection;
use toono_podmachine::ProbeOutcome;

use super::{MAX_ANSWER_BYTES, VERSION, dial::Target, go_seconds};
use crate::join::chain;

const CHECK: &str = "/grpc.health.v1.Health/Check";
/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// `HealthCheckResponse.ServingStatus`.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
/// The status of a method that the server does not have.
const UNIMPLEMENTED: usize = 12;
/// gRPC's status codes.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

pub(super) async fn probe(target: &Target, service: &str, limit: Duration) -> ProbeOutcome {
    let authority = target.authority();
    let began = tokio::time::Instant::now();
    let connecting = async {
        let stream = target.connect().await?;
        Connection::over(stream, &target.endpoint(false)).await.map_err(|error| chain(&error))
    };
    let late = |what: String| {
        ProbeOutcome::Failure(format!("timeout: {what} within {}", go_seconds(limit)))
    };
    let connection = match timeout(limit, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            let text = format!("error: failed to connect service at \"{authority}\": {error}");
            return ProbeOutcome::Failure(text);
        }
        Err(_) => return late(format!("failed to connect service \"{authority}\"")),
    };
    let left = limit.saturating_sub(began.elapsed());
    match timeout(left, check(&connection, service)).await {
        Ok(Ok(Some("SERVING"))) => ProbeOutcome::Success,
        Ok(Ok(status)) => {
            let status = status.unwrap_or("UNKNOWN");
            ProbeOutcome::Failure(format!("service unhealthy (responded with \"{status}\")"))
        }
        Ok(Err(error)) => ProbeOutcome::Failure(format!("error: {error}")),
        Err(_) => late("health rpc did not complete".to_owned()),
    }
}

async fn check(connection: &Connection, service: &str) -> Result<Option<&'static str>, String> {
    let failed = |error: String| format!("health rpc probe failed: {error}");
    let mut request = Request::post(connection.endpoint().url(CHECK).map_err(|it| it.to_string())?)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(toono_http::full(message(service)))
        .map_err(|error| failed(error.to_string()))?;
    let agent = format!("kube-probe/{}", VERSION);
    if let Ok(agent) = HeaderValue::try_from(agent) {
        request.headers_mut().insert(header::USER_AGENT, agent);
    }
    let response = connection.send(request).await.map_err(|error| failed(chain(&error)))?;
    let (head, body) = response.into_parts();
    if !head.status.is_success() {
        return Err(failed(format!("unexpected HTTP status code {}", head.status.as_u16())));
    }
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
    let body = body.map_err(|error| failed(error.to_string()))?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    // An answer without a message has its status in front.
    refusal(&trailers).or_else(|| refusal(&head.headers)).map_or(Ok(()), Err)?;
    serving(&body.to_bytes()).ok_or_else(|| failed("malformed answer".to_owned())).map(Some)
}

/// What a status other than OK says.
fn refusal(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let code: usize = text("grpc-status")?.parse().ok()?;
    let message = text("grpc-message").unwrap_or_default();
    match code {
        0 => None,
        UNIMPLEMENTED => Some(format!(
            "this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        code => {
            let name = CODES.get(code).copied().unwrap_or("Unknown");
            Some(format!("health rpc probe failed: rpc error: code = {name} desc = {message}"))
        }
    }
}

/// A `HealthCheckRequest` with its prefix.
fn message(service: &str) -> Bytes {
    let mut inner = Vec::new();
    if !service.is_empty() {
        // Field 1, a string.
        inner.push(0x0a);
        put_varint(&mut inner, service.len());
        inner.extend_from_slice(service.as_bytes());
    }
    let mut bytes = vec![0];
    bytes.extend_from_slice(&u32::try_from(inner.len()).unwrap_or(0).to_be_bytes());
    bytes.extend_from_slice(&inner);
    bytes.into()
}

fn put_varint(bytes: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

/// The status in a `HealthCheckResponse` with its prefix; none when it is no such thing.
fn serving(bytes: &[u8]) -> Option<&'static str> {
    let (prefix, message) = bytes.split_at_checked(PREFIX_BYTES)?;
    let (compressed, length) = prefix.split_first()?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    if *compressed != 0 || usize::try_from(length) != Ok(message.len()) {
        return None;
    }
    match message {
        // The default is not sent.
        [] => STATUSES.first().copied(),
        // Field 1, a number that no status needs a second byte for.
        [0x08, status] => STATUSES.get(usize::from(*status)).copied(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_protobuf_with_a_prefix() {
        assert_eq!(message(""), Bytes::from_static(&[0, 0, 0, 0, 0]));
        assert_eq!(message("ab"), Bytes::from_static(&[0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']));
        assert_eq!(message(&"x".repeat(300)).get(5..8), Some(&[0x0a, 0xac, 0x02][..]));
    }

    #[test]
    fn answers_are_read_or_refused() {
        for (bytes, status) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Some("SERVING")),
            (&[0, 0, 0, 0, 2, 8, 2], Some("NOT_SERVING")),
            (&[0, 0, 0, 0, 0], Some("UNKNOWN")),
            (&[0, 0, 0, 0, 2, 8, 9], None),
            (&[1, 0, 0, 0, 2, 8, 1], None),
            (&[0, 0, 0, 0, 9, 8, 1], None),
            (&[0, 0], None),
        ] {
            assert_eq!(serving(bytes), status, "{bytes:?}");
        }
    }
}
