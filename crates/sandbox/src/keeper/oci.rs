//! A container's OCI runtime configuration: what libcontainer is told.
//!
//! Capabilities, masked paths, mounts and devices are those that containerd gives a container by
//! default, so that images behave here as they do there.

use std::path::{Path, PathBuf};

use caps::{CapSet, Capability};
use serde_json::{Value, json};

use super::{devices, users::User};
use crate::{
    cgroups,
    spec::{ContainerSpec, Mount, Security},
};

const OCI_VERSION: &str = "1.0.2";
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The annotation that names, between commas, the capabilities that are taken back.
pub(super) const LENT: &str = "io.toono.lent-capabilities";
/// What it takes to install a seccomp profile, and to give up capabilities.
const LENDABLE: [&str; 2] = ["CAP_SYS_ADMIN", "CAP_SETPCAP"];
/// The trees of version 1 in which libcontainer makes a group for each container.
const GROUPED_CONTROLLERS: [&str; 8] =
    ["blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids"];
/// The period that a processor quota is counted over; the kernel's and Kubernetes' default.
const CPU_PERIOD_US: u64 = 100_000;

const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// capabilities(7), in the order of their numbers.
const ALL_CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

const MASKED_PATHS: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What the configuration needs besides the container's own specification.
pub(super) struct Surroundings<'a> {
    pub(super) user: &'a User,
    /// What its first process may have: `CAP_…`.
    pub(super) capabilities: Vec<String>,
    /// Which system calls it may make.
    pub(super) seccomp: Option<Value>,
    pub(super) hostname: &'a str,
    pub(super) shared_memory: &'a Path,
    pub(super) processes: &'a ProcessNamespace,
    pub(super) cgroup: PathBuf,
    /// The tree is version 2 alone.
    pub(super) unified_cgroups: bool,
}

/// Where a container's processes are counted.
pub(super) enum ProcessNamespace {
    /// In a namespace of its own.
    New,
    /// In the one that this file stands for.
    Of(PathBuf),
    /// Where the keeper is, which is the host's.
    Host,
}

/// The content of the bundle's `config.json`.
pub(super) fn configuration(spec: &ContainerSpec, around: &Surroundings<'_>) -> Value {
    let is_open = spec.security.privileged || spec.security.unmasked_proc;
    let masked = if is_open { &[][..] } else { &MASKED_PATHS[..] };
    let read_only = if is_open { &[][..] } else { &READ_ONLY_PATHS[..] };
    let devices = if spec.security.privileged { devices::of_host() } else { Vec::new() };
    json!({
        "ociVersion": OCI_VERSION,
        "root": { "path": "rootfs", "readonly": spec.security.read_only_root },
        "process": process(spec, around),
        "mounts": mounts(spec, around),
        "annotations": { LENT: lent(spec, around).join(",") },
        "linux": {
            "rootfsPropagation": propagation(spec),
            "namespaces": namespaces(around.processes),
            "cgroupsPath": Path::new("/").join(&around.cgroup),
            "resources": resources(spec, around),
            "devices": devices,
            "seccomp": around.seccomp,
            "maskedPaths": masked,
            "readonlyPaths": read_only,
        },
    })
}

/// libcontainer does not say of each mount whether it follows the host, so the first that should decides
/// for all of its container.
fn propagation(spec: &ContainerSpec) -> &'static str {
    let follows = |mount: &Mount| matches!(mount, Mount::Bind { follows_host: true, .. });
    if spec.mounts.iter().any(follows) { "slave" } else { "private" }
}

/// Network, IPC and UTS are the keeper's own and are inherited.
fn namespaces(processes: &ProcessNamespace) -> Vec<Value> {
    let processes = match processes {
        ProcessNamespace::New => Some(json!({ "type": "pid" })),
        ProcessNamespace::Of(path) => Some(json!({ "type": "pid", "path": path })),
        ProcessNamespace::Host => None,
    };
    let own = [json!({ "type": "mount" }), json!({ "type": "cgroup" })];
    processes.into_iter().chain(own).collect()
}

/// The container's first process. Commands run in it later are variations of it.
fn process(spec: &ContainerSpec, around: &Surroundings<'_>) -> Value {
    let mut capabilities = around.capabilities.clone();
    capabilities.extend(lent(spec, around));
    let cwd = if spec.cwd.is_empty() { "/" } else { &spec.cwd };
    json!({
        "terminal": spec.tty,
        "user": {
            "uid": around.user.uid,
            "gid": around.user.gid,
            "additionalGids": around.user.groups,
        },
        "args": spec.args,
        "env": environment(spec, around.hostname),
        "cwd": cwd,
        "capabilities": {
            "bounding": capabilities,
            "effective": capabilities,
            "permitted": capabilities,
            "inheritable": [],
            "ambient": [],
        },
        "noNewPrivileges": spec.security.no_new_privileges,
    })
}

/// What a process has until its seccomp profile holds, which takes privileges unless it can never gain
/// any. The last step before the program takes it back.
fn lent(spec: &ContainerSpec, around: &Surroundings<'_>) -> Vec<String> {
    if around.seccomp.is_none() || spec.security.no_new_privileges {
        return Vec::new();
    }
    let missing = |name: &&str| !around.capabilities.iter().any(|has| has == name);
    LENDABLE.iter().copied().filter(missing).map(ToOwned::to_owned).collect()
}

fn environment(spec: &ContainerSpec, hostname: &str) -> Vec<String> {
    let mut defaults = vec![("PATH", DEFAULT_PATH), ("HOSTNAME", hostname)];
    if spec.tty {
        defaults.push(("TERM", "xterm"));
    }
    let missing = |name: &str| !spec.env.iter().any(|(present, _)| present == name);
    defaults
        .into_iter()
        .filter(|(name, _)| missing(name))
        .map(|(name, value)| format!("{name}={value}"))
        .chain(spec.env.iter().map(|(name, value)| format!("{name}={value}")))
        .collect()
}

/// What a container's processes may have, as `CAP_…`.
pub(super) fn capabilities(security: &Security) -> Vec<String> {
    let has = |list: &[String], name: &str| {
        list.iter().any(|item| {
            let item = item.strip_prefix("CAP_").unwrap_or(item);
            item == name || item == "ALL"
        })
    };
    let named = |list: &[String], name: &str| {
        list.iter().any(|item| item.strip_prefix("CAP_").unwrap_or(item) == name)
    };
    let granted = |name: &&&str| {
        if security.privileged || named(&security.add_capabilities, name) {
            return true;
        }
        if has(&security.drop_capabilities, name) {
            return false;
        }
        has(&security.add_capabilities, name) || DEFAULT_CAPABILITIES.contains(name)
    };
    // What the keeper does not have it cannot give: an older kernel's, or what its own machine withholds.
    let own = caps::read(None, CapSet::Permitted).unwrap_or_default();
    ALL_CAPABILITIES
        .iter()
        .filter(granted)
        .map(|name| format!("CAP_{name}"))
        .filter(|name| name.parse().is_ok_and(|it: Capability| own.contains(&it)))
        .collect()
}

fn mounts(spec: &ContainerSpec, around: &Surroundings<'_>) -> Vec<Value> {
    let access = if spec.security.privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc",
            "options": ["nosuid", "noexec", "nodev"] }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] }),
        json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] }),
        json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"] }),
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", access] }),
        json!({ "destination": "/dev/shm", "type": "bind", "source": around.shared_memory,
            "options": ["rbind", "rw", "nosuid", "nodev", "noexec"] }),
    ];
    mounts.extend(cgroup_mounts(around, access));
    mounts.extend(spec.mounts.iter().map(|mount| match mount {
        Mount::Bind { source, target, read_only, all_read_only, .. } => {
            let writes = match (read_only, all_read_only) {
                (_, true) => "rro",
                (true, false) => "ro",
                (false, false) => "rw",
            };
            json!({ "destination": target, "type": "bind", "source": source,
                "options": ["rbind", writes] })
        }
        Mount::Memory { target, size_bytes } => {
            let mut options = vec!["nosuid".to_owned(), "nodev".to_owned(), "mode=1777".to_owned()];
            options.extend(size_bytes.map(|bytes| format!("size={bytes}")));
            json!({ "destination": target, "type": "tmpfs", "source": "tmpfs", "options": options })
        }
    }));
    mounts
}

/// The container's own group, as it may see it.
fn cgroup_mounts(around: &Surroundings<'_>, access: &str) -> Vec<Value> {
    const ROOT: &str = "/sys/fs/cgroup";
    if let (ProcessNamespace::Of(_), false) = (around.processes, around.unified_cgroups) {
        // Where a namespace of processes is joined, libcontainer takes a number that is counted in
        // there for one of the host's, and may find no such process. So its own mounting of version 1
        // is not used.
        let trees = cgroups::trees().unwrap_or_default();
        let name = |tree: &PathBuf| Some(tree.file_name()?.to_str()?.to_owned());
        let ours = trees.iter().filter_map(|tree| Some((tree, name(tree)?)));
        let ours = ours.filter(|(_, name)| {
            name.split(',').all(|controller| GROUPED_CONTROLLERS.contains(&controller))
        });
        let binds = ours.map(|(tree, name)| {
            json!({ "destination": Path::new(ROOT).join(name), "type": "bind",
                "source": tree.join(&around.cgroup),
                "options": ["bind", "nosuid", "noexec", "nodev", access] })
        });
        let root = json!({ "destination": ROOT, "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "noexec", "nodev", "mode=755"] });
        return std::iter::once(root).chain(binds).collect();
    }
    vec![json!({ "destination": ROOT, "type": "cgroup", "source": "cgroup",
        "options": ["nosuid", "noexec", "nodev", "relatime", access] })]
}

fn resources(spec: &ContainerSpec, around: &Surroundings<'_>) -> Value {
    let limits = &spec.resources;
    // When memory runs out the container ends as a whole, as kubelet asks for by default.
    let unified = around.unified_cgroups.then(|| json!({ "memory.oom.group": "1" }));
    json!({
        "devices": [{ "allow": spec.security.privileged, "access": "rwm" }],
        "cpu": {
            "shares": limits.cpu_shares,
            "quota": limits.cpu_quota_us,
            "period": limits.cpu_quota_us.map(|_| CPU_PERIOD_US),
        },
        "memory": limits.memory_bytes.map(|limit| json!({ "limit": limit })),
        "pids": limits.pids.map(|limit| json!({ "limit": limit })),
        "unified": unified,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_follow_add_and_drop() {
        let of = |add: &[&str], drop: &[&str]| {
            capabilities(&Security {
                add_capabilities: add.iter().map(|&name| name.to_owned()).collect(),
                drop_capabilities: drop.iter().map(|&name| name.to_owned()).collect(),
                ..Security::default()
            })
        };
        assert_eq!(of(&[], &[]).len(), DEFAULT_CAPABILITIES.len());
        assert_eq!(of(&["NET_BIND_SERVICE"], &["ALL"]), ["CAP_NET_BIND_SERVICE"]);
        assert!(of(&["CAP_NET_ADMIN"], &[]).contains(&"CAP_NET_ADMIN".to_owned()));
        assert!(!of(&[], &["CAP_CHOWN"]).contains(&"CAP_CHOWN".to_owned()));
        let all_but_one = of(&["ALL"], &["SYS_BOOT"]);
        assert!(!all_but_one.contains(&"CAP_SYS_BOOT".to_owned()));
        assert!(all_but_one.contains(&"CAP_SYS_ADMIN".to_owned()));
    }
}
