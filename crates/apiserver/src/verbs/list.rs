//! `list`: the objects of a resource at one revision, in pages if asked.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use toono_api::{ApiError, Resource};
use toono_http::Body;
use toono_mvcc::{Entry, Key, Prefix, Rev};

use super::Call;
use crate::{
    limits,
    query::Filter,
    respond,
    server::{ApiServer, expired},
};

/// Where the next page begins. Opaque to clients.
#[derive(Debug, Serialize, Deserialize)]
struct Continue {
    /// The revision that all pages show.
    rev: u64,
    /// The last key of the page before.
    after: String,
}

/// One page.
pub(super) struct Listed {
    pub(super) entries: Vec<Entry>,
    pub(super) rev: Rev,
    next: Option<String>,
}

const CONTINUE_EXPIRED: &str = "The provided continue parameter is too old to display a consistent \
list result. You can start a new list without the continue parameter.";

impl Call<'_> {
    pub(crate) fn list(&self) -> Result<Response<Body>, ApiError> {
        let form = self.form()?;
        let listed = self.listed()?;
        let items: Vec<Bytes> = listed.entries.into_iter().map(|entry| entry.value).collect();
        let body = form.list(self.resource(), &items, listed.rev, listed.next.as_deref())?;
        Ok(respond::json(StatusCode::OK, body))
    }

    /// All objects of the collection.
    pub(super) fn prefix(&self) -> Prefix {
        let resource = self.resource();
        if self.target.namespace.is_empty() {
            Prefix::resource(&resource.stored_group, &resource.stored_plural)
        } else {
            Prefix::namespace(
                &resource.stored_group,
                &resource.stored_plural,
                self.target.namespace,
            )
        }
    }

    pub(super) fn listed(&self) -> Result<Listed, ApiError> {
        let filter = self.query.filter(self.resource())?;
        let limit = match self.query.number::<i64>("limit")? {
            None | Some(..=0) => usize::MAX,
            Some(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        let (rev, after) = match self.query.text("continue") {
            Some(token) => {
                let token = read_token(token)?;
                (Rev(token.rev), Key::parse(&token.after))
            }
            None => (self.list_revision()?, None),
        };
        let continued = after.is_some();
        let wanted = Wanted { resource: self.resource(), prefix: self.prefix(), filter };
        let page = collect(self.server, &wanted, rev, after, limit);
        let (entries, more) = page.map_err(|compacted| {
            if continued {
                ApiError::Expired(CONTINUE_EXPIRED.to_owned())
            } else {
                expired(compacted)
            }
        })?;
        let last = entries.last().filter(|_| more);
        let next = last.map(|last| write_token(rev, &last.key));
        Ok(Listed { entries, rev, next })
    }

    /// The revision to show: the newest, unless exactly another is asked for.
    fn list_revision(&self) -> Result<Rev, ApiError> {
        let newest = self.server.revision();
        let asked = self.query.revision()?;
        let matching = self.query.text("resourceVersionMatch");
        match (asked, matching) {
            (None, Some(_)) => Err(ApiError::BadRequest(
                "resourceVersionMatch is forbidden for list unless resourceVersion is provided"
                    .to_owned(),
            )),
            (_, Some(other)) if !matches!(other, "Exact" | "NotOlderThan") => {
                Err(ApiError::BadRequest(format!(
                    "resourceVersionMatch: Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\""
                )))
            }
            (Some(asked), _) if asked > newest => Err(too_large(asked, newest)),
            (Some(asked), Some("Exact")) if asked > Rev::ZERO => Ok(asked),
            _ => Ok(newest),
        }
    }
}

/// The refusal of a revision that is not there yet. Clients start over on its text.
pub(super) fn too_large(asked: Rev, newest: Rev) -> ApiError {
    ApiError::Timeout(format!("Too large resource version: {asked}, current: {newest}"))
}

/// Which objects are asked for.
struct Wanted<'a> {
    resource: &'a Resource,
    prefix: Prefix,
    filter: Filter,
}

/// Up to `limit` matching objects, and whether there may be more.
fn collect(
    server: &ApiServer,
    Wanted { resource, prefix, filter }: &Wanted<'_>,
    rev: Rev,
    mut after: Option<Key>,
    limit: usize,
) -> Result<(Vec<Entry>, bool), toono_mvcc::Compacted> {
    let mut found = Vec::new();
    loop {
        let wanted = limit.saturating_sub(found.len());
        let chunk = if filter.is_everything() { wanted } else { wanted.max(limits::LIST_CHUNK) };
        let page = server.inner.store.list(prefix, rev, after.as_ref(), chunk)?;
        after = page.entries.last().map(|entry| entry.key.clone());
        for entry in page.entries {
            if filter.is_everything() || filter.matches(resource, &entry.value) {
                if found.len() == limit {
                    return Ok((found, true));
                }
                found.push(entry);
            }
        }
        if !page.more {
            return Ok((found, false));
        }
        if found.len() >= limit {
            return Ok((found, true));
        }
    }
}

fn write_token(rev: Rev, after: &Key) -> String {
    let token = Continue { rev: rev.0, after: after.as_str().to_owned() };
    URL_SAFE_NO_PAD.encode(serde_json::json!(token).to_string())
}

fn read_token(token: &str) -> Result<Continue, ApiError> {
    let decoded = URL_SAFE_NO_PAD.decode(token).ok();
    decoded
        .and_then(|json| serde_json::from_slice(&json).ok())
        .ok_or_else(|| ApiError::BadRequest(format!("continue key is not valid: {token:?}")))
}
