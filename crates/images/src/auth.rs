//! The texts of the token dance: a registry's challenge and a token server's answer.
//!
//! The flow is the distribution project's "token authentication": a 401 names a realm, the realm
//! hands an anonymous client a token for public repositories.

use serde::Deserialize;

/// A `WWW-Authenticate: Bearer …` header.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Challenge {
    realm: String,
    service: Option<String>,
    scope: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

impl Challenge {
    pub(crate) fn parse(header: &str) -> Option<Self> {
        let (scheme, mut rest) = header.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut challenge = Self::default();
        loop {
            let (name, after) = rest.split_once('=')?;
            let (value, after) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_at(after.find(',').unwrap_or(after.len())),
            };
            match name.trim_matches([' ', ',']) {
                "realm" => value.clone_into(&mut challenge.realm),
                "service" => challenge.service = Some(value.to_owned()),
                "scope" => challenge.scope = Some(value.to_owned()),
                _ => {}
            }
            rest = after;
            if rest.trim_matches([' ', ',']).is_empty() {
                break;
            }
        }
        (!challenge.realm.is_empty()).then_some(challenge)
    }

    /// Where to ask for the token.
    pub(crate) fn url(&self, default_scope: &str) -> String {
        let separator = if self.realm.contains('?') { '&' } else { '?' };
        let scope = escape(self.scope.as_deref().unwrap_or(default_scope));
        let mut url = format!("{}{separator}scope={scope}", self.realm);
        if let Some(service) = &self.service {
            url.push_str("&service=");
            url.push_str(&escape(service));
        }
        url
    }
}

pub(crate) fn token(body: &[u8]) -> Option<String> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    answer.token.or(answer.access_token).filter(|token| !token.is_empty())
}

/// Percent-encodes what has a meaning in a query.
fn escape(text: &str) -> String {
    use std::fmt::Write;
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:,".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let challenge = Challenge::parse(
            r#"Bearer realm="https://auth.x.io/token",service="x.io",scope="repository:a/b:pull""#,
        )
        .unwrap();
        assert_eq!(
            challenge.url("unused"),
            "https://auth.x.io/token?scope=repository:a/b:pull&service=x.io"
        );
        let bare = Challenge::parse("bearer realm=http://x/t?a=b, error=\"e\"").unwrap();
        assert_eq!(bare.url("s p"), "http://x/t?a=b&scope=s%20p");
        for text in ["", "Basic realm=\"x\"", "Bearer", "Bearer x", "Bearer realm=\"open"] {
            assert_eq!(Challenge::parse(text), None, "{text}");
        }
    }
}
