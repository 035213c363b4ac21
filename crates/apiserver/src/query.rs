//! The query parameters of the resource API, as types.

use std::time::Duration;

use toono_api::{ApiError, FieldSelector, LabelSelector, Resource};
use toono_mvcc::{Entry, Rev};

use crate::verbs::Record;

/// Decoded query parameters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

/// What becomes of fields that the kind does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    /// They are dropped.
    Ignore,
    /// They are dropped, and the client is told.
    Warn,
    /// The request is refused.
    Strict,
}

/// How a write is to be done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WriteOptions<'a> {
    /// All but the write itself.
    pub(crate) dry_run: bool,
    /// What becomes of unknown fields.
    pub(crate) field_validation: FieldValidation,
    /// Paths of the fields that the client gave more than once; told as unknown ones are.
    pub(crate) repeated: &'a [String],
    /// Whose the written fields are.
    pub(crate) record: Record<'a>,
}

/// Which objects are asked for.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    pub(crate) labels: LabelSelector,
    pub(crate) fields: FieldSelector,
}

impl Query {
    pub(crate) fn parse(raw: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(raw.unwrap_or_default().as_bytes());
        Self(pairs.map(|(key, value)| (key.into_owned(), value.into_owned())).collect())
    }

    /// The value of a parameter; an empty one counts as absent.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// All values of a parameter.
    pub(crate) fn texts(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0.iter().any(|(key, value)| {
            key == name && matches!(value.as_str(), "" | "1" | "t" | "T" | "true" | "True" | "TRUE")
        })
    }

    /// A number.
    ///
    /// # Errors
    /// When the parameter is given and is none.
    pub(crate) fn number<N: std::str::FromStr>(&self, name: &str) -> Result<Option<N>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse().map_err(|_| {
            ApiError::BadRequest(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
        })?;
        Ok(Some(number))
    }

    /// `resourceVersion`, when it names one.
    pub(crate) fn revision(&self) -> Result<Option<Rev>, ApiError> {
        match self.text("resourceVersion") {
            None => Ok(None),
            Some(text) => text.parse::<Rev>().map(Some).map_err(|_| {
                ApiError::BadRequest(format!("resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"))
            }),
        }
    }

    /// Whether what memory has will do, also if another server was told of something newer: reads that
    /// say so by naming a revision that memory has.
    pub(crate) fn may_be_old(&self, verb: &str, newest: Rev) -> bool {
        let reads = matches!(verb, "get" | "list" | "watch");
        let named = self.revision().ok().flatten().is_some_and(|rev| rev <= newest);
        reads && named && self.text("continue").is_none()
    }

    pub(crate) fn filter(&self, resource: &Resource) -> Result<Filter, ApiError> {
        let labels = LabelSelector::parse(self.text("labelSelector").unwrap_or_default());
        let fields = FieldSelector::parse(
            self.text("fieldSelector").unwrap_or_default(),
            &resource.selectable_fields(),
        );
        let refuse =
            |error: toono_api::selector::SelectorError| ApiError::BadRequest(error.to_string());
        Ok(Filter { labels: labels.map_err(refuse)?, fields: fields.map_err(refuse)? })
    }

    /// What becomes of fields that the kind does not have.
    pub(crate) fn field_validation(&self) -> Result<FieldValidation, ApiError> {
        match self.text("fieldValidation") {
            None | Some("Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some(other) => Err(ApiError::BadRequest(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }

    pub(crate) fn dry_run(&self) -> Result<bool, ApiError> {
        match self.text("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(ApiError::BadRequest(format!(
                "dryRun: Unsupported value: {other:?}: supported values: \"All\""
            ))),
        }
    }

    pub(crate) fn timeout(&self) -> Result<Option<Duration>, ApiError> {
        Ok(self.number::<u64>("timeoutSeconds")?.map(Duration::from_secs))
    }
}

impl Filter {
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// Whether a stored object is asked for. Decodes only as much as the selectors need.
    pub(crate) fn matches(&self, resource: &Resource, entry: &Entry) -> bool {
        let is_other = |field, is: &str| self.fields.exact(field).is_some_and(|asked| asked != is);
        // Most watches of one object see every other one of its kind go by.
        if is_other("metadata.name", entry.key.name())
            || is_other("metadata.namespace", entry.key.namespace())
        {
            return false;
        }
        let encoded = &entry.value;
        if !self.labels.is_everything() {
            let Ok(header) = toono_api::ObjectHeader::parse(encoded) else { return false };
            if !self.labels.matches(|key| header.metadata.label(key)) {
                return false;
            }
        }
        self.fields.is_everything()
            || serde_json::from_slice(encoded)
                .is_ok_and(|object| self.fields.matches(&resource.behaviour.to_served(object)))
    }
}
