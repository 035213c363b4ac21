//! The files that every pod gets from its node: names, addresses, resolvers.

use std::{fs, net::IpAddr, path::Path};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use toono_sandbox::Mount;

use crate::{AgentError, disk};

/// Where the files are in a pod's directory, and in its containers.
const FILES: [(&str, &str); 3] =
    [("hosts", "/etc/hosts"), ("hostname", "/etc/hostname"), ("resolv.conf", "/etc/resolv.conf")];

/// Longest name that the kernel keeps for a host.
const LONGEST_KERNEL_NAME: usize = 64;
/// Longest label of a domain name.
const LONGEST_LABEL: usize = 63;

/// The names that a pod has for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    /// One label.
    pub(crate) host: String,
    /// What follows it in the cluster's DNS, for a pod with a subdomain.
    domain: Option<String>,
    /// What the kernel says.
    pub(crate) kernel: String,
}

impl Names {
    /// The names of a pod, in a cluster with this domain.
    ///
    /// # Errors
    /// When the kernel is to say what it cannot keep, in the kubelet's words.
    pub(crate) fn of(pod: &Pod, cluster_domain: &str) -> Result<Self, String> {
        let spec = pod.spec.as_ref();
        let host = hostname(pod);
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let subdomain = spec.and_then(|spec| spec.subdomain.as_deref()).unwrap_or_default();
        let domain = (!subdomain.is_empty())
            .then(|| format!("{subdomain}.{namespace}.svc.{cluster_domain}"));
        let whole = spec.and_then(|spec| spec.set_hostname_as_fqdn) == Some(true);
        let kernel = match domain.as_ref().filter(|_| whole) {
            Some(domain) => format!("{host}.{domain}"),
            None => host.clone(),
        };
        if kernel.len() > LONGEST_KERNEL_NAME {
            return Err(format!(
                "failed to construct FQDN from pod hostname and cluster domain, FQDN {kernel} is too long \
                 ({LONGEST_KERNEL_NAME} characters is the max, {} characters requested)",
                kernel.len()
            ));
        }
        Ok(Self { host, domain, kernel })
    }
}

fn hostname(pod: &Pod) -> String {
    let wanted = pod.spec.as_ref().and_then(|spec| spec.hostname.clone());
    let wanted = wanted.filter(|name| !name.is_empty());
    let name = wanted.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    // The kubelet cuts the same way.
    let cut: String = name.chars().take(LONGEST_LABEL).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// Writes those that are not as they should be. Whether the resolvers are others than before.
pub(crate) fn write(
    dir: &Path,
    pod: &Pod,
    ip: Option<IpAddr>,
    names: &Names,
    resolv_conf: &str,
) -> Result<bool, AgentError> {
    let etc = dir.join("etc");
    disk::make_dir(&etc)?;
    let spec = pod.spec.clone().unwrap_or_default();
    let hosts = if spec.host_network == Some(true) {
        let node = fs::read_to_string("/etc/hosts").unwrap_or_default();
        let text = format!("# Kubernetes-managed hosts file (host network).\n{node}");
        with_aliases(text, &spec)
    } else {
        hosts(&spec, names, ip)
    };
    let mut has_new_resolvers = false;
    for (name, text) in [
        ("hosts", hosts.as_str()),
        ("hostname", &format!("{}\n", names.kernel)),
        ("resolv.conf", resolv_conf),
    ] {
        // In place: a file that is mounted into a container is that inode for ever.
        let path = etc.join(name);
        if fs::read(&path).is_ok_and(|written| written == text.as_bytes()) {
            continue;
        }
        fs::write(&path, text).map_err(disk::failed("write", &path))?;
        has_new_resolvers |= name == "resolv.conf";
    }
    Ok(has_new_resolvers)
}

/// The mounts of those that the container does not replace by a mount of its own.
pub(super) fn mounts(dir: &Path, container: &Container) -> Vec<Mount> {
    let own = |target: &str| {
        container.volume_mounts.iter().flatten().any(|mount| mount.mount_path == target)
    };
    let files = FILES.iter().filter(|(_, target)| !own(target));
    files.map(|(name, target)| Mount::bind(dir.join("etc").join(name), (*target).into())).collect()
}

fn hosts(spec: &PodSpec, names: &Names, ip: Option<IpAddr>) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let Names { host, domain, .. } = names;
    match (ip, domain) {
        (Some(ip), Some(domain)) => text.push_str(&format!("{ip}\t{host}.{domain}\t{host}\n")),
        (Some(ip), None) => text.push_str(&format!("{ip}\t{host}\n")),
        (None, _) => {}
    }
    with_aliases(text, spec)
}

/// The lines that the pod adds.
fn with_aliases(mut text: String, spec: &PodSpec) -> String {
    let aliases = spec.host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let names = alias.hostnames.clone().unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, spec: Value) -> Pod {
        let pod = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_pod_is_called_as_the_kubelet_calls_it() {
        let names = |name: &str, spec: Value| Names::of(&pod(name, spec), "cluster.local").unwrap();
        let long = format!("{}-x", "a".repeat(62));
        assert_eq!(names(&long, json!({"containers": []})).host, "a".repeat(62));
        let spec = json!({"containers": [], "hostname": "till", "subdomain": "db"});
        let plain = names("x", spec.clone());
        assert_eq!((plain.host.as_str(), plain.kernel.as_str()), ("till", "till"));
        let mut whole = spec;
        whole["setHostnameAsFQDN"] = true.into();
        assert_eq!(names("x", whole.clone()).kernel, "till.db.shop.svc.cluster.local");
        assert_eq!(names("x", json!({"containers": [], "setHostnameAsFQDN": true})).kernel, "x");
        whole["hostname"] = "a".repeat(40).into();
        let refused = Names::of(&pod("x", whole), "cluster.local").unwrap_err();
        assert_eq!(
            refused,
            "failed to construct FQDN from pod hostname and cluster domain, FQDN \
             aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.db.shop.svc.cluster.local is too long (64 \
             characters is the max, 66 characters requested)"
        );
    }

    #[test]
    fn hosts_has_the_pod_and_its_aliases() {
        let aliases = json!({"containers": [], "subdomain": "db",
            "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["x", "y"]}]});
        let pod = pod("web", aliases);
        let names = Names::of(&pod, "cluster.local").unwrap();
        let text = hosts(pod.spec.as_ref().unwrap(), &names, Some([10, 244, 0, 2].into()));
        let expected = "10.244.0.2\tweb.db.shop.svc.cluster.local\tweb\n\
            \n# Entries added by HostAliases.\n192.0.2.7\tx\ty\n";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn files_are_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let pod = pod("web", json!({"containers": []}));
        let names = Names::of(&pod, "cluster.local").unwrap();
        assert!(write(dir.path(), &pod, None, &names, "search x\n").unwrap());
        assert!(!write(dir.path(), &pod, None, &names, "search x\n").unwrap());
        assert!(write(dir.path(), &pod, None, &names, "search y\n").unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("etc/hostname")).unwrap(), "web\n");
    }
}
