//! A real etcd of one member, in a directory of its own, that a test can kill and start again. It must
//! not know what is kept in it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot have its etcd fails")]

use std::fs::{self, OpenOptions};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// An etcd that takes no connection by then is broken.
const START: Duration = Duration::from_secs(30);

/// The process. It is killed when this is dropped.
#[derive(Debug)]
pub struct EtcdServer {
    child: Child,
    dir: TempDir,
    port: u16,
    peer_port: u16,
}

impl EtcdServer {
    /// Starts one, on ports that were free a moment ago.
    ///
    /// # Panics
    /// When it does not start; a test fails by that.
    #[must_use]
    pub fn start() -> Self {
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
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again where it was.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.child = spawn(&self.dir, self.port, self.peer_port);
        assert!(self.listens(), "etcd does not start again: {}", self.log());
    }

    /// The port for clients.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where clients reach it.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.port)
    }

    /// Whether this text is in what was ever written, as its own log has it.
    ///
    /// # Panics
    /// When the log cannot be read.
    #[must_use]
    pub fn has_written(&self, text: &str) -> bool {
        let mut dirs = vec![self.dir.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else if path.extension().is_some_and(|it| it == "wal") {
                    let bytes = fs::read(path).unwrap();
                    if bytes.windows(text.len()).any(|part| part == text.as_bytes()) {
                        return true;
                    }
                }
            }
        }
        false
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

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

fn spawn(dir: &TempDir, port: u16, peer_port: u16) -> Child {
    // Fails where Debian's `etcd-server` is not installed.
    let log = OpenOptions::new().create(true).append(true).open(dir.path().join("log")).unwrap();
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
