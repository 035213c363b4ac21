//! A `toono server` that can be killed and started again, and clients of it.

use std::{
    fs::File,
    net::{TcpListener, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tempfile::TempDir;

const TOONO: &str = env!("CARGO_BIN_EXE_toono");
const START_LIMIT: Duration = Duration::from_secs(30);
/// A server that is being started again is asked again after this.
const RETRY: Duration = Duration::from_millis(20);

pub(crate) struct Server {
    dir: TempDir,
    port: u16,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// A server with its credentials written and these arguments; with the CA of another one, if given.
    pub(crate) fn start(arguments: &[&str], ca_of: Option<&Self>) -> Self {
        let dir = tempfile::Builder::new().prefix("toono-programs-").tempdir().unwrap();
        if let Some(other) = ca_of {
            let pki = dir.path().join("pki");
            std::fs::create_dir(&pki).unwrap();
            for file in std::fs::read_dir(other.dir.path().join("pki")).unwrap().flatten() {
                std::fs::copy(file.path(), pki.join(file.file_name())).unwrap();
            }
        }
        let arguments = arguments.iter().map(|&it| it.to_owned()).collect();
        let mut server = Self { dir, port: free_port(), arguments, child: None };
        server.spawn();
        let start = Instant::now();
        while !server.kubeconfig().exists() {
            assert!(start.elapsed() < START_LIMIT, "no kubeconfig was written");
            assert!(server.child.as_mut().unwrap().try_wait().unwrap().is_none(), "it ended");
            std::thread::sleep(RETRY);
        }
        server
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn spawn(&mut self) {
        let log =
            File::options().create(true).append(true).open(self.dir.path().join("server.log"));
        let child = Command::new(TOONO)
            .args(["server", "--listen", &format!("127.0.0.1:{}", self.port), "--data"])
            .arg(self.dir.path())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn();
        self.child = Some(child.unwrap());
    }

    pub(crate) fn restart(&mut self) {
        self.kill();
        self.spawn();
    }

    /// Where the journal is.
    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("admin.kubeconfig")
    }

    /// A client, perhaps of a server that does not answer yet. A CA, once made, stays.
    pub(crate) async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        Client::try_from(config).unwrap()
    }

    /// A client of a server that answers, and in whose namespace `default` objects can be made.
    pub(crate) async fn ready(&self) -> Client {
        let client = self.client().await;
        answers(&client).await;
        client
    }
}

/// Waits until the server is ready.
pub(crate) async fn answers(client: &Client) {
    let start = Instant::now();
    loop {
        let namespace = "/api/v1/namespaces/default/serviceaccounts/default";
        let ready = http::Request::get(namespace).body(Vec::new()).unwrap();
        if client.request_text(ready).await.is_ok() {
            return;
        }
        assert!(start.elapsed() < START_LIMIT, "the server does not answer");
        tokio::time::sleep(RETRY).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("server.log"));
            let log = log.unwrap_or_default();
            let lines: Vec<_> = log.lines().rev().take(30).collect();
            eprintln!("--- server.log");
            lines.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
