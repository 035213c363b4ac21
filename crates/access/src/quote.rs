//! Texts between double quotes as Go's `%q` writes them, which is how Kubernetes' messages quote.

use std::fmt::{self, Write};

/// One text.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for character in self.0.chars() {
            match character {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\u{7}' => f.write_str("\\a")?,
                '\u{8}' => f.write_str("\\b")?,
                '\u{c}' => f.write_str("\\f")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                '\u{b}' => f.write_str("\\v")?,
                other if other.is_ascii_control() => write!(f, "\\x{:02x}", u32::from(other))?,
                other if other.is_control() => write!(f, "\\u{:04x}", u32::from(other))?,
                other => f.write_char(other)?,
            }
        }
        f.write_char('"')
    }
}

/// Several: `["a" "b"]`.
pub(crate) struct QuotedList<'a>(pub(crate) &'a [String]);

impl fmt::Display for QuotedList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('[')?;
        for (position, text) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_char(' ')?;
            }
            write!(f, "{}", Quoted(text))?;
        }
        f.write_char(']')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        for (text, quoted) in [
            ("", r#""""#),
            ("jané", r#""jané""#),
            ("a\"b\\c\n", r#""a\"b\\c\n""#),
            ("\u{1}\u{7f}\u{85}", r#""\x01\x7f\u0085""#),
        ] {
            assert_eq!(Quoted(text).to_string(), quoted);
        }
        assert_eq!(QuotedList(&["a".into(), "b".into()]).to_string(), r#"["a" "b"]"#);
        assert_eq!(QuotedList(&[]).to_string(), "[]");
    }
}
