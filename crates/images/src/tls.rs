//! How the node speaks TLS with registries: whom it trusts, and what it shows of itself.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};

/// Where distributions keep the certificates that they trust.
const SYSTEM_CERTIFICATES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// What is set for one registry; nothing set is the system's trust.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    /// A PEM file of authorities to trust besides the system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// A certificate to show, and its key; PEM files.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    /// Whoever answers is believed.
    pub(crate) skip_verify: bool,
}

/// A certificate or key that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot use {}: {reason}", path.display())]
pub struct BadTlsFile {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl TlsSettings {
    /// The configuration for connections.
    ///
    /// # Errors
    /// [`BadTlsFile`] when a file that is named cannot be read or used.
    pub(crate) fn client(&self) -> Result<Arc<ClientConfig>, BadTlsFile> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(rustls::DEFAULT_VERSIONS);
        // ring has cipher suites for both versions, so this cannot be.
        let builder = versions.map_err(|error| bad(Path::new("TLS"), &error))?;
        let builder = if self.skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Trusting(provider)))
        } else {
            builder.with_root_certificates(self.roots()?)
        };
        let Some((certificate, key)) = &self.identity else {
            return Ok(Arc::new(builder.with_no_client_auth()));
        };
        let chain = certificates(certificate)?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| bad(key, &error))?;
        let config = builder.with_client_auth_cert(chain, private);
        config.map(Arc::new).map_err(|error| bad(certificate, &error))
    }

    fn roots(&self) -> Result<RootCertStore, BadTlsFile> {
        let mut roots = system_roots();
        if let Some(file) = &self.ca_file {
            roots.add_parsable_certificates(certificates(file)?);
        }
        Ok(roots)
    }
}

/// For connections without TLS: no certificate is read, which takes memory.
pub(crate) fn unused() -> Result<Arc<ClientConfig>, BadTlsFile> {
    TlsSettings { skip_verify: true, ..TlsSettings::default() }.client()
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, BadTlsFile> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(bad(file, &"there is no certificate in it")),
        Ok(found) => Ok(found),
        Err(error) => Err(bad(file, &error)),
    }
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for file in SYSTEM_CERTIFICATES {
        if let Ok(certificates) = CertificateDer::pem_file_iter(file) {
            roots.add_parsable_certificates(certificates.flatten());
            break;
        }
    }
    roots
}

fn bad(path: &Path, reason: &dyn std::fmt::Display) -> BadTlsFile {
    BadTlsFile { path: path.to_owned(), reason: reason.to_string() }
}

/// Believes every certificate. What is pulled is checked by its digest where the name fixes one; otherwise
/// this is as plain HTTP, which is what who sets it asks for.
#[derive(Debug)]
struct Trusting(Arc<CryptoProvider>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
