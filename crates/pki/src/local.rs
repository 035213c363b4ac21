//! The certificate under which one node answers for the API to its own pods, and the CA that vouches for it.
//!
//! Both are made on the node, and only what the node puts into its pods trusts that CA. Its key signs the one
//! certificate and is forgotten, and it may vouch for no other names: who takes them from a node can be nobody else.

use std::{net::IpAddr, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use rustls::ServerConfig;

use crate::{
    Issued, PkiError,
    tls::{certificates, private_key, provider},
};

/// The bits of an IPv4 and of an IPv6 address, all of them.
const HOST_BITS: (u8, u8) = (32, 128);

/// A server's certificate with a CA of its own.
#[derive(Debug, Clone)]
pub struct LocalServer {
    /// The CA, PEM.
    pub ca_pem: String,
    /// What the server shows.
    pub server: Issued,
}

impl LocalServer {
    /// A new CA for these DNS names and addresses, and a certificate for all of them. The clocks of nodes are not to
    /// be trusted, so both are valid at any time.
    ///
    /// # Errors
    /// When a name is none, or the system has no randomness.
    pub fn generate(node: &str, names: &[String]) -> Result<Self, PkiError> {
        let failed = |source| PkiError::Sign { what: format!("the API on {node}"), source };
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, format!("toono-node-ca:{node}"));
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let permitted_subtrees = names.iter().map(|name| subtree(name)).collect();
        ca.name_constraints =
            Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
        let ca_key = KeyPair::generate().map_err(failed)?;
        let ca_pem = ca.self_signed(&ca_key).map_err(failed)?.pem();
        let mut own = CertificateParams::new(names).map_err(failed)?;
        own.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        own.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        own.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        own.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(failed)?;
        let cert_pem = own.signed_by(&key, &Issuer::new(ca, ca_key)).map_err(failed)?.pem();
        Ok(Self { ca_pem, server: Issued { cert_pem, key_pem: key.serialize_pem() } })
    }

    /// TLS for a server with this certificate: HTTP/2 and HTTP/1.1, no client certificates.
    ///
    /// # Errors
    /// When the certificate or key does not parse.
    pub fn config(&self) -> Result<Arc<ServerConfig>, PkiError> {
        let chain = certificates(&self.server.cert_pem, "the node's certificate")?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, private_key(&self.server.key_pem)?)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn subtree(name: &str) -> GeneralSubtree {
    match name.parse::<IpAddr>() {
        Ok(address) => {
            let bits = if address.is_ipv4() { HOST_BITS.0 } else { HOST_BITS.1 };
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, bits))
        }
        Err(_) => GeneralSubtree::DnsName(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::{ClientConnection, ServerConnection};

    use super::*;
    use crate::{ClusterCa, client_config};

    /// Whether a client that trusts `ca_pem` takes the server for `name`.
    fn is_taken(ca_pem: &str, server: &LocalServer, name: &str) -> Result<(), String> {
        let name = name.to_owned().try_into().unwrap();
        let mut client = ClientConnection::new(client_config(ca_pem, None).unwrap(), name).unwrap();
        let mut server = ServerConnection::new(server.config().unwrap()).unwrap();
        while client.is_handshaking() {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            server.read_tls(&mut io::Cursor::new(bytes)).unwrap();
            server.process_new_packets().map_err(|error| error.to_string())?;
            let mut bytes = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            let mut bytes = io::Cursor::new(bytes);
            while client.read_tls(&mut bytes).unwrap() > 0 {}
            client.process_new_packets().map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    #[test]
    fn a_node_vouches_for_the_names_of_the_api_and_for_no_other() {
        let names = ["kubernetes.default.svc", "10.96.0.1"].map(str::to_owned);
        let local = LocalServer::generate("n1", &names).unwrap();
        // As pods have it: the cluster's CA first.
        let cluster = ClusterCa::generate().unwrap();
        let both = format!("{}{}", cluster.cert_pem(), local.ca_pem);
        for name in &names {
            is_taken(&both, &local, name).unwrap();
        }
        assert!(is_taken(&both, &local, "kubernetes.default").is_err());
        assert!(is_taken(cluster.cert_pem(), &local, "10.96.0.1").is_err());
        let other = LocalServer::generate("n1", &names).unwrap();
        assert!(is_taken(&other.ca_pem, &local, "10.96.0.1").is_err());
    }
}
