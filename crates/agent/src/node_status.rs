//! What this machine is, as a `v1.NodeStatus`.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
};

use serde_json::{Value, json};
use toono_http::client::Endpoint;

/// The Kubernetes version whose node API this is.
const KUBELET_VERSION: &str = "v1.35.0+toono";
/// The kubelet's own default of `maxPods`.
const MAX_PODS: u32 = 110;
/// The kubelet's default hard eviction threshold of memory, which is not allocatable.
const MEMORY_RESERVE_KIB: u64 = 100 * 1024;

/// The address by which this machine reaches the server, and so its own on the site's network.
/// None while there is no route.
pub(crate) fn own_address(server: &Endpoint) -> Option<IpAddr> {
    use std::net::ToSocketAddrs;
    let target = (server.host.as_str(), server.port).to_socket_addrs().ok()?.next()?;
    let any: SocketAddr =
        if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    // Connecting a datagram socket sends nothing; the kernel only looks up the route.
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The whole status. Times are left to the server: it knows when a condition changed for it.
pub(crate) fn status(name: &str, address: Option<IpAddr>, data: &Path, version: &str) -> Value {
    let memory = memory_kib();
    let disk = disk_bytes(data);
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let resources = |memory: u64, disk: u64| {
        json!({
            "cpu": cpus.to_string(),
            "memory": format!("{memory}Ki"),
            "ephemeral-storage": disk.to_string(),
            "pods": MAX_PODS.to_string(),
        })
    };
    let mut addresses = vec![json!({"type": "Hostname", "address": name})];
    if let Some(address) = address {
        addresses.insert(0, json!({"type": "InternalIP", "address": address.to_string()}));
    }
    let condition = |kind: &str, status: &str, reason: &str, message: &str| json!({"type": kind, "status": status, "reason": reason, "message": message});
    json!({
        "addresses": addresses,
        "capacity": resources(memory, disk),
        // A tenth of the disk stays free, as with the kubelet's threshold of nodefs.
        "allocatable": resources(memory.saturating_sub(MEMORY_RESERVE_KIB), disk / 10 * 9),
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", "True", "KubeletReady", "toono node is posting ready status"),
        ],
        "nodeInfo": {
            "architecture": architecture(),
            "bootID": line("/proc/sys/kernel/random/boot_id"),
            "containerRuntimeVersion": format!("toono://{version}"),
            "kernelVersion": line("/proc/sys/kernel/osrelease"),
            "kubeProxyVersion": "",
            "kubeletVersion": KUBELET_VERSION,
            "machineID": line("/etc/machine-id"),
            "operatingSystem": "linux",
            "osImage": os_image(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
            "systemUUID": line("/sys/class/dmi/id/product_uuid"),
        },
    })
}

fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

pub(crate) fn memory_kib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn disk_bytes(data: &Path) -> u64 {
    nix::sys::statvfs::statvfs(data).map_or(0, |it| it.blocks().saturating_mul(it.fragment_size()))
}

/// Go's names, which Kubernetes uses.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn os_image(os_release: &str) -> String {
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim_matches(['"', '\'']).to_owned())
    };
    value("PRETTY_NAME").or_else(|| value("NAME")).unwrap_or_else(|| "Linux".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_describes_itself() {
        let status = status("n1", Some([192, 0, 2, 1].into()), Path::new("/"), "1.2.3");
        let parsed: k8s_openapi::api::core::v1::NodeStatus =
            serde_json::from_value(status).expect("a v1.NodeStatus");
        let capacity = parsed.capacity.unwrap();
        assert!(capacity["memory"].0.trim_end_matches("Ki").parse::<u64>().unwrap() > 0);
        assert!(capacity["ephemeral-storage"].0.parse::<u64>().unwrap() > 0);
        assert_eq!(capacity["pods"].0, "110");
        assert_eq!(parsed.addresses.unwrap()[0].address, "192.0.2.1");
        assert!(!parsed.node_info.unwrap().kernel_version.is_empty());
    }

    #[test]
    fn the_os_is_called_by_its_pretty_name() {
        let text = "NAME=\"Debian\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n";
        assert_eq!(os_image(text), "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(os_image(""), "Linux");
    }
}
