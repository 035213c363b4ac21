//! Parts as they travel: compressed and signed once for everyone who goes from one version to another.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use tokio::sync::OnceCell;
use toono_api::ApiError;
use toono_http::Body;
use toono_wire::{
    path,
    pool::{
        Version,
        frame::{Changes, Frame},
    },
};

use super::index::Plan;
use crate::{calls::Refusal, fleet::Inner, parts};

/// Encodings that are kept, of the newest versions alone. Nodes that keep up share one a scope; those that
/// come from elsewhere share the whole part.
const MOST_KEPT: usize = 512;

/// What has been encoded.
#[derive(Default)]
pub(crate) struct Encoded {
    frames: HashMap<Plan, Arc<OnceCell<Bytes>>>,
}

impl Encoded {
    /// The newest versions are others now.
    pub(crate) fn forget(&mut self) {
        self.frames.clear();
    }

    fn place(&mut self, plan: &Plan) -> Arc<OnceCell<Bytes>> {
        if let Some(cell) = self.frames.get(plan) {
            return cell.clone();
        }
        let cell = Arc::new(OnceCell::new());
        if self.frames.len() < MOST_KEPT {
            self.frames.insert(plan.clone(), cell.clone());
        }
        cell
    }
}

/// `GET /fleet/v1/pool?since=REV&digest=HEX`: what brings the asking node's part to the newest version.
pub(crate) async fn answer(
    inner: &Arc<Inner>,
    node: &str,
    query: Option<&str>,
) -> Result<Response<Body>, Refusal> {
    let since = since(query.unwrap_or_default())?;
    let (pool, hub) = {
        let state = inner.state();
        let pool = state.table.named(node).map_or_else(Arc::default, |(_, it)| it.pool.clone());
        let hub = parts::hub(inner, &state, &pool, node);
        (pool, hub)
    };
    let mut response = Response::new(toono_http::full(frame(inner, &pool, since).await?));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let hub = hub.and_then(|hub| serde_json::to_string(&hub).ok());
    if let Some(hub) = hub.and_then(|hub| HeaderValue::from_str(&hub).ok()) {
        headers.insert(path::HUB_HEADER, hub);
    }
    Ok(response)
}

/// The version that a reader says it has.
fn since(query: &str) -> Result<Version, ApiError> {
    let field = |name: &str| {
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap_or("0")
    };
    let bad = |what: &str| ApiError::BadRequest(format!("{what}: must be a version's"));
    Ok(Version {
        revision: field("since").parse().map_err(|_| bad("since"))?,
        digest: u64::from_str_radix(field("digest"), 16).map_err(|_| bad("digest"))?,
    })
}

/// A frame, or nothing when there is no other version.
async fn frame(inner: &Arc<Inner>, pool: &str, since: Version) -> Result<Bytes, Refusal> {
    let (plan, cell, changes) = {
        let mut kept = inner.parts.kept();
        let plan = kept.parts.plan(pool, since).ok_or_else(|| {
            ApiError::Unavailable("the server has not read its Services yet; try again".into())
        })?;
        if plan.now == since {
            return Ok(Bytes::new());
        }
        let cell = kept.encoded.place(&plan);
        let changes = if cell.initialized() { None } else { Some(kept.parts.changes(&plan)) };
        (plan, cell, changes)
    };
    let made = cell.get_or_try_init(|| async {
        // Another one makes it meanwhile, or has just failed to.
        let changes = changes.unwrap_or_default();
        let inner = inner.clone();
        let make = tokio::task::spawn_blocking(move || encode(&inner, &plan, &changes));
        make.await.map_err(|error| ApiError::Internal(error.to_string()))?
    });
    Ok(made.await?.clone())
}

fn encode(inner: &Inner, plan: &Plan, changes: &Changes) -> Result<Bytes, Refusal> {
    let frame = Frame::of(&plan.scope, plan.since, plan.now, changes);
    let mut frame =
        frame.ok_or_else(|| ApiError::Internal("the pool's part cannot be told".into()))?;
    let signature = inner.ca.sign_statement(&frame.statement());
    frame.signature = signature.map_err(|error| ApiError::Internal(error.to_string()))?.into();
    let mut bytes = Vec::with_capacity(frame.size());
    frame.encode(&mut bytes);
    Ok(bytes.into())
}
