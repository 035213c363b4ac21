//! A container's OCI runtime configuration: what libcontainer is told.
//!
//! Capabilities, masked paths, mounts and devices are those that containerd gives a container by
//! default, so that images behave here as they do there.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::users::User;
use crate::spec::{ContainerSpec, Mount, Security};

const OCI_VERSION: &str = "1.0.2";
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
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
    pub(super) hostname: &'a str,
    pub(super) shared_memory: &'a Path,
    pub(super) cgroup: PathBuf,
    /// The tree is version 2 alone.
    pub(super) unified_cgroups: bool,
}

/// The content of the bundle's `config.json`.
pub(super) fn configuration(spec: &ContainerSpec, around: &Surroundings<'_>) -> Value {
    let masked = if spec.security.privileged { &[][..] } else { &MASKED_PATHS[..] };
    let read_only = if spec.security.privileged { &[][..] } else { &READ_ONLY_PATHS[..] };
    json!({
        "ociVersion": OCI_VERSION,
        "root": { "path": "rootfs", "readonly": spec.security.read_only_root },
        "process": process(spec, around),
        "mounts": mounts(spec, around),
        "linux": {
            // Network, IPC and UTS are the keeper's own and are inherited.
            "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "cgroup" }],
            "cgroupsPath": Path::new("/").join(&around.cgroup),
            "resources": resources(spec, around),
            "maskedPaths": masked,
            "readonlyPaths": read_only,
        },
    })
}

/// The container's first process. Commands run in it later are variations of it.
fn process(spec: &ContainerSpec, around: &Surroundings<'_>) -> Value {
    let capabilities = capabilities(&spec.security);
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

fn capabilities(security: &Security) -> Vec<String> {
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
    // A kernel older than the list does not know its end.
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap")
        .ok()
        .and_then(|text| text.trim().parse::<usize>().ok())
        .unwrap_or(ALL_CAPABILITIES.len());
    ALL_CAPABILITIES
        .iter()
        .take(last + 1)
        .filter(granted)
        .map(|name| format!("CAP_{name}"))
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
        json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", access] }),
        json!({ "destination": "/dev/shm", "type": "bind", "source": around.shared_memory,
            "options": ["rbind", "rw", "nosuid", "nodev", "noexec"] }),
    ];
    mounts.extend(spec.mounts.iter().map(|mount| match mount {
        Mount::Bind { source, target, read_only } => json!({
            "destination": target, "type": "bind", "source": source,
            "options": ["rbind", "rprivate", if *read_only { "ro" } else { "rw" }],
        }),
        Mount::Memory { target, size_bytes } => {
            let mut options = vec!["nosuid".to_owned(), "nodev".to_owned(), "mode=1777".to_owned()];
            options.extend(size_bytes.map(|bytes| format!("size={bytes}")));
            json!({ "destination": target, "type": "tmpfs", "source": "tmpfs", "options": options })
        }
    }));
    mounts
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
