//! YAML of a request's body as JSON: the keys of maps become texts, and what aliases repeat counts.
//!
//! Aliases of aliases make gigabytes of a few lines, so every value is counted as it is made.

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::{
    json::{self, Document},
    limits,
};

/// Reads a document of YAML (or JSON, which is YAML); null when there is nothing in it.
///
/// # Errors
/// When it is none, has a key twice, or becomes too large; the text says where.
pub(crate) fn parse(text: &[u8]) -> Result<Value, String> {
    // Most clients send JSON, and that is read many times faster.
    if text.trim_ascii_start().first() == Some(&b'{')
        && let Ok(Document { value, repeated }) = json::parse(text)
        && repeated.is_empty()
    {
        return Ok(value);
    }
    if nesting(text) > limits::YAML_MAX_NESTING {
        return Err("it is nested deeper than an object can be".to_owned());
    }
    let left = Cell::new(limits::YAML_MAX_BYTES);
    Seed(&left)
        .deserialize(serde_yaml_ng::Deserializer::from_slice(text))
        .map_err(|error| error.to_string())
}

/// How deep a document nests at most, as far as it takes no scanner to see: brackets that are open at once,
/// and lists that begin within lists on one line (`- - -`), those in texts counted too. The scanner looks
/// at each open bracket at every word, which takes seconds when there are ten thousand.
fn nesting(text: &[u8]) -> usize {
    let (mut open, mut entries, mut most) = (0_usize, 0_usize, 0_usize);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b' ' => {}
            b'-' | b'?' if text.get(at + 1) == Some(&b' ') => entries += 1,
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => entries = 0,
        }
        most = most.max(open).max(entries);
    }
    most
}

/// Makes a value, of which as much is left as may still be made.
#[derive(Clone, Copy)]
struct Seed<'a>(&'a Cell<usize>);

impl Seed<'_> {
    fn spend<E: Error>(self, bytes: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(bytes + size_of::<Value>());
        self.0.set(left.ok_or_else(|| E::custom("the aliases make it too large"))?);
        Ok(())
    }

    fn spent<E: Error>(self, bytes: usize, value: impl Into<Value>) -> Result<Value, E> {
        self.spend(bytes)?;
        Ok(value.into())
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
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
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.spend(0)?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key_seed(self)? {
            let key = match key {
                Value::String(key) => key,
                key @ (Value::Bool(_) | Value::Number(_)) => key.to_string(),
                _ => return Err(A::Error::custom("a key must be a text")),
            };
            let value = entries.next_value_seed(self)?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("key {key:?} already set in map")));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_is_read_as_json() {
        let text = b"a: 1\nb: [x, 1.5, true, null]\n8080: {c: \"2\"}\nd: &t {e: f}\ng: *t\n";
        let expected = json!({"a": 1, "b": ["x", 1.5, true, null], "8080": {"c": "2"},
            "d": {"e": "f"}, "g": {"e": "f"}});
        assert_eq!(parse(text).unwrap(), expected);
        assert_eq!(parse(b"{\"a\": [1]}").unwrap(), json!({"a": [1]}));
        assert_eq!(parse(b"").unwrap(), Value::Null);
        for bad in
            ["a: 1\na: 2", "[", "a: .nan", "{a: 1}}", "? [1]\n: 2", "a\u{0}", r#"{"a": 1, "a": 1}"#]
        {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(b"\xff\xfe\xff").is_err());
    }

    #[test]
    fn what_aliases_make_is_limited() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for at in 1..20 {
            let before = format!("*a{}", at - 1);
            text.push_str(&format!("a{at}: &a{at} [{}]\n", vec![before; 10].join(", ")));
        }
        assert!(parse(text.as_bytes()).is_err());
        let deep = "[".repeat(100_000);
        assert!(parse(deep.as_bytes()).is_err());
        assert!(parse(format!("{{{deep}").as_bytes()).is_err());
        assert!(parse("- ".repeat(100_000).as_bytes()).is_err());
        assert!(parse("? ".repeat(100_000).as_bytes()).is_err());
        assert_eq!(parse(b"- - -\n- a").unwrap(), json!([[[null]], "a"]));
        let line = "-".repeat(10_000);
        assert_eq!(parse(format!("a: |-\n  {line}\n").as_bytes()).unwrap(), json!({"a": line}));
    }
}
