//! The query of a request: names and values, some of them several times.

/// A decoded query, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    /// Every value of that name.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(it, _)| it == name).map(|(_, value)| value.clone()).collect()
    }

    /// The first value of that name, unless it is empty.
    pub(crate) fn first(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(it, _)| it == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Whether any of these names says yes; the kubelet's API says `1`, Kubernetes' `true`.
    pub(crate) fn flag(&self, names: &[&str]) -> bool {
        names.iter().any(|name| matches!(self.first(name), Some("true" | "1")))
    }

    /// A number; an error names the parameter.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        let parse = |text: &str| text.parse().map_err(|_| format!("invalid {name}: {text:?}"));
        self.first(name).map(parse).transpose()
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after
            .get(..2)
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match (first, escaped) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_decode() {
        let query = Query::parse(
            "command=sh&command=-c&command=echo%20%22a%2Bb%22+c&tty=true&tailLines=3&x=%zz&",
        );
        assert_eq!(query.all("command"), ["sh", "-c", "echo \"a+b\" c"]);
        assert!(query.flag(&["tty"]) && !query.flag(&["stdin", "input"]));
        assert_eq!(query.number::<u64>("tailLines"), Ok(Some(3)));
        assert!(query.number::<u64>("x").is_err());
        assert_eq!(query.first("x"), Some("%zz"));
    }
}
