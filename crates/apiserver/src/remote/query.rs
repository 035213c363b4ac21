//! Query parameters: percent-encoding, and Kubernetes' rules for booleans and numbers.

use std::fmt::Write;

use toono_api::ApiError;

/// A request's parameters in order, names may repeat.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    pub(super) fn parse(raw: &str) -> Self {
        let pairs = raw
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(name), decode(value))
            })
            .collect();
        Self { pairs }
    }

    /// Every value of a name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first value of a name, unless it is empty.
    pub(super) fn text<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next().filter(|value| !value.is_empty())
    }

    /// As Kubernetes decodes booleans: missing, `false` and `0` are false; all else is true, also
    /// nothing after the name.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.all(name)
            .next()
            .is_some_and(|value| !value.eq_ignore_ascii_case("false") && value != "0")
    }

    /// A whole number.
    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let parsed = text.parse();
        parsed.map(Some).map_err(|_| {
            ApiError::BadRequest(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
        })
    }
}

/// Builds a query string.
#[derive(Debug, Default)]
pub(super) struct QueryWriter {
    out: String,
}

impl QueryWriter {
    pub(super) fn push(&mut self, name: &str, value: &str) {
        self.out.push(if self.out.is_empty() { '?' } else { '&' });
        self.out.push_str(name);
        self.out.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    self.out.push(char::from(byte));
                }
                _ => {
                    // Writing to a String cannot fail.
                    let _ = write!(self.out, "%{byte:02X}");
                }
            }
        }
    }

    /// Adds `name=true`, if it is.
    pub(super) fn push_flag(&mut self, name: &str, value: bool) {
        if value {
            self.push(name, "true");
        }
    }

    /// The query with its question mark, or nothing.
    pub(super) fn finish(self) -> String {
        self.out
    }
}

/// Undoes percent-encoding and `+`. What is no escape stays as it is, what is no UTF-8 is replaced.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => out.push(b' '),
            b'%' => match after.split_at_checked(2).and_then(|(digits, later)| {
                let digits = std::str::from_utf8(digits).ok()?;
                Some((u8::from_str_radix(digits, 16).ok()?, later))
            }) {
                Some((escaped, later)) => {
                    out.push(escaped);
                    rest = later;
                }
                None => out.push(byte),
            },
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut writer = QueryWriter::default();
        for argument in ["sh", "-c", "echo a+b & \"c\" %41 = ü\n"] {
            writer.push("command", argument);
        }
        writer.push_flag("tty", true);
        writer.push_flag("stdin", false);
        let written = writer.finish();
        let query = Query::parse(written.strip_prefix('?').unwrap());
        let command: Vec<&str> = query.all("command").collect();
        assert_eq!(command, ["sh", "-c", "echo a+b & \"c\" %41 = ü\n"]);
        assert!(query.flag("tty") && !query.flag("stdin"));
    }

    #[test]
    fn booleans_and_numbers_follow_kubernetes() {
        let query = Query::parse("a&b=&c=false&d=0&e=1&f=False&n=12&m=x&o=%zz%4");
        let flags: Vec<bool> =
            ["a", "b", "c", "d", "e", "f", "g"].map(|name| query.flag(name)).into();
        assert_eq!(flags, [true, true, false, false, true, false, false]);
        assert_eq!(query.number("n"), Ok(Some(12)));
        assert_eq!(query.number("z"), Ok(None));
        let error = query.number("m").unwrap_err();
        assert_eq!(error.to_string(), "strconv.ParseInt: parsing \"x\": invalid syntax");
        assert_eq!(query.text("o"), Some("%zz%4"));
    }
}
