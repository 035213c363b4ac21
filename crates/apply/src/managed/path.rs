//! One step of a path into an object, as `fieldsV1` writes it and as people read it.
//!
//! It knows the four forms of a step and nothing of sets or schemas.

use std::{cmp::Ordering, collections::BTreeMap, fmt, ops::Deref, sync::Arc};

use serde_json::Value;

use super::plain;

/// One step below a map or a list.
///
/// The order of the variants is the order in which Kubernetes walks a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// A field of a map: `f:name`.
    Field(Name),
    /// An item of a list of maps, by the values of its keys: `k:{"name":"app"}`. Holds the JSON
    /// object with sorted keys, so that equal keys are equal texts.
    Key(Name),
    /// An item of a set: `v:"value"`. Holds the JSON value.
    Value(Name),
    /// An item by its position: `i:0`.
    Index(i64),
}

/// The text of a step. Sets are copied all the time, so it is never copied: it is the program's own,
/// or shared.
#[derive(Clone)]
pub struct Name(Text);

#[derive(Clone)]
enum Text {
    Own(&'static str),
    Shared(Arc<str>),
}

/// A step of `fieldsV1` that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{step:?} is no path element: {why}")]
pub struct ElementError {
    /// The step as it was given.
    pub step: String,
    /// What is wrong with it.
    pub why: String,
}

// === impl Name ===

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            Text::Own(text) => text,
            Text::Shared(text) => text,
        }
    }
}

impl From<String> for Name {
    fn from(text: String) -> Self {
        Self(Text::Shared(text.into()))
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(Text::Shared(text.into()))
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

// === impl Element ===

impl Element {
    /// The step to a field that a type names.
    #[must_use]
    pub fn known_field(name: &'static str) -> Self {
        Self::Field(Name(Text::Own(name)))
    }

    /// The step to a field.
    #[must_use]
    pub fn field(name: &str) -> Self {
        Self::Field(name.into())
    }

    /// The step to the list item that has these values of the list's keys.
    #[must_use]
    pub fn key(values: &BTreeMap<&str, &Value>) -> Self {
        let mut key = String::with_capacity(64);
        for (name, value) in values {
            key.push(if key.is_empty() { '{' } else { ',' });
            plain::write_text(&mut key, name);
            key.push(':');
            plain::write_value(&mut key, value);
        }
        key.push_str(if key.is_empty() { "{}" } else { "}" });
        Self::Key(key.as_str().into())
    }

    /// The step to an item of a set.
    #[must_use]
    pub fn value(value: &Value) -> Self {
        let mut text = String::new();
        plain::write_value(&mut text, value);
        Self::Value(text.as_str().into())
    }

    /// Reads a step of `fieldsV1`. `None` for a form that is not known: those are left out, so that
    /// a later form of steps does not make the whole set unreadable.
    ///
    /// # Errors
    /// When the form is known and what follows it is not of that form.
    pub fn parse(step: &str) -> Result<Option<Self>, ElementError> {
        let wrong = |why: String| ElementError { step: step.to_owned(), why };
        let Some((form, rest)) = step.split_once(':') else {
            return Err(wrong("no colon".to_owned()));
        };
        match form {
            "f" => Ok(Some(Self::field(rest))),
            // What this server wrote itself need not be parsed.
            "k" if plain::is_key(rest) => Ok(Some(Self::Key(rest.into()))),
            "v" if plain::is_scalar(rest) => Ok(Some(Self::Value(rest.into()))),
            "k" => {
                let values: BTreeMap<String, Value> =
                    serde_json::from_str(rest).map_err(|error| wrong(error.to_string()))?;
                let borrowed = values.iter().map(|(name, value)| (name.as_str(), value)).collect();
                Ok(Some(Self::key(&borrowed)))
            }
            "v" => {
                let value: Value =
                    serde_json::from_str(rest).map_err(|error| wrong(error.to_string()))?;
                Ok(Some(Self::value(&value)))
            }
            "i" => rest
                .parse()
                .map(|index| Some(Self::Index(index)))
                .map_err(|_| wrong("the index is no integer".to_owned())),
            _ => Ok(None),
        }
    }

    /// The step as `fieldsV1` writes it.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    /// Writes the step as `fieldsV1` does.
    pub(super) fn write(&self, into: &mut String) {
        let (form, name) = match self {
            Self::Field(name) => ("f:", name),
            Self::Key(values) => ("k:", values),
            Self::Value(value) => ("v:", value),
            Self::Index(index) => {
                into.push_str("i:");
                into.push_str(&index.to_string());
                return;
            }
        };
        into.reserve(form.len() + name.len());
        into.push_str(form);
        into.push_str(name);
    }
}

/// As in Kubernetes' messages: `.field`, `[name="app",port=80]`, `[="value"]`, `[0]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(values) => {
                let values: BTreeMap<String, Value> =
                    serde_json::from_str(values).unwrap_or_default();
                let values: Vec<String> =
                    values.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", values.join(","))
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// Writes a path as Kubernetes' messages do: `.spec.containers[name="app"].image`.
#[must_use]
pub fn path_text(path: &[Element]) -> String {
    path.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_and_written() {
        let table = [
            ("f:name", "f:name", ".name"),
            ("f:", "f:", "."),
            ("f:a.b/c:d", "f:a.b/c:d", ".a.b/c:d"),
            (
                r#"k:{ "protocol":"TCP", "containerPort":80 }"#,
                r#"k:{"containerPort":80,"protocol":"TCP"}"#,
                r#"[containerPort=80,protocol="TCP"]"#,
            ),
            (r#"v:"a\"b""#, r#"v:"a\"b""#, r#"[="a\"b"]"#),
            ("v:3", "v:3", "[=3]"),
            ("i:-1", "i:-1", "[-1]"),
        ];
        for (given, encoded, shown) in table {
            let element = Element::parse(given).unwrap().unwrap();
            assert_eq!(element.encode(), encoded);
            assert_eq!(element.to_string(), shown);
        }
        assert_eq!(Element::parse("x:new").unwrap(), None);
        for bad in ["", "name", "k:[]", "k:1", "v:", "v:{", "i:x", "i:"] {
            assert!(Element::parse(bad).is_err(), "{bad}");
        }
    }
}
