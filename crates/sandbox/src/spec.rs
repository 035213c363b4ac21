//! What a sandbox, a container and a command in it are made of, and what is known of them later.
//!
//! Plain data that crosses the socket between the agent and a keeper. It knows no pod, no volume
//! and no secret: whoever fills it in has turned those into paths, strings and numbers.

use std::{fmt, path::PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A pod's sandbox: the namespaces and the directory that its containers share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxSpec {
    /// The pod's own directory. The keeper puts its socket, its log and its containers' writable
    /// layers there. Absolute; created where it is missing.
    pub dir: PathBuf,
    /// The pod's UID; names its cgroup.
    pub pod_uid: String,
    /// The host name inside of the pod.
    pub hostname: String,
    /// The cgroup below which the pod's own is made, such as `/toono`.
    pub cgroup_parent: String,
    /// Stay in the host's network and UTS namespaces.
    pub host_network: bool,
    /// Stay in the host's IPC namespace, with the host's `/dev/shm`.
    pub host_ipc: bool,
    /// Whose processes a container sees.
    pub processes: Processes,
    /// Kernel settings of the pod's own namespaces, by names such as `net.ipv4.tcp_syncookies`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sysctls: Vec<(String, String)>,
    /// What a list of processes shows of the keeper, such as `NAMESPACE/POD`. For people only.
    pub title: String,
    /// The program that is started as the keeper, and the arguments that make it one.
    pub program: KeeperProgram,
}

/// Whose processes a container of a sandbox sees and may signal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Processes {
    /// Its own.
    #[default]
    Own,
    /// Those of all containers of its pod.
    Pod,
    /// The host's.
    Host,
}

impl SandboxSpec {
    /// What there is to know of a sandbox that is only to be cleared away.
    #[must_use]
    pub fn leftover(dir: PathBuf, pod_uid: &str, cgroup_parent: &str) -> Self {
        Self {
            dir,
            pod_uid: pod_uid.to_owned(),
            hostname: String::new(),
            cgroup_parent: cgroup_parent.to_owned(),
            host_network: false,
            host_ipc: false,
            processes: Processes::Own,
            sysctls: Vec::new(),
            title: String::new(),
            program: KeeperProgram::this(),
        }
    }
}

/// How to start the program whose `main` calls [`crate::keeper_main`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeeperProgram {
    /// The executable.
    pub path: PathBuf,
    /// What makes it a keeper; the title follows.
    pub args: Vec<String>,
}

impl KeeperProgram {
    /// This very program, with its hidden command `keeper`.
    #[must_use]
    pub fn this() -> Self {
        Self { path: PathBuf::from("/proc/self/exe"), args: vec!["keeper".to_owned()] }
    }
}

/// A container's name within its sandbox: `<name>-<attempt>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainerId(String);

impl ContainerId {
    /// The id of one attempt to run the container `name`.
    #[must_use]
    pub fn new(name: &str, attempt: u32) -> Self {
        Self(format!("{name}-{attempt}"))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A container to create and start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerSpec {
    /// The container's name in its pod, a DNS label.
    pub name: String,
    /// How often it was started before.
    pub attempt: u32,
    /// Unpacked image layers, the bottom one first.
    pub layers: Vec<PathBuf>,
    /// The command and its arguments; never empty.
    pub args: Vec<String>,
    /// Names and values. `PATH` and `HOSTNAME` are added where they are missing.
    pub env: Vec<(String, String)>,
    /// The directory to start in; `/` when empty. Created where it is missing.
    pub cwd: String,
    /// `user`, `uid`, `user:group` or `uid:gid` as in an image's configuration; root when empty.
    pub user: String,
    /// More groups of the process, besides those that the image's `/etc/group` says.
    pub supplementary_groups: Vec<u32>,
    /// The image's `/etc/group` says nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_these_groups: bool,
    /// Bind mounts and memory file systems, in order.
    pub mounts: Vec<Mount>,
    /// Limits.
    pub resources: Resources,
    /// Permissions.
    pub security: Security,
    /// Give it a terminal as its standard streams.
    pub tty: bool,
    /// Keep its standard input open; otherwise it reads `/dev/null`.
    pub stdin: bool,
    /// Its standard input ends when the first client that was attached to it leaves. Keepers that
    /// are older than this get no word that they do not know, unless it is needed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdin_once: bool,
    /// The container of the same pod whose processes this one is to see, where each sees its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<ContainerId>,
    /// The log file, in the format of the container runtime interface. Its folder is created.
    pub log_path: PathBuf,
}

impl ContainerSpec {
    /// A container with this image and command, and the defaults for all else.
    #[must_use]
    pub fn new(name: &str, layers: Vec<PathBuf>, args: Vec<String>, log_path: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            attempt: 0,
            layers,
            args,
            env: Vec::new(),
            cwd: String::new(),
            user: String::new(),
            supplementary_groups: Vec::new(),
            only_these_groups: false,
            mounts: Vec::new(),
            resources: Resources::default(),
            security: Security::default(),
            tty: false,
            stdin: false,
            stdin_once: false,
            beside: None,
            log_path,
        }
    }

    /// What later calls name it by.
    #[must_use]
    pub fn id(&self) -> ContainerId {
        ContainerId::new(&self.name, self.attempt)
    }
}

/// Something mounted into a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Mount {
    /// A file or directory of the host.
    Bind {
        /// On the host; must exist.
        source: PathBuf,
        /// In the container; created where it is missing.
        target: PathBuf,
        /// Refuse writes.
        read_only: bool,
        /// Refuse writes below what is mounted in it, too.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        all_read_only: bool,
        /// What the host mounts below it later is seen.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        follows_host: bool,
    },
    /// A file system in memory, counted as the container's memory.
    Memory {
        /// In the container.
        target: PathBuf,
        /// Its size limit; half of the machine's memory without one.
        size_bytes: Option<u64>,
    },
}

impl Mount {
    /// A bind mount that is writable and its own.
    #[must_use]
    pub fn bind(source: PathBuf, target: PathBuf) -> Self {
        let (read_only, all_read_only, follows_host) = (false, false, false);
        Self::Bind { source, target, read_only, all_read_only, follows_host }
    }
}

/// Limits, as the kernel takes them. `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// Weight against others, 1024 for one core asked for.
    pub cpu_shares: Option<u64>,
    /// Processor time within each period of 100 ms.
    pub cpu_quota_us: Option<i64>,
    /// Bytes of memory.
    pub memory_bytes: Option<i64>,
    /// How many processes and threads.
    pub pids: Option<i64>,
    /// Between -1000 (never) and 1000 (first) when memory runs out.
    pub oom_score_adj: Option<i32>,
}

/// What a container's processes may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Security {
    /// Every capability, every device, nothing masked.
    pub privileged: bool,
    /// Added to the default capabilities: `NET_ADMIN`, or `ALL`.
    pub add_capabilities: Vec<String>,
    /// Taken from the default capabilities: `NET_RAW`, or `ALL`.
    pub drop_capabilities: Vec<String>,
    /// A set-user-ID program gains nothing.
    pub no_new_privileges: bool,
    /// The root file system refuses writes.
    pub read_only_root: bool,
    /// Nothing of `/proc` is hidden or read-only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unmasked_proc: bool,
    /// Which system calls may be made; all of them when privileged.
    #[serde(skip_serializing_if = "Seccomp::is_unconfined")]
    pub seccomp: Seccomp,
}

/// Which system calls a container may make.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Seccomp {
    /// All.
    #[default]
    Unconfined,
    /// All but those that reach beyond a container.
    Default,
    /// What the profile in this file says, in the form of the OCI runtime specification.
    File(PathBuf),
}

impl Seccomp {
    fn is_unconfined(&self) -> bool {
        *self == Self::Unconfined
    }
}

/// A command to run in a running container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecSpec {
    /// Where.
    pub container: ContainerId,
    /// The command and its arguments; never empty.
    pub args: Vec<String>,
    /// Give it a terminal as its standard streams.
    pub tty: bool,
    /// Give it a standard input; otherwise it reads `/dev/null`.
    pub stdin: bool,
    /// Kill it when the client leaves before its end. Keepers that are older than this run it all
    /// the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends_with_client: bool,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// The exit code; 128 + the signal's number for a process that a signal killed.
    pub code: i32,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// It was killed because its container's memory ran out.
    pub oom_killed: bool,
}

/// Whether a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ContainerStatus {
    /// Its first process lives.
    Running {
        /// That process, as the host numbers it.
        pid: i32,
    },
    /// Its first process has ended, and with it all others.
    Exited {
        /// How.
        status: ExitStatus,
        /// When.
        finished_at: Timestamp,
    },
}

/// What a keeper knows of one of its containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// Which.
    pub id: ContainerId,
    /// Its name in the pod.
    pub name: String,
    /// Which attempt.
    pub attempt: u32,
    /// When its first process was started.
    pub started_at: Timestamp,
    /// Whether it runs.
    pub status: ContainerStatus,
}

/// All containers of a sandbox at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Grows with each change; what [`crate::Keeper::wait_change`] takes.
    pub version: u64,
    /// In the order of their creation.
    pub containers: Vec<ContainerState>,
}
