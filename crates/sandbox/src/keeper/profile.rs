//! Which system calls a container may make: the default profile, and those from files.
//!
//! The default is in the sense of containerd's: every call is allowed but those that reach beyond a
//! container, and of these the ones that its capabilities are for.

use std::{fs, path::Path};

use libcontainer::oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

use super::{filter, syscalls};
use crate::spec::{Seccomp, Security};

/// A profile has a few KiB.
const MAX_PROFILE_BYTES: u64 = 1 << 20;

/// Calls that need any of these capabilities; those with none are for nobody.
const GUARDED: [(&str, &[&str]); 17] = [
    ("acct", &["SYS_PACCT"]),
    ("bpf", &["SYS_ADMIN", "BPF"]),
    ("perf_event_open", &["SYS_ADMIN", "PERFMON"]),
    ("chroot", &["SYS_CHROOT"]),
    ("clock_settime settimeofday", &["SYS_TIME"]),
    ("delete_module finit_module init_module", &["SYS_MODULE"]),
    ("kcmp pidfd_getfd process_madvise", &["SYS_PTRACE"]),
    (
        "get_mempolicy mbind migrate_pages move_pages set_mempolicy set_mempolicy_home_node",
        &["SYS_NICE"],
    ),
    ("ioperm iopl", &["SYS_RAWIO"]),
    ("reboot", &["SYS_BOOT"]),
    ("open_by_handle_at", &["DAC_READ_SEARCH"]),
    ("syslog", &["SYS_ADMIN", "SYSLOG"]),
    ("vhangup", &["SYS_TTY_CONFIG"]),
    (
        "fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr \
         move_mount open_tree pivot_root quotactl quotactl_fd setdomainname sethostname setns \
         umount2 unshare",
        &["SYS_ADMIN"],
    ),
    // Keys are not in a namespace.
    ("add_key keyctl request_key", &[]),
    ("io_uring_enter io_uring_register io_uring_setup userfaultfd", &[]),
    (
        "_sysctl afs_syscall create_module epoll_ctl_old epoll_wait_old get_kernel_syms getpmsg \
         kexec_file_load kexec_load nfsservctl putpmsg query_module security swapoff swapon sysfs \
         tuxcall uselib ustat vserver",
        &[],
    ),
];

/// `CLONE_NEW…`: what makes a namespace.
const NAMESPACES: u64 = 0x7e02_0000;
/// What `personality` may be set to: Linux, 32 bits, old `uname`, both, and the question.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// A way out to the hypervisor.
const AF_VSOCK: u64 = 40;

/// The profile of a container with these capabilities (`CAP_…`), as the runtime's configuration has
/// it; none where nothing is forbidden.
///
/// # Errors
/// One line that names the profile that cannot be used.
pub(super) fn of(security: &Security, capabilities: &[String]) -> Result<Option<Value>, String> {
    let profile = match &security.seccomp {
        _ if security.privileged => return Ok(None),
        Seccomp::Unconfined => return Ok(None),
        Seccomp::Default => default(capabilities),
        Seccomp::File(path) => read(path)
            .map_err(|why| format!("cannot load seccomp profile {:?}: {why}", path.display()))?,
    };
    Ok(Some(profile))
}

fn read(path: &Path) -> Result<Value, String> {
    let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > MAX_PROFILE_BYTES {
        return Err(format!("it has {length} bytes, more than {MAX_PROFILE_BYTES}"));
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let profile: LinuxSeccomp =
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    // Found here, it is said in words.
    filter::compile(&profile)?;
    serde_json::to_value(&profile).map_err(|error| error.to_string())
}

fn default(capabilities: &[String]) -> Value {
    let has = |wanted: &str| {
        capabilities.iter().any(|it| it.strip_prefix("CAP_").unwrap_or(it) == wanted)
    };
    let forbidden: Vec<&str> = GUARDED
        .iter()
        .filter(|(_, lifted_by)| !lifted_by.iter().any(|it| has(it)))
        .flat_map(|(names, _)| names.split_ascii_whitespace())
        .collect();
    let may_nest = has("SYS_ADMIN");
    let conditional = |name: &str| {
        matches!(name, "personality" | "socket")
            || (!may_nest && matches!(name, "clone" | "clone3"))
    };
    let free = |name: &&str| !forbidden.contains(name) && !conditional(name);
    let allowed: Vec<&str> = syscalls::all().map(|(name, _)| name).filter(free).collect();
    let equal = |value: &u64| json!({ "index": 0, "value": value, "op": "SCMP_CMP_EQ" });
    let personalities: Vec<Value> = PERSONALITIES.iter().map(equal).collect();
    let no_vsock = json!([{ "index": 0, "value": AF_VSOCK, "op": "SCMP_CMP_NE" }]);
    let mut rules = vec![
        json!({ "names": allowed, "action": "SCMP_ACT_ALLOW" }),
        json!({ "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": personalities }),
        json!({ "names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": no_vsock }),
    ];
    if !may_nest {
        let plain = json!([{ "index": 0, "value": NAMESPACES, "valueTwo": 0,
            "op": "SCMP_CMP_MASKED_EQ" }]);
        rules.push(json!({ "names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": plain }));
        // Its flags are behind a pointer, where no program of the kernel's looks: programs fall back.
        rules.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO",
            "errnoRet": libc::ENOSYS }));
    }
    json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": libc::EPERM, "syscalls": rules })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(capabilities: &[&str]) -> String {
        let list: Vec<String> = capabilities.iter().map(|&it| it.to_owned()).collect();
        let profile: LinuxSeccomp = serde_json::from_value(default(&list)).unwrap();
        filter::compile(&profile).unwrap();
        default(&list).to_string()
    }

    #[test]
    fn capabilities_lift_what_they_are_for() {
        let plain = rules(&["CAP_CHOWN"]);
        assert!(plain.contains("\"read\"") && plain.contains("\"execve\""));
        for guarded in ["\"mount\"", "\"unshare\"", "\"bpf\"", "\"keyctl\"", "\"io_uring_setup\""] {
            assert!(!plain.contains(guarded), "{guarded}");
        }
        let admin = rules(&["CAP_SYS_ADMIN"]);
        assert!(admin.contains("\"mount\"") && admin.contains("\"bpf\""));
        assert!(!admin.contains("\"keyctl\"") && !admin.contains("\"reboot\""));
    }

    #[test]
    fn a_guarded_name_is_a_call() {
        let known = |name: &&str| syscalls::number(name).is_some();
        if cfg!(target_arch = "x86_64") {
            let names = GUARDED.iter().flat_map(|(names, _)| names.split_ascii_whitespace());
            let unknown: Vec<&str> = names.filter(|name| !known(name)).collect();
            assert_eq!(unknown, Vec::<&str>::new());
        }
    }

    #[test]
    fn files_are_read_and_what_is_wrong_with_them_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.json");
        let of = |text: Option<&str>| {
            text.iter().for_each(|text| fs::write(&path, text).unwrap());
            let seccomp = Seccomp::File(path.clone());
            super::of(&Security { seccomp, ..Security::default() }, &[])
        };
        assert!(of(None).unwrap_err().contains("No such file"));
        assert!(of(Some("{")).unwrap_err().contains("p.json"));
        assert!(of(Some(r#"{"defaultAction": "SCMP_ACT_LOG"}"#)).unwrap().is_some());
        let security =
            Security { privileged: true, seccomp: Seccomp::Default, ..Default::default() };
        assert_eq!(super::of(&security, &[]), Ok(None));
    }
}
