//! TLS settings: `ring` as the provider, our CA as the only root, and what a certificate says.

use std::sync::{Arc, OnceLock};

use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        Resumption, WantsClientCert, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    server::WebPkiClientVerifier,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{
    CaPin, ClusterCa, Issued, PkiError,
    authority::BACKDATE,
    dates::{AlsoExpired, AnyTime},
};

/// Sessions that a client remembers, eight a server: it speaks to the few servers of one cluster.
const REMEMBERED_SESSIONS: usize = 32;

pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(ring::default_provider())).clone()
}

/// The API server's side: HTTP/2 and HTTP/1.1, client certificates of our CA asked for but not
/// demanded (tokens are the other way in). The CA itself is sent too, so that a joining node can
/// check its pin. A certificate of our CA that has expired is taken: [`subject`] refuses it, and
/// [`subject_of_expired`] is for who lets it be renewed.
///
/// A client that comes again within hours resumes its session (RFC 8446, 2.2), which costs both ends no signature:
/// what the server has to know is in the ticket, sealed with a key of this process, and takes no memory here.
///
/// # Errors
/// When the certificate or key does not parse, or the system gives no random numbers.
pub fn server_config(ca: &ClusterCa, own: &Issued) -> Result<Arc<ServerConfig>, PkiError> {
    let roots = Arc::new(roots(ca.cert_pem())?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| PkiError::Malformed { what: "the CA", reason: error.to_string() })?;
    let mut chain = certificates(&own.cert_pem, "the server certificate")?;
    chain.extend(certificates(ca.cert_pem(), "the CA certificate")?);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(AlsoExpired(verifier)))
        .with_single_cert(chain, private_key(&own.key_pem)?)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = ring::Ticketer::new()?;
    // Each holds the client's certificate, and the links of nodes are metered.
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// A client that trusts the CA certificates in `ca_pem` alone, with its own certificate if given.
///
/// # Errors
/// When a certificate or key does not parse.
pub fn client_config(ca_pem: &str, own: Option<&Issued>) -> Result<Arc<ClientConfig>, PkiError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(ca_pem)?);
    with_own(builder, own)
}

/// The same for a node, which may have no clock: a certificate of the CA for the name dialled is good at any time.
///
/// # Errors
/// When a certificate or key does not parse.
pub fn node_client_config(ca_pem: &str, own: &Issued) -> Result<Arc<ClientConfig>, PkiError> {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots(ca_pem)?), provider())
            .build()
            .map_err(|error| PkiError::Malformed { what: "the CA", reason: error.to_string() })?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyTime(verifier)));
    with_own(builder, Some(own))
}

fn with_own(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    own: Option<&Issued>,
) -> Result<Arc<ClientConfig>, PkiError> {
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => builder.with_client_auth_cert(
            certificates(&own.cert_pem, "the client certificate")?,
            private_key(&own.key_pem)?,
        )?,
    };
    config.resumption = Resumption::in_memory_sessions(REMEMBERED_SESSIONS);
    Ok(Arc::new(config))
}

/// A client that knows only the CA's pin: the server must send a CA certificate with that key, and
/// its own certificate must verify against it for the name dialled.
///
/// # Errors
/// When the provider offers no protocol version.
pub fn client_config_pinned(pin: CaPin) -> Result<Arc<ClientConfig>, PkiError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { pin: Some(pin) }))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A client that takes any certificate: for peers whose identity the way to them vouches for, as a
/// pod's does that is reached through its node's own link. Kubernetes' proxies do the same.
///
/// # Errors
/// When the provider offers no protocol version.
pub fn client_config_unverified() -> Result<Arc<ClientConfig>, PkiError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { pin: None }))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Checks that the first certificate in `ca_pem` is the pinned one, and returns it.
///
/// # Errors
/// When it is another's, or no certificate.
pub fn verified_ca_pem(ca_pem: &str, pin: CaPin) -> Result<(), PkiError> {
    let chain = certificates(ca_pem, "the CA certificate")?;
    if chain.iter().any(|certificate| is_pinned(pin, certificate)) {
        return Ok(());
    }
    Err(PkiError::Malformed {
        what: "the CA certificate",
        reason: format!("its key is not the pinned {pin}"),
    })
}

/// The pin of the first certificate in `ca_pem`.
///
/// # Errors
/// When there is none.
pub fn pin_of(ca_pem: &str) -> Result<CaPin, PkiError> {
    let what = "the CA certificate";
    let chain = certificates(ca_pem, what)?;
    let malformed = |reason: String| PkiError::Malformed { what, reason };
    let first = chain.first().ok_or_else(|| malformed("it is empty".into()))?;
    let (_, parsed) =
        X509Certificate::from_der(first).map_err(|error| malformed(error.to_string()))?;
    Ok(CaPin::of_spki(parsed.public_key().raw))
}

/// Whom a client certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// CN: the user name.
    pub common_name: String,
    /// O, each: the groups.
    pub organizations: Vec<String>,
}

/// Reads the subject of a certificate that TLS has verified, perhaps hours ago: of a session that is resumed.
///
/// # Errors
/// When it has no common name, has expired meanwhile, or is not a certificate.
pub fn subject(certificate: &CertificateDer<'_>) -> Result<Subject, PkiError> {
    read_subject(certificate, false)
}

/// The same of one that may have expired: for letting its owner have another one, and nothing else.
///
/// # Errors
/// When it has no common name or is not a certificate.
pub fn subject_of_expired(certificate: &CertificateDer<'_>) -> Result<Subject, PkiError> {
    read_subject(certificate, true)
}

fn read_subject(certificate: &CertificateDer<'_>, expired: bool) -> Result<Subject, PkiError> {
    let malformed = |reason: String| PkiError::Malformed { what: "the client certificate", reason };
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| malformed(error.to_string()))?;
    if !expired && !parsed.validity().is_valid() {
        return Err(malformed(format!("it is valid until {}", parsed.validity().not_after)));
    }
    let name = parsed.subject();
    let common_name = name
        .iter_common_name()
        .next()
        .and_then(|cn| cn.as_str().ok())
        .ok_or_else(|| malformed("it has no common name".into()))?
        .to_owned();
    let organizations =
        name.iter_organization().filter_map(|o| o.as_str().ok().map(str::to_owned)).collect();
    Ok(Subject { common_name, organizations })
}

/// From when until when the first certificate in a PEM text is to be used, in seconds of Unix time: from its making
/// on, which is later than the beginning that it tells to clocks that lag.
///
/// # Errors
/// When there is none.
pub fn lifetime_of_pem(pem: &str) -> Result<std::ops::Range<i64>, PkiError> {
    let what = "the certificate";
    let malformed = |reason: String| PkiError::Malformed { what, reason };
    let chain = certificates(pem, what)?;
    let first = chain.first().ok_or_else(|| malformed("it is empty".into()))?;
    let (_, parsed) =
        X509Certificate::from_der(first).map_err(|error| malformed(error.to_string()))?;
    let validity = parsed.validity();
    let made = validity.not_before.timestamp() + BACKDATE.whole_seconds();
    Ok(made..validity.not_after.timestamp())
}

/// Tells a certificate from all others of the same name: the first 8 bytes of its SHA-256. It is no proof of
/// anything: whoever shows a certificate has proven it by TLS.
#[must_use]
pub fn fingerprint(certificate: &CertificateDer<'_>) -> u64 {
    let hash = crate::sha256(certificate);
    hash.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// The same of the first certificate in a PEM text.
///
/// # Errors
/// When there is none.
pub fn fingerprint_of_pem(pem: &str) -> Result<u64, PkiError> {
    let certificates = certificates(pem, "the certificate")?;
    let none = || PkiError::Malformed { what: "the certificate", reason: "there is none".into() };
    certificates.first().map(fingerprint).ok_or_else(none)
}

pub(crate) fn roots(ca_pem: &str) -> Result<RootCertStore, PkiError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_pem, "the CA certificate")? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

pub(crate) fn certificates(
    pem: &str,
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let malformed = |reason: String| PkiError::Malformed { what, reason };
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| malformed(error.to_string()))?;
    if chain.is_empty() {
        return Err(malformed("no certificate in the PEM text".into()));
    }
    Ok(chain)
}

pub(crate) fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, PkiError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| PkiError::Malformed { what: "the private key", reason: error.to_string() })
}

fn is_pinned(pin: CaPin, certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate)
        .is_ok_and(|(_, parsed)| pin.matches(parsed.public_key().raw))
}

/// Takes servers whose CA has the pin; without a pin, any.
#[derive(Debug)]
struct Pinned {
    pin: Option<CaPin>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(pin) = self.pin else { return Ok(ServerCertVerified::assertion()) };
        // The leaf may be the pinned CA's own certificate only by mistake; look at what follows it.
        let ca = intermediates
            .iter()
            .find(|certificate| is_pinned(pin, certificate))
            .ok_or(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        AnyTime(verifier).verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
