//! The `status` and `scale` subresources of a custom resource: what each may see and change.

use serde_json::{Map, Value};

use crate::columns::JsonPath;

/// What `subresources` of a version declares.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Subresources {
    /// Whether there is a `status` subresource.
    pub status: bool,
    /// The `scale` subresource.
    pub scale: Option<ScalePaths>,
}

/// Where an object keeps what `Scale` shows.
#[derive(Debug, Clone, PartialEq)]
pub struct ScalePaths {
    spec_replicas: Box<[String]>,
    status_replicas: Box<[String]>,
    selector: Option<Box<[String]>>,
}

/// What is wrong with a `scale` subresource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("scale.{field}: Invalid value: {path:?}: should be a json path under {under}")]
pub struct ScaleError {
    /// Which of its paths.
    pub field: &'static str,
    /// The path as written.
    pub path: String,
    /// Where it has to lead.
    pub under: &'static str,
}

impl Subresources {
    /// Reads `subresources` of a version.
    ///
    /// # Errors
    /// If a path of `scale` is not a plain path of names in `.spec` or `.status`.
    pub fn parse(raw: &Value) -> Result<Self, ScaleError> {
        let scale = raw.get("scale").and_then(Value::as_object).map(ScalePaths::parse);
        Ok(Self {
            status: raw.get("status").is_some_and(Value::is_object),
            scale: scale.transpose()?,
        })
    }
}

impl ScalePaths {
    fn parse(raw: &Map<String, Value>) -> Result<Self, ScaleError> {
        let text = |field: &str| raw.get(field).and_then(Value::as_str).unwrap_or_default();
        let plain = |field: &'static str, under: &'static [&'static str], shown| {
            let path = text(field);
            let parsed = JsonPath::parse(path).ok().filter(|_| !path.contains('['));
            let names = parsed.as_ref().and_then(JsonPath::field_names);
            names
                .filter(|names| names.len() > 1 && names.first().is_some_and(|n| under.contains(n)))
                .map(|names| names.into_iter().map(str::to_owned).collect())
                .ok_or_else(|| ScaleError { field, path: path.to_owned(), under: shown })
        };
        let selector = match text("labelSelectorPath") {
            "" => None,
            _ => Some(plain("labelSelectorPath", &["spec", "status"], "either .spec or .status")?),
        };
        Ok(Self {
            spec_replicas: plain("specReplicasPath", &["spec"], ".spec")?,
            status_replicas: plain("statusReplicasPath", &["status"], ".status")?,
            selector,
        })
    }

    /// The wanted count; `None` if the object has none, which `scale` cannot show.
    #[must_use]
    pub fn replicas(&self, object: &Value) -> Option<i64> {
        at(object, &self.spec_replicas)?.as_i64()
    }

    /// The count that is; 0 until the object says.
    #[must_use]
    pub fn status_replicas(&self, object: &Value) -> i64 {
        at(object, &self.status_replicas).and_then(Value::as_i64).unwrap_or_default()
    }

    /// The label selector as text; empty if the object has none.
    #[must_use]
    pub fn selector<'v>(&self, object: &'v Value) -> &'v str {
        let found = self.selector.as_ref().and_then(|path| at(object, path));
        found.and_then(Value::as_str).unwrap_or_default()
    }

    /// Sets the wanted count. False, with nothing changed, if something other than an object is
    /// in the way.
    pub fn set_replicas(&self, object: &mut Value, replicas: i64) -> bool {
        let Some((last, parents)) = self.spec_replicas.split_last() else { return false };
        let mut found = &*object;
        for name in parents {
            match found.get(name) {
                Some(next) if next.is_object() => found = next,
                Some(_) => return false,
                None => break,
            }
        }
        let mut into = object;
        for name in parents {
            let Some(map) = into.as_object_mut() else { return false };
            into = map.entry(name.as_str()).or_insert_with(|| Value::Object(Map::new()));
        }
        let Some(map) = into.as_object_mut() else { return false };
        map.insert(last.clone(), Value::from(replicas));
        true
    }
}

fn at<'v>(object: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(object, |value, name| value.get(name))
}

/// What a write of the main resource may change: everything but `status`, which stays as it was.
pub fn keep_status(new: &mut Value, old: Option<&Value>) {
    replace_field(new, old, "status");
}

/// What a write of `status` may change: `old` with the `status` of `new`. Metadata but for managed
/// fields stays; those are the caller's.
#[must_use]
pub fn only_status(old: &Value, new: &Value) -> Value {
    let mut merged = old.clone();
    replace_field(&mut merged, Some(new), "status");
    merged
}

fn replace_field(object: &mut Value, from: Option<&Value>, name: &str) {
    let Some(map) = object.as_object_mut() else { return };
    match from.and_then(|from| from.get(name)) {
        Some(value) => map.insert(name.to_owned(), value.clone()),
        None => map.remove(name),
    };
}
