//! What a certificate request (PKCS#10) says. Whether it is granted is not decided here.

use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject as _};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer as _};

use crate::{PkiError, Subject};

/// Longest request that is looked at: one with many names has some KB.
pub const REQUEST_MAX_BYTES: usize = 64 * 1024;

/// The subject that a request (PEM) asks for. Its signature is not looked at. A subject without common name
/// has an empty one.
///
/// # Errors
/// When it is no request.
pub fn requested_subject(pem: &str) -> Result<Subject, PkiError> {
    let malformed =
        |reason: String| PkiError::Malformed { what: "the certificate request", reason };
    if pem.len() > REQUEST_MAX_BYTES {
        return Err(malformed(format!("it is longer than {REQUEST_MAX_BYTES} bytes")));
    }
    let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| malformed(error.to_string()))?;
    let (_, request) =
        X509CertificationRequest::from_der(&der).map_err(|error| malformed(error.to_string()))?;
    let name = &request.certification_request_info.subject;
    let common_name = name.iter_common_name().next().and_then(|cn| cn.as_str().ok());
    let organizations =
        name.iter_organization().filter_map(|o| o.as_str().ok().map(str::to_owned)).collect();
    Ok(Subject { common_name: common_name.unwrap_or_default().to_owned(), organizations })
}
