//! The document of a request's body, and which fields it gives twice: of those the last one counts, and the
//! client is told or refused. JSON is read here, YAML in `yaml`; both make their values by one visitor.

use std::{
    cell::{Cell, RefCell},
    fmt,
};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value, map::Entry};

/// Most repeated fields that are remembered of one document.
const REPEATED_MAX: usize = 64;
/// A path that is longer is told as three dots: a name in it can be as long as a body.
const PATH_MAX_BYTES: usize = 1024;

/// What a document says.
#[derive(Debug, Default)]
pub(crate) struct Document {
    pub(crate) value: Value,
    /// Paths of the fields that it gives more than once, such as `spec.containers[0].image`.
    pub(crate) repeated: Vec<String>,
}

impl From<Value> for Document {
    fn from(value: Value) -> Self {
        Self { value, repeated: Vec::new() }
    }
}

/// Reads what a deserializer has, as long as it makes no more than so many bytes.
///
/// # Errors
/// Those of the deserializer, or when it is no JSON could say or becomes too large.
pub(crate) fn read<'de, D: Deserializer<'de>>(
    from: D,
    most_bytes: usize,
) -> Result<Document, D::Error> {
    let (repeated, left) = (RefCell::default(), Cell::new(most_bytes));
    let value = At { place: None, repeated: &repeated, left: &left }.deserialize(from)?;
    Ok(Document { value, repeated: repeated.into_inner() })
}

/// Reads JSON; null when there is nothing.
///
/// # Errors
/// When it is no JSON; the text says where.
pub(crate) fn parse(text: &[u8]) -> serde_json::Result<Document> {
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(Document::default());
    }
    let mut from = serde_json::Deserializer::from_slice(text);
    // What JSON makes is in proportion to its length, which is bounded.
    let document = read(&mut from, usize::MAX)?;
    from.end()?;
    Ok(document)
}

/// A place in the document, as its last step and the place before.
#[derive(Clone, Copy)]
struct Place<'a> {
    before: Option<&'a Self>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Item(usize),
}

impl Place<'_> {
    /// How long its path is at most, but for the numbers in it.
    fn len(&self) -> usize {
        let own = match self.step {
            Step::Field(name) => name.len() + 1,
            Step::Item(_) => 2,
        };
        self.before.map_or(0, Self::len).saturating_add(own)
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(before) = self.before {
            fmt::Display::fmt(before, f)?;
        }
        match self.step {
            Step::Item(at) => write!(f, "[{at}]"),
            Step::Field(name) if self.before.is_some() => write!(f, ".{name}"),
            Step::Field(name) => f.write_str(name),
        }
    }
}

/// Makes the value at a place.
#[derive(Clone, Copy)]
struct At<'a> {
    place: Option<&'a Place<'a>>,
    repeated: &'a RefCell<Vec<String>>,
    /// How many bytes may still be made.
    left: &'a Cell<usize>,
}

impl At<'_> {
    fn spend<E: Error>(self, bytes: usize) -> Result<(), E> {
        let left = self.left.get().checked_sub(bytes + size_of::<Value>());
        self.left.set(left.ok_or_else(|| E::custom("the aliases make it too large"))?);
        Ok(())
    }

    fn spent<E: Error>(self, bytes: usize, value: impl Into<Value>) -> Result<Value, E> {
        self.spend(bytes)?;
        Ok(value.into())
    }

    /// Calls with what makes the value one step further.
    fn step<T>(self, step: Step<'_>, then: impl FnOnce(At<'_>) -> T) -> T {
        let place = Place { before: self.place, step };
        then(At { place: Some(&place), ..self })
    }

    fn remember(self, name: &str) {
        let mut repeated = self.repeated.borrow_mut();
        if repeated.len() < REPEATED_MAX {
            let place = Place { before: self.place, step: Step::Field(name) };
            let short = place.len() <= PATH_MAX_BYTES;
            let path = if short { place.to_string() } else { "...".to_owned() };
            if !repeated.contains(&path) {
                repeated.push(path);
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON has")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.spent(0, value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.spent(0, value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.spent(0, value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value);
        self.spent(0, number.ok_or_else(|| E::custom("JSON has no such number"))?)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.spent(value.len(), value)
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        self.spent(value.len(), value)
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.spent(0, Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        self.spent(0, Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        self.deserialize(from)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.spend(0)?;
        let mut list = Vec::new();
        let next =
            |at, items: &mut A| self.step(Step::Item(at), |item| items.next_element_seed(item));
        while let Some(item) = next(list.len(), &mut items)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.spend(0)?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key_seed(self)? {
            let name = match key {
                Value::String(name) => name,
                key @ (Value::Bool(_) | Value::Number(_)) => key.to_string(),
                _ => return Err(A::Error::custom("a key must be a text")),
            };
            let value = self.step(Step::Field(&name), |field| entries.next_value_seed(field))?;
            match map.entry(name) {
                Entry::Vacant(place) => drop(place.insert(value)),
                Entry::Occupied(mut place) => {
                    self.remember(place.key());
                    place.insert(value);
                }
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_of_repeated_fields_counts() {
        let text =
            br#"{"spec": {"a": 1, "list": [0, {"b": 1, "b": 2, "b": {"c": 1, "c": 2}}], "a": [2]},
            "spec.x": 1, "spec.x": 2}"#;
        let Document { value, repeated } = parse(text).unwrap();
        let expected = json!({"spec": {"a": [2], "list": [0, {"b": {"c": 2}}]}, "spec.x": 2});
        assert_eq!(value, expected);
        let mut repeated = repeated;
        repeated.sort_unstable();
        assert_eq!(repeated, ["spec.a", "spec.list[1].b", "spec.list[1].b.c", "spec.x"]);
    }

    #[test]
    fn what_is_no_json_is_told() {
        assert_eq!(parse(b" \n").unwrap().value, Value::Null);
        for bad in ["{", "{} {}", "{1: 2}", "nul", "\u{0}", "1e999"] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(b"\"\xff\"").is_err());
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let fields: Vec<String> = (0..1000).map(|n| format!("\"f{n}\": 1, \"f{n}\": 1")).collect();
        let text = format!("{{{}}}", fields.join(", "));
        assert_eq!(parse(text.as_bytes()).unwrap().repeated.len(), REPEATED_MAX);
        let long = "x".repeat(1 << 20);
        let text = format!("{{\"{long}\": {text}}}");
        assert_eq!(parse(text.as_bytes()).unwrap().repeated, ["..."]);
    }

    proptest! {
        #[test]
        fn it_reads_what_serde_json_reads(text in r#"[\[\]{}:," a-c0-9.\\eE+-]{0,40}"#) {
            let theirs = serde_json::from_str::<Value>(&text).ok();
            let ours = parse(text.as_bytes()).ok().map(|document| document.value);
            if !text.trim().is_empty() {
                prop_assert_eq!(ours, theirs);
            }
        }
    }
}
