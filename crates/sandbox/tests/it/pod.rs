//! One sandbox of a test: a directory, a cgroup and a keeper, all gone when it is dropped.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tempfile::TempDir;
use toono_sandbox::{
    ContainerId, ContainerSpec, ContainerState, ContainerStatus, ExitStatus, Keeper, KeeperProgram,
    Processes, SandboxSpec,
};

/// Debian's busybox-static: one program without libraries is a whole image.
const BUSYBOX: &str = "/bin/busybox";
/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(15);

static NEXT: AtomicU32 = AtomicU32::new(0);

pub struct Pod {
    pub dir: TempDir,
    pub spec: SandboxSpec,
    pub keeper: Keeper,
}

impl Pod {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut SandboxSpec)) -> Self {
        let (dir, mut spec) = Self::plan();
        change(&mut spec);
        let keeper = Keeper::spawn(&spec).await.unwrap();
        Self { dir, spec, keeper }
    }

    /// A place for a sandbox, and what it is to be.
    fn plan() -> (TempDir, SandboxSpec) {
        assert!(Path::new(BUSYBOX).exists(), "{BUSYBOX} is missing: install busybox-static");
        let dir = tempfile::tempdir().unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let spec = SandboxSpec {
            dir: dir.path().join("pod"),
            pod_uid: format!("uid{number}"),
            hostname: "web-0".to_owned(),
            cgroup_parent: format!("/toono-test-{}-{number}", std::process::id()),
            host_network: false,
            host_ipc: false,
            processes: Processes::Own,
            sysctls: vec![],
            title: "default/web".to_owned(),
            program: KeeperProgram {
                path: PathBuf::from(env!("CARGO_BIN_EXE_toono-test-keeper")),
                args: vec![],
            },
        };
        (dir, spec)
    }

    /// A container of two layers that runs a shell script.
    pub fn container(&self, name: &str, script: &str) -> ContainerSpec {
        let args = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let layers = vec![self.layer("base", busybox), self.layer("top", top)];
        ContainerSpec::new(name, layers, args, self.log_path(name))
    }

    /// Runs a container to its end.
    pub async fn run(&self, spec: &ContainerSpec) -> (ExitStatus, String) {
        self.keeper.create_and_start(spec).await.unwrap();
        let status = self.wait_exit(&spec.id()).await;
        (status, self.log_text(&spec.name))
    }

    pub async fn wait_exit(&self, id: &ContainerId) -> ExitStatus {
        let waiting = async {
            let mut version = 0;
            loop {
                let snapshot = self.keeper.wait_change(version).await.unwrap();
                version = snapshot.version;
                if let Some(ContainerState {
                    status: ContainerStatus::Exited { status, .. }, ..
                }) = snapshot.containers.into_iter().find(|container| container.id == *id)
                {
                    return status;
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the container does not end")
    }

    /// What was logged, without times and tags.
    pub fn log_text(&self, name: &str) -> String {
        self.log_raw(name)
            .lines()
            .map(|line| line.splitn(4, ' ').nth(3).unwrap().to_owned() + "\n")
            .collect()
    }

    pub fn log_raw(&self, name: &str) -> String {
        fs::read_to_string(self.log_path(name)).unwrap()
    }

    pub fn log_path(&self, name: &str) -> PathBuf {
        self.dir.path().join("logs").join(name).join("0.log")
    }

    /// A file of a container's cgroup, in the tree of this controller.
    pub fn cgroup_file(&self, controller: &str, id: &ContainerId, file: &str) -> String {
        let path = toono_sandbox::pod_path(&self.spec.cgroup_parent, &self.spec.pod_uid);
        let tree = Path::new("/sys/fs/cgroup").join(controller);
        let path = tree.join(path).join(id.as_str()).join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// What is left on the machine of this pod: cgroups, mounts, processes.
    pub fn traces(&self) -> Vec<String> {
        let mut traces = vec![];
        for tree in fs::read_dir("/sys/fs/cgroup").unwrap() {
            let path = tree.unwrap().path().join(self.spec.cgroup_parent.trim_matches('/'));
            if path.exists() {
                traces.push(format!("cgroup {}", path.display()));
            }
        }
        let dir = self.dir.path().to_str().unwrap().to_owned();
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let read = |file| fs::read_to_string(process.path().join(file)).unwrap_or_default();
            if read("mounts").contains(&dir) {
                traces.push(format!("mount seen by {} {}", process.path().display(), read("comm")));
            }
            if read("cgroup").contains(&format!("{}/", self.spec.cgroup_parent)) {
                traces.push(format!("process {} {}", process.path().display(), read("cmdline")));
            }
        }
        traces
    }

    fn layer(&self, name: &str, fill: fn(&Path)) -> PathBuf {
        let path = self.dir.path().join(name);
        if !path.exists() {
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            fill(&path);
        }
        path
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // Also after a failed test, and whether or not the keeper still listens.
        let _ = nix::sys::signal::kill(self.keeper.pid(), nix::sys::signal::SIGKILL);
        let spec = self.spec.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(toono_sandbox::reclaim(&spec)).unwrap();
            toono_sandbox::prune_cgroups(&spec.cgroup_parent).unwrap();
        })
        .join()
        .unwrap();
    }
}

fn busybox(root: &Path) {
    for dir in ["bin", "etc", "tmp", "root"] {
        fs::create_dir(root.join(dir)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    for name in [
        "sh", "cat", "id", "sleep", "ls", "tail", "head", "stty", "kill", "hostname", "tr", "ip",
        "tty", "env", "pwd", "dd", "touch", "mount", "grep", "wc", "true", "ps", "readlink",
    ] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/:/bin/sh\n",
    )
    .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\napp:x:1001:\nweb:x:33:app\n").unwrap();
    fs::write(root.join("etc/version"), "base").unwrap();
    fs::write(root.join("etc/not-executable"), "").unwrap();
}

fn top(root: &Path) {
    fs::create_dir(root.join("etc")).unwrap();
    fs::write(root.join("etc/version"), "top").unwrap();
}
