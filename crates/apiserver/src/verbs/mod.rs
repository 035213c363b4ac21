//! The verbs of the resource API, each generic over the resource table.

mod apply;
mod approval;
mod create;
mod cursor;
mod delete;
mod eviction;
mod list;
mod list_options;
mod managers;
mod patch;
mod prepare;
mod read;
mod renew;
mod scale;
mod subresource;
mod update;
mod watch;

use std::sync::Arc;

use http::HeaderMap;
use toono_api::{ApiError, Resource, UserInfo};
use toono_mvcc::{Entry, Owner};
use toono_store::CommitError;

use crate::{query::Query, represent::Form, request::ResourcePath, server::ApiServer};

pub(crate) use create::{create_object, whole_seconds};
pub(crate) use delete::{DeleteOptions, delete_object};
pub(crate) use list::Next;
pub(crate) use managers::Record;
pub(crate) use update::{may_go, modify_own};

/// One call of a verb.
pub(crate) struct Call<'a> {
    pub(crate) server: &'a ApiServer,
    pub(crate) user: &'a UserInfo,
    pub(crate) target: ResourcePath<'a>,
    pub(crate) query: &'a Query,
    pub(crate) headers: &'a HeaderMap,
    /// Whose objects alone the request is about; everyone's when there is none.
    pub(crate) owner: Option<Owner>,
    /// Paths of the fields that the body gives more than once.
    pub(crate) repeated: Vec<String>,
}

/// A written object, and what the client should be told.
#[derive(Debug)]
pub(crate) struct Written {
    /// The object as it is now stored (or would be).
    pub(crate) entry: Entry,
    /// Unknown fields and the like.
    pub(crate) warnings: Vec<String>,
}

impl Call<'_> {
    fn form(&self) -> Result<Form, ApiError> {
        Form::negotiate(self.headers, self.query.text("includeObject"))
    }

    fn resource(&self) -> &Arc<Resource> {
        &self.target.resource
    }
}

/// A failed commit that is no conflict.
fn commit_failed(error: &CommitError) -> ApiError {
    let text = error.to_string();
    match error {
        CommitError::Unavailable(_) | CommitError::Full { .. } => ApiError::Unavailable(text),
        CommitError::Unknown { .. } => ApiError::Timeout(text),
        _ => ApiError::Internal(format!("the store refused the write: {text}")),
    }
}
