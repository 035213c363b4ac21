//! What a container's processes may do: system calls, capabilities, groups, devices, kernel settings, mounts.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use toono_sandbox::{
    ContainerId, ExecSpec, Keeper, KeeperError, Mount, Processes, SandboxSpec, Seccomp,
};

use crate::pod::Pod;

/// A mount of a test, gone when it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// Memory.
    fn memory(path: &Path) -> Self {
        mount(Some("toono-test"), path, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        Self(path.to_owned())
    }

    /// The directory itself, as a mount that others see the mounts of.
    fn shared(path: &Path) -> Self {
        mount(Some(path), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        mount(None::<&str>, path, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
        Self(path.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Says which mode of seccomp is on, and which capabilities there are.
const LOOK: &str =
    "grep -E '^(Seccomp|CapEff|CapPrm|CapBnd):' /proc/self/status | tr '\\t\\n' '= '";

#[tokio::test]
async fn the_default_profile_holds_and_leaves_no_more_privileges_than_there_should_be() {
    let pod = Pod::start().await;
    let script = format!("{LOOK}; echo; busybox unshare -U true 2>&1 | grep -o 'not permitted'");
    for (name, user, only) in [("root", "", false), ("app", "app", false), ("never", "", true)] {
        let mut spec = pod.container(name, &script);
        spec.user = user.to_owned();
        spec.security.seccomp = Seccomp::Default;
        spec.security.no_new_privileges = only;
        spec.security.drop_capabilities = vec!["ALL".to_owned()];
        spec.security.add_capabilities = vec!["CHOWN".to_owned()];
        let (_, log) = pod.run(&spec).await;
        let held = if user.is_empty() { "0000000000000001" } else { "0000000000000000" };
        let expected = format!(
            "CapPrm:={held} CapEff:={held} CapBnd:=0000000000000001 Seccomp:=2 \nnot permitted\n"
        );
        assert_eq!(log, expected, "{name}");
    }
    let mut free = pod.container("free", LOOK);
    free.security.privileged = true;
    free.security.seccomp = Seccomp::Default;
    let (_, log) = pod.run(&free).await;
    assert!(log.contains("Seccomp:=0"), "a privileged container has no profile: {log}");
}

#[tokio::test]
async fn commands_run_under_the_profile_of_their_container() {
    let pod = Pod::start().await;
    let mut spec = pod.container("main", "exec sleep 100");
    spec.security.seccomp = Seccomp::Default;
    pod.keeper.create_and_start(&spec).await.unwrap();
    let script = "grep -q 'Seccomp:.2' /proc/self/status && grep -q 'CapEff:.00000000a80425fb' /proc/self/status";
    let command = ExecSpec {
        container: ContainerId::new("main", 0),
        args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        tty: false,
        stdin: false,
        ends_with_client: false,
    };
    let ended = pod.keeper.exec(&command).await.unwrap().exit.wait().await.unwrap();
    assert_eq!(ended.code, 0);
}

#[tokio::test]
async fn a_profile_from_a_file_holds_and_a_bad_one_is_named() {
    let pod = Pod::start().await;
    let path = pod.dir.path().join("no-mkdir.json");
    let mut spec = pod.container("main", "busybox mkdir /tmp/x 2>&1 || busybox chmod 700 /tmp");
    spec.security.seccomp = Seccomp::File(path.clone());
    let error = pod.keeper.create_and_start(&spec).await.unwrap_err();
    assert!(matches!(error, KeeperError::Refused { .. }));
    let text = error.to_string();
    assert!(
        text.starts_with("cannot load seccomp profile") && text.contains("no-mkdir.json"),
        "{text}"
    );
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}"#;
    fs::write(&path, profile).unwrap();
    let (status, log) = pod.run(&spec).await;
    assert_eq!(status.code, 0);
    assert!(log.contains("Permission denied"), "{log}");
}

#[tokio::test]
async fn only_the_named_groups_count_where_the_pod_says_so() {
    let pod = Pod::start().await;
    for (name, only, expected) in [("merged", false, "1001 7 33\n"), ("strict", true, "1001 7\n")] {
        let mut spec = pod.container(name, "id -G");
        spec.user = "app".to_owned();
        spec.supplementary_groups = vec![7];
        spec.only_these_groups = only;
        assert_eq!(pod.run(&spec).await.1, expected, "{name}");
    }
}

#[tokio::test]
async fn a_privileged_container_has_the_hosts_devices() {
    let pod = Pod::start().await;
    let look = "ls /dev/null /dev/kmsg 2>/dev/null | wc -l";
    let plain = pod.container("plain", look);
    let mut privileged = pod.container("privileged", look);
    privileged.security.privileged = true;
    assert_eq!(pod.run(&plain).await.1, "1\n");
    assert_eq!(pod.run(&privileged).await.1, "2\n");
}

#[tokio::test]
async fn kernel_settings_are_the_pods_own() {
    let settings = [("net.ipv4.ip_local_port_range", "2000 3000"), ("kernel.shm_rmid_forced", "1")];
    let own = || fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let before = own();
    let sysctls = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let pod = Pod::start_with(|spec| spec.sysctls = sysctls).await;
    let script = "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced";
    let (_, log) = pod.run(&pod.container("main", script)).await;
    assert_eq!(log, "2000\t3000\n1\n");
    assert_eq!(own(), before);
}

#[tokio::test]
async fn a_kernel_setting_that_cannot_be_is_told_and_nothing_is_left() {
    let pod = Pod::start().await;
    for name in ["net.no.such", "net...ipv4", "../etc"] {
        let spec = SandboxSpec {
            dir: pod.dir.path().join("other"),
            pod_uid: "other".to_owned(),
            sysctls: vec![(name.to_owned(), "1".to_owned())],
            ..pod.spec.clone()
        };
        let error = Keeper::spawn(&spec).await.unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}

#[tokio::test]
async fn later_mounts_of_the_host_are_seen_where_that_is_asked_for() {
    let pod = Pod::start().await;
    let root = pod.dir.path().join("shared");
    fs::create_dir_all(root.join("sub")).unwrap();
    let _outer = Mounted::shared(&root);
    // The keeper copied the mounts of its start, so it must be a later one.
    let later = Pod::start().await;
    let specs = [("follows", true), ("own", false)].map(|(name, follows_host)| {
        let mut spec = later.container(
            name,
            "touch /tmp/up; until [ -e /go/x ]; do sleep 0.05; done; ls /host/sub",
        );
        spec.mounts = vec![
            Mount::Bind {
                source: root.clone(),
                target: "/host".into(),
                read_only: false,
                all_read_only: false,
                follows_host,
            },
            Mount::bind(pod.dir.path().join("go"), "/go".into()),
        ];
        spec
    });
    fs::create_dir(pod.dir.path().join("go")).unwrap();
    for spec in &specs {
        later.keeper.create_and_start(spec).await.unwrap();
    }
    let _inner = Mounted::memory(&root.join("sub"));
    fs::write(root.join("sub/seen"), "").unwrap();
    fs::write(pod.dir.path().join("go/x"), "").unwrap();
    for (spec, expected) in specs.iter().zip(["seen\n", ""]) {
        later.wait_exit(&spec.id()).await;
        assert_eq!(later.log_text(&spec.name), expected, "{}", spec.name);
    }
}

#[tokio::test]
async fn what_is_mounted_below_is_read_only_where_that_is_asked_for() {
    let pod = Pod::start().await;
    let root = pod.dir.path().join("tree");
    fs::create_dir_all(root.join("sub")).unwrap();
    let _inner = Mounted::memory(&root.join("sub"));
    let later = Pod::start().await;
    for (name, all_read_only, expected) in [("top", false, "0\n"), ("all", true, "1\n")] {
        let mut spec = later.container(name, "touch /t/sub/x 2>/dev/null; echo $?");
        spec.mounts = vec![Mount::Bind {
            source: root.clone(),
            target: "/t".into(),
            read_only: true,
            all_read_only,
            follows_host: false,
        }];
        assert_eq!(later.run(&spec).await.1, expected, "{name}");
    }
}

#[tokio::test]
async fn a_container_of_a_shared_namespace_starts_whatever_its_number_in_there() {
    let pod = Pod::start_with(|spec| spec.processes = Processes::Pod).await;
    // Numbers that are counted past those that the host's processes have.
    let busy =
        pod.container("busy", "i=0; while [ $i -lt 700 ]; do i=$((i+1)); busybox true; done");
    assert_eq!(pod.run(&busy).await.0.code, 0);
    for attempt in 0..20 {
        let mut spec = pod.container("main", "ls -d /sys/fs/cgroup/memory* /sys/fs/cgroup/*.procs");
        spec.attempt = attempt;
        pod.keeper.create_and_start(&spec).await.unwrap();
        pod.wait_exit(&spec.id()).await;
    }
}
