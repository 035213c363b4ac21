//! Whose the fields of an object are: how a write is recorded in `metadata.managedFields`.
//!
//! What the record means, and how it is computed, is `toono_apply::managed`'s. Here is who writes, and
//! what is known of the kind that is written.

use http::header;
use serde_json::Value;
use toono_api::{ApiError, FieldError, Resource, error::FieldReason};
use toono_apply::managed::{self, MANAGER_NAME_MAX_BYTES, Write};

use super::{Call, create::whole_seconds};
use crate::{query::WriteOptions, server::ApiServer};

/// How a write is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// What it changes is this manager's.
    Changes(&'a str),
    /// It was applied: the object comes with its record.
    Applied,
}

impl Call<'_> {
    /// How the client wants its write to be done. `options` is the kind of the options that the verb
    /// takes, for errors.
    pub(super) fn write_options(&self, options: &str) -> Result<WriteOptions<'_>, ApiError> {
        let manager = self.query.text("fieldManager");
        if let Some(error) = manager.and_then(name_error) {
            return Err(invalid_options(options, vec![error]));
        }
        Ok(WriteOptions {
            dry_run: self.query.dry_run()?,
            field_validation: self.query.field_validation()?,
            repeated: &self.repeated,
            record: Record::Changes(manager.unwrap_or_else(|| self.agent())),
        })
    }

    /// The name of the client's program: its `User-Agent` up to the first slash.
    fn agent(&self) -> &str {
        let agent = self.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        // A header's text is ASCII, and of that only the tab cannot be printed.
        let name = agent.and_then(|agent| agent.split(['/', '\t']).next()).unwrap_or_default();
        name.get(..MANAGER_NAME_MAX_BYTES).unwrap_or(name)
    }
}

/// What is wrong with a `fieldManager`, in Kubernetes' words.
pub(super) fn name_error(name: &str) -> Option<FieldError> {
    let why = managed::manager_name_error(name)?;
    if name.len() > MANAGER_NAME_MAX_BYTES {
        let (reason, field) = (FieldReason::TooLong, "fieldManager".to_owned());
        return Some(FieldError { reason, field, message: format!("Too long: {why}") });
    }
    Some(FieldError::invalid_text("fieldManager", name, &why))
}

/// The refusal of a request because of its query parameters.
pub(super) fn invalid_options(options: &str, causes: Vec<FieldError>) -> ApiError {
    ApiError::Invalid {
        kind: options.to_owned(),
        group: "meta.k8s.io".to_owned(),
        name: String::new(),
        causes,
    }
}

/// Records a write of a whole object, or through a subresource: `object` is about to take the place of
/// `live`, which is null on creation.
pub(super) fn record(
    server: &ApiServer,
    resource: &Resource,
    subresource: &str,
    record: Record<'_>,
    live: &Value,
    object: &mut Value,
) {
    let Record::Changes(manager) = record else { return };
    with_write(server, resource, subresource, manager, |write| {
        managed::update(write, live, object);
    });
}

/// Calls with what the merging of fields has to know of a write.
pub(super) fn with_write<T>(
    server: &ApiServer,
    resource: &Resource,
    subresource: &str,
    manager: &str,
    done: impl FnOnce(&Write<'_>) -> T,
) -> T {
    let api_version = resource.api_version();
    let others = other_versions(server, resource);
    done(&Write {
        place: resource.behaviour.place(),
        api_version: &api_version,
        other_versions: &others.iter().map(String::as_str).collect::<Vec<_>>(),
        manager,
        subresource,
        reset: managed::reset_fields(resource.strategy.has_status, subresource),
        now: &whole_seconds(ApiServer::now()),
    })
}

/// The other versions of a custom kind: they have the same fields, since nothing converts them.
fn other_versions(server: &ApiServer, resource: &Resource) -> Vec<String> {
    if resource.behaviour.built_in().is_some() {
        return Vec::new();
    }
    server.registry().other_versions(resource)
}
