//! Forms in which objects are answered: as they are, as rows of a table, as their metadata alone.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use toono_api::{ApiError, Resource};
use toono_http::Body;
use toono_mvcc::Rev;

use crate::{encode, respond, verbs::Next};

/// The form that a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The objects.
    Object,
    /// `meta.k8s.io/v1` Table.
    Table(Include),
    /// `meta.k8s.io/v1` PartialObjectMetadata.
    Metadata,
}

/// What a table's row carries besides its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

impl Form {
    /// The first form of the `Accept` header that the server has; objects when there is no header.
    pub(crate) fn negotiate(headers: &HeaderMap, include: Option<&str>) -> Result<Self, ApiError> {
        let accept =
            headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
        if accept.trim().is_empty() {
            return Ok(Self::Object);
        }
        accept.split(',').find_map(|clause| Self::of_clause(clause, include)).ok_or_else(|| {
            ApiError::NotAcceptable(
                "application/json, application/json;as=Table;v=v1;g=meta.k8s.io".to_owned(),
            )
        })
    }

    fn of_clause(clause: &str, include: Option<&str>) -> Option<Self> {
        let mut parts = clause.split(';').map(str::trim);
        if !matches!(parts.next()?, "application/json" | "application/*" | "*/*") {
            return None;
        }
        let mut form = Self::Object;
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match (name, value) {
                ("as", "Table") => {
                    form = Self::Table(match include {
                        Some("None") => Include::None,
                        Some("Object") => Include::Object,
                        _ => Include::Metadata,
                    });
                }
                ("as", "PartialObjectMetadata" | "PartialObjectMetadataList") => {
                    form = Self::Metadata
                }
                ("as", _) | ("stream", _) => return None,
                ("g", group) if group != "meta.k8s.io" => return None,
                ("v", version) if version != "v1" => return None,
                _ => {}
            }
        }
        Some(form)
    }

    /// One object, encoded.
    pub(crate) fn object(
        self,
        resource: &Resource,
        encoded: &bytes::Bytes,
    ) -> Result<bytes::Bytes, ApiError> {
        match self {
            Self::Object => encode::served(resource, encoded),
            Self::Metadata => partial(encoded).map(Into::into),
            Self::Table(include) => {
                let row = row(resource, encoded, include)?;
                let version = revision_of(encoded);
                Ok(table(resource, &[row], &json!({"resourceVersion": version}), true).into())
            }
        }
    }

    /// A list.
    pub(crate) fn list(
        self,
        resource: &Arc<Resource>,
        items: &[bytes::Bytes],
        rev: Rev,
        next: Option<&Next>,
    ) -> Result<Vec<u8>, ApiError> {
        let mut writer = ListWriter::of_page(self, Arc::clone(resource), rev, next);
        for item in items {
            writer.push(item)?;
        }
        Ok(writer.end())
    }

    /// An object as the payload of a watch event; column definitions go with the first only.
    pub(crate) fn event(
        self,
        resource: &Resource,
        encoded: &bytes::Bytes,
        first: bool,
    ) -> Result<bytes::Bytes, ApiError> {
        match self {
            Self::Table(include) => {
                let row = row(resource, encoded, include)?;
                let version = revision_of(encoded);
                Ok(table(resource, &[row], &json!({"resourceVersion": version}), first).into())
            }
            other => other.object(resource, encoded),
        }
    }

    /// A response of one object.
    pub(crate) fn response(
        self,
        status: StatusCode,
        resource: &Resource,
        encoded: &bytes::Bytes,
    ) -> Result<Response<Body>, ApiError> {
        Ok(respond::typed(
            status,
            HeaderValue::from_static("application/json"),
            self.object(resource, encoded)?,
        ))
    }
}

/// A list that is written object by object.
pub(crate) struct ListWriter {
    form: Form,
    resource: Arc<Resource>,
    written: Vec<u8>,
    is_first: bool,
}

impl ListWriter {
    /// A whole list.
    pub(crate) fn begin(form: Form, resource: Arc<Resource>, rev: Rev) -> Self {
        Self::of_page(form, resource, rev, None)
    }

    fn of_page(form: Form, resource: Arc<Resource>, rev: Rev, next: Option<&Next>) -> Self {
        let mut metadata = json!({"resourceVersion": rev.to_string()});
        if let Some(next) = next {
            encode::set(&mut metadata, "continue", next.token.as_str());
            if let Some(left) = next.left {
                encode::set(&mut metadata, "remainingItemCount", left);
            }
        }
        let head = match form {
            Form::Table(_) => format!(
                "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata},\"columnDefinitions\":{},\"rows\":[",
                definitions(&resource)
            ),
            Form::Metadata => format!(
                "{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata},\"items\":["
            ),
            Form::Object => format!(
                "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
                resource.list_kind,
                resource.api_version()
            ),
        };
        Self { form, resource, written: head.into_bytes(), is_first: true }
    }

    /// Bytes that were written and not taken.
    pub(crate) fn len(&self) -> usize {
        self.written.len()
    }

    /// Writes an object.
    pub(crate) fn push(&mut self, encoded: &bytes::Bytes) -> Result<(), ApiError> {
        if !std::mem::take(&mut self.is_first) {
            self.written.push(b',');
        }
        match self.form {
            Form::Object => {
                let served = encode::served(&self.resource, encoded)?;
                self.written.extend_from_slice(&served);
            }
            Form::Metadata => self.written.extend_from_slice(partial(encoded)?.as_bytes()),
            Form::Table(include) => {
                let row = row(&self.resource, encoded, include)?;
                self.written.extend_from_slice(row.as_bytes());
            }
        }
        Ok(())
    }

    /// What was written since this was last called.
    pub(crate) fn take(&mut self) -> bytes::Bytes {
        std::mem::take(&mut self.written).into()
    }

    /// The end, after what was not taken yet.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.written.extend_from_slice(b"]}");
        self.written
    }
}

#[derive(Deserialize)]
struct MetadataOnly<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

fn partial(encoded: &[u8]) -> Result<String, ApiError> {
    let parsed: MetadataOnly<'_> = serde_json::from_slice(encoded)
        .map_err(|error| ApiError::Internal(format!("a stored object has no metadata: {error}")))?;
    Ok(format!(
        "{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{}}}",
        parsed.metadata.get()
    ))
}

fn revision_of(encoded: &[u8]) -> String {
    toono_api::ObjectHeader::parse(encoded)
        .ok()
        .and_then(|header| header.metadata.resource_version.map(|version| version.into_owned()))
        .unwrap_or_default()
}

fn row(resource: &Resource, encoded: &[u8], include: Include) -> Result<String, ApiError> {
    let object: Value = serde_json::from_slice(encoded)
        .map_err(|error| ApiError::Internal(format!("a stored object is no JSON: {error}")))?;
    let object = resource.behaviour.to_served(object);
    let cells = Value::Array(resource.behaviour.row(&object, Timestamp::now()));
    let included = match include {
        Include::None => "null".to_owned(),
        Include::Metadata => partial(encoded)?,
        Include::Object => object.to_string(),
    };
    Ok(format!("{{\"cells\":{cells},\"object\":{included}}}"))
}

fn table(resource: &Resource, rows: &[String], metadata: &Value, columns: bool) -> String {
    let definitions = if columns { definitions(resource) } else { json!([]) };
    format!(
        "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata},\"columnDefinitions\":{definitions},\"rows\":[{}]}}",
        rows.join(",")
    )
}

fn definitions(resource: &Resource) -> Value {
    let definition = |column: &toono_api::resource::Column| {
        json!({"name": column.name, "type": column.kind, "format": column.format,
               "description": column.description, "priority": column.priority})
    };
    resource.columns.iter().map(definition).collect()
}

/// A bookmark in this form.
pub(crate) fn bookmark(form: Form, resource: &Resource, rev: Rev, initial_end: bool) -> String {
    let mut metadata = json!({"resourceVersion": rev.to_string(), "creationTimestamp": null});
    if initial_end {
        let annotations = json!({"k8s.io/initial-events-end": "true"});
        encode::set(&mut metadata, "annotations", annotations);
    }
    let object =
        json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata})
            .to_string();
    let object = match form {
        Form::Object => object,
        Form::Metadata => json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata})
        .to_string(),
        // A table's own metadata has no room for annotations: they are in the row of an empty object.
        Form::Table(include) => {
            let rows: Vec<String> = row(resource, object.as_bytes(), include).into_iter().collect();
            table(resource, &rows, &json!({"resourceVersion": rev.to_string()}), false)
        }
    };
    format!("{{\"type\":\"BOOKMARK\",\"object\":{object}}}\n")
}
