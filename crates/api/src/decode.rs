//! Strict decoding by the table of types: values have their types, unknown fields and nulls fall
//! out, times and quantities get one form. Errors are Kubernetes' own words.

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::{
    quantity::Quantity,
    types::{self, SCHEMA, Shape, Type, short_name},
};

/// An object that has its kind's shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object without the unknown fields.
    pub object: Value,
    /// Paths of the unknown fields that were dropped, such as `spec.containers[0].imag`.
    pub unknown_fields: Vec<String>,
}

/// A field has the wrong type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct DecodeError {
    /// Where, such as `spec.replicas`.
    pub path: String,
    /// What, in the words of Go's decoder.
    pub why: String,
}

/// Most unknown fields that are remembered of one object.
const MAX_UNKNOWN_FIELDS: usize = 64;

/// Quantities' own words for what they are not.
const NO_QUANTITY: &str = "quantities must match the regular expression \
                           '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// Decodes an object of the kind whose message is `root`, such as `apps.Deployment`.
///
/// # Errors
/// [`DecodeError`] for the first value of a wrong type.
pub fn decode(root: &'static str, mut object: Value) -> Result<Decoded, DecodeError> {
    let mut walk = Walk { path: Vec::new(), unknown_fields: Vec::new() };
    let Value::Object(fields) = &mut object else {
        return Err(walk.mismatch(short_name(root), &object, short_name(root)));
    };
    walk.message(root, fields)?;
    Ok(Decoded { object, unknown_fields: walk.unknown_fields })
}

/// A place on the way down.
enum Step {
    Field(String),
    Item(usize),
}

struct Walk {
    path: Vec<Step>,
    unknown_fields: Vec<String>,
}

/// Fields that may be left out, and that Go's types yet write when they are empty.
const ALWAYS_WRITTEN: [(&str, &str); 3] =
    [("rbac.ClusterRole", "rules"), ("rbac.Role", "rules"), ("discovery.EndpointSlice", "ports")];

/// Whether a list or a map holds nothing.
fn is_empty(shape: Shape, value: &Value) -> bool {
    match (shape, value) {
        (Shape::List(_), Value::Array(items)) => items.is_empty(),
        (Shape::Map(_) | Shape::MapOfLists, Value::Object(entries)) => entries.is_empty(),
        _ => false,
    }
}

impl Walk {
    /// Messages nest as deep as the JSON does, which its parser limits.
    fn message(
        &mut self,
        name: &'static str,
        fields: &mut Map<String, Value>,
    ) -> Result<(), DecodeError> {
        let Some(message) = types::message(name) else {
            return Err(self.error(format!("{name} is not in the table of types")));
        };
        let mut failure = None;
        fields.retain(|key, value| {
            if failure.is_some() {
                return true;
            }
            self.path.push(Step::Field(key.clone()));
            let names_kind = message.has_kind() && matches!(key.as_str(), "apiVersion" | "kind");
            let kept = match message.field(key) {
                None if names_kind => {
                    failure = self.single(name, Type::Text, value).err();
                    true
                }
                None => {
                    self.remember_unknown();
                    false
                }
                // To Go's decoder null is absence.
                _ if value.is_null() => false,
                Some(field) => {
                    failure = self.shaped(name, field.shape, value).err();
                    // Go leaves out what is empty of all that may be left out.
                    failure.is_some()
                        || field.required
                        || ALWAYS_WRITTEN.contains(&(name, key))
                        || !is_empty(field.shape, value)
                }
            };
            self.path.pop();
            kept
        });
        failure.map_or(Ok(()), Err)
    }

    fn shaped(
        &mut self,
        owner: &'static str,
        shape: Shape,
        value: &mut Value,
    ) -> Result<(), DecodeError> {
        match (shape, value) {
            (Shape::Plain(kind) | Shape::Optional(kind), value) => self.single(owner, kind, value),
            (Shape::List(kind), Value::Array(items)) => {
                for (at, item) in items.iter_mut().enumerate() {
                    self.path.push(Step::Item(at));
                    self.element(owner, kind, item)?;
                    self.path.pop();
                }
                Ok(())
            }
            (Shape::Map(kind), Value::Object(entries)) => {
                for (key, entry) in entries {
                    self.path.push(Step::Field(key.clone()));
                    self.element(owner, kind, entry)?;
                    self.path.pop();
                }
                Ok(())
            }
            (Shape::MapOfLists, Value::Object(entries)) => {
                for (key, entry) in entries {
                    self.path.push(Step::Field(key.clone()));
                    self.shaped(owner, Shape::List(Type::Text), entry)?;
                    self.path.pop();
                }
                Ok(())
            }
            (shape, value) => Err(self.mismatch(short_name(owner), value, &shape.to_string())),
        }
    }

    /// Null in a list or map is the type's zero; only text has one that means something here.
    fn element(
        &mut self,
        owner: &'static str,
        kind: Type,
        value: &mut Value,
    ) -> Result<(), DecodeError> {
        if value.is_null() && matches!(kind, Type::Text | Type::Bytes) {
            *value = Value::String(String::new());
        }
        self.single(owner, kind, value)
    }

    fn single(
        &mut self,
        owner: &'static str,
        kind: Type,
        value: &mut Value,
    ) -> Result<(), DecodeError> {
        match (kind, &mut *value) {
            (Type::Raw, _)
            | (Type::Text | Type::IntOrString, Value::String(_))
            | (Type::Double, Value::Number(_))
            | (Type::Boolean | Type::SchemaOrBool, Value::Bool(_)) => Ok(()),
            (Type::Message(name), Value::Object(fields)) => self.message(name, fields),
            (
                Type::SchemaOrBool | Type::SchemaOrArray | Type::SchemaOrTexts,
                Value::Object(fields),
            ) => self.message(SCHEMA, fields),
            (Type::SchemaOrArray, Value::Array(_)) => {
                self.shaped(owner, Shape::List(Type::Message(SCHEMA)), value)
            }
            (Type::SchemaOrTexts, Value::Array(_)) => {
                self.shaped(owner, Shape::List(Type::Text), value)
            }
            (Type::Int64, Value::Number(number)) if number.is_i64() => Ok(()),
            (Type::Int32 | Type::IntOrString, Value::Number(number))
                if number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) =>
            {
                Ok(())
            }
            (Type::Bytes, Value::String(text)) => match STANDARD.decode(&*text) {
                Ok(_) => Ok(()),
                Err(base64::DecodeError::InvalidByte(at, _)) => {
                    Err(self.error(format!("illegal base64 data at input byte {at}")))
                }
                Err(_) => {
                    let end = text.len();
                    Err(self.error(format!("illegal base64 data at input byte {end}")))
                }
            },
            (Type::Time, Value::String(text)) => self.time(text, "%Y-%m-%dT%H:%M:%SZ"),
            (Type::MicroTime, Value::String(text)) => self.time(text, "%Y-%m-%dT%H:%M:%S.%6fZ"),
            (Type::Quantity, Value::String(text)) => self.quantity(text),
            // Amounts may be written as numbers (`cpu: 1`); they are texts at rest.
            (Type::Quantity, Value::Number(number)) => {
                let text = number.to_string();
                self.quantity(&text)?;
                *value = Value::String(text);
                Ok(())
            }
            (kind, value) => Err(self.mismatch(short_name(owner), value, &kind.to_string())),
        }
    }

    fn time(&self, text: &mut String, format: &str) -> Result<(), DecodeError> {
        let moment: Timestamp = text.parse().map_err(|_| {
            self.error(format!(
                "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?}"
            ))
        })?;
        *text = moment.strftime(format).to_string();
        Ok(())
    }

    fn quantity(&self, text: &str) -> Result<(), DecodeError> {
        text.parse::<Quantity>().map(|_| ()).map_err(|_| self.error(NO_QUANTITY.to_owned()))
    }

    fn remember_unknown(&mut self) {
        if self.unknown_fields.len() < MAX_UNKNOWN_FIELDS {
            let path = self.print_path(true);
            self.unknown_fields.push(path);
        }
    }

    fn mismatch(&self, owner: &str, value: &Value, wanted: &str) -> DecodeError {
        let found = match value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            // A number that does not fit is told with its digits.
            Value::Number(number) if wanted.starts_with("int") => format!("number {number}"),
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        let field = self.print_path(false);
        self.error(format!(
            "json: cannot unmarshal {found} into Go struct field {owner}.{field} of type {wanted}"
        ))
    }

    fn error(&self, why: String) -> DecodeError {
        DecodeError { path: self.print_path(true), why }
    }

    /// `spec.containers[0].foo`; Go's own decoder leaves the indexes out.
    fn print_path(&self, with_indexes: bool) -> String {
        let mut text = String::new();
        for step in &self.path {
            match step {
                Step::Item(at) if with_indexes => text.push_str(&format!("[{at}]")),
                Step::Item(_) => {}
                Step::Field(name) => {
                    if !text.is_empty() {
                        text.push('.');
                    }
                    text.push_str(name);
                }
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec})
    }

    #[test]
    fn values_keep_their_meaning_and_get_one_form() {
        let sent = json!({
            "containers": [{
                "name": "a", "image": "b", "stdin": false, "args": [null],
                "resources": {"limits": {"cpu": 1, "memory": "1Gi"}},
                "livenessProbe": {"httpGet": {"port": 80, "path": null}},
            }],
            "terminationGracePeriodSeconds": 5_000_000_000_i64,
            "volumes": [{"name": "v", "emptyDir": {}}],
        });
        let mut object = pod(sent);
        object["metadata"]["creationTimestamp"] = json!("2024-01-01T01:00:00+01:00");
        let decoded = decode("core.Pod", object).unwrap();
        assert_eq!(decoded.unknown_fields, [""; 0]);
        let (meta, spec) = (&decoded.object["metadata"], &decoded.object["spec"]);
        assert_eq!(meta["creationTimestamp"], "2024-01-01T00:00:00Z");
        let container = &spec["containers"][0];
        assert_eq!(container["resources"]["limits"], json!({"cpu": "1", "memory": "1Gi"}));
        assert_eq!(container["livenessProbe"]["httpGet"], json!({"port": 80}));
        assert_eq!((&container["stdin"], &container["args"]), (&json!(false), &json!([""])));
        assert_eq!(spec["volumes"][0]["emptyDir"], json!({}));
        assert_eq!(decoded.object["kind"], "Pod");
    }

    #[test]
    fn wrong_types_are_told_as_kubernetes_tells_them() {
        let cases = [
            (
                json!({"containers": "x"}),
                "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
            ),
            (
                json!({"containers": [{"name": 1}]}),
                "json: cannot unmarshal number into Go struct field Container.spec.containers.name of type string",
            ),
            (
                json!({"priority": 4_294_967_296_i64}),
                "json: cannot unmarshal number 4294967296 into Go struct field PodSpec.spec.priority of type int32",
            ),
            (json!({"containers": [{"resources": {"limits": {"cpu": "lots"}}}]}), NO_QUANTITY),
            (
                json!({"hostNetwork": "yes"}),
                "json: cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork of type bool",
            ),
        ];
        for (spec, why) in cases {
            assert_eq!(decode("core.Pod", pod(spec)).unwrap_err().why, why);
        }
        let secret = json!({"data": {"a": "not base64!"}});
        let error = decode("core.Secret", secret).unwrap_err();
        assert_eq!(
            (error.path.as_str(), error.why.as_str()),
            ("data.a", "illegal base64 data at input byte 3")
        );
        assert!(decode("core.Pod", json!([])).is_err());
    }

    #[test]
    fn what_is_empty_and_may_be_left_out_falls_out() {
        let given = json!({"metadata": {"labels": {}, "finalizers": []}, "spec": {
            "containers": [], "volumes": [{"name": "v", "emptyDir": {}}], "nodeSelector": {},
            "securityContext": {}, "tolerations": []}});
        let kept = json!({"metadata": {}, "spec": {"containers": [], "securityContext": {},
            "volumes": [{"name": "v", "emptyDir": {}}]}});
        assert_eq!(decode("core.Pod", given).unwrap().object, kept);
        let role = json!({"metadata": {}, "rules": []});
        assert_eq!(decode("rbac.Role", role.clone()).unwrap().object, role);
    }

    #[test]
    fn unknown_fields_fall_out_and_are_named_up_to_a_number() {
        let many: Map<String, Value> = (0..100).map(|n| (format!("x{n}"), json!(n))).collect();
        let decoded = decode("core.Pod", pod(Value::Object(many))).unwrap();
        assert_eq!(decoded.unknown_fields.len(), MAX_UNKNOWN_FIELDS);
        assert_eq!(decoded.unknown_fields[0], "spec.x0");
        assert_eq!(decoded.object["spec"], json!({}));
    }
}
