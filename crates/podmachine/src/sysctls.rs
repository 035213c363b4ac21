//! Which kernel settings a pod may ask for: the kubelet's safe ones, each in a namespace of the pod's own.

use k8s_openapi::api::core::v1::PodSpec;

/// Names, and the namespace that each belongs to.
const SAFE: [(&str, &str); 12] = [
    ("kernel.shm_rmid_forced", "ipc"),
    ("net.ipv4.ip_local_port_range", "net"),
    ("net.ipv4.tcp_syncookies", "net"),
    ("net.ipv4.ping_group_range", "net"),
    ("net.ipv4.ip_unprivileged_port_start", "net"),
    ("net.ipv4.ip_local_reserved_ports", "net"),
    ("net.ipv4.tcp_keepalive_time", "net"),
    ("net.ipv4.tcp_fin_timeout", "net"),
    ("net.ipv4.tcp_keepalive_intvl", "net"),
    ("net.ipv4.tcp_keepalive_probes", "net"),
    ("net.ipv4.tcp_rmem", "net"),
    ("net.ipv4.tcp_wmem", "net"),
];

/// The settings that the pod asks for, by their names with dots.
#[must_use]
pub fn sysctls(spec: &PodSpec) -> Vec<(String, String)> {
    let wanted = spec.security_context.iter().flat_map(|it| it.sysctls.iter().flatten());
    wanted.map(|it| (dotted(&it.name), it.value.clone())).collect()
}

/// Why the pod must not run, in the kubelet's words; none where all it asks for is safe.
pub(crate) fn forbidden(spec: &PodSpec) -> Option<String> {
    let refused = |name: &str| match SAFE.iter().find(|(safe, _)| *safe == name) {
        None => Some(format!("{name:?} not allowlisted")),
        Some((_, kind)) => {
            let shared = match *kind {
                "ipc" => spec.host_ipc == Some(true),
                _ => spec.host_network == Some(true),
            };
            shared.then(|| format!("{name:?} not allowed with host {kind} enabled"))
        }
    };
    let why = sysctls(spec).iter().find_map(|(name, _)| refused(name))?;
    Some(format!("forbidden sysctl: {why}"))
}

/// A name whose first separator is a slash has dots where others have slashes.
fn dotted(name: &str) -> String {
    let slashed = name.find(['.', '/']).is_some_and(|at| name.get(at..=at) == Some("/"));
    if !slashed {
        return name.to_owned();
    }
    let swap = |character| match character {
        '/' => '.',
        '.' => '/',
        other => other,
    };
    name.chars().map(swap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, host: bool) -> PodSpec {
        let spec = serde_json::json!({"containers": [], "hostNetwork": host, "hostIPC": host,
            "securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn only_what_is_safe_and_the_pods_own_may_be_set() {
        for (name, host, expected) in [
            ("net.ipv4.tcp_syncookies", false, None),
            ("net/ipv4/tcp_syncookies", false, None),
            ("kernel.shm_rmid_forced", false, None),
            (
                "net.ipv4.tcp_syncookies",
                true,
                Some(
                    "forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host net enabled",
                ),
            ),
            (
                "kernel.shm_rmid_forced",
                true,
                Some(
                    "forbidden sysctl: \"kernel.shm_rmid_forced\" not allowed with host ipc enabled",
                ),
            ),
            ("kernel.msgmax", false, Some("forbidden sysctl: \"kernel.msgmax\" not allowlisted")),
        ] {
            assert_eq!(forbidden(&spec(name, host)).as_deref(), expected, "{name}");
        }
        assert_eq!(sysctls(&spec("net/ipv4/conf/eth0.1/x", false))[0].0, "net.ipv4.conf.eth0/1.x");
    }
}
