//! What this machine is, as a `v1.NodeStatus`.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    sync::Arc,
};

use serde_json::{Value, json};
use tokio::sync::Notify;
use toono_http::client::Endpoint;
use toono_podmachine::pressure::{Condition, Signal};

use crate::{
    config::{Config, Room},
    outbox::Outbox,
};

/// The Kubernetes version whose node API this is.
pub(crate) const KUBELET_VERSION: &str = "v1.35.0+toono";
/// The address by which this machine reaches the server, and so its own on the site's network.
/// None while there is no route.
pub(crate) fn own_address(server: &Endpoint) -> Option<IpAddr> {
    use std::net::ToSocketAddrs;
    address_towards((server.host.as_str(), server.port).to_socket_addrs().ok()?.next()?)
}

fn address_towards(target: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr =
        if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    // Connecting a datagram socket sends nothing; the kernel only looks up the route.
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Tells the node's address anew when it has changed, looking when the agent is awake anyway. The server's was
/// found once: to ask for its name each time would be a question for a DNS server.
pub(crate) async fn keep_address(
    name: String,
    server: Endpoint,
    outbox: Outbox,
    awake: Arc<Notify>,
) {
    use std::net::ToSocketAddrs;
    let target = loop {
        let server = server.clone();
        let resolve = move || (server.host.as_str(), server.port).to_socket_addrs().ok()?.next();
        match tokio::task::spawn_blocking(resolve).await {
            Ok(Some(target)) => break target,
            _ => awake.notified().await,
        }
    };
    loop {
        awake.notified().await;
        outbox.change_node(|status| set_address(status, &name, address_towards(target)));
    }
}

/// What pods can be given together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allocatable {
    pub(crate) cpu_millis: i64,
    /// In bytes.
    pub(crate) memory: i64,
    /// In bytes.
    pub(crate) storage: i64,
}

impl Allocatable {
    /// What there is, but for what is reserved, and what must be left lest pods are evicted.
    pub(crate) fn read(data: &Path, room: &Room) -> Self {
        let signed = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
        let (memory, disk) = (memory_kib().saturating_mul(1024), disk_bytes(data));
        let rest = |whole: u64, reserved: i64, signal: Signal| {
            let least = room.eviction.hard.least(signal, whole);
            signed(whole).saturating_sub(reserved).saturating_sub(signed(least)).max(0)
        };
        let cpu_millis = signed(cpus() as u64).saturating_mul(1000);
        Self {
            cpu_millis: cpu_millis.saturating_sub(room.reserved.cpu_millis).max(0),
            memory: rest(memory, room.reserved.memory, Signal::Memory),
            storage: rest(disk, room.reserved.storage, Signal::Nodefs),
        }
    }

    /// The amount of a resource: of a CPU thousandths, of others bytes.
    pub(crate) fn of(&self, resource: &str) -> Option<i64> {
        match resource {
            "cpu" => Some(self.cpu_millis),
            "memory" => Some(self.memory),
            "ephemeral-storage" => Some(self.storage),
            _ => None,
        }
    }
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The whole status. Times are left to the server: it knows when a condition changed for it.
pub(crate) fn status(config: &Config, address: Option<IpAddr>) -> Value {
    status_of(&config.data, &config.room, &config.name, &config.version, address)
}

fn status_of(
    data: &Path,
    room: &Room,
    name: &str,
    version: &str,
    address: Option<IpAddr>,
) -> Value {
    let allocatable = Allocatable::read(data, room);
    let pods = room.max_pods.to_string();
    let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady",
        "message": "toono node is posting ready status"});
    let mut conditions: Vec<Value> = Condition::ALL.map(|it| condition(it, false)).into();
    conditions.push(ready);
    json!({
        "addresses": addresses(name, address),
        "capacity": {
            "cpu": cpus().to_string(),
            "memory": format!("{}Ki", memory_kib()),
            "ephemeral-storage": disk_bytes(data).to_string(),
            "pods": pods,
        },
        "allocatable": {
            "cpu": cpu_text(allocatable.cpu_millis),
            "memory": format!("{}Ki", allocatable.memory / 1024),
            "ephemeral-storage": allocatable.storage.to_string(),
            "pods": pods,
        },
        "conditions": conditions,
        "images": [],
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

/// Sets a condition of a status; whether that changed it.
pub(crate) fn set_condition(status: &mut Value, kind: Condition, holds: bool) -> bool {
    let wanted = condition(kind, holds);
    let list = status.get_mut("conditions").and_then(Value::as_array_mut);
    let same = |it: &&mut Value| it.get("type") == wanted.get("type");
    match list.and_then(|list| list.iter_mut().find(same)) {
        Some(found) if *found != wanted => {
            *found = wanted;
            true
        }
        _ => false,
    }
}

/// Sets the node's address in a status; whether that changed it. No address is no news: the link is down.
pub(crate) fn set_address(status: &mut Value, name: &str, address: Option<IpAddr>) -> bool {
    let (Some(fields), Some(_)) = (status.as_object_mut(), address) else { return false };
    let wanted = addresses(name, address);
    let before = fields.insert("addresses".to_owned(), wanted.clone());
    before.as_ref() != Some(&wanted)
}

fn condition(kind: Condition, holds: bool) -> Value {
    let (reason, message) = kind.texts(holds);
    let status = if holds { "True" } else { "False" };
    json!({"type": kind.name(), "status": status, "reason": reason, "message": message})
}

fn addresses(name: &str, address: Option<IpAddr>) -> Value {
    let mut addresses = vec![json!({"type": "Hostname", "address": name})];
    if let Some(address) = address {
        addresses.insert(0, json!({"type": "InternalIP", "address": address.to_string()}));
    }
    addresses.into()
}

/// Whole cores where they are whole.
fn cpu_text(millis: i64) -> String {
    if millis % 1000 == 0 { (millis / 1000).to_string() } else { format!("{millis}m") }
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
    use crate::config::Reserve;

    #[test]
    fn this_machine_describes_itself() {
        let reserved = Reserve { cpu_millis: 100, memory: 1 << 20, storage: 1 << 30 };
        let room = Room { reserved, ..Room::default() };
        let status = status_of("/".as_ref(), &room, "n1", "1.2.3", Some([192, 0, 2, 1].into()));
        let parsed: k8s_openapi::api::core::v1::NodeStatus =
            serde_json::from_value(status).expect("a v1.NodeStatus");
        let capacity = parsed.capacity.unwrap();
        let allocatable = parsed.allocatable.unwrap();
        let kib = |text: &str| text.trim_end_matches("Ki").parse::<i64>().unwrap();
        let missing = kib(&capacity["memory"].0) - kib(&allocatable["memory"].0);
        assert_eq!(missing, 100 * 1024 + 1024, "the threshold and what is reserved");
        let disk: i64 = capacity["ephemeral-storage"].0.parse().unwrap();
        assert_eq!(allocatable["ephemeral-storage"].0, (disk - disk / 10 - (1 << 30)).to_string());
        assert!(allocatable["cpu"].0.ends_with("900m"), "{}", allocatable["cpu"].0);
        assert_eq!(capacity["pods"].0, "110");
        assert_eq!(parsed.addresses.unwrap()[0].address, "192.0.2.1");
        assert!(!parsed.node_info.unwrap().kernel_version.is_empty());
    }

    #[test]
    fn only_what_changed_is_news() {
        let room = Room::default();
        let mut status = status_of("/".as_ref(), &room, "n1", "1", Some([192, 0, 2, 1].into()));
        assert!(!set_condition(&mut status, Condition::Disk, false));
        assert!(set_condition(&mut status, Condition::Disk, true));
        assert!(!set_condition(&mut status, Condition::Disk, true));
        assert_eq!(status["conditions"][1]["reason"], "KubeletHasDiskPressure");
        assert!(!set_address(&mut status, "n1", Some([192, 0, 2, 1].into())));
        assert!(!set_address(&mut status, "n1", None), "no route is no address to tell");
        assert!(set_address(&mut status, "n1", Some([192, 0, 2, 7].into())));
        assert_eq!(status["addresses"][0]["address"], "192.0.2.7");
    }

    #[test]
    fn the_os_is_called_by_its_pretty_name() {
        let text = "NAME=\"Debian\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n";
        assert_eq!(os_image(text), "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(os_image(""), "Linux");
    }
}
