//! Which objects of a collection a request means.

use serde_json::Value;
use toono_api::{ApiError, FieldSelector, LabelSelector, meta::text_at, selector::POD_FIELDS};

use super::asked::Asked;

/// The fields by which objects of a kind may be selected, besides name and namespace.
const FIELDS: [(&str, &[&str]); 5] = [
    ("pods", &POD_FIELDS),
    ("nodes", &["spec.unschedulable"]),
    ("namespaces", &["status.phase"]),
    ("secrets", &["type"]),
    ("services", &["spec.clusterIP", "spec.type"]),
];

/// The selectors of a request.
#[derive(Debug, Default)]
pub(super) struct Selected {
    labels: LabelSelector,
    pub(super) fields: FieldSelector,
}

impl Selected {
    /// # Errors
    /// When a selector is none, or selects by an unknown field.
    pub(super) fn read(asked: &Asked) -> Result<Self, ApiError> {
        let plural = asked.resource.as_ref().map(|it| it.plural.as_str()).unwrap_or_default();
        let own = FIELDS.iter().find(|(of, _)| *of == plural).map_or(&[][..], |(_, own)| *own);
        let known: Vec<&str> =
            ["metadata.name", "metadata.namespace"].iter().chain(own).copied().collect();
        let labels = asked.query.first("labelSelector").map(LabelSelector::parse);
        let fields = asked.query.first("fieldSelector").map(|it| FieldSelector::parse(it, &known));
        Ok(Self {
            labels: labels
                .transpose()
                .map_err(|it| ApiError::BadRequest(it.to_string()))?
                .unwrap_or_default(),
            fields: fields
                .transpose()
                .map_err(|it| ApiError::BadRequest(it.to_string()))?
                .unwrap_or_default(),
        })
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        self.fields.matches(object)
            && self.labels.matches(|label| text_at(object, &["metadata", "labels", label]))
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use serde_json::json;

    use super::*;

    fn selected(query: &str) -> Result<Selected, ApiError> {
        let uri = format!("/api/v1/pods?{query}");
        let request = Request::builder().uri(uri).body(toono_http::empty()).unwrap();
        Selected::read(&Asked::read(&request))
    }

    #[test]
    fn labels_and_fields_must_both_match() {
        let pod = json!({"metadata": {"name": "p", "labels": {"app": "web"}}, "status": {"phase": "Running"}});
        for (query, expected) in [
            ("", true),
            ("labelSelector=app%3Dweb", true),
            ("labelSelector=app%3Dweb&fieldSelector=status.phase%3DPending", false),
            ("labelSelector=!app", false),
            ("fieldSelector=metadata.name%3Dp", true),
        ] {
            assert_eq!(selected(query).unwrap().matches(&pod), expected, "{query}");
        }
        assert!(selected("fieldSelector=spec.foo%3Dp").is_err());
    }
}
