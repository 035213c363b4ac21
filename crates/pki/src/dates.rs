//! Certificates whose time is over, or not yet come by the clock of who looks. Everything else about them is checked
//! as ever: who signed them, for whom, and that the other end has the key.
//!
//! A server takes a client's expired certificate, so that a node that was away for longer than its certificate lasted
//! can ask for another one; what else such a client may do is for whoever reads [`subject`](crate::subject), which
//! refuses it. A node cannot know the time: it may start without a clock, far in the past. It trusts one CA, whose pin
//! it was given, and that is what it goes by.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Verifies as the inner one does, and takes what that refuses for its expiry alone.
#[derive(Debug)]
pub(crate) struct AlsoExpired(pub(crate) Arc<dyn ClientCertVerifier>);

/// Verifies as the inner one does, and at the certificate's own time if the clock is what is wrong.
pub(crate) struct AnyTime(pub(crate) Arc<dyn ServerCertVerifier>);

impl fmt::Debug for AnyTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyTime").finish_non_exhaustive()
    }
}

/// When a certificate's time ended, if that is all that is wrong with it.
fn end_if_expired(error: &Error, certificate: &CertificateDer<'_>) -> Option<UnixTime> {
    use CertificateError::{Expired, ExpiredContext};
    matches!(error, Error::InvalidCertificate(Expired | ExpiredContext { .. }))
        .then(|| times(certificate).map(|(_, end)| end))?
}

/// When a certificate's time began, if that it is another time now is all that is wrong with it.
fn begin_if_untimely(error: &Error, certificate: &CertificateDer<'_>) -> Option<UnixTime> {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let untimely = matches!(
        error,
        Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }
        )
    );
    untimely.then(|| times(certificate).map(|(begin, _)| begin))?
}

/// From when until when.
fn times(certificate: &CertificateDer<'_>) -> Option<(UnixTime, UnixTime)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let time = |seconds: i64| {
        let seconds = u64::try_from(seconds).ok()?;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
    };
    let validity = parsed.validity();
    Some((time(validity.not_before.timestamp())?, time(validity.not_after.timestamp())?))
}

impl ClientCertVerifier for AlsoExpired {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.verify_client_cert(end_entity, intermediates, now).or_else(|error| {
            match end_if_expired(&error, end_entity) {
                Some(then) => self.0.verify_client_cert(end_entity, intermediates, then),
                None => Err(error),
            }
        })
    }

    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

impl ServerCertVerifier for AnyTime {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verify = |at| {
            self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, at)
        };
        verify(now).or_else(|error| match begin_if_untimely(&error, end_entity) {
            Some(then) => verify(then),
            None => Err(error),
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
