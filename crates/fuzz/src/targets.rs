//! The table of targets. A decoder that is not here is not fuzzed.

mod credentials;
mod images;
mod names;
mod objects;
mod patches;
mod pool;
mod requests;
mod rules;
mod streams;
mod texts;
mod wire;

use crate::Target;

/// The limit of a request's body.
const BODY: usize = toono_apiserver::limits::BODY_MAX_BYTES;

/// All of them.
pub static TARGETS: &[Target] = &[
    patches::JSON_PATCH,
    patches::MERGE_PATCH,
    patches::STRATEGIC,
    patches::APPLY,
    texts::LABEL_SELECTOR,
    texts::FIELD_SELECTOR,
    texts::SMALL,
    rules::CEL,
    rules::SCHEMA,
    objects::OBJECT,
    objects::PROTOBUF,
    streams::SPDY,
    streams::WEBSOCKET,
    streams::TUNNEL,
    credentials::CSR,
    credentials::JWT,
    wire::DATAGRAM,
    wire::FRAMES,
    wire::REPORTS,
    wire::POOL,
    pool::NEIGHBOUR,
    pool::LAYER_SOURCES,
    pool::LAYER_REQUEST,
    pool::OFFER,
    names::QUESTION,
    names::ANSWER,
    images::LAYER,
    images::MANIFEST,
    images::COMPRESSED,
    images::IMAGE_ARCHIVE,
    images::PULL_SECRET,
    requests::REQUEST,
    requests::HTTP,
];

/// `count` texts that a function makes, joined.
fn joined(count: usize, separator: &str, make: impl Fn(usize) -> String) -> String {
    (0..count).map(make).collect::<Vec<_>>().join(separator)
}

/// No inputs but those of the corpus.
fn no_giants(_: usize) -> Vec<Vec<u8>> {
    Vec::new()
}
