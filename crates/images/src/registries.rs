//! Where the images of a registry are fetched: mirrors, plain HTTP, credentials and trust of the node.
//!
//! Set by flags (`HOST=URL`), or by a file of the form of k3s' `registries.yaml`. The file is read at
//! each pull, so a change needs no restart. Nothing here connects.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::Deserialize;
use toono_http::client::{BadEndpoint, Endpoint};

use crate::{
    keyring::Credentials,
    reference::{DEFAULT_REGISTRY, ImageRef},
    tls::TlsSettings,
};

/// Where Docker Hub is, whose images are called `docker.io/…`.
const DOCKER_HUB: &str = "registry-1.docker.io";
/// Below this path a registry speaks the distribution protocol.
const API: &str = "/v2";
/// The mirrors of every registry.
const ANY: &str = "*";
/// A longer file is a mistake.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Where the registries are.
#[derive(Debug, Clone, Default)]
pub struct RegistryConfig {
    /// For a registry's host (with port), the addresses to ask in order, and no others.
    endpoints: BTreeMap<String, Vec<Source>>,
    file: Option<PathBuf>,
}

/// A text that is not `HOST=URL[,URL…]`.
#[derive(Debug, thiserror::Error)]
pub enum BadRegistry {
    /// There is no `=`.
    #[error("`{0}` is not HOST=URL[,URL…]")]
    NoUrl(String),
    /// One of the URLs.
    #[error(transparent)]
    Url(#[from] BadEndpoint),
}

/// The file of registries cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot use {}: {reason}", path.display())]
pub struct BadRegistryFile {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub reason: String,
}

/// One place to ask for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) endpoint: Endpoint,
    /// What comes before `/NAME/manifests/…`.
    pub(crate) prefix: String,
    pub(crate) tls: TlsSettings,
    /// The node's own credentials here.
    pub(crate) credentials: Option<Credentials>,
    /// It is not the registry that the image's name says.
    pub(crate) is_mirror: bool,
}

/// The file, whose fields and meaning k3s' documentation has ("Private Registry Configuration").
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    mirrors: BTreeMap<String, Option<Mirror>>,
    #[serde(default)]
    configs: BTreeMap<String, Option<Settings>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mirror {
    #[serde(default)]
    endpoint: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    auth: Option<Auth>,
    tls: Option<Tls>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Auth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    #[serde(default)]
    insecure_skip_verify: bool,
}

impl RegistryConfig {
    /// Adds `HOST=URL[,URL…]`, such as `lab.toono.io=http://100.64.0.1:5000`.
    ///
    /// # Errors
    /// [`BadRegistry`] when the text is not of this form.
    pub fn add(&mut self, text: &str) -> Result<(), BadRegistry> {
        let (host, urls) =
            text.split_once('=').ok_or_else(|| BadRegistry::NoUrl(text.to_owned()))?;
        let sources = urls.split(',').map(|url| Source::parse(url, false));
        self.endpoints.insert(host.to_owned(), sources.collect::<Result<_, _>>()?);
        Ok(())
    }

    /// With a file of registries, which need not exist.
    #[must_use]
    pub fn with_file(mut self, file: PathBuf) -> Self {
        self.file = Some(file);
        self
    }

    /// Where to ask for an image, in this order.
    pub(crate) fn sources(&self, image: &ImageRef) -> Result<Vec<Source>, BadRegistryFile> {
        let Some(path) = &self.file else { return Ok(self.own_sources(image)) };
        let file = read(path)?;
        let mut sources = file.mirrors_of(image.registry()).map_err(|error| bad(path, &error))?;
        // What names the registry as an endpoint of its own says how it is to be reached.
        if !sources.iter().any(|source| source.host() == own_host(image)) {
            sources.extend(self.own_sources(image));
        }
        for source in &mut sources {
            file.settle(source, image.registry()).map_err(|reason| bad(path, &reason))?;
        }
        Ok(sources)
    }

    /// The registry itself: where flags say, or else by its name.
    fn own_sources(&self, image: &ImageRef) -> Vec<Source> {
        if let Some(sources) = self.endpoints.get(image.registry()) {
            return sources.clone();
        }
        Source::parse(&format!("https://{}", own_host(image)), false).into_iter().collect()
    }
}

fn own_host(image: &ImageRef) -> &str {
    match image.registry() {
        DEFAULT_REGISTRY => DOCKER_HUB,
        other => other,
    }
}

impl Source {
    /// `http(s)://HOST[:PORT][/PATH]`; without a scheme it is https.
    fn parse(url: &str, is_mirror: bool) -> Result<Self, BadEndpoint> {
        let url = url.trim();
        let full = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
        let host_at = full.find("://").map_or(0, |at| at + 3);
        let path_at = full.get(host_at..).and_then(|rest| rest.find('/'));
        let (base, path) = full.split_at(path_at.map_or(full.len(), |at| host_at + at));
        let endpoint = Endpoint::from_str(base)?;
        let path = path.trim_end_matches('/');
        if path.contains(['?', '#', ' ']) {
            return Err(BadEndpoint(url.to_owned()));
        }
        let prefix = if path.is_empty() { API } else { path };
        Ok(Self {
            endpoint,
            prefix: prefix.to_owned(),
            tls: TlsSettings::default(),
            credentials: None,
            is_mirror,
        })
    }
}

impl Source {
    /// As a registry is called: the host, with the port unless it is the scheme's own.
    pub(crate) fn host(&self) -> String {
        let full = self.endpoint.authority();
        let usual = if self.endpoint.tls { ":443" } else { ":80" };
        full.strip_suffix(usual).map_or(full.clone(), ToOwned::to_owned)
    }
}

impl File {
    fn mirrors_of(&self, registry: &str) -> Result<Vec<Source>, BadEndpoint> {
        let own = self.mirrors.get(registry).or_else(|| self.mirrors.get(ANY));
        let urls = own.and_then(Option::as_ref).map_or(&[][..], |mirror| &mirror.endpoint);
        urls.iter().map(|url| Source::parse(url, true)).collect()
    }

    /// Gives a source what `configs` says of its host, or, if it is the registry itself, of the registry.
    fn settle(&self, source: &mut Source, registry: &str) -> Result<(), String> {
        let full = source.endpoint.authority();
        let short = source.host();
        let own = (!source.is_mirror).then_some(registry);
        let names = [Some(full.as_str()), Some(short.as_str()), own].into_iter().flatten();
        let found = names.filter_map(|name| self.configs.get(name)).find_map(Option::as_ref);
        let Some(settings) = found else { return Ok(()) };
        if let Some(auth) = &settings.auth {
            source.credentials = Some(auth.credentials().ok_or_else(|| {
                format!(
                    "the `auth` of {full} is neither base64(username:password) nor both of them"
                )
            })?);
        }
        if let Some(tls) = &settings.tls {
            source.tls = tls.settings().ok_or_else(|| {
                format!(
                    "the `tls` of {full} has one of `cert_file` and `key_file` without the other"
                )
            })?;
        }
        Ok(())
    }
}

impl Auth {
    fn credentials(&self) -> Option<Credentials> {
        if !self.auth.is_empty() {
            return Credentials::from_auth(&self.auth);
        }
        let (username, password) = (self.username.clone(), self.password.clone());
        (!username.is_empty()).then_some(Credentials { username, password })
    }
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Tls {
    fn settings(&self) -> Option<TlsSettings> {
        let identity = match (self.cert_file.clone(), self.key_file.clone()) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return None,
        };
        Some(TlsSettings {
            ca_file: self.ca_file.clone(),
            identity,
            skip_verify: self.insecure_skip_verify,
        })
    }
}

fn read(path: &Path) -> Result<File, BadRegistryFile> {
    match fs::metadata(path) {
        Ok(found) if found.len() > MAX_FILE_BYTES => {
            return Err(bad(path, &format!("it has more than {MAX_FILE_BYTES} bytes")));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(File::default()),
        _ => {}
    }
    let text = fs::read_to_string(path).map_err(|error| bad(path, &error))?;
    parse(&text).map_err(|error| bad(path, &error))
}

fn parse(text: &str) -> Result<File, serde_yaml_ng::Error> {
    // A file of comments alone is none.
    Ok(serde_yaml_ng::from_str::<Option<File>>(text)?.unwrap_or_default())
}

fn bad(path: &Path, reason: &dyn std::fmt::Display) -> BadRegistryFile {
    BadRegistryFile { path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(text: &str, flags: &[&str], image: &str) -> Result<Vec<Source>, BadRegistryFile> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registries.yaml");
        fs::write(&path, text).unwrap();
        let mut config = RegistryConfig::default().with_file(path);
        flags.iter().for_each(|flag| config.add(flag).unwrap());
        config.sources(&image.parse().unwrap())
    }

    fn urls(sources: &[Source]) -> Vec<String> {
        sources.iter().map(|it| format!("{}{}", it.endpoint, it.prefix)).collect()
    }

    const FILE: &str = r#"
mirrors:
  docker.io:
    endpoint:
      - "http://10.0.0.1:5000"
      - "https://harbor.example/v2/proxy/"
  quay.io:
  "*":
    endpoint: ["cache.example:8443"]
configs:
  "10.0.0.1:5000":
    auth: {username: u, password: p}
  harbor.example:
    tls: {ca_file: /ca.pem, cert_file: /c.pem, key_file: /k.pem, insecure_skip_verify: true}
  docker.io:
    auth: {auth: aHViOnB3}
"#;

    #[test]
    fn mirrors_come_first_and_the_registry_itself_last() {
        let found = sources(FILE, &[], "busybox").unwrap();
        assert_eq!(
            urls(&found),
            [
                "http://10.0.0.1:5000/v2",
                "https://harbor.example:443/v2/proxy",
                "https://registry-1.docker.io:443/v2"
            ]
        );
        let users: Vec<_> =
            found.iter().map(|it| it.credentials.as_ref().map(|it| it.username.as_str())).collect();
        assert_eq!(users, [Some("u"), None, Some("hub")]);
        let tls = &found.get(1).unwrap().tls;
        assert_eq!(tls.identity, Some(("/c.pem".into(), "/k.pem".into())));
        assert!(tls.skip_verify && tls.ca_file == Some("/ca.pem".into()));
        assert_eq!(found.iter().map(|it| it.is_mirror).collect::<Vec<_>>(), [true, true, false]);
    }

    #[test]
    fn other_registries_have_the_mirrors_of_all_unless_they_have_none() {
        let found = sources(FILE, &[], "ghcr.io/a/b").unwrap();
        assert_eq!(urls(&found), ["https://cache.example:8443/v2", "https://ghcr.io:443/v2"]);
        assert_eq!(urls(&sources(FILE, &[], "quay.io/a/b").unwrap()), ["https://quay.io:443/v2"]);
        let plain = "mirrors: {'10.0.0.1:5000': {endpoint: ['http://10.0.0.1:5000']}}";
        let found = sources(plain, &[], "10.0.0.1:5000/a").unwrap();
        assert_eq!(urls(&found), ["http://10.0.0.1:5000/v2"], "it is not asked by TLS, too");
        let flags = ["quay.io=http://127.0.0.1:1,http://127.0.0.1:2"];
        let found = sources(FILE, &flags, "quay.io/a/b").unwrap();
        assert_eq!(urls(&found), ["http://127.0.0.1:1/v2", "http://127.0.0.1:2/v2"]);
    }

    #[test]
    fn a_missing_or_empty_file_is_none_and_a_wrong_one_is_told() {
        let config = RegistryConfig::default().with_file("/nowhere/registries.yaml".into());
        let found = config.sources(&"q.io/a".parse().unwrap()).unwrap();
        assert_eq!(urls(&found), ["https://q.io:443/v2"]);
        assert_eq!(urls(&sources("# none\n", &[], "q.io/a").unwrap()), ["https://q.io:443/v2"]);
        for (text, part) in [
            ("mirrors: []", "mirrors"),
            ("mirror: {}", "unknown field `mirror`"),
            ("mirrors: {q.io: {endpoint: [\"ftp://x\"]}}", "ftp://x"),
            ("configs: {q.io: {auth: {}}}", "`auth` of q.io:443"),
            ("configs: {q.io: {tls: {key_file: x}}}", "`tls` of q.io:443"),
        ] {
            let error = sources(text, &[], "q.io/a").unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("registries.yaml"), "{text}: {error}");
        }
    }
}
