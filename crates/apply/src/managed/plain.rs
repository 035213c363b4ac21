//! JSON in the one form that `serde_json` would give it again, told at a glance. That is what the keys of items
//! and the items of sets nearly always are: texts without escapes, short whole numbers, and words. What is not
//! plain is none of this file's business.

use std::fmt::Write as _;

use serde_json::Value;

/// Longest whole number that is told: any of so many digits is an integer.
const DIGITS_MAX: usize = 15;

/// Whether the text is a map of plain values under plain names, in order.
pub(super) fn is_key(key: &str) -> bool {
    let inner = key.strip_prefix('{').and_then(|key| key.strip_suffix('}'));
    let Some(mut rest) = inner else { return false };
    let mut before = None;
    loop {
        let Some((name, after)) = text(rest) else { return false };
        let Some(after) = after.strip_prefix(':').and_then(scalar) else { return false };
        if before.is_some_and(|before| before >= name) {
            return false;
        }
        before = Some(name);
        match after.strip_prefix(',') {
            None => return after.is_empty(),
            Some(next) => rest = next,
        }
    }
}

/// Whether the text is one plain value.
pub(super) fn is_scalar(text: &str) -> bool {
    scalar(text).is_some_and(str::is_empty)
}

/// Whether a text is written between quotes as it is.
pub(super) fn needs_no_escape(text: &str) -> bool {
    text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\')
}

/// What stands between quotes, and what follows.
fn text(text: &str) -> Option<(&str, &str)> {
    let (inner, rest) = text.strip_prefix('"')?.split_once('"')?;
    needs_no_escape(inner).then_some((inner, rest))
}

/// What follows a value.
fn scalar(value: &str) -> Option<&str> {
    if value.starts_with('"') {
        return text(value).map(|(_, rest)| rest);
    }
    let word = ["true", "false", "null"].iter().find_map(|word| value.strip_prefix(word));
    if word.is_some() {
        return word;
    }
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let one_form = digits == 1 || !value.starts_with('0');
    ((1..=DIGITS_MAX).contains(&digits) && one_form).then(|| value.get(digits..))?
}

/// Writes a value as JSON.
pub(super) fn write_value(into: &mut String, value: &Value) {
    match value {
        Value::String(text) => write_text(into, text),
        value => {
            // Writing to a text cannot fail.
            let _ = write!(into, "{value}");
        }
    }
}

/// Writes a text as JSON.
pub(super) fn write_text(into: &mut String, text: &str) {
    if needs_no_escape(text) {
        into.push('"');
        into.push_str(text);
        into.push('"');
    } else {
        let _ = write!(into, "{}", Value::from(text));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{super::path::Element, *};

    #[test]
    fn what_is_plain_would_be_written_as_it_is() {
        let keys = [
            r#"{"name":"app"}"#,
            r#"{"containerPort":80,"protocol":"TCP"}"#,
            r#"{"a":true,"b":null,"c":"x}"}"#,
        ];
        for key in keys {
            let values: BTreeMap<String, Value> = serde_json::from_str(key).unwrap();
            let borrowed = values.iter().map(|(name, value)| (name.as_str(), value)).collect();
            assert!(is_key(key), "{key}");
            assert_eq!(Element::key(&borrowed), Element::Key(key.into()));
        }
        for value in [r#""a""#, r#""""#, "0", "12", "true", "\"\u{7f}é\""] {
            let parsed: Value = serde_json::from_str(value).unwrap();
            assert!(is_scalar(value), "{value}");
            assert_eq!(Element::value(&parsed), Element::Value(value.into()));
        }
        for other in [
            r#"{ "a":1}"#,
            r#"{"b":1,"a":1}"#,
            r#"{"a":1,"a":1}"#,
            r#"{"a":"\u0041"}"#,
            r#"{"a":01}"#,
            r#"{"a":1.0}"#,
            r#"{"a":-0}"#,
            r#"{"a":1,}"#,
            r#"{"a":[1]}"#,
            "{}",
            "{",
            r#"{"a"}"#,
            r#"{"a":99999999999999999999}"#,
            "",
        ] {
            assert!(!is_key(other), "{other}");
        }
        for other in ["1e3", "\"a\nb\"", "00", "", "truer", "{}", "\"a"] {
            assert!(!is_scalar(other), "{other:?}");
        }
    }

    #[test]
    fn texts_are_written_as_json() {
        for text in ["", "a", "é\u{7f}", "a\"b", "\\", "\n"] {
            let mut written = String::new();
            write_text(&mut written, text);
            assert_eq!(written, Value::from(text).to_string());
        }
    }
}
