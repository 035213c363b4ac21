//! Bootstrap tokens, kubeadm's shape: `[a-z0-9]{6}.[a-z0-9]{16}`
//! (<https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>).

use std::{fmt, str::FromStr};

use ring::rand::{SecureRandom, SystemRandom};

const ID_LEN: usize = 6;
const SECRET_LEN: usize = 16;
const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// A token: a public id and a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct BootstrapToken {
    id: String,
    secret: String,
}

/// A text that is no bootstrap token. The text is not repeated: it may be nearly a secret.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a token has the form abcdef.0123456789abcdef: 6 and 16 lower-case letters or digits")]
pub struct BadToken;

impl BootstrapToken {
    /// A new random token, or none when the system has no randomness.
    #[must_use]
    pub fn generate() -> Option<Self> {
        Some(Self { id: random_text(ID_LEN)?, secret: random_text(SECRET_LEN)? })
    }

    /// The public half, which names the Secret `bootstrap-token-ID`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The secret half.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }
}

/// Uniform over the alphabet: bytes past the last whole multiple of 36 are drawn again.
fn random_text(len: usize) -> Option<String> {
    let random = SystemRandom::new();
    let fair = u8::MAX - u8::MAX % 36;
    let mut text = String::with_capacity(len);
    while text.len() < len {
        let mut byte = [0];
        random.fill(&mut byte).ok()?;
        let [byte] = byte;
        if byte < fair {
            text.push(char::from(*ALPHABET.get(usize::from(byte % 36))?));
        }
    }
    Some(text)
}

impl fmt::Display for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.id, self.secret)
    }
}

impl fmt::Debug for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.****************", self.id)
    }
}

impl FromStr for BootstrapToken {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (id, secret) = text.trim().split_once('.').ok_or(BadToken)?;
        let well_formed =
            |part: &str, len| part.len() == len && part.bytes().all(|b| ALPHABET.contains(&b));
        if !well_formed(id, ID_LEN) || !well_formed(secret, SECRET_LEN) {
            return Err(BadToken);
        }
        Ok(Self { id: id.to_owned(), secret: secret.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_tokens_parse_and_differ() {
        let (one, two) = (BootstrapToken::generate().unwrap(), BootstrapToken::generate().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.to_string().parse(), Ok(one.clone()));
        assert!(!format!("{one:?}").contains(one.secret()));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "abcdef", "abcdef.", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcde"] {
            assert_eq!(text.parse::<BootstrapToken>(), Err(BadToken), "{text}");
        }
    }
}
