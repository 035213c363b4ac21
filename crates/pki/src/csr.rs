//! Certificate requests of anybody: what they ask for, and a certificate that says just that.
//!
//! Subject, names and key are taken as they are; what they may be is decided before.

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::SigningKey;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, pem::PemObject};
use time::{Duration, OffsetDateTime};
use x509_parser::{
    certificate::X509Certificate,
    certification_request::X509CertificationRequest,
    cri_attributes::ParsedCriAttribute,
    extensions::{GeneralName, ParsedExtension, X509Extension},
    prelude::FromDer,
};

use crate::{
    ClusterCa, PkiError,
    der::{BIT_STRING, OCTET_STRING, OID, bits, date, sequence, tagged, unsigned},
    random_secret,
};

/// Certificates of longer life are valid from this long ago, for clocks that lag; Kubernetes' own.
const BACKDATE: Duration = Duration::minutes(5);
/// Those of shorter life are not dated back.
const SHORT: Duration = Duration::hours(8);
/// Bytes of a serial number: more than 64 random bits, at most 20 bytes (RFC 5280).
const SERIAL_BYTES: usize = 16;
const WHAT: &str = "the certificate request";

/// A checked request: its signature proves possession of its key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateRequest {
    /// The subject's common name, or nothing.
    pub common_name: String,
    /// The subject's organizations.
    pub organizations: Vec<String>,
    /// Alternative names by kind.
    pub dns_names: Vec<String>,
    /// How many IP addresses are asked for.
    pub ip_addresses: usize,
    /// How many mail addresses are asked for.
    pub emails: usize,
    /// How many URIs are asked for.
    pub uris: usize,
    subject: Vec<u8>,
    public_key: Vec<u8>,
    alternative_names: Option<Vec<u8>>,
}

impl CertificateRequest {
    /// Reads a request and checks its signature.
    ///
    /// # Errors
    /// When it is no PEM of a PKCS#10 request, or not signed by its own key.
    pub fn from_pem(pem: &[u8]) -> Result<Self, PkiError> {
        let malformed = |reason: String| PkiError::Malformed { what: WHAT, reason };
        let der = CertificateSigningRequestDer::from_pem_slice(pem)
            .map_err(|_| malformed("PEM block type must be CERTIFICATE REQUEST".into()))?;
        let (_, request) = X509CertificationRequest::from_der(&der)
            .map_err(|error| malformed(error.to_string()))?;
        request.verify_signature().map_err(|error| malformed(error.to_string()))?;
        let info = &request.certification_request_info;
        let text = |part: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            part.as_str().map(str::to_owned).map_err(|error| malformed(error.to_string()))
        };
        let mut read = Self {
            common_name: info
                .subject
                .iter_common_name()
                .next()
                .map(text)
                .transpose()?
                .unwrap_or_default(),
            organizations: info.subject.iter_organization().map(text).collect::<Result<_, _>>()?,
            subject: info.subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
            ..Self::default()
        };
        for extension in extensions(&request) {
            if let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() {
                names.general_names.iter().for_each(|name| read.add_name(name));
                read.alternative_names = Some(extension.value.to_vec());
            }
        }
        Ok(read)
    }

    fn add_name(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(_) => self.ip_addresses += 1,
            GeneralName::RFC822Name(_) => self.emails += 1,
            GeneralName::URI(_) => self.uris += 1,
            _ => {}
        }
    }
}

fn extensions<'a>(
    request: &'a X509CertificationRequest<'a>,
) -> impl Iterator<Item = &'a X509Extension<'a>> {
    let attributes = request.certification_request_info.iter_attributes();
    let requested = attributes.filter_map(|attribute| match attribute.parsed_attribute() {
        ParsedCriAttribute::ExtensionRequest(requested) => Some(&requested.extensions),
        _ => None,
    });
    requested.flatten()
}

/// `usages` of a certificate in Kubernetes' words, by the bit that they set.
const KEY_USAGES: [(&str, u8); 10] = [
    ("signing", 0),
    ("digital signature", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];
/// The same for extended usages, by the last number of `1.3.6.1.5.5.7.3`.
const EXTENDED_USAGES: [(&str, u8); 10] = [
    ("server auth", 1),
    ("client auth", 2),
    ("code signing", 3),
    ("email protection", 4),
    ("s/mime", 4),
    ("ipsec end system", 5),
    ("ipsec tunnel", 6),
    ("ipsec user", 7),
    ("timestamping", 8),
    ("ocsp signing", 9),
];
const EXTENDED_USAGE_PREFIX: [u8; 7] = [0x2b, 6, 1, 5, 5, 7, 3];
const TRUE: [u8; 3] = [1, 1, 0xff];
/// Extensions by the last number of their name, `2.5.29`.
const KEY_USAGE: u8 = 15;
const ALTERNATIVE_NAMES: u8 = 17;
const BASIC_CONSTRAINTS: u8 = 19;
const AUTHORITY_KEY: u8 = 35;
const EXTENDED_USAGE: u8 = 37;

impl ClusterCa {
    /// A certificate for what a request asks, for these usages (Kubernetes' words), PEM.
    ///
    /// # Errors
    /// When a usage has no meaning, or signing fails.
    pub fn sign_request(
        &self,
        request: &CertificateRequest,
        usages: &[String],
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<String, PkiError> {
        let malformed = |reason: String| PkiError::Malformed { what: WHAT, reason };
        let ca_der = CertificateDer::from_pem_slice(self.cert_pem().as_bytes())
            .map_err(|error| malformed(error.to_string()))?;
        let (_, ca) =
            X509Certificate::from_der(&ca_der).map_err(|error| malformed(error.to_string()))?;
        let random = random_secret().ok_or_else(|| malformed("no randomness".into()))?;
        let serial = unsigned(random.get(..SERIAL_BYTES).unwrap_or(&random));
        let algorithm = signature_algorithm(self.key().algorithm())
            .ok_or_else(|| malformed("the CA's key is of an unknown kind".into()))?;
        let backdate = if lifetime < SHORT { Duration::ZERO } else { BACKDATE };
        // A certificate does not outlive the one that vouches for it.
        let end = (now + lifetime - backdate).min(ca.validity().not_after.to_datetime());
        let certified = sequence(&[
            &[0xa0, 3, 2, 1, 2], // version 3
            &serial,
            algorithm,
            ca.subject().as_raw(),
            &sequence(&[&date(now - backdate), &date(end)]),
            &request.subject,
            &request.public_key,
            &tagged(0xa3, &[&extensions_for(request, usages, &ca)?]),
        ]);
        let signature = self
            .key()
            .sign(&certified)
            .map_err(|source| PkiError::Sign { what: request.common_name.clone(), source })?;
        Ok(pem(&sequence(&[&certified, algorithm, &bits(&signature)])))
    }
}

fn extensions_for(
    request: &CertificateRequest,
    usages: &[String],
    ca: &X509Certificate<'_>,
) -> Result<Vec<u8>, PkiError> {
    let mut key_usage = 0_u16;
    let mut extended = Vec::new();
    for usage in usages {
        let find = |table: &[(&str, u8)]| table.iter().find(|(name, _)| name == usage).map(|f| f.1);
        match (find(&KEY_USAGES), find(&EXTENDED_USAGES)) {
            (Some(bit), _) => key_usage |= 0x8000 >> bit,
            (_, Some(last)) => extended.push(tagged(OID, &[&EXTENDED_USAGE_PREFIX, &[last]])),
            _ if usage == "any" => extended.push(tagged(OID, &[&[0x55, 0x1d, 0x25, 0]])),
            _ => {
                let reason = format!("unrecognized usage: {usage}");
                return Err(PkiError::Malformed { what: WHAT, reason });
            }
        }
    }
    let mut all = Vec::new();
    if key_usage != 0 {
        all.push(extension(KEY_USAGE, true, &named_bits(key_usage)));
    }
    if !extended.is_empty() {
        let names: Vec<&[u8]> = extended.iter().map(Vec::as_slice).collect();
        all.push(extension(EXTENDED_USAGE, false, &sequence(&names)));
    }
    all.push(extension(BASIC_CONSTRAINTS, true, &sequence(&[])));
    for known in ca.extensions() {
        if let ParsedExtension::SubjectKeyIdentifier(id) = known.parsed_extension() {
            all.push(extension(AUTHORITY_KEY, false, &sequence(&[&tagged(0x80, &[id.0])])));
        }
    }
    if let Some(names) = &request.alternative_names {
        all.push(extension(ALTERNATIVE_NAMES, request.common_name.is_empty(), names));
    }
    let all: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    Ok(sequence(&all))
}

fn extension(number: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    let name = tagged(OID, &[&[0x55, 0x1d, number]]);
    let value = tagged(OCTET_STRING, &[value]);
    if critical { sequence(&[&name, &TRUE, &value]) } else { sequence(&[&name, &value]) }
}

/// The first bit is the highest; zeros at the end are left out.
fn named_bits(set: u16) -> Vec<u8> {
    let [first, second] = set.to_be_bytes();
    let unused = u8::try_from(set.trailing_zeros() % 8).unwrap_or(0);
    if second == 0 {
        tagged(BIT_STRING, &[&[unused, first]])
    } else {
        tagged(BIT_STRING, &[&[unused, first, second]])
    }
}

/// How a signature of this kind is named in a certificate.
fn signature_algorithm(algorithm: &rcgen::SignatureAlgorithm) -> Option<&'static [u8]> {
    let known: [(&rcgen::SignatureAlgorithm, &[u8]); 4] = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]),
        (&rcgen::PKCS_ECDSA_P384_SHA384, &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3]),
        (&rcgen::PKCS_ED25519, &[0x30, 5, 6, 3, 0x2b, 0x65, 0x70]),
        (
            &rcgen::PKCS_RSA_SHA256,
            &[0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11, 5, 0],
        ),
    ];
    known.into_iter().find(|(one, _)| *one == algorithm).map(|(_, name)| name)
}

/// Columns of base64 in a PEM text.
const PEM_COLUMNS: usize = 64;

fn pem(der: &[u8]) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in STANDARD.encode(der).as_bytes().chunks(PEM_COLUMNS) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P384_SHA384, SanType};
    use rustls::{RootCertStore, server::WebPkiClientVerifier};
    use rustls_pki_types::UnixTime;

    use super::*;
    use crate::subject;

    fn request(names: &[&str], common_name: &str, organization: &str) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, organization);
        let again = DnType::CustomDnType(vec![2, 5, 4, 10]);
        params.distinguished_name.push(again, "second");
        params.distinguished_name.push(DnType::CommonName, common_name);
        let dns = names.iter().map(|&name| SanType::DnsName(name.try_into().unwrap()));
        params.subject_alt_names = dns.collect();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    fn usages(all: &[&str]) -> Vec<String> {
        all.iter().map(|&one| one.to_owned()).collect()
    }

    #[test]
    fn a_certificate_says_what_was_asked_and_verifies() {
        let ca = ClusterCa::generate().unwrap();
        let pem = request(&["a.example", "b.example"], "anna", "developers");
        let asked = CertificateRequest::from_pem(pem.as_bytes()).unwrap();
        assert_eq!(asked.common_name, "anna");
        assert_eq!(asked.organizations, ["developers", "second"]);
        assert_eq!(asked.dns_names, ["a.example", "b.example"]);
        let now = OffsetDateTime::now_utc();
        let usages = usages(&["digital signature", "key encipherment", "client auth"]);
        let made = ca.sign_request(&asked, &usages, Duration::days(1), now).unwrap();
        let der = CertificateDer::from_pem_slice(made.as_bytes()).unwrap();
        let named = subject(&der).unwrap();
        assert_eq!((named.common_name.as_str(), named.organizations.len()), ("anna", 2));
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(certificate.validity().time_to_expiration().unwrap().whole_hours(), 23);
        let usage = certificate.key_usage().unwrap().unwrap();
        assert!(
            usage.critical && usage.value.digital_signature() && usage.value.key_encipherment()
        );
        assert!(!usage.value.key_cert_sign() && !certificate.is_ca());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.cert_pem().as_bytes()).unwrap()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
        verifier.verify_client_cert(&der, &[], UnixTime::now()).unwrap();
    }

    #[test]
    fn what_is_no_request_or_not_its_keys_is_refused() {
        let pem = request(&[], "anna", "developers");
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut forged = der.to_vec();
        let at = forged.windows(4).position(|part| part == b"anna").unwrap();
        forged[at..at + 4].copy_from_slice(b"root");
        let forged = super::pem(&forged).replace("CERTIFICATE-", "CERTIFICATE REQUEST-");
        assert!(CertificateRequest::from_pem(forged.as_bytes()).is_err());
        let ca = ClusterCa::generate().unwrap();
        assert!(CertificateRequest::from_pem(ca.cert_pem().as_bytes()).is_err());
        assert!(CertificateRequest::from_pem(b"").is_err());
        let asked = CertificateRequest::from_pem(pem.as_bytes()).unwrap();
        let now = OffsetDateTime::now_utc();
        assert!(ca.sign_request(&asked, &usages(&["reign"]), Duration::days(1), now).is_err());
    }
}
