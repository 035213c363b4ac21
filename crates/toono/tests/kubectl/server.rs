//! A `toono server` alone with a store of its own, and the kubectls of this machine.

use std::{
    fs::File,
    net::{TcpListener, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

const TOONO: &str = env!("CARGO_BIN_EXE_toono");
const START_LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    pub(crate) dir: TempDir,
    pub(crate) port: u16,
    child: Child,
}

impl Server {
    /// A server with its kubeconfig written; the first command finds out whether it answers.
    pub(crate) fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("toono-kubectl-").tempdir().unwrap();
        let port = free_port();
        let log = File::create(dir.path().join("server.log")).unwrap();
        let mut child = Command::new(TOONO)
            .args(["server", "--listen", &format!("127.0.0.1:{port}"), "--data"])
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let start = Instant::now();
        while !dir.path().join("admin.kubeconfig").exists() {
            assert!(start.elapsed() < START_LIMIT, "no kubeconfig was written");
            assert!(child.try_wait().unwrap().is_none(), "the server ended");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { dir, port, child }
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("admin.kubeconfig")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("server.log"));
            let log = log.unwrap_or_default();
            let lines: Vec<_> = log.lines().rev().take(30).collect();
            eprintln!("--- server.log");
            lines.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// The oldest and the newest kubectl: of the one on the PATH, and other versions (`kubectl.1.28`)
/// where it really lies. One where there is only one.
pub(crate) fn programs() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap();
    let first = std::env::split_paths(&path)
        .map(|folder| folder.join("kubectl"))
        .find(|program| program.exists())
        .expect("kubectl must be installed");
    let folder = first.canonicalize().unwrap().parent().unwrap().to_owned();
    let others =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| {
            path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"kubectl."))
        });
    let mut found: Vec<(u32, PathBuf)> =
        others.chain([first]).map(|program| (minor_version(&program), program)).collect();
    found.sort();
    found.dedup_by_key(|(minor, _)| *minor);
    let last = found.pop().map(|(_, program)| program);
    found.into_iter().take(1).map(|(_, program)| program).chain(last).collect()
}

/// 33 of `v1.33.4`.
pub(crate) fn minor_version(program: &std::path::Path) -> u32 {
    let output =
        Command::new(program).args(["version", "--client", "-o", "json"]).output().unwrap();
    let version: Value = serde_json::from_slice(&output.stdout).unwrap();
    let minor = version["clientVersion"]["minor"].as_str().unwrap();
    minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
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
