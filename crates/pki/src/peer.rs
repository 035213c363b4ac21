//! TLS between two nodes of the cluster, each with the client certificate that it joined with.
//!
//! A node's certificate names the node and no address, so who dials checks the name in it instead of the
//! address that it dialled.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{
    Issued, PkiError,
    tls::{certificates, private_key, provider, roots, subject},
};

/// The end that is dialled: whoever dials must show a certificate of the CA.
///
/// # Errors
/// When a certificate or key does not parse.
pub fn peer_server_config(ca_pem: &str, own: &Issued) -> Result<Arc<ServerConfig>, PkiError> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(of_cluster(roots(ca_pem)?)?)
        .with_single_cert(
            certificates(&own.cert_pem, "the node's certificate")?,
            private_key(&own.key_pem)?,
        )?;
    Ok(Arc::new(config))
}

/// The end that dials the node of this user name, `system:node:NAME`, wherever it is.
///
/// # Errors
/// When a certificate or key does not parse.
pub fn peer_client_config(
    ca_pem: &str,
    own: &Issued,
    user: &str,
) -> Result<Arc<ClientConfig>, PkiError> {
    let verifier = Peer { of_cluster: of_cluster(roots(ca_pem)?)?, user: user.to_owned() };
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(
            certificates(&own.cert_pem, "the node's certificate")?,
            private_key(&own.key_pem)?,
        )?;
    Ok(Arc::new(config))
}

fn of_cluster(roots: RootCertStore) -> Result<Arc<dyn ClientCertVerifier>, PkiError> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| PkiError::Malformed { what: "the CA", reason: error.to_string() })
}

/// Takes one node of the cluster.
#[derive(Debug)]
struct Peer {
    of_cluster: Arc<dyn ClientCertVerifier>,
    user: String,
}

impl ServerCertVerifier for Peer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.of_cluster.verify_client_cert(end_entity, intermediates, now)?;
        match subject(end_entity) {
            Ok(subject) if subject.common_name == self.user => Ok(ServerCertVerified::assertion()),
            _ => Err(CertificateError::NotValidForName.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.of_cluster.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.of_cluster.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.of_cluster.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::ServerName;

    use super::*;
    use crate::{CLIENT_LIFETIME, ClusterCa, NodeKey};

    fn node(ca: &ClusterCa, name: &str) -> Issued {
        let key = NodeKey::generate(name).unwrap();
        Issued {
            cert_pem: ca.sign_node_csr(&key.csr_pem, name, CLIENT_LIFETIME.unsigned_abs()).unwrap(),
            key_pem: key.key_pem,
        }
    }

    /// Whether a handshake between these succeeds at both ends.
    fn meet(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> bool {
        let name = ServerName::try_from("192.0.2.1").unwrap();
        let mut client = rustls::ClientConnection::new(client.clone(), name).unwrap();
        let mut server = rustls::ServerConnection::new(server.clone()).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let (mut up, mut down) = (Vec::new(), Vec::new());
            while client.wants_write() {
                client.write_tls(&mut up).unwrap();
            }
            let mut rest = up.as_slice();
            while !rest.is_empty() {
                server.read_tls(&mut rest).unwrap();
                if server.process_new_packets().is_err() {
                    return false;
                }
            }
            while server.wants_write() {
                server.write_tls(&mut down).unwrap();
            }
            let mut rest = down.as_slice();
            while !rest.is_empty() {
                client.read_tls(&mut rest).unwrap();
                if client.process_new_packets().is_err() {
                    return false;
                }
            }
        }
        true
    }

    #[test]
    fn nodes_of_one_cluster_know_each_other_by_name() {
        let (ca, other) = (ClusterCa::generate().unwrap(), ClusterCa::generate().unwrap());
        let server = peer_server_config(ca.cert_pem(), &node(&ca, "hub")).unwrap();
        let dials = |own: &Issued, user: &str| {
            meet(&server, &peer_client_config(ca.cert_pem(), own, user).unwrap())
        };
        let reader = node(&ca, "reader");
        assert!(dials(&reader, "system:node:hub"));
        assert!(!dials(&reader, "system:node:another"), "it is not who was meant");
        assert!(!dials(&node(&other, "reader"), "system:node:hub"), "of another cluster");
        let stranger = peer_server_config(ca.cert_pem(), &node(&other, "hub")).unwrap();
        let client = peer_client_config(ca.cert_pem(), &reader, "system:node:hub").unwrap();
        assert!(!meet(&stranger, &client), "a hub of another cluster");
    }
}
