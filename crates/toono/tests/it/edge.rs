//! One edge on this machine, brought up by `toono up` and always taken down again.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
};

use serde_json::Value;
use tempfile::TempDir;

/// The program under test.
pub(crate) const TOONO: &str = env!("CARGO_BIN_EXE_toono");

/// Edges are heavy, some tests measure time, and some compare the whole machine before and after.
static TURN: RwLock<()> = RwLock::new(());
/// Each edge has an imitated Internet of its own.
static NEXT_SUBNET: AtomicU8 = AtomicU8::new(0);

/// A test's time on this machine, until it is dropped.
pub(crate) enum Turn {
    Alone {
        _held: RwLockWriteGuard<'static, ()>,
    },
    /// With others that mostly wait.
    Beside {
        _held: RwLockReadGuard<'static, ()>,
    },
}

impl Turn {
    pub(crate) fn alone() -> Self {
        Self::Alone { _held: TURN.write().unwrap_or_else(PoisonError::into_inner) }
    }

    pub(crate) fn beside() -> Self {
        Self::Beside { _held: TURN.read().unwrap_or_else(PoisonError::into_inner) }
    }
}

/// A data directory, a port and a subnet; `up` may have been called or not.
pub(crate) struct Edge {
    dir: TempDir,
    pub(crate) port: u16,
    pub(crate) subnet: String,
    kubectl: Mutex<PathBuf>,
    /// What `up` is told besides.
    more: Vec<String>,
    _turn: Turn,
}

impl Edge {
    /// Nothing runs yet.
    pub(crate) fn prepare() -> Self {
        Self::prepare_in(Turn::alone())
    }

    /// For a test that mostly waits.
    pub(crate) fn prepare_beside() -> Self {
        Self::prepare_in(Turn::beside())
    }

    fn prepare_in(turn: Turn) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        let own = std::process::id() as u8;
        let third = 64 + own.wrapping_add(NEXT_SUBNET.fetch_add(1, Ordering::Relaxed)) % 128;
        let dir = tempfile::Builder::new().prefix("toono-edge-").tempdir().unwrap();
        let subnet = format!("100.64.{third}.0/24");
        let kubectl = Mutex::new("kubectl".into());
        Self { dir, port: free_port(), subnet, kubectl, more: Vec::new(), _turn: turn }
    }

    /// `toono up` with two pools of two nodes, seen to succeed.
    pub(crate) fn up() -> Self {
        let edge = Self::prepare();
        edge.run_up();
        edge
    }

    /// The same, for a test that mostly waits.
    pub(crate) fn up_beside() -> Self {
        let edge = Self::prepare_beside();
        edge.run_up();
        edge
    }

    /// One pool of one node, which is there, with more options of `up` and of the server.
    pub(crate) fn up_with_one_node(options: &[&str], server_options: &[&str]) -> Self {
        let mut edge = Self::prepare();
        edge.plan_one_node(options, server_options);
        edge.run_up();
        edge
    }

    /// `up` is to make one pool of one node.
    pub(crate) fn plan_one_node(&mut self, options: &[&str], server_options: &[&str]) {
        self.plan(1, 1, options, server_options);
    }

    /// `up` is to make so many pools of so many nodes.
    pub(crate) fn plan(
        &mut self,
        pools: u8,
        nodes_per_pool: u8,
        options: &[&str],
        server_options: &[&str],
    ) {
        let (pools, nodes) = (pools.to_string(), nodes_per_pool.to_string());
        let size = ["--pools", &pools, "--nodes-per-pool", &nodes];
        let more = [&size, options, &["--"], server_options];
        self.more = more.concat().into_iter().map(str::to_owned).collect();
    }

    pub(crate) fn run_up(&self) -> String {
        success("toono up", self.toono(&self.up_arguments()))
    }

    pub(crate) fn up_arguments(&self) -> Vec<String> {
        let data = self.data().to_str().unwrap().to_owned();
        let listen = format!("0.0.0.0:{}", self.port);
        let arguments = ["up", "--data", &data, "--listen", &listen, "--lab-subnet", &self.subnet];
        let arguments = arguments.map(str::to_owned).into_iter();
        arguments.chain(self.more.iter().cloned()).collect()
    }

    pub(crate) fn data(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.data().join("admin.kubeconfig")
    }

    pub(crate) fn toono<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Output {
        Command::new(TOONO).args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// A subcommand that takes `--data`, seen to succeed.
    pub(crate) fn toono_here(&self, before: &[&str], after: &[&str]) -> String {
        let data = self.data().to_str().unwrap();
        let arguments = [before, &["--data", data], after].concat();
        success(&format!("toono {}", arguments.join(" ")), self.toono(&arguments))
    }

    pub(crate) fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let program = self.kubectl.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.data())
            .stdin(Stdio::null());
        command
    }

    /// From now on this kubectl is used.
    pub(crate) fn use_kubectl(&self, program: PathBuf) {
        *self.kubectl.lock().unwrap_or_else(PoisonError::into_inner) = program;
    }

    /// What kubectl printed; the test fails if it failed.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.kubectl_command(arguments).output().expect("kubectl must be installed");
        success(&format!("kubectl {}", arguments.join(" ")), output)
    }

    /// `kubectl apply` of one object, seen to succeed.
    pub(crate) fn apply(&self, object: &Value) {
        let mut child = self
            .kubectl_command(&["apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl must be installed");
        child.stdin.take().unwrap().write_all(object.to_string().as_bytes()).unwrap();
        success("kubectl apply", child.wait_with_output().unwrap());
    }

    pub(crate) fn kubectl_json(&self, arguments: &[&str]) -> Value {
        let text = self.kubectl(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) fn status(&self) -> Value {
        let text = self.toono_here(&["status"], &["-o", "json"]);
        serde_json::from_str(&text).unwrap()
    }

    /// Names of the nodes whose Ready condition has this status, sorted.
    pub(crate) fn nodes_with_ready(&self, status: &str) -> Vec<String> {
        let nodes = self.kubectl_json(&["get", "nodes"]);
        let mut names: Vec<String> = nodes["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|node| condition(node, "Ready") == status)
            .map(|node| node["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    /// The pods of `hello`.
    pub(crate) fn pods(&self) -> Vec<Value> {
        let list = self.kubectl_json(&["get", "pods", "-l", "app=hello"]);
        list["items"].as_array().unwrap().clone()
    }

    /// Processes of this edge: those whose command line names its data directory.
    pub(crate) fn processes(&self) -> Vec<(i32, String)> {
        processes_naming(self.data().to_str().unwrap())
    }

    /// The process of `toono COMMAND …`, with `part` in its command line.
    pub(crate) fn process(&self, command: &str, part: &str) -> i32 {
        self.find_process(command, part).unwrap_or_else(|| panic!("no toono {command} … {part}"))
    }

    /// That process, if it has started: a program that a script starts has the script's command line until then.
    pub(crate) fn find_process(&self, command: &str, part: &str) -> Option<i32> {
        let found: Vec<_> = self
            .processes()
            .into_iter()
            .filter(|(_, line)| line.split(' ').nth(1) == Some(command) && line.contains(part))
            .collect();
        assert!(found.len() <= 1, "toono {command} … {part}: {found:?}");
        found.first().map(|(pid, _)| *pid)
    }
}

impl Edge {
    /// Runs kubectl on a terminal of its own, types `input`, and returns what the terminal showed.
    pub(crate) fn under_a_terminal(&self, arguments: &[&str], input: &str) -> String {
        let pty = nix::pty::openpty(None, None).unwrap();
        let slave = || Stdio::from(pty.slave.try_clone().unwrap());
        let mut child = self
            .kubectl_command(arguments)
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .unwrap();
        drop(pty.slave);
        let mut master = std::fs::File::from(pty.master);
        master.write_all(input.as_bytes()).unwrap();
        let mut shown = Vec::new();
        let mut buffer = [0; 4096];
        // Reading a terminal that nobody holds open any more fails with EIO: the end.
        while let Ok(read) = master.read(&mut buffer) {
            if read == 0 {
                break;
            }
            shown.extend_from_slice(&buffer[..read]);
        }
        child.wait().unwrap();
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// The host's end of the imitated Internet: the link with the cloud's address.
    pub(crate) fn wan_interface(&self) -> String {
        let address = self.subnet.replace(".0/24", ".1");
        let output = Command::new("ip").args(["-o", "-4", "addr"]).output().expect("iproute2");
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .find(|line| line.contains(&format!(" {address}/")))
            .and_then(|line| line.split_whitespace().nth(1))
            .unwrap()
            .to_owned()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        let data = self.data().to_str().unwrap().to_owned();
        let output = self.toono(&["down", "--purge", "--data", &data]);
        if !output.status.success() {
            eprintln!("toono down: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

impl Edge {
    /// The last lines of each log, for a test that failed.
    fn show_logs(&self) {
        let mut folders = vec![self.data().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let name = entry.file_name().to_string_lossy().into_owned();
                if path.is_dir() && !matches!(name.as_str(), "images" | "layers" | "store") {
                    folders.push(path);
                } else if name.ends_with(".log") && !path.starts_with(self.data().join("store")) {
                    let text = std::fs::read_to_string(&path).unwrap_or_default();
                    let lines: Vec<_> = text.lines().rev().take(15).collect();
                    eprintln!("--- {}", path.display());
                    lines.iter().rev().for_each(|line| eprintln!("{line}"));
                }
            }
        }
    }
}

pub(crate) fn processes_naming(text: &str) -> Vec<(i32, String)> {
    let own = std::process::id() as i32;
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            (pid != own && line.contains(text)).then_some((pid, line.trim().to_owned()))
        })
        .collect()
}

pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == kind)
        .and_then(|condition| condition["status"].as_str())
        .unwrap_or("")
}

pub(crate) fn success(what: &str, output: Output) -> String {
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Every kubectl of this machine: the one on the PATH, and other versions (`kubectl.1.28`) where it
/// really lies.
pub(crate) fn kubectls() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap();
    let first = std::env::split_paths(&path)
        .map(|folder| folder.join("kubectl"))
        .find(|program| program.exists())
        .expect("kubectl must be installed");
    let folder = first.canonicalize().unwrap().parent().unwrap().to_owned();
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"kubectl."))
        })
        .collect();
    found.sort();
    found.insert(0, first);
    found
}

/// A port that nothing has, and that nothing gets by chance: those that the kernel gives begin above.
pub(crate) fn free_port() -> u16 {
    const PORTS: std::ops::Range<u32> = 12_000..28_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed) + 97 * std::process::id();
        let port = (PORTS.start + number % (PORTS.end - PORTS.start)) as u16;
        let tcp = TcpListener::bind(("0.0.0.0", port));
        if tcp.is_ok() && UdpSocket::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}
