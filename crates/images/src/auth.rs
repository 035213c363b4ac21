//! The texts of authentication: a registry's challenge and a token server's answer.
//!
//! A 401 asks for a password with each request ("Basic"), or names a realm that hands out tokens ("Bearer",
//! the distribution project's "token authentication"): for a password, or for public repositories for
//! nothing.

use http::{HeaderMap, header};

use serde::Deserialize;

/// What a registry wants to be shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A name and a password, with each request.
    Basic,
    /// A token from elsewhere.
    Bearer(Realm),
}

/// Where tokens are handed out: a `WWW-Authenticate: Bearer …` header.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Realm {
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
    /// The best of what a refusal asks for: a token, or else a password.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let texts = || {
            let values = headers.get_all(header::WWW_AUTHENTICATE).into_iter();
            values.filter_map(|value| value.to_str().ok())
        };
        let is_basic = |text: &str| {
            let scheme = text.trim().split(' ').next().unwrap_or_default();
            scheme.eq_ignore_ascii_case("basic")
        };
        let bearer = texts().find_map(Realm::parse).map(Self::Bearer);
        bearer.or_else(|| texts().any(is_basic).then_some(Self::Basic))
    }
}

impl Realm {
    fn parse(header: &str) -> Option<Self> {
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
        let challenge = Realm::parse(
            r#"Bearer realm="https://auth.x.io/token",service="x.io",scope="repository:a/b:pull""#,
        )
        .unwrap();
        assert_eq!(
            challenge.url("unused"),
            "https://auth.x.io/token?scope=repository:a/b:pull&service=x.io"
        );
        let bare = Realm::parse("bearer realm=http://x/t?a=b, error=\"e\"").unwrap();
        assert_eq!(bare.url("s p"), "http://x/t?a=b&scope=s%20p");
        for text in ["", "Basic realm=\"x\"", "Bearer", "Bearer x", "Bearer realm=\"open"] {
            assert_eq!(Realm::parse(text), None, "{text}");
        }
    }
    #[test]
    fn a_token_is_preferred_to_a_password() {
        let of = |texts: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for text in texts {
                headers.append(header::WWW_AUTHENTICATE, http::HeaderValue::from_static(text));
            }
            Challenge::of(&headers)
        };
        assert_eq!(of(&["Basic realm=\"x\""]), Some(Challenge::Basic));
        assert_eq!(of(&["basic"]), Some(Challenge::Basic));
        let both = of(&["Basic realm=\"x\"", "Bearer realm=\"http://x/t\""]);
        assert!(matches!(both, Some(Challenge::Bearer(_))));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["Negotiate"]), None);
    }
}
