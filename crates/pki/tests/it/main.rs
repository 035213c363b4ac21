//! Real handshakes between the TLS settings that this crate makes.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::{os::unix::fs::PermissionsExt as _, sync::Arc, time::Duration};

use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use toono_pki::{
    CLIENT_LIFETIME, ClusterCa, Issued, NodeKey, client_config, client_config_pinned,
    node_client_config, server_config,
};

fn server(ca: &ClusterCa) -> Arc<ServerConfig> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    server_config(ca, &ca.issue_server(&names).unwrap()).unwrap()
}

/// Runs a handshake in memory; the server's view of the client's subject, or the first error.
fn handshake(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: &str,
) -> Result<Option<toono_pki::Subject>, rustls::Error> {
    Ok(handshake_of_kind(server, client, name)?.0)
}

/// The same, and whether it was a resumption.
fn handshake_of_kind(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: &str,
) -> Result<(Option<toono_pki::Subject>, HandshakeKind), rustls::Error> {
    let mut server = ServerConnection::new(server)?;
    let mut client = ClientConnection::new(client, ServerName::try_from(name.to_owned()).unwrap())?;
    while server.is_handshaking() || client.is_handshaking() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut input = &bytes[..];
        while !input.is_empty() {
            server.read_tls(&mut input).unwrap();
        }
        server.process_new_packets()?;
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut input = &bytes[..];
        while !input.is_empty() {
            client.read_tls(&mut input).unwrap();
        }
        client.process_new_packets()?;
    }
    let subject =
        server.peer_certificates().map(|chain| toono_pki::subject_of_expired(&chain[0]).unwrap());
    Ok((subject, server.handshake_kind().unwrap()))
}

#[test]
fn who_comes_again_is_known_without_another_signature() {
    let ca = ClusterCa::generate().unwrap();
    let key = NodeKey::generate("shop-7").unwrap();
    let cert_pem =
        ca.sign_node_csr(&key.csr_pem, "shop-7", CLIENT_LIFETIME.unsigned_abs()).unwrap();
    let own = Issued { cert_pem, key_pem: key.key_pem };
    let client = client_config(ca.cert_pem(), Some(&own)).unwrap();
    let (first, other) = (server(&ca), server(&ca));
    let kinds = [&first, &first, &first, &other].map(|server| {
        let (subject, kind) =
            handshake_of_kind(server.clone(), client.clone(), "localhost").unwrap();
        assert_eq!(subject.unwrap().common_name, "system:node:shop-7");
        kind
    });
    // Another process has another key for its tickets.
    let (full, resumed) = (HandshakeKind::Full, HandshakeKind::Resumed);
    assert_eq!(kinds, [full, resumed, resumed, full]);
}

#[test]
fn a_node_joins_by_pin_and_returns_by_certificate() {
    let ca = ClusterCa::generate().unwrap();
    let pinned = client_config_pinned(ca.pin()).unwrap();
    assert_eq!(handshake(server(&ca), pinned, "127.0.0.1").unwrap(), None);

    let key = NodeKey::generate("shop-7").unwrap();
    let cert_pem =
        ca.sign_node_csr(&key.csr_pem, "shop-7", CLIENT_LIFETIME.unsigned_abs()).unwrap();
    let own = Issued { cert_pem, key_pem: key.key_pem };
    let client = client_config(ca.cert_pem(), Some(&own)).unwrap();
    let subject = handshake(server(&ca), client, "localhost").unwrap().unwrap();
    assert_eq!(subject.common_name, "system:node:shop-7");
    assert_eq!(subject.organizations, ["system:nodes"]);
}

#[test]
fn a_request_cannot_choose_its_own_name() {
    let ca = ClusterCa::generate().unwrap();
    let key = NodeKey::generate("kubernetes-admin").unwrap();
    let cert_pem =
        ca.sign_node_csr(&key.csr_pem, "shop-7", CLIENT_LIFETIME.unsigned_abs()).unwrap();
    let client =
        client_config(ca.cert_pem(), Some(&Issued { cert_pem, key_pem: key.key_pem })).unwrap();
    let subject = handshake(server(&ca), client, "localhost").unwrap().unwrap();
    assert_eq!(subject.common_name, "system:node:shop-7");
}

#[test]
fn an_expired_certificate_is_good_for_saying_whose_it_was() {
    let (ca, other) = (ClusterCa::generate().unwrap(), ClusterCa::generate().unwrap());
    let expired = |ca: &ClusterCa| {
        let key = NodeKey::generate("shop-7").unwrap();
        let cert_pem = ca.sign_node_csr(&key.csr_pem, "shop-7", Duration::ZERO).unwrap();
        Issued { cert_pem, key_pem: key.key_pem }
    };
    let own = expired(&ca);
    // Its last second has to pass.
    std::thread::sleep(Duration::from_millis(1100));
    let leaf = CertificateDer::from_pem_slice(own.cert_pem.as_bytes()).unwrap();
    toono_pki::subject(&leaf).unwrap_err();
    let client = client_config(ca.cert_pem(), Some(&own)).unwrap();
    let subject = handshake(server(&ca), client, "localhost").unwrap().unwrap();
    assert_eq!(subject.common_name, "system:node:shop-7");
    let client = client_config(ca.cert_pem(), Some(&expired(&other))).unwrap();
    handshake(server(&ca), client, "localhost").unwrap_err();
}

#[test]
fn a_node_without_a_clock_finds_its_server() {
    #[derive(Debug)]
    struct At(u64);
    impl rustls::time_provider::TimeProvider for At {
        fn current_time(&self) -> Option<UnixTime> {
            Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
        }
    }
    let (ca, other) = (ClusterCa::generate().unwrap(), ClusterCa::generate().unwrap());
    let own = ca.issue_client("system:node:shop-7", &["system:nodes"]).unwrap();
    let at = |config: &ClientConfig, second| {
        let mut config = config.clone();
        config.time_provider = Arc::new(At(second));
        Arc::new(config)
    };
    let strict = client_config(ca.cert_pem(), Some(&own)).unwrap();
    let node = node_client_config(ca.cert_pem(), &own).unwrap();
    // 1970, and 2100.
    for second in [0, 4_102_444_800] {
        handshake(server(&ca), at(&strict, second), "localhost").unwrap_err();
        handshake(server(&ca), at(&node, second), "localhost").unwrap();
        handshake(server(&ca), at(&node, second), "10.0.0.9").unwrap_err();
        handshake(server(&other), at(&node, second), "localhost").unwrap_err();
    }
}

#[test]
fn strangers_are_refused() {
    let (ca, other) = (ClusterCa::generate().unwrap(), ClusterCa::generate().unwrap());
    let pinned_elsewhere = client_config_pinned(other.pin()).unwrap();
    handshake(server(&ca), pinned_elsewhere, "127.0.0.1").unwrap_err();
    let pinned = client_config_pinned(ca.pin()).unwrap();
    handshake(server(&ca), pinned, "10.0.0.9").unwrap_err();
    let forged = other.issue_client("kubernetes-admin", &["system:masters"]).unwrap();
    let client = client_config(ca.cert_pem(), Some(&forged)).unwrap();
    handshake(server(&ca), client, "localhost").unwrap_err();
}

#[test]
fn the_ca_is_made_once_and_its_key_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let made = ClusterCa::load_or_create(dir.path()).unwrap();
    let mode = dir.path().join("ca.key").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let loaded = ClusterCa::load_or_create(dir.path()).unwrap();
    assert_eq!(made.pin(), loaded.pin());
    let client = client_config_pinned(made.pin()).unwrap();
    handshake(server(&loaded), client, "localhost").unwrap();

    // Cut off after the key was written: the key is kept and certified again.
    std::fs::remove_file(dir.path().join("ca.crt")).unwrap();
    let finished = ClusterCa::load_or_create(dir.path()).unwrap();
    assert_eq!(made.pin(), finished.pin());

    std::fs::write(dir.path().join("ca.crt"), "garbage").unwrap();
    ClusterCa::load_or_create(dir.path()).map(|_| ()).unwrap_err();
}
