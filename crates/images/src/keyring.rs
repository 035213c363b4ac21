//! Whose credentials a pull uses: pull secrets, and which of their entries are for which image.
//!
//! The forms are those of the secret types `kubernetes.io/dockerconfigjson` and
//! `kubernetes.io/dockercfg`; the rules of matching are the kubelet's ("Images", section
//! "Interpretation of config.json"). Nothing here asks a registry.

use std::{collections::BTreeMap, fmt};

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;

use crate::reference::ImageRef;

/// The registry that Docker's own files call so, however they spell it.
const DOCKER_HUB: &str = "index.docker.io";
/// Padding is often left out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A user name and a password, or a token in the place of one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Credentials {
    /// The user's name.
    pub username: String,
    /// The password.
    pub password: String,
}

/// Credentials by the registries and repositories that they are for.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Keyring {
    /// By pattern, `HOST[:PORT][/PATH]`.
    entries: BTreeMap<String, Vec<Credentials>>,
}

/// A pull secret that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPullSecret {
    /// The document.
    #[error("it is no registry configuration: {0}")]
    Json(String),
    /// One entry's `auth`.
    #[error("the `auth` of {0} is not base64(username:password)")]
    Auth(String),
}

/// The content of `.dockerconfigjson`.
#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
}

impl Keyring {
    /// Adds the data of `.dockerconfigjson`.
    ///
    /// # Errors
    /// [`BadPullSecret`]; nothing of the document is added then.
    pub fn add_docker_config(&mut self, json: &[u8]) -> Result<(), BadPullSecret> {
        let config: DockerConfig = parse(json)?;
        self.add(config.auths)
    }

    /// Adds the data of `.dockercfg`, the older form without `auths` around it.
    ///
    /// # Errors
    /// [`BadPullSecret`]; nothing of the document is added then.
    pub fn add_docker_cfg(&mut self, json: &[u8]) -> Result<(), BadPullSecret> {
        let entries: BTreeMap<String, Entry> = parse(json)?;
        self.add(entries)
    }

    /// The credentials to try for an image, in this order: entries with the longer path come first, and
    /// those of one pattern as they were added.
    #[must_use]
    pub fn lookup(&self, image: &ImageRef) -> Vec<&Credentials> {
        let found = self.lookup_at(image.registry(), image.repository());
        if found.is_empty() && image.registry() == crate::reference::DEFAULT_REGISTRY {
            return self.entries.get(DOCKER_HUB).into_iter().flatten().collect();
        }
        found
    }

    /// As [`Self::lookup`], for a repository of another host than the image's name says.
    pub(crate) fn lookup_at(&self, host: &str, repository: &str) -> Vec<&Credentials> {
        let of_image = |pattern: &str| matches(pattern, host, repository);
        let found = self.entries.iter().rev().filter(|(pattern, _)| of_image(pattern));
        found.flat_map(|(_, credentials)| credentials).collect()
    }

    fn add(&mut self, entries: BTreeMap<String, Entry>) -> Result<(), BadPullSecret> {
        let read = |(name, entry): (String, Entry)| {
            let credentials = entry.credentials(&name)?;
            Ok(pattern(&name).map(|pattern| (pattern, credentials)))
        };
        let read: Result<Vec<_>, BadPullSecret> = entries.into_iter().map(read).collect();
        for (pattern, credentials) in read?.into_iter().flatten() {
            self.entries.entry(pattern).or_default().push(credentials);
        }
        Ok(())
    }
}

impl Credentials {
    /// From `base64(username:password)`; `None` when it is not that.
    pub(crate) fn from_auth(auth: &str) -> Option<Self> {
        let bytes = BASE64.decode(auth.trim()).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (username, password) = text.split_once(':')?;
        Some(Self { username: username.to_owned(), password: password.to_owned() })
    }

    /// The value of an `Authorization` header.
    pub(crate) fn basic(&self) -> String {
        format!("Basic {}", BASE64.encode(format!("{}:{}", self.username, self.password)))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Entry {
    fn credentials(self, name: &str) -> Result<Credentials, BadPullSecret> {
        if self.auth.is_empty() {
            return Ok(Credentials { username: self.username, password: self.password });
        }
        Credentials::from_auth(&self.auth).ok_or_else(|| BadPullSecret::Auth(name.to_owned()))
    }
}

fn parse<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T, BadPullSecret> {
    // The parser's text may cite the document, and the document is secret: only the place is told.
    serde_json::from_slice(json).map_err(|error| {
        BadPullSecret::Json(format!("line {} column {}", error.line(), error.column()))
    })
}

/// An entry's name without scheme, and without the `/v1/` or `/v2/` that old clients wrote.
fn pattern(name: &str) -> Option<String> {
    let name =
        name.strip_prefix("https://").or_else(|| name.strip_prefix("http://")).unwrap_or(name);
    let (host, path) = name.split_at(name.find('/').unwrap_or(name.len()));
    let path = match path {
        "/v1" | "/v2" => "",
        path => path.strip_prefix("/v1/").or_else(|| path.strip_prefix("/v2/")).unwrap_or(path),
    };
    let path = path.trim_matches('/');
    if host.is_empty() {
        return None;
    }
    Some(if path.is_empty() { host.to_owned() } else { format!("{host}/{path}") })
}

/// Whether a pattern covers a repository: as many labels in the host, each matching, the same port, and a
/// path that the repository's begins with.
fn matches(pattern: &str, registry: &str, repository: &str) -> bool {
    let (host, path) = pattern.split_once('/').unwrap_or((pattern, ""));
    let ((pattern_name, pattern_port), (name, port)) = (split_port(host), split_port(registry));
    let labels = pattern_name.split('.').count() == name.split('.').count();
    let mut pairs = pattern_name.split('.').zip(name.split('.'));
    labels
        && pattern_port == port
        && pairs.all(|(pattern, label)| glob(pattern.as_bytes(), label.as_bytes()))
        && repository.starts_with(path)
}

fn split_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        // Within brackets the colon is an IPv6 address's.
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    }
}

/// `*` is any text within a label, `?` any character; others are themselves.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(byte) if *byte == b'?' || text.get(seen) == Some(byte) => {
                at += 1;
                seen += 1;
            }
            _ => match &mut star {
                // The last star takes one more.
                Some((star_at, taken)) => {
                    *taken += 1;
                    (at, seen) = (*star_at + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at).all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring(auths: &[(&str, &str)]) -> Keyring {
        let auths: serde_json::Map<_, _> = auths
            .iter()
            .map(|(name, user)| {
                ((*name).to_owned(), serde_json::json!({"username": user, "password": "p"}))
            })
            .collect();
        let mut keyring = Keyring::default();
        let json = serde_json::json!({"auths": auths}).to_string();
        keyring.add_docker_config(json.as_bytes()).unwrap();
        keyring
    }

    fn users(keyring: &Keyring, image: &str) -> Vec<String> {
        let image: ImageRef = image.parse().unwrap();
        keyring.lookup(&image).into_iter().map(|it| it.username.clone()).collect()
    }

    #[test]
    fn entries_match_as_the_kubelet_matches_them() {
        let table: &[(&str, &str, bool)] = &[
            ("quay.io", "quay.io/a/b", true),
            ("https://quay.io", "quay.io/a/b", true),
            ("https://quay.io/v1/", "quay.io/a/b", true),
            ("http://quay.io/v2/", "quay.io/a/b:tag", true),
            ("quay.io/a", "quay.io/a/b", true),
            ("quay.io/a/b", "quay.io/a/b", true),
            ("quay.io/b", "quay.io/a/b", false),
            ("*.io", "quay.io/a/b", true),
            ("*", "quay.io/a/b", false),
            ("*.example.com", "a.example.com/x/y", true),
            ("*.example.com", "a.b.example.com/x/y", false),
            ("reg*.example.com", "registry.example.com/x/y", true),
            ("re?.example.com", "reg.example.com/x/y", true),
            ("*.example.com:5000", "a.example.com:5000/x", true),
            ("*.example.com", "a.example.com:5000/x", false),
            ("a.example.com:5000", "a.example.com/x", false),
            ("https://index.docker.io/v1/", "busybox", true),
            ("index.docker.io", "docker.io/a/b", true),
            ("docker.io", "busybox", true),
            ("docker.io/library", "busybox", true),
            ("docker.io/other", "busybox", false),
            ("https://index.docker.io/v1/", "quay.io/a/b", false),
        ];
        for (pattern, image, found) in table {
            let found_users = users(&keyring(&[(pattern, "u")]), image);
            assert_eq!(!found_users.is_empty(), *found, "{pattern} for {image}");
        }
    }

    #[test]
    fn the_longer_path_comes_first() {
        let keyring = keyring(&[("q.io", "host"), ("q.io/a", "path"), ("q.io/a/b", "longest")]);
        assert_eq!(users(&keyring, "q.io/a/b/c"), ["longest", "path", "host"]);
        assert_eq!(users(&keyring, "q.io/a/x"), ["path", "host"]);
        let mut twice = keyring.clone();
        twice.add_docker_cfg(br#"{"q.io": {"auth": "c2Vjb25kOnB3"}}"#).unwrap();
        assert_eq!(users(&twice, "q.io/x"), ["host", "second"]);
    }

    #[test]
    fn auth_wins_with_and_without_padding() {
        for auth in ["dXNlcjpwYTpzcw==", "dXNlcjpwYTpzcw"] {
            let mut keyring = Keyring::default();
            let json = serde_json::json!({"auths": {"q.io": {"username": "x", "auth": auth}}});
            keyring.add_docker_config(json.to_string().as_bytes()).unwrap();
            let image: ImageRef = "q.io/a".parse().unwrap();
            let found = keyring.lookup(&image);
            let found = found.first().unwrap();
            assert_eq!((found.username.as_str(), found.password.as_str()), ("user", "pa:ss"));
            assert_eq!(found.basic(), "Basic dXNlcjpwYTpzcw==");
        }
    }

    #[test]
    fn a_bad_secret_is_refused_whole_and_tells_nothing_secret() {
        let mut keyring = Keyring::default();
        let error = keyring.add_docker_config(br#"{"auths": {"q.io": "hunter2"}}"#).unwrap_err();
        assert!(matches!(error, BadPullSecret::Json(_)));
        assert!(!error.to_string().contains("hunter2"));
        let json = br#"{"auths": {"a.io": {"username": "u"}, "q.io": {"auth": "bm90aGluZw=="}}}"#;
        let error = keyring.add_docker_config(json).unwrap_err();
        assert_eq!(error, BadPullSecret::Auth("q.io".into()));
        assert_eq!(keyring, Keyring::default());
        let secret = Credentials { username: "u".into(), password: "hunter2".into() };
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
