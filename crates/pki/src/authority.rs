//! The cluster's certificate authority: it is made once, kept in two files, and signs.

use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use time::{Duration, OffsetDateTime};

use crate::{CaPin, PkiError};

/// Ten years, as kubeadm's CA.
const CA_LIFETIME: Duration = Duration::days(3650);
/// The server's certificate is made anew at each start, so this bounds one uptime.
pub const SERVER_LIFETIME: Duration = Duration::days(3650);
/// One year, as kubeadm's client certificates; a node renews long before.
pub const CLIENT_LIFETIME: Duration = Duration::days(365);
/// Boxes at the edge boot with clocks that lag; a certificate is valid from this long ago.
pub(crate) const BACKDATE: Duration = Duration::hours(24);

/// The CA with its key.
pub struct ClusterCa {
    cert_pem: String,
    pin: CaPin,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and the key that belongs to it, PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub cert_pem: String,
    /// Its private key, PKCS#8.
    pub key_pem: String,
}

impl std::fmt::Debug for Issued {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// A key that a node made for itself, with the request to certify it.
#[derive(Clone)]
pub struct NodeKey {
    /// The private key, PKCS#8 PEM. It never leaves the node.
    pub key_pem: String,
    /// The PKCS#10 request, PEM.
    pub csr_pem: String,
}

// === impl ClusterCa ===

impl ClusterCa {
    /// The CA in `dir/ca.crt` and `dir/ca.key`, made there if neither exists.
    ///
    /// # Errors
    /// When a file cannot be read or written, or does not hold a CA.
    pub fn load_or_create(dir: &Path) -> Result<Self, PkiError> {
        let (cert_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
        if !cert_path.exists() && !key_path.exists() {
            let key = new_key("the CA")?;
            let made = Self::self_signed(key)?;
            fs::create_dir_all(dir).map_err(|source| file_error("write", dir, source))?;
            // The certificate comes last: its presence means that the pair is whole.
            write_file(&key_path, &made.issuer.key().serialize_pem(), 0o600)?;
            write_file(&cert_path, &made.cert_pem, 0o644)?;
            return Ok(made);
        }
        let key_pem = read_file(&key_path)?;
        if !cert_path.exists() {
            // A start that was cut off between the two writes: finish it with the same key.
            let made = Self::self_signed(parse_key(&key_pem)?)?;
            write_file(&cert_path, &made.cert_pem, 0o644)?;
            return Ok(made);
        }
        Self::from_pem(read_file(&cert_path)?, &key_pem)
    }

    /// A CA that exists only in memory.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate() -> Result<Self, PkiError> {
        Self::self_signed(new_key("the CA")?)
    }

    fn self_signed(key: KeyPair) -> Result<Self, PkiError> {
        let mut params = params("toono-ca", &[], CA_LIFETIME)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let cert_pem = params
            .self_signed(&key)
            .map_err(|source| PkiError::Sign { what: "the CA".into(), source })?
            .pem();
        let pin = CaPin::of_spki(&key.subject_public_key_info());
        Ok(Self { cert_pem, pin, issuer: Issuer::new(params, key) })
    }

    fn from_pem(cert_pem: String, key_pem: &str) -> Result<Self, PkiError> {
        let key = parse_key(key_pem)?;
        let pin = CaPin::of_spki(&key.subject_public_key_info());
        let issuer = Issuer::from_ca_cert_pem(&cert_pem, key).map_err(|error| {
            PkiError::Malformed { what: "the CA certificate", reason: error.to_string() }
        })?;
        Ok(Self { cert_pem, pin, issuer })
    }

    /// The CA's certificate, PEM.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The key that signs.
    pub(crate) fn key(&self) -> &KeyPair {
        self.issuer.key()
    }

    /// What a joining node pins.
    #[must_use]
    pub fn pin(&self) -> CaPin {
        self.pin
    }

    /// A server certificate for these DNS names and IP addresses, with a new key.
    ///
    /// # Errors
    /// When a name is neither, or signing fails.
    pub fn issue_server(&self, names: &[String]) -> Result<Issued, PkiError> {
        let mut params = CertificateParams::new(names)
            .map_err(|source| PkiError::Sign { what: format!("names {names:?}"), source })?;
        date(&mut params, SERVER_LIFETIME);
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params, "the server")
    }

    /// A client certificate with a new key: `common_name` is the user, `organizations` the groups
    /// (<https://kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates>).
    ///
    /// # Errors
    /// When signing fails.
    pub fn issue_client(
        &self,
        common_name: &str,
        organizations: &[&str],
    ) -> Result<Issued, PkiError> {
        self.issue(client_params(common_name, organizations, CLIENT_LIFETIME)?, common_name)
    }

    fn issue(&self, params: CertificateParams, what: &str) -> Result<Issued, PkiError> {
        let key = new_key(what)?;
        let cert_pem = params
            .signed_by(&key, &self.issuer)
            .map_err(|source| PkiError::Sign { what: what.into(), source })?
            .pem();
        Ok(Issued { cert_pem, key_pem: key.serialize_pem() })
    }

    /// Certifies the key of a node's request as `system:node:NAME` in `system:nodes`, for so long. Nothing but
    /// the public key is taken from the request, and its signature must prove possession of the key.
    ///
    /// # Errors
    /// When the request is malformed or not signed by its own key.
    pub fn sign_node_csr(
        &self,
        csr_pem: &str,
        node_name: &str,
        lifetime: std::time::Duration,
    ) -> Result<String, PkiError> {
        let malformed = |error: rcgen::Error| PkiError::Malformed {
            what: "the certificate request",
            reason: error.to_string(),
        };
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(malformed)?;
        let lifetime = Duration::try_from(lifetime).unwrap_or(CLIENT_LIFETIME);
        request.params =
            client_params(&format!("system:node:{node_name}"), &["system:nodes"], lifetime)?;
        let certificate = request
            .signed_by(&self.issuer)
            .map_err(|source| PkiError::Sign { what: format!("node {node_name}"), source })?;
        Ok(certificate.pem())
    }
}

// === impl NodeKey ===

impl NodeKey {
    /// A new P-256 key and its request.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate(node_name: &str) -> Result<Self, PkiError> {
        let what = || format!("the request of {node_name}");
        let key = new_key(node_name)?;
        // The server takes nothing but the key from a request; the name is there for people.
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("system:node:{node_name}"));
        let csr_pem = params
            .serialize_request(&key)
            .and_then(|request| request.pem())
            .map_err(|source| PkiError::Sign { what: what(), source })?;
        Ok(Self { key_pem: key.serialize_pem(), csr_pem })
    }
}

fn client_params(
    common_name: &str,
    organizations: &[&str],
    lifetime: Duration,
) -> Result<CertificateParams, PkiError> {
    let mut params = params(common_name, organizations, lifetime)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn params(
    common_name: &str,
    organizations: &[&str],
    lifetime: Duration,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(Vec::<String>::new())
        .map_err(|source| PkiError::Sign { what: common_name.into(), source })?;
    params.distinguished_name = DistinguishedName::new();
    // Several organizations would overwrite each other in `DistinguishedName`; one is all we use.
    for organization in organizations {
        params.distinguished_name.push(DnType::OrganizationName, *organization);
    }
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    date(&mut params, lifetime);
    Ok(params)
}

fn date(params: &mut CertificateParams, lifetime: Duration) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATE;
    params.not_after = now + lifetime;
    params.use_authority_key_identifier_extension = true;
}

fn new_key(what: &str) -> Result<KeyPair, PkiError> {
    KeyPair::generate().map_err(|source| PkiError::Sign { what: what.into(), source })
}

fn parse_key(pem: &str) -> Result<KeyPair, PkiError> {
    KeyPair::from_pem(pem)
        .map_err(|error| PkiError::Malformed { what: "the CA key", reason: error.to_string() })
}

pub(crate) fn read_file(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|source| file_error("read", path, source))
}

/// Durable and never half there: a temporary neighbour, synced, renamed.
pub(crate) fn write_file(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let temporary = path.with_extension("new");
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|source| file_error("write", path, source))
}

pub(crate) fn file_error(verb: &'static str, path: &Path, source: std::io::Error) -> PkiError {
    PkiError::File { verb, path: path.to_owned(), source }
}
