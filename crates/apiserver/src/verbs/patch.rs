//! `patch`: a change by what differs, in three forms.

use http::{Response, header};
use toono_api::{ApiError, FieldError};
use toono_apply::{PatchError, PatchKind};
use toono_http::Body;

use super::{Call, managers::invalid_options, update::modify};
use crate::{body, json::Document};

const FORMS: &str = "the body of the request was in an unknown format - accepted media types \
include: application/json-patch+json, application/merge-patch+json, \
application/strategic-merge-patch+json, application/apply-patch+yaml";

/// Custom kinds have no merge keys.
const CUSTOM_FORMS: &str = "the body of the request was in an unknown format - accepted media types \
include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

impl Call<'_> {
    pub(crate) async fn patch(&mut self, body: &[u8]) -> Result<Response<Body>, ApiError> {
        let content_type = self
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("");
        if is_apply(content_type) {
            return self.apply(body).await;
        }
        if self.query.text("force").is_some() {
            let why = "may not be specified for non-apply patch";
            let error = FieldError::forbidden("force", why);
            return Err(invalid_options("PatchOptions", vec![error]));
        }
        let kind = PatchKind::of_content_type(content_type)
            .ok_or_else(|| ApiError::UnsupportedMediaType(FORMS.to_owned()))?;
        let Document { value: patch, repeated } = body::json(body)?;
        self.repeated = repeated;
        let row = self.resource().behaviour.built_in();
        let message = match (row, kind) {
            (Some(row), _) => toono_api::types::message(row.message),
            (None, PatchKind::Strategic) => {
                return Err(ApiError::UnsupportedMediaType(CUSTOM_FORMS.to_owned()));
            }
            (None, _) => None,
        };
        let patched = |object: &serde_json::Value| {
            let mut object = object.clone();
            toono_apply::apply(kind, &mut object, patch.clone(), message).map_err(|error| {
                match error {
                    // Of the request, not of the object: Kubernetes names no kind here.
                    PatchError::DoesNotApply(_) => ApiError::Denied {
                        code: 422,
                        reason: "Invalid".to_owned(),
                        message: error.to_string(),
                    },
                    other => ApiError::BadRequest(other.to_string()),
                }
            })?;
            Ok(object)
        };
        if self.target.subresource_name() == "scale" {
            return self.scale("PatchOptions", patched).await;
        }
        let written = modify(self.server, self.change("PatchOptions")?, patched).await?;
        self.written(&written)
    }
}

fn is_apply(content_type: &str) -> bool {
    content_type.split(';').next().unwrap_or_default().trim() == "application/apply-patch+yaml"
}
