//! A `toono server` alone, without any site.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{
    configmap,
    edge::{TOONO, free_port, success},
    wait::until,
};

pub(crate) struct Cloud {
    pub(crate) dir: TempDir,
    pub(crate) port: u16,
    listen: &'static str,
    /// What the command line has besides.
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Cloud {
    /// A server that answers.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// A server with these arguments that answers.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let mut cloud = Self::prepare(arguments);
        cloud.spawn();
        cloud.await_ready();
        cloud
    }

    /// One that listens on all addresses of the machine, and does not run yet.
    pub(crate) fn prepare_everywhere(arguments: &[&str]) -> Self {
        let mut cloud = Self::prepare(arguments);
        cloud.listen = "0.0.0.0";
        cloud
    }

    /// A server with these arguments that does not run yet.
    pub(crate) fn prepare(arguments: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("toono-cloud-").tempdir().unwrap();
        let arguments = arguments.iter().map(|&it| it.to_owned()).collect();
        Self { dir, port: free_port(), listen: "127.0.0.1", arguments, child: None }
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(TOONO);
        command
            .args(["server", "--listen", &format!("{}:{}", self.listen, self.port), "--data"])
            .arg(self.dir.path())
            .args(&self.arguments)
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        self.child = Some(self.command().stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    pub(crate) fn await_ready(&self) {
        until("the server to be ready", Duration::from_secs(20), || {
            let output = self.kubectl_command(&["get", "--raw", "/readyz"]).output().unwrap();
            output.status.success().then_some(())
        });
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL).unwrap();
            child.wait().unwrap();
        }
    }

    /// Has the server end as an operator would.
    pub(crate) fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(arguments)
            .env("KUBECONFIG", self.dir.path().join("admin.kubeconfig"))
            .env("HOME", self.dir.path())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.kubectl_command(arguments).output().expect("kubectl must be installed");
        success(&format!("kubectl {}", arguments.join(" ")), output)
    }

    pub(crate) fn create_configmap(&self, name: &str) {
        let output = configmap::create(self.kubectl_command(&configmap::ARGUMENTS), name);
        success(&format!("the creation of {name}"), output);
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap().trim().to_owned()
    }

    /// `toono node …` against this server with these credentials; it is expected to end.
    pub(crate) fn node(&self, data: &Path, token: &str, pin: &str) -> Output {
        self.node_command(data, token, pin).output().unwrap()
    }

    pub(crate) fn node_command(&self, data: &Path, token: &str, pin: &str) -> Command {
        let mut command = Command::new(TOONO);
        let server = format!("https://127.0.0.1:{}", self.port);
        command
            .args(["node", "--name", "stray", "--server", &server, "--token", token])
            .args(["--ca-cert-hash", pin, "--cgroup-root", "/toono-stray", "--data"])
            .arg(data)
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- server.log\n{}", self.log());
        }
        self.kill();
    }
}

/// Asserts that a command failed with one `error[code]: …` line and one `hint: …` line.
pub(crate) fn assert_refused(output: &Output, code: &str, says: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it succeeded:\n{text}");
    let errors: Vec<_> = text.lines().filter(|line| line.starts_with("error[")).collect();
    let [error] = errors[..] else { panic!("not one error line:\n{text}") };
    assert!(error.starts_with(&format!("error[{code}]: ")), "not {code}: {error}");
    assert!(error.contains(says), "`{says}` is not in: {error}");
    assert_eq!(text.lines().filter(|line| line.starts_with("hint: ")).count(), 1, "{text}");
}
