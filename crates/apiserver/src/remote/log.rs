//! `log`: passes a container's log through, as it comes.

use http::{Method, Response, header};
use serde_json::json;
use toono_api::{ApiError, FieldError};
use toono_http::Body;

use super::pod::Pod;
use super::query::{Query, QueryWriter};
use super::{Context, Target, node};

pub(super) async fn respond(
    context: &Context,
    target: Target<'_>,
    pod: &Pod,
    query: &Query,
) -> Result<Response<Body>, ApiError> {
    let container = pod.container(query.text("container"))?;
    let options = node_query(pod.name(), query)?;
    let Some(node) = pod.node() else {
        // A pod that is bound nowhere has said nothing yet.
        return Ok(text(toono_http::empty()));
    };
    let path = format!("/containerLogs/{}/{}/{container}{options}", target.namespace, target.pod);
    let request = node::request(Method::GET, node, &path, toono_http::empty())?;
    let answer = node::send(context.link.as_ref(), node, request).await?;
    Ok(text(answer.into_body()))
}

fn text(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let plain = header::HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// Checks `v1.PodLogOptions` and writes them for the node.
fn node_query(pod: &str, query: &Query) -> Result<String, ApiError> {
    let mut causes = Vec::new();
    let mut out = QueryWriter::default();
    for flag in ["follow", "previous", "timestamps"] {
        out.push_flag(flag, query.flag(flag));
    }
    for (name, least, rule) in [
        ("sinceSeconds", 1, "must be greater than 0"),
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
    ] {
        let Some(value) = query.number(name)? else { continue };
        if value < least {
            causes.push(FieldError::invalid(name, &json!(value), rule));
        }
        out.push(name, &value.to_string());
    }
    if let Some(since) = query.text("sinceTime") {
        since.parse::<jiff::Timestamp>().map_err(|_| {
            ApiError::BadRequest(format!("sinceTime {since:?} is not a time as RFC 3339 writes it"))
        })?;
        if query.text("sinceSeconds").is_some() {
            let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            causes.push(FieldError::forbidden("sinceSeconds", why));
        }
        out.push("sinceTime", since);
    }
    if let Some(stream) = query.text("stream") {
        if !["All", "Stdout", "Stderr"].contains(&stream) {
            causes.push(FieldError::not_supported("stream", stream, &["All", "Stdout", "Stderr"]));
        }
        out.push("stream", stream);
    }
    if causes.is_empty() {
        return Ok(out.finish());
    }
    let (kind, group) = ("PodLogOptions".to_owned(), String::new());
    Err(ApiError::Invalid { kind, group, name: pod.to_owned(), causes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_and_passed_on() {
        let written = |raw: &str| node_query("web", &Query::parse(raw));
        assert_eq!(written("container=a").unwrap(), "");
        assert_eq!(
            written("follow=true&tailLines=5&timestamps=1&previous=false&limitBytes=10&sinceTime=2026-01-02T03:04:05Z").unwrap(),
            "?follow=true&timestamps=true&tailLines=5&limitBytes=10&sinceTime=2026-01-02T03%3A04%3A05Z"
        );
        let refused = [
            ("sinceSeconds=0", 422),
            ("tailLines=-1", 422),
            ("limitBytes=0", 422),
            ("sinceSeconds=1&sinceTime=2026-01-02T03:04:05Z", 422),
            ("stream=stdout", 422),
            ("tailLines=many", 400),
            ("sinceTime=yesterday", 400),
        ];
        for (raw, code) in refused {
            assert_eq!(written(raw).unwrap_err().code(), code, "{raw}");
        }
        let error = written("sinceSeconds=0").unwrap_err().to_string();
        assert_eq!(
            error,
            "PodLogOptions \"web\" is invalid: sinceSeconds: Invalid value: 0: must be greater than 0"
        );
    }
}
