//! YAML of a request's body as JSON: the keys of maps become texts, and what aliases repeat counts.
//!
//! Aliases of aliases make gigabytes of a few lines, so every value is counted as it is made.

use crate::{
    json::{self, Document},
    limits,
};

/// Reads a document of YAML (or JSON, which is YAML); null when there is nothing in it.
///
/// # Errors
/// When it is none or becomes too large; the text says where.
pub(crate) fn parse(text: &[u8]) -> Result<Document, String> {
    // Most clients send JSON, and that is read many times faster.
    if text.trim_ascii_start().first() == Some(&b'{')
        && let Ok(document) = json::parse(text)
    {
        return Ok(document);
    }
    if nesting(text) > limits::YAML_MAX_NESTING {
        return Err("it is nested deeper than an object can be".to_owned());
    }
    let from = serde_yaml_ng::Deserializer::from_slice(text);
    json::read(from, limits::YAML_MAX_BYTES).map_err(|error| error.to_string())
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn yaml_is_read_as_json() {
        let text = b"a: 1\nb: [x, 1.5, true, null]\n8080: {c: \"2\"}\nd: &t {e: f}\ng: *t\n";
        let expected = json!({"a": 1, "b": ["x", 1.5, true, null], "8080": {"c": "2"},
            "d": {"e": "f"}, "g": {"e": "f"}});
        assert_eq!(parse(text).unwrap().value, expected);
        assert_eq!(parse(b"{\"a\": [1]}").unwrap().value, json!({"a": [1]}));
        assert_eq!(parse(b"").unwrap().value, Value::Null);
        for bad in ["[", "a: .nan", "{a: 1}}", "? [1]\n: 2", "a\u{0}"] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(b"\xff\xfe\xff").is_err());
        for twice in ["a: 1\na: 2", r#"{"a": 1, "a": 2}"#, "{a: 1, 'a': 2}"] {
            let Document { value, repeated } = parse(twice.as_bytes()).unwrap();
            assert_eq!((value, repeated), (json!({"a": 2}), vec!["a".to_owned()]));
        }
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
        assert_eq!(parse(b"- - -\n- a").unwrap().value, json!([[[null]], "a"]));
        let line = "-".repeat(10_000);
        assert_eq!(
            parse(format!("a: |-\n  {line}\n").as_bytes()).unwrap().value,
            json!({"a": line})
        );
    }
}
