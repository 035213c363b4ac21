//! A real etcd of one member, in a directory of its own, that a test can kill and start again.

use std::fs::{self, OpenOptions};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use toono_http::client::Connection;
use toono_store::{EtcdConfig, Rev, Store};

/// An etcd that takes no connection by then is broken.
const START: Duration = Duration::from_secs(30);

pub(crate) struct EtcdServer {
    child: Child,
    dir: TempDir,
    port: u16,
    peer_port: u16,
}

impl EtcdServer {
    /// Starts one, on ports that were free a moment ago.
    pub(crate) fn start() -> Self {
        for _ in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
            let [port, peer_port] = ports.map(|it| it.local_addr().unwrap().port());
            let child = spawn(&dir, port, peer_port);
            let mut server = Self { child, dir, port, peer_port };
            if server.listens() {
                return server;
            }
            eprintln!("etcd did not start: {}", server.log());
        }
        panic!("etcd does not start: is Debian's etcd-server installed?")
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again where it was.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.dir, self.port, self.peer_port);
        assert!(self.listens(), "etcd does not start again: {}", self.log());
    }

    /// How to open a store in it.
    pub(crate) fn config(&self) -> EtcdConfig {
        let endpoint = format!("http://127.0.0.1:{}", self.port).parse().unwrap();
        EtcdConfig::new(vec![endpoint], None)
    }

    /// One server's store in it.
    pub(crate) async fn store(&self) -> Store {
        Store::connect(self.config()).await.unwrap().0
    }

    /// Whether etcd itself has compacted this revision; asked through its JSON gateway, which knows
    /// nothing of ours.
    pub(crate) async fn has_forgotten(&self, rev: Rev) -> bool {
        let endpoint = self.config().endpoints.remove(0);
        let mut connection = Connection::open(&endpoint, &tls()).await.unwrap();
        let question = format!(r#"{{"key":"AA==","revision":"{rev}"}}"#);
        let request = http::Request::post("/v3/kv/range").body(toono_http::full(question)).unwrap();
        let answer = connection.send(request).await.unwrap().into_body().collect().await.unwrap();
        String::from_utf8_lossy(&answer.to_bytes()).contains("has been compacted")
    }

    fn listens(&mut self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < START {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn spawn(dir: &TempDir, port: u16, peer_port: u16) -> Child {
    // Fails where Debian's `etcd-server` is not installed.
    let log = OpenOptions::new().create(true).append(true).open(dir.path().join("log")).unwrap();
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    Command::new("etcd")
        .args(["--name", "one", "--logger", "zap", "--data-dir"])
        .arg(dir.path().join("data"))
        .args(["--listen-client-urls", &url(port), "--advertise-client-urls", &url(port)])
        .args(["--listen-peer-urls", &url(peer_port)])
        .args(["--initial-advertise-peer-urls", &url(peer_port)])
        .args(["--initial-cluster", &format!("one={}", url(peer_port))])
        // An election after a restart takes this long.
        .args(["--heartbeat-interval", "20", "--election-timeout", "200"])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Settings that plain HTTP does not use.
pub(crate) fn tls() -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Arc::new(config)
}
