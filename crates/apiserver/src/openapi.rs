//! OpenAPI of the kinds that are served at this moment: which documents there are, who has which one
//! already, and in what form they go out. What they say is `toono_api::openapi`'s matter.
//!
//! The documents of a [`Registry`] are made when they are first asked for, and kept as bytes with it.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::Hasher,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};
use toono_api::{Resource, openapi};
use toono_http::Body;

use crate::{query::Query, registry::Registry, respond, server::ApiServer};

const JSON: &str = "application/json";
/// Version 2 in the form that kubectl and Helm ask for, whichever way they write its name.
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const V2_PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2";
/// A document that was asked for by its hash never changes.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, immutable, max-age=31536000");

/// The documents of one set of kinds.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    /// Version 3, by path without the outer slashes.
    versions: OnceLock<BTreeMap<String, Document>>,
    v2_json: OnceLock<Document>,
    v2_protobuf: OnceLock<Document>,
}

#[derive(Debug)]
struct Document {
    content_type: &'static str,
    /// Of the content; clients cache by it.
    hash: String,
    body: Bytes,
}

/// Answers an OpenAPI path; `None` for any other.
pub(crate) fn answer(
    server: &ApiServer,
    path: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Option<Response<Body>> {
    let registry = server.registry();
    if path == "/openapi/v2" {
        let accept = headers.get_all(header::ACCEPT).iter();
        let mut accept = accept.filter_map(|value| value.to_str().ok());
        let protobuf = accept.any(|value| value.contains(V2_PROTOBUF_ASKED));
        return Some(version_2(&registry, protobuf).answer(headers, false));
    }
    let wanted = path.strip_prefix("/openapi/v3")?.trim_matches('/');
    let documents = registry.documents().versions.get_or_init(|| versions(&registry));
    if wanted.is_empty() {
        return Some(respond::value(&index(documents)));
    }
    let document = documents.get(wanted)?;
    match query.text("hash") {
        None => Some(document.answer(headers, false)),
        Some(hash) if hash == document.hash => Some(document.answer(headers, true)),
        // The client knows of another set of kinds.
        Some(_) => Some(moved(&document.url(wanted))),
    }
}

/// The documents of version 3.
fn versions(registry: &Registry) -> BTreeMap<String, Document> {
    let served = registry.group_versions();
    let document = |group: &str, version: &str| {
        let resources: Vec<Arc<Resource>> = registry.of_version(group, version).cloned().collect();
        let document = openapi::version_3(group, version, &resources, &served);
        Document::new(JSON, document.to_string())
    };
    served.iter().map(|(group, version)| (path(group, version), document(group, version))).collect()
}

fn version_2(registry: &Registry, protobuf: bool) -> &Document {
    let make = || openapi::version_2(registry.resources(), &registry.group_versions());
    let documents = registry.documents();
    if protobuf {
        let encode = || Document::new(V2_PROTOBUF, openapi::to_protobuf(&make()));
        return documents.v2_protobuf.get_or_init(encode);
    }
    documents.v2_json.get_or_init(|| Document::new(JSON, make().to_string()))
}

/// `apis/GROUP/VERSION`.
fn path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn index(documents: &BTreeMap<String, Document>) -> Value {
    let paths: Map<String, Value> = documents
        .iter()
        .map(|(path, document)| (path.clone(), json!({"serverRelativeURL": document.url(path)})))
        .collect();
    json!({"paths": paths})
}

fn moved(url: &str) -> Response<Body> {
    let mut response = respond::typed(
        StatusCode::MOVED_PERMANENTLY,
        HeaderValue::from_static("text/plain; charset=utf-8"),
        Bytes::new(),
    );
    if let Ok(location) = HeaderValue::from_str(url) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

// === impl Document ===

impl Document {
    fn new(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let mut hasher = DefaultHasher::new();
        hasher.write(&body);
        Self { content_type, hash: format!("{:016X}", hasher.finish()), body }
    }

    fn url(&self, path: &str) -> String {
        format!("/openapi/v3/{path}?hash={}", self.hash)
    }

    /// The document, or that the client has it already.
    fn answer(&self, headers: &HeaderMap, by_hash: bool) -> Response<Body> {
        let tag = format!("\"{}\"", self.hash);
        let known = headers.get_all(header::IF_NONE_MATCH).iter();
        let mut known = known.filter_map(|value| value.to_str().ok());
        let known = known.any(|list| list.split(',').any(|known| known.trim() == tag));
        let (status, body) = if known {
            (StatusCode::NOT_MODIFIED, Bytes::new())
        } else {
            (StatusCode::OK, self.body.clone())
        };
        let content_type = HeaderValue::from_static(self.content_type);
        let mut response = respond::typed(status, content_type, body);
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
        if by_hash {
            response.headers_mut().insert(header::CACHE_CONTROL, IMMUTABLE);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_has_the_document_gets_none() {
        let document = Document::new(JSON, "{}");
        let mut headers = HeaderMap::new();
        let first = document.answer(&headers, false);
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.headers()[header::CACHE_CONTROL], "no-cache, private");
        headers.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
        assert_eq!(document.answer(&headers, false).status(), StatusCode::NOT_MODIFIED);
        let by_hash = document.answer(&HeaderMap::new(), true);
        assert_eq!(by_hash.headers()[header::CACHE_CONTROL], IMMUTABLE);
        headers.insert(
            header::IF_NONE_MATCH,
            Document::new(JSON, "[]").answer(&headers, true).headers()[header::ETAG].clone(),
        );
        assert_eq!(document.answer(&headers, false).status(), StatusCode::OK);
    }

    #[test]
    fn the_hash_tells_one_set_of_kinds_from_another() {
        let registry = Registry::with([]);
        let documents = versions(&registry);
        assert_eq!(documents.len(), registry.group_versions().len());
        let again = versions(&Registry::with([]));
        assert!(documents.iter().all(|(path, document)| again[path].hash == document.hash));
        assert_ne!(documents["api/v1"].hash, documents["apis/apps/v1"].hash);
    }
}
