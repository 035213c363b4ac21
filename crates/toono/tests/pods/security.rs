//! Whom containers run as and what they may do.

use serde_json::{Value, json};

use crate::{
    case::{Case, Fact, config_map, lasting, pod},
    stage::Stage,
};

/// The profile that the node has in its folder of profiles.
pub(crate) const NO_MKDIR: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
    {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}"#;

pub(crate) fn cases(stage: &Stage) -> Vec<Case> {
    [users(stage), groups(), privileges(), seccomp(), sysctls(), namespaces()]
        .into_iter()
        .flatten()
        .collect()
}

/// The container's security context.
fn own(context: Value) -> Value {
    json!({ "securityContext": context })
}

/// The pod's.
fn shared(context: Value) -> Value {
    own(context)
}

fn users(stage: &Stage) -> Vec<Case> {
    let non_root =
        "container has runAsNonRoot and image will run as root (pod: \"p_case-non-root-by-default(";
    let named = json!({"image": stage.registry.image("named:1"), "command": null});
    let with_secret = json!({"imagePullSecrets": [{"name": "s"}]});
    let non_root_named =
        json!({"imagePullSecrets": [{"name": "s"}], "securityContext": {"runAsNonRoot": true}});
    vec![
        Case::prints(
            "run-as-user-and-group",
            pod("id -u; id -g", own(json!({"runAsUser": 1234, "runAsGroup": 5678})), json!({})),
            "1234\n5678\n",
        ),
        Case::prints(
            "container-outranks-pod",
            pod("id -u", own(json!({"runAsUser": 7})), shared(json!({"runAsUser": 8}))),
            "7\n",
        ),
        Case::new(
            "user-of-the-image",
            vec![stage.registry.pull_secret("s", "secret"), pod("", named.clone(), with_secret)],
            vec![
                Fact::Phase("Succeeded"),
                Fact::Log(
                    "c",
                    "uid=1000(app) gid=1001(app) groups=33(web),1001(app)\nimage\n/srv\n"
                        .to_owned(),
                ),
            ],
        ),
        Case::prints(
            "non-root-holds",
            pod("id -u", own(json!({"runAsNonRoot": true, "runAsUser": 1})), json!({})),
            "1\n",
        ),
        Case::new(
            "non-root-by-default",
            vec![pod("true", own(json!({"runAsNonRoot": true})), json!({}))],
            vec![
                Fact::Waits("CreateContainerConfigError", non_root),
                Fact::Event("Failed", "image will run as root".to_owned()),
            ],
        ),
        Case::new(
            "non-root-and-root-asked-for",
            vec![pod("true", own(json!({"runAsNonRoot": true, "runAsUser": 0})), json!({}))],
            vec![Fact::Waits(
                "CreateContainerConfigError",
                "container's runAsUser breaks non-root policy",
            )],
        ),
        Case::new(
            "non-root-and-a-name",
            vec![stage.registry.pull_secret("s", "secret"), pod("", named, non_root_named)],
            vec![Fact::Waits(
                "CreateContainerConfigError",
                "image has non-numeric user (app), cannot verify user is non-root",
            )],
        ),
    ]
}

fn groups() -> Vec<Case> {
    let fs_group = |more: Value| {
        let mut spec =
            json!({"securityContext": {"fsGroup": 4242, "runAsUser": 1000, "runAsGroup": 1000}});
        spec["volumes"] = more;
        spec
    };
    let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    vec![
        Case::prints(
            "supplemental-groups",
            pod(
                "id -G",
                json!({}),
                shared(
                    json!({"runAsUser": 1000, "runAsGroup": 1000, "supplementalGroups": [7, 8]}),
                ),
            ),
            "1000 7 8\n",
        ),
        Case::prints(
            "supplemental-groups-strict",
            pod(
                "id -G",
                json!({}),
                shared(json!({"runAsUser": 1000, "runAsGroup": 1000,
            "supplementalGroups": [7], "supplementalGroupsPolicy": "Strict"})),
            ),
            "1000 7\n",
        ),
        Case::prints(
            "fs-group-of-an-empty-dir",
            pod(
                "id -G; stat -c '%g %a' /v; echo x > /v/f; stat -c %g /v/f",
                mount.clone(),
                fs_group(json!([{"name": "v", "emptyDir": {}}])),
            ),
            "1000 4242\n4242 2777\n4242\n",
        ),
        Case::prints(
            "fs-group-of-memory",
            pod(
                "stat -c '%g %a' /v",
                mount.clone(),
                fs_group(json!([{"name": "v", "emptyDir": {"medium": "Memory"}}])),
            ),
            "4242 2777\n",
        ),
        Case::new(
            "fs-group-of-a-config-map",
            vec![
                config_map("m", json!({"k": "1"})),
                pod(
                    "cat /v/k; stat -L -c ' %g %a' /v/k",
                    mount,
                    fs_group(
                        json!([{"name": "v", "configMap": {"name": "m", "defaultMode": 256}}]),
                    ),
                ),
            ],
            vec![Fact::Phase("Succeeded"), Fact::Log("c", "1 4242 440\n".to_owned())],
        ),
        Case::refused(
            "group-below-zero",
            pod("true", json!({}), shared(json!({"fsGroup": -1}))),
            "spec.securityContext.fsGroup",
        ),
    ]
}

fn privileges() -> Vec<Case> {
    let look = "grep CapEff /proc/self/status | cut -f2";
    let capabilities =
        |add: &[&str], drop: &[&str]| own(json!({"capabilities": {"add": add, "drop": drop}}));
    vec![
        Case::prints(
            "capabilities-by-default",
            pod(look, json!({}), json!({})),
            "00000000a80425fb\n",
        ),
        Case::prints(
            "capabilities-all-dropped",
            pod(look, capabilities(&[], &["ALL"]), json!({})),
            "0000000000000000\n",
        ),
        Case::prints(
            "capabilities-one-added",
            pod(look, capabilities(&["NET_ADMIN"], &["ALL"]), json!({})),
            "0000000000001000\n",
        ),
        Case::prints(
            "capability-lacking",
            pod(
                "ip addr add 192.0.2.1/32 dev lo 2>&1 | grep -o 'Operation not permitted'",
                json!({}),
                json!({}),
            ),
            "Operation not permitted\n",
        ),
        Case::prints(
            "capability-used",
            pod(
                "ip addr add 192.0.2.1/32 dev lo && ip -o addr show lo | grep -c 192.0.2.1",
                capabilities(&["NET_ADMIN"], &[]),
                json!({}),
            ),
            "1\n",
        ),
        Case::prints(
            "privileged",
            pod(
                "ls /dev/kmsg; mount -t tmpfs x /tmp && echo mounted",
                own(json!({"privileged": true})),
                json!({}),
            ),
            "/dev/kmsg\nmounted\n",
        ),
        Case::prints(
            "not-privileged",
            pod(
                "ls /dev/kmsg 2>/dev/null; mount -t tmpfs x /tmp 2>/dev/null || echo refused",
                json!({}),
                json!({}),
            ),
            "refused\n",
        ),
        Case::prints(
            "read-only-root",
            pod(
                "{ echo x > /x; } 2>/dev/null || echo refused; echo y > /v/y && cat /v/y",
                json!({"securityContext": {"readOnlyRootFilesystem": true}, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}),
                json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            ),
            "refused\ny\n",
        ),
        Case::prints(
            "no-new-privileges",
            pod(
                "grep NoNewPrivs /proc/self/status | cut -f2",
                own(json!({"allowPrivilegeEscalation": false})),
                json!({}),
            ),
            "1\n",
        ),
        Case::refused(
            "privileged-without-escalation",
            pod(
                "true",
                own(json!({"privileged": true, "allowPrivilegeEscalation": false})),
                json!({}),
            ),
            "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ),
        Case::prints(
            "proc-is-masked",
            pod(
                "ls /sys/firmware | wc -l; { echo 1 > /proc/sys/kernel/panic; } 2>/dev/null || echo refused",
                json!({}),
                json!({}),
            ),
            "0\nrefused\n",
        ),
        Case::new(
            "selinux-options",
            vec![pod("true", own(json!({"seLinuxOptions": {"type": "t"}})), json!({}))],
            vec![
                Fact::Waits(
                    "CreateContainerConfigError",
                    "spec.containers[c].securityContext.seLinuxOptions is not supported by this node",
                ),
                Fact::Event("UnsupportedField", "seLinuxOptions".to_owned()),
            ],
        ),
    ]
}

fn seccomp() -> Vec<Case> {
    let profile = |profile: Value| own(json!({ "seccompProfile": profile }));
    let look =
        "grep Seccomp: /proc/self/status | cut -f2; unshare -U true 2>/dev/null || echo refused";
    vec![
        Case::prints(
            "seccomp-default",
            pod(look, profile(json!({"type": "RuntimeDefault"})), json!({})),
            "2\nrefused\n",
        ),
        Case::prints(
            "seccomp-of-the-pod",
            pod(
                "grep Seccomp: /proc/self/status | cut -f2",
                json!({}),
                shared(json!({"seccompProfile": {"type": "RuntimeDefault"}, "runAsUser": 1000})),
            ),
            "2\n",
        ),
        Case::prints(
            "seccomp-unconfined",
            pod(
                "grep Seccomp: /proc/self/status | cut -f2",
                profile(json!({"type": "Unconfined"})),
                json!({}),
            ),
            "0\n",
        ),
        Case::prints(
            "seccomp-from-a-file",
            pod(
                "mkdir /tmp/x 2>/dev/null || echo refused; touch /tmp/y && echo fine",
                profile(json!({"type": "Localhost", "localhostProfile": "no-mkdir.json"})),
                json!({}),
            ),
            "refused\nfine\n",
        ),
        Case::new(
            "seccomp-file-missing",
            vec![pod(
                "true",
                profile(json!({"type": "Localhost", "localhostProfile": "none.json"})),
                json!({}),
            )],
            vec![Fact::Waits("CreateContainerError", "cannot load seccomp profile")],
        ),
        Case::refused(
            "seccomp-file-outside",
            pod(
                "true",
                profile(json!({"type": "Localhost", "localhostProfile": "../x"})),
                json!({}),
            ),
            "must not contain '..'",
        ),
    ]
}

fn sysctls() -> Vec<Case> {
    let sysctl =
        |name: &str, value: &str| shared(json!({"sysctls": [{"name": name, "value": value}]}));
    vec![
        Case::prints(
            "sysctl-of-the-pod",
            pod(
                "cat /proc/sys/net/ipv4/ip_local_port_range",
                json!({}),
                sysctl("net.ipv4.ip_local_port_range", "2000 3000"),
            ),
            "2000\t3000\n",
        ),
        Case::new(
            "sysctl-that-is-not-safe",
            vec![pod("true", json!({}), sysctl("kernel.msgmax", "65536"))],
            vec![
                Fact::Phase("Failed"),
                Fact::Is("/status/reason", "SysctlForbidden".to_owned()),
                Fact::Is(
                    "/status/message",
                    "Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted"
                        .to_owned(),
                ),
                Fact::Event("SysctlForbidden", "not allowlisted".to_owned()),
            ],
        ),
        Case::refused(
            "sysctl-with-a-bad-name",
            pod("true", json!({}), sysctl("a..b", "1")),
            "spec.securityContext.sysctls[0].name",
        ),
        Case::new(
            "sysctl-with-a-bad-value",
            vec![pod("true", json!({}), sysctl("net.ipv4.tcp_syncookies", "many"))],
            vec![Fact::Event("FailedCreatePodSandBox", "net.ipv4.tcp_syncookies=many".to_owned())],
        ),
    ]
}

fn namespaces() -> Vec<Case> {
    let sees = "ps | grep -c '[s]leep 98765'";
    let other = json!([{"name": "d", "image": crate::case::IMAGE, "command": ["sh", "-c", "sleep 98765 & wait"]}]);
    vec![
        Case::new(
            "processes-shared",
            vec![lasting(json!({}), json!({"shareProcessNamespace": true, "containers": other}))],
            vec![
                Fact::Runs,
                Fact::Does(|stage, namespace| {
                    stage
                        .until("the other's process", || {
                            stage
                                .try_kubectl(
                                    namespace,
                                    &[
                                        "exec",
                                        "p",
                                        "-c",
                                        "c",
                                        "--",
                                        "sh",
                                        "-c",
                                        "ps | grep '[s]leep 98765'",
                                    ],
                                )
                                .ok()
                        })
                        .truncate(0)
                }),
            ],
        ),
        Case::prints(
            "processes-not-shared",
            pod(&format!("{sees} || true"), json!({}), json!({})),
            "0\n",
        ),
        Case::prints(
            "host-processes",
            pod(
                "ps | grep -c '[t]oono server' | sed 's/[1-9][0-9]*/some/'",
                json!({}),
                json!({"hostPID": true}),
            ),
            "some\n",
        ),
        Case::prints(
            "host-network",
            pod("ip -o link show toono0 | grep -c toono0", json!({}), json!({"hostNetwork": true})),
            "1\n",
        ),
        Case::prints(
            "network-of-its-own",
            pod(
                "ip -o link show toono0 2>/dev/null | grep -c toono0 || true",
                json!({}),
                json!({}),
            ),
            "0\n",
        ),
        Case::prints(
            "host-ipc",
            pod(
                "test \"$(readlink /proc/self/ns/ipc)\" && echo there",
                json!({}),
                json!({"hostIPC": true}),
            ),
            "there\n",
        ),
        Case::new(
            "user-namespaces",
            vec![pod("true", json!({}), json!({"hostUsers": false}))],
            vec![Fact::Waits(
                "CreateContainerConfigError",
                "spec.hostUsers is not supported by this node",
            )],
        ),
    ]
}
