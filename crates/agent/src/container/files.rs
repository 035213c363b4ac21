//! The files that every pod gets from its node: names, addresses, resolvers.

use std::{fs, net::IpAddr, path::Path};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use toono_sandbox::Mount;

use crate::{AgentError, disk};

/// Where the files are in a pod's directory, and in its containers.
const FILES: [(&str, &str); 3] =
    [("hosts", "/etc/hosts"), ("hostname", "/etc/hostname"), ("resolv.conf", "/etc/resolv.conf")];

/// The name that the pod has for itself.
pub(crate) fn hostname(pod: &Pod) -> String {
    let wanted = pod.spec.as_ref().and_then(|spec| spec.hostname.clone());
    let name = wanted.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    // A host name has 63 bytes; the kubelet cuts the same way.
    let cut: String = name.chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// Writes those that are not as they should be.
pub(crate) fn write(dir: &Path, pod: &Pod, ip: Option<IpAddr>) -> Result<(), AgentError> {
    let etc = dir.join("etc");
    disk::make_dir(&etc)?;
    let spec = pod.spec.clone().unwrap_or_default();
    let hostname = hostname(pod);
    let hosts = if spec.host_network == Some(true) {
        fs::read_to_string("/etc/hosts").unwrap_or_default()
    } else {
        hosts(&spec, &hostname, ip)
    };
    let node = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    for (name, text) in [
        ("hosts", hosts),
        ("hostname", format!("{hostname}\n")),
        ("resolv.conf", resolv_conf(&spec, &node)),
    ] {
        // In place: a file that is mounted into a container is that inode for ever.
        let path = etc.join(name);
        if fs::read(&path).is_ok_and(|written| written == text.as_bytes()) {
            continue;
        }
        fs::write(&path, text).map_err(disk::failed("write", &path))?;
    }
    Ok(())
}

/// The mounts of those that the container does not replace by a mount of its own.
pub(super) fn mounts(dir: &Path, container: &Container) -> Vec<Mount> {
    let own = |target: &str| {
        container.volume_mounts.iter().flatten().any(|mount| mount.mount_path == target)
    };
    let files = FILES.iter().filter(|(_, target)| !own(target));
    files
        .map(|(name, target)| Mount::Bind {
            source: dir.join("etc").join(name),
            target: (*target).into(),
            read_only: false,
        })
        .collect()
}

fn hosts(spec: &PodSpec, hostname: &str, ip: Option<IpAddr>) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    if let Some(ip) = ip {
        text.push_str(&format!("{ip}\t{hostname}\n"));
    }
    for alias in spec.host_aliases.iter().flatten() {
        let names = alias.hostnames.clone().unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}

/// The node's resolvers, with the pod's `dnsConfig` added; that alone with the policy `None`.
fn resolv_conf(spec: &PodSpec, node: &str) -> String {
    let config = spec.dns_config.clone().unwrap_or_default();
    let alone = spec.dns_policy.as_deref() == Some("None");
    let from_node = |keyword: &str| -> Vec<String> {
        let lines = node.lines().filter(|_| !alone).map(str::split_whitespace);
        lines
            .filter_map(|mut words| (words.next() == Some(keyword)).then_some(words))
            .flatten()
            .map(ToOwned::to_owned)
            .collect()
    };
    let joined = |mut first: Vec<String>, more: Vec<String>| -> Vec<String> {
        for item in more {
            if !first.contains(&item) {
                first.push(item);
            }
        }
        first
    };
    let mut text = String::new();
    for server in joined(from_node("nameserver"), config.nameservers.unwrap_or_default()) {
        text.push_str(&format!("nameserver {server}\n"));
    }
    let searches = joined(from_node("search"), config.searches.unwrap_or_default());
    if !searches.is_empty() {
        text.push_str(&format!("search {}\n", searches.join(" ")));
    }
    let options = config.options.unwrap_or_default().into_iter().filter_map(|option| {
        let name = option.name?;
        Some(option.value.map_or_else(|| name.clone(), |value| format!("{name}:{value}")))
    });
    let options = joined(from_node("options"), options.collect());
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_of_node_and_pod() {
        let node = "# made by hand\nnameserver 192.0.2.53\nsearch lan\noptions ndots:1\n";
        let plain = PodSpec::default();
        assert_eq!(
            resolv_conf(&plain, node),
            "nameserver 192.0.2.53\nsearch lan\noptions ndots:1\n"
        );
        let own: PodSpec = serde_json::from_value(serde_json::json!({
            "containers": [], "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["192.0.2.9"], "searches": ["a", "b"],
                "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]},
        }))
        .unwrap();
        assert_eq!(
            resolv_conf(&own, node),
            "nameserver 192.0.2.9\nsearch a b\noptions ndots:2 edns0\n"
        );
    }

    #[test]
    fn a_host_name_is_cut_like_the_kubelets() {
        let mut pod = Pod::default();
        pod.metadata.name = Some(format!("{}-x", "a".repeat(62)));
        assert_eq!(hostname(&pod), "a".repeat(62));
    }

    #[test]
    fn hosts_has_the_pod_and_its_aliases() {
        let spec: PodSpec = serde_json::from_value(serde_json::json!({
            "containers": [], "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["x", "y"]}],
        }))
        .unwrap();
        let text = hosts(&spec, "web", Some([10, 244, 0, 2].into()));
        assert!(text.contains("10.244.0.2\tweb\n") && text.ends_with("192.0.2.7\tx\ty\n"));
    }
}
