//! `list`: the objects of a resource at one revision, in pages if asked.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use serde::{Deserialize, Serialize};
use toono_api::{
    ApiError,
    kinds::{coordination::LEASE, core::NODE},
};
use toono_http::{Body, BoxError};
use toono_mvcc::{Compacted, Entry, Key, Prefix, Rev};

use super::{
    Call,
    cursor::{Cursor, Selection, Shows},
    list_options,
};
use crate::{
    compress::Bulk,
    limits,
    liveness::{NODE_LEASES, may_match},
    represent::{Form, ListWriter},
    respond,
    server::expired,
};

/// Where the next page begins. Opaque to clients.
#[derive(Debug, Serialize, Deserialize)]
struct Continue {
    /// The revision that all pages show; 0 for the newest, when that of the first page is gone.
    rev: u64,
    /// The last key of the page before.
    after: String,
    /// How many objects come after it, if that was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<u64>,
}

/// One page.
pub(super) struct Listed {
    pub(super) entries: Vec<Entry>,
    pub(super) rev: Rev,
    next: Option<Next>,
}

/// What follows a page.
pub(crate) struct Next {
    /// Where it begins.
    pub(crate) token: String,
    /// How many objects there are, if no selector leaves any out.
    pub(crate) left: Option<u64>,
}

const CONTINUE_EXPIRED: &str = "The provided continue parameter is too old to display a consistent \
list result. You can start a new list without the continue parameter, or use the continue token in \
this response to retrieve the remainder of the results. Continuing with the provided token results in \
an inconsistent list - objects that were created, modified, or deleted between the time the first \
chunk was returned and now may show up in the list.";

/// What a list has to show, from where.
struct Wanted {
    rev: Rev,
    after: Option<Key>,
    limit: Option<usize>,
    /// How many objects there are from `after` on, as the page before has told.
    left: Option<u64>,
}

impl Call<'_> {
    pub(crate) fn list(&self) -> Result<Response<Body>, ApiError> {
        let form = self.form()?;
        let wanted = self.wanted()?;
        if wanted.limit.is_none() {
            return self.whole(form, wanted);
        }
        let Listed { entries, rev, next } = self.page(wanted)?;
        let items: Vec<Bytes> = entries.into_iter().map(|entry| entry.value).collect();
        let body = form.list(self.resource(), &items, rev, next.as_ref())?;
        Ok(respond::json(StatusCode::OK, body))
    }

    /// All objects of the collection.
    pub(super) fn prefix(&self) -> Prefix {
        let resource = self.resource();
        let (group, plural) = (&resource.stored_group, &resource.stored_plural);
        if self.target.namespace.is_empty() {
            Prefix::resource(group, plural)
        } else {
            Prefix::namespace(group, plural, self.target.namespace)
        }
    }

    /// The objects that the path and the query select, at a revision.
    pub(super) fn selection(&self, rev: Rev) -> Result<Selection, ApiError> {
        Ok(Selection {
            resource: Arc::clone(&self.target.resource),
            prefix: self.prefix(),
            filter: self.query.filter(self.resource())?,
            rev,
            owner: self.owner.clone(),
            shows: self.shows(),
        })
    }

    /// What is shown of the collection that is not stored.
    pub(super) fn shows(&self) -> Shows {
        let (resource, namespace) = (self.resource(), self.target.namespace);
        if resource.is(&NODE) {
            return Shows::Heartbeats;
        }
        if !resource.is(&LEASE) || !matches!(namespace, "" | NODE_LEASES) {
            return Shows::Nothing;
        }
        let all =
            self.owner.is_none() && self.query.filter(resource).is_ok_and(|it| may_match(&it));
        if all { Shows::SessionLeases } else { Shows::Renewals }
    }

    /// The objects that the query asks for, in memory.
    pub(super) fn listed(&self) -> Result<Listed, ApiError> {
        self.page(self.wanted()?)
    }

    fn wanted(&self) -> Result<Wanted, ApiError> {
        list_options::validate_list(self.query)?;
        let limit = match self.query.number::<i64>("limit")? {
            None | Some(..=0) => None,
            Some(limit) => usize::try_from(limit).ok(),
        };
        let (rev, after, left) = match self.query.text("continue") {
            None => (self.list_revision()?, None, None),
            Some(token) => {
                if self.query.revision()?.is_some_and(|rev| rev > Rev::ZERO) {
                    return Err(ApiError::BadRequest(
                        "specifying resource version is not allowed when using continue".to_owned(),
                    ));
                }
                let Continue { rev, after, left } = read_token(token)?;
                let rev = if rev == 0 { self.server.revision() } else { Rev(rev) };
                (rev, Key::parse(&after), left)
            }
        };
        Ok(Wanted { rev, after, limit, left })
    }

    /// A list without limit. It is written as it is sent, so that it takes no more memory than its
    /// client's link holds.
    fn whole(&self, form: Form, wanted: Wanted) -> Result<Response<Body>, ApiError> {
        let Wanted { rev, after, .. } = wanted;
        let last_key = after.clone();
        let selection = self.selection(rev)?;
        let mut cursor = Cursor::new(self.server, selection, after, usize::MAX)
            .map_err(|compacted| too_late(compacted, last_key.as_ref()))?;
        let mut writer = ListWriter::begin(form, Arc::clone(&self.target.resource), rev);
        if cursor.is_at_last_page() {
            while let Some(entry) = cursor.next().map_err(expired)? {
                writer.push(&entry.value)?;
            }
            return Ok(respond::json(StatusCode::OK, writer.end()));
        }
        let state = Some((cursor, writer));
        let chunks = futures::stream::unfold(state, |state| async move {
            let (mut cursor, mut writer) = state?;
            match chunk(&mut cursor, &mut writer) {
                Err(error) => Some((Err(error), None)),
                Ok(true) => Some((Ok(writer.take()), Some((cursor, writer)))),
                Ok(false) => Some((Ok(Bytes::from(writer.end())), None)),
            }
        });
        let mut response = Response::new(toono_http::stream(chunks));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(http::header::CONTENT_TYPE, json);
        response.extensions_mut().insert(Bulk);
        Ok(response)
    }

    fn page(&self, wanted: Wanted) -> Result<Listed, ApiError> {
        let Wanted { rev, after, limit, left } = wanted;
        let limit = limit.unwrap_or(usize::MAX);
        let last_key = after.clone();
        let late = |compacted| too_late(compacted, last_key.as_ref());
        let selection = self.selection(rev)?;
        let first = limit.saturating_add(1);
        let mut cursor = Cursor::new(self.server, selection, after, first).map_err(late)?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut more = false;
        while let Some(entry) = cursor.next().map_err(late)? {
            if entries.len() == limit {
                more = true;
                break;
            }
            entries.push(entry);
        }
        let last = entries.last().filter(|_| more);
        let shown = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        let next = match last {
            None => None,
            Some(last) => {
                let left = match left {
                    Some(left) => Some(left.saturating_sub(shown)),
                    None => self.count_after(rev, &last.key).map_err(late)?,
                };
                Some(Next { token: write_token(rev, &last.key, left), left })
            }
        };
        Ok(Listed { entries, rev, next })
    }

    /// How many objects come after a page; not told where a selector decides, as in Kubernetes. Counted
    /// once: the pages that follow subtract.
    fn count_after(&self, rev: Rev, last: &Key) -> Result<Option<u64>, Compacted> {
        let selects = |name| self.query.text(name).is_some_and(|selector| !selector.is_empty());
        if selects("labelSelector")
            || selects("fieldSelector")
            || self.owner.is_some()
            || self.shows() == Shows::SessionLeases
        {
            return Ok(None);
        }
        let count = self.server.inner.store.count(&self.prefix(), rev, Some(last))?;
        Ok(u64::try_from(count).ok())
    }

    /// The revision to show: the newest, unless exactly another is asked for.
    fn list_revision(&self) -> Result<Rev, ApiError> {
        let newest = self.server.revision();
        let asked = self.query.revision()?;
        let matching = self.query.text("resourceVersionMatch");
        match (asked, matching) {
            (Some(asked), _) if asked > newest => Err(too_large(asked, newest)),
            (Some(asked), Some("Exact")) => Ok(asked),
            _ => Ok(newest),
        }
    }
}

/// Writes the next objects; whether there are more.
fn chunk(cursor: &mut Cursor, writer: &mut ListWriter) -> Result<bool, BoxError> {
    while writer.len() < limits::LIST_CHUNK_BYTES {
        match cursor.next()? {
            Some(entry) => writer.push(&entry.value)?,
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// The refusal of a revision that is not there yet. Clients start over on its text.
pub(super) fn too_large(asked: Rev, newest: Rev) -> ApiError {
    ApiError::RevisionTooLarge { asked: asked.0, newest: newest.0 }
}

/// The refusal of a revision that is gone; a client that was in the middle of a list may go on with
/// what there is now.
fn too_late(compacted: Compacted, after: Option<&Key>) -> ApiError {
    match after {
        None => expired(compacted),
        Some(after) => ApiError::ExpiredContinue {
            message: CONTINUE_EXPIRED.to_owned(),
            continue_token: write_token(Rev::ZERO, after, None),
        },
    }
}

fn write_token(rev: Rev, after: &Key, left: Option<u64>) -> String {
    let token = Continue { rev: rev.0, after: after.as_str().to_owned(), left };
    URL_SAFE_NO_PAD.encode(serde_json::json!(token).to_string())
}

fn read_token(token: &str) -> Result<Continue, ApiError> {
    let decoded = URL_SAFE_NO_PAD.decode(token).ok();
    decoded
        .and_then(|json| serde_json::from_slice(&json).ok())
        .ok_or_else(|| ApiError::BadRequest(format!("continue key is not valid: {token:?}")))
}
