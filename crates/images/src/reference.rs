//! Names of images: parsing and normalising, as Docker and Kubernetes read them.
//!
//! The grammar is that of the distribution project's references: an optional registry, a path, and
//! a tag or a digest or both. Nothing here looks an image up.

use std::{fmt, str::FromStr};

use crate::digest::Digest;

/// The registry that a name without one means.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// What a name without tag and digest means.
pub const DEFAULT_TAG: &str = "latest";
/// The longest repository (registry and path); the grammar's own limit.
pub const MAX_NAME_BYTES: usize = 255;
/// The longest tag; the grammar's own limit.
pub const MAX_TAG_BYTES: usize = 128;

/// A normalised image name: `busybox` is `docker.io/library/busybox:latest`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A text that names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no image name: {reason}")]
pub struct BadImageRef {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl ImageRef {
    /// The registry's host, with its port if it has one.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path within the registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; without a digest there always is one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest, when the name fixes it.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What a registry is asked for: the digest, or else the tag.
    #[must_use]
    pub fn manifest_reference(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }
}

impl FromStr for ImageRef {
    type Err = BadImageRef;

    fn from_str(text: &str) -> Result<Self, BadImageRef> {
        let bad = |reason| BadImageRef { text: text.to_owned(), reason };
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                let digest =
                    digest.parse().map_err(|_| bad("its digest is not sha256:<64 hex>"))?;
                (rest, Some(digest))
            }
        };
        let (name, tag) = match rest.rsplit_once(':') {
            // A colon before a slash belongs to the registry's port.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad("its tag is not made of letters, digits, `_`, `.` and `-`"));
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if is_registry(first) => (first, path),
            _ => (DEFAULT_REGISTRY, name),
        };
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if registry.len() + 1 + repository.len() > MAX_NAME_BYTES {
            return Err(bad("it is too long"));
        }
        if !is_host(registry) {
            return Err(bad("its registry is no host name"));
        }
        if !path.split('/').all(is_path_component) {
            return Err(bad("its path is not made of lower-case letters, digits and separators"));
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_TAG.to_owned()),
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Whether the first part of a name is a registry and not a part of the path.
fn is_registry(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => (address, None),
            Some((address, port)) => match port.strip_prefix(':') {
                Some(port) => (address, Some(port)),
                None => return false,
            },
            None => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let name_fits = if host.starts_with('[') {
        name.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
    };
    name_fits && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn is_tag(tag: &str) -> bool {
    let mut bytes = tag.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && tag.len() <= MAX_TAG_BYTES
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// Runs of `[a-z0-9]` with one `.`, one or two `_`, or any number of `-` between them.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bounded = component.bytes().next().is_some_and(alphanumeric)
        && component.bytes().next_back().is_some_and(alphanumeric);
    bounded
        && component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).all(
            |separator| {
                matches!(separator, "" | "." | "_" | "__")
                    || separator.bytes().all(|byte| byte == b'-')
            },
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn names_are_normalised() {
        let digest = format!("@sha256:{HEX}");
        let table = [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("library/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/a/b", "docker.io/a/b:latest"),
            ("grafana/grafana:10", "docker.io/grafana/grafana:10"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x:y", "localhost:5000/x:y"),
            ("lab.toono.io/hello:v1", "lab.toono.io/hello:v1"),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
            ("[::1]:5000/a__b/c.d-e:1", "[::1]:5000/a__b/c.d-e:1"),
        ];
        for (text, normal) in table {
            assert_eq!(text.parse::<ImageRef>().unwrap().to_string(), normal, "{text}");
        }
        let pinned: ImageRef = format!("quay.io/a/b{digest}").parse().unwrap();
        assert_eq!(pinned.to_string(), format!("quay.io/a/b{digest}"));
        assert_eq!(pinned.tag(), None);
        let both: ImageRef = format!("quay.io/a/b:c{digest}").parse().unwrap();
        assert_eq!(both.manifest_reference(), format!("sha256:{HEX}"));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            ":",
            "/",
            "a/",
            "/a",
            "UPPER",
            "a//b",
            "a:b:c",
            "a@sha256:12",
            "a@md5:00",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a b",
            "host:99999/a",
            "host-.io/a",
            "a:-x",
            "../a",
            "a/../b",
        ] {
            assert!(text.parse::<ImageRef>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_normal_name_parses_to_itself(text in "\\PC{0,40}") {
            if let Ok(parsed) = text.parse::<ImageRef>() {
                let again: ImageRef = parsed.to_string().parse().unwrap();
                prop_assert_eq!(again, parsed);
            }
        }
    }
}
