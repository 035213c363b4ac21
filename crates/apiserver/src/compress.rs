//! Compressing responses for clients that take gzip: lists shrink to a tenth. It must not touch streams
//! that have to arrive piece by piece.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use toono_http::{Body, BoxError};

/// Smaller bodies are sent as they are, as in Kubernetes: the work costs more than the bytes.
const SMALLEST_BYTES: u64 = 128 * 1024;
/// Kubernetes' own level: the next ones take twice the time for a few percent.
const LEVEL: u32 = 1;

/// Which encodings a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepted {
    gzip: bool,
}

/// What a request's `Accept-Encoding` says.
pub(crate) fn accepted(headers: &HeaderMap) -> Accepted {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    let gzip = values.filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(',')).any(
        |clause| {
            let mut parts = clause.split(';').map(str::trim);
            let named = parts.next().is_some_and(|name| matches!(name, "gzip" | "*"));
            let refused = parts.any(|part| matches!(part, "q=0" | "q=0.0"));
            named && !refused
        },
    );
    Accepted { gzip }
}

/// Marks the body of a response as one that may be compressed piece by piece, whatever its length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bulk;

/// The response, compressed if that is worth it and the client takes it.
pub(crate) fn response(accepted: Accepted, response: Response<Body>) -> Response<Body> {
    let exact = response.body().size_hint().exact();
    let bulk = response.extensions().get::<Bulk>().is_some();
    let worth = bulk || exact.is_some_and(|bytes| bytes >= SMALLEST_BYTES);
    let encoded = response.headers().contains_key(header::CONTENT_ENCODING);
    if !accepted.gzip || !worth || encoded {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    Response::from_parts(parts, toono_http::stream(compressed(body)))
}

fn compressed(body: Body) -> impl futures::Stream<Item = Result<Bytes, BoxError>> + Send {
    let encoder = GzEncoder::new(Vec::new(), Compression::new(LEVEL));
    let chunks = futures::stream::unfold((body, Some(encoder)), |(mut body, encoder)| async move {
        let mut encoder = encoder?;
        loop {
            let step = match body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => encoder.write_all(&data).map(|()| false),
                    Err(_) => Ok(false),
                },
                Some(Err(error)) => return Some((Err(error), (body, None))),
                None => Ok(true),
            };
            match step {
                Err(error) => return Some((Err(error.into()), (body, None))),
                Ok(true) => {
                    let rest: io::Result<Vec<u8>> = encoder.finish();
                    return Some((rest.map(Bytes::from).map_err(Into::into), (body, None)));
                }
                Ok(false) if encoder.get_ref().is_empty() => {}
                Ok(false) => {
                    let ready = std::mem::take(encoder.get_mut());
                    return Some((Ok(Bytes::from(ready)), (body, Some(encoder))));
                }
            }
        }
    });
    chunks.filter(|chunk| {
        let keep = chunk.as_ref().map_or(true, |bytes: &Bytes| !bytes.is_empty());
        futures::future::ready(keep)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn clients_say_what_they_take() {
        for (value, gzip) in [
            ("gzip", true),
            ("deflate, gzip;q=1.0", true),
            ("*", true),
            ("gzip;q=0", false),
            ("identity", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            assert_eq!(accepted(&headers).gzip, gzip, "{value}");
        }
    }

    #[tokio::test]
    async fn what_is_large_is_compressed_and_reads_the_same() {
        let text = "a line that comes again\n".repeat(20_000);
        let given = Response::new(toono_http::full(text.clone()));
        let answer = response(Accepted { gzip: true }, given);
        assert_eq!(answer.headers()[header::CONTENT_ENCODING], "gzip");
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(bytes.len() * 10 < text.len());
        let mut read = String::new();
        flate2::read::GzDecoder::new(&*bytes).read_to_string(&mut read).unwrap();
        assert_eq!(read, text);
        let small = response(Accepted { gzip: true }, Response::new(toono_http::full("ok")));
        assert!(small.headers().get(header::CONTENT_ENCODING).is_none());
    }
}
