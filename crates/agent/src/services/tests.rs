//! Services in a real kernel: what is programmed is read back, made good, and does with packets what it should.
//! Each test has a network namespace of its own.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use serde_json::json;
use toono_net::{
    Cidr, LinkName, Netlink, Route, netns,
    nft::{Family as Packets, Nftables, Version},
};
use toono_topology::{Family, Topology};
use toono_wire::pool::Records;

use super::{
    Claim, Protocol, Services,
    kernel::{Found, Kernel, forget_stale},
    layout::Layout,
};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);
const CLUSTER_IP: [u8; 4] = [10, 96, 0, 7];
const NODE_PORT: u16 = 30_080;

/// A node in a namespace of its own, with addresses for its pods.
struct Node {
    records: Records,
    topology: Topology,
    kernel: Kernel,
}

impl Node {
    fn new(version: Version) -> Self {
        let bridge = LinkName::new("toono0").unwrap();
        let network: Cidr = "10.0.0.0/24".parse().unwrap();
        let layout = Layout { version, bridge, network };
        let family = if version == Version::V4 { Family::V4 } else { Family::V6 };
        Self {
            records: Records::default(),
            topology: Topology::new("here", family),
            kernel: Kernel::open(layout).unwrap(),
        }
    }

    fn set(&mut self, key: &str, value: &serde_json::Value) {
        self.records.put(key, &value.to_string());
        self.topology.read(&self.records, [key].into_iter());
    }

    fn remove(&mut self, key: &str) {
        self.records.remove(key);
        self.topology.read(&self.records, [key].into_iter());
    }

    /// Programs what changed; it must lead to what is wanted.
    fn program(&mut self) {
        let changes = self.topology.take_changes();
        self.kernel.change(&changes).unwrap();
        assert_eq!(self.compare(), Found::Right, "{changes:?}");
    }

    fn compare(&mut self) -> Found {
        self.topology.take_changes();
        self.kernel.compare(&self.topology.everything()).unwrap()
    }
}

/// Runs a test in a namespace of its own.
fn within(name: &str, test: impl FnOnce() + Send) {
    let name = format!("tsvc-{}-{name}", std::process::id());
    let ns = netns::create(&name).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let host = Netlink::in_namespace(&ns).unwrap();
        let lo = LinkName::loopback();
        host.set_up(&lo).await.unwrap();
        for last in 1..5 {
            let address = Cidr::host([10, 0, 0, last]);
            host.ensure_address(&lo, address).await.unwrap();
        }
        let mut route = Route::on_link("0.0.0.0/0".parse().unwrap(), lo);
        route.source = Some([10, 0, 0, 1].into());
        host.replace_route(&route).await.unwrap();
    });
    let outcome = ns.run(|| std::panic::catch_unwind(std::panic::AssertUnwindSafe(test)));
    netns::delete(&name).unwrap();
    if let Err(panic) = outcome.unwrap() {
        std::panic::resume_unwind(panic);
    }
}

/// An endpoint that answers with its address.
fn serve(last: u8) -> SocketAddr {
    let listener = TcpListener::bind((IpAddr::from([10, 0, 0, last]), 8080)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let _ = connection.and_then(|mut it| it.write_all(address.ip().to_string().as_bytes()));
        }
    });
    address
}

fn ask(to: impl Into<IpAddr>, port: u16) -> io::Result<String> {
    let mut connection = TcpStream::connect_timeout(&SocketAddr::new(to.into(), port), PATIENCE)?;
    let mut text = String::new();
    connection.read_to_string(&mut text)?;
    Ok(text)
}

fn ask_often(to: impl Into<IpAddr> + Copy, port: u16) -> BTreeSet<String> {
    (0..40).map(|_| ask(to, port).unwrap()).collect()
}

fn refuses(to: impl Into<IpAddr>, port: u16) -> bool {
    ask(to, port).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn service(node_port: u16) -> serde_json::Value {
    json!({
        "clusterIPs": ["10.96.0.7"], "type": "NodePort",
        "ports": [{"name": "web", "port": 80, "nodePort": node_port}],
    })
}

fn web(node: &mut Node) {
    node.set("service/shop/web", &service(NODE_PORT));
    node.set("slice/shop/web-1", &slice(8080, "web", "TCP"));
}

fn slice(port: u16, name: &str, protocol: &str) -> serde_json::Value {
    let ports = json!([{"name": name, "protocol": protocol, "port": port}]);
    json!({"service": name, "family": "IPv4", "ports": ports})
}

#[test]
fn what_is_programmed_is_read_back_and_made_good() {
    within("mend", || {
        let mut node = Node::new(Version::V4);
        assert_eq!(node.compare(), Found::Remade);
        assert_eq!(node.compare(), Found::Right);
        web(&mut node);
        node.program();
        node.set("endpoint/shop/web-1/10.0.0.2", &json!({"node": "here"}));
        node.set("endpoint/shop/web-1/10.0.0.3", &json!({"node": "there"}));
        node.program();
        let mut other = service(NODE_PORT);
        other["affinitySeconds"] = 60.into();
        other["externalLocal"] = true.into();
        other["externalIPs"] = json!(["192.0.2.1"]);
        node.set("service/shop/web", &other);
        node.program();
        node.remove("endpoint/shop/web-1/10.0.0.2");
        node.program();
        assert!(node.kernel.is_framed().unwrap());

        // An agent that starts anew finds it all in place.
        let mut again = Node::new(Version::V4);
        again.records = node.records.clone();
        again.topology.read_all(&again.records);
        assert_eq!(again.compare(), Found::Right);
        // Somebody takes some of it away, then all of it.
        let mut elsewhere = Node::new(Version::V4);
        assert_eq!(elsewhere.compare(), Found::Mended, "it wants nothing");
        assert_eq!((again.compare(), again.compare()), (Found::Mended, Found::Right));
        let mut nft = Nftables::current().unwrap();
        assert!(nft.delete(Packets::Ip, &Layout::table().unwrap()).unwrap());
        assert!(!again.kernel.is_framed().unwrap());
        assert_eq!((again.compare(), again.compare()), (Found::Remade, Found::Right));
        assert!(again.kernel.is_framed().unwrap());
    });
}

#[test]
fn the_layout_is_good_for_ipv6_too() {
    within("six", || {
        let mut node = Node::new(Version::V6);
        node.kernel = Kernel::open(Layout {
            version: Version::V6,
            bridge: LinkName::new("toono0").unwrap(),
            network: "fd00:1::/64".parse().unwrap(),
        })
        .unwrap();
        assert_eq!(node.compare(), Found::Remade);
        let ports = json!([{"port": 80, "nodePort": NODE_PORT}]);
        let service = json!({
            "clusterIPs": ["10.96.0.7", "fd00::7"], "type": "NodePort", "ports": ports,
            "affinitySeconds": 60, "externalLocal": true,
        });
        node.set("service/shop/web", &service);
        let ports = json!([{"port": 8080}]);
        node.set("slice/shop/web-6", &json!({"service": "web", "family": "IPv6", "ports": ports}));
        node.set("endpoint/shop/web-6/fd00:1::2", &json!({"node": "here"}));
        node.program();
    });
}

#[test]
fn connections_go_to_endpoints_or_are_refused_at_once() {
    within("lead", || {
        let mut node = Node::new(Version::V4);
        node.compare();
        web(&mut node);
        node.program();
        assert!(refuses(CLUSTER_IP, 80), "no endpoints");
        assert!(refuses([10, 0, 0, 1], NODE_PORT), "nor by the node");
        for last in [2, 3] {
            serve(last);
            node.set(&format!("endpoint/shop/web-1/10.0.0.{last}"), &json!({}));
        }
        node.program();
        let both = BTreeSet::from(["10.0.0.2".to_owned(), "10.0.0.3".to_owned()]);
        assert_eq!(ask_often(CLUSTER_IP, 80), both);
        assert_eq!(ask_often([10, 0, 0, 1], NODE_PORT), both);
        assert!(refuses(CLUSTER_IP, 81), "no such port");
        node.remove("endpoint/shop/web-1/10.0.0.2");
        node.program();
        assert_eq!(ask_often(CLUSTER_IP, 80), BTreeSet::from(["10.0.0.3".to_owned()]));
        node.topology.serve_here(&node.records, "shop/web", "web", Some(serve(4)));
        node.program();
        assert_eq!(ask_often(CLUSTER_IP, 80), BTreeSet::from(["10.0.0.4".to_owned()]));
    });
}

#[test]
fn a_client_stays_with_its_endpoint_while_there_is_one() {
    within("stay", || {
        let mut node = Node::new(Version::V4);
        node.compare();
        web(&mut node);
        let mut sticky = service(NODE_PORT);
        sticky["affinitySeconds"] = 60.into();
        node.set("service/shop/web", &sticky);
        for last in [2, 3, 4] {
            serve(last);
            node.set(&format!("endpoint/shop/web-1/10.0.0.{last}"), &json!({}));
        }
        node.program();
        let first = ask_often(CLUSTER_IP, 80);
        assert_eq!(first.len(), 1);
        assert_eq!(ask_often([10, 0, 0, 1], NODE_PORT), first, "by whatever name");
        let gone = first.first().unwrap();
        node.remove(&format!("endpoint/shop/web-1/{gone}"));
        node.program();
        let second = ask_often(CLUSTER_IP, 80);
        assert_eq!(second.len(), 1, "with another one");
        assert_ne!(second, first);
    });
}

#[test]
fn datagrams_go_on_where_there_is_an_endpoint() {
    within("udp", || {
        let mut node = Node::new(Version::V4);
        node.compare();
        let service = json!({
            "clusterIPs": ["10.96.0.7"], "ports": [{"name": "dns", "protocol": "UDP", "port": 53}],
        });
        node.set("service/shop/dns", &service);
        node.set("slice/shop/dns-1", &slice(5353, "dns", "UDP"));
        let sockets =
            [2, 3].map(|last| UdpSocket::bind(SocketAddr::from(([10, 0, 0, last], 5353))).unwrap());
        for socket in &sockets {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        node.set("endpoint/shop/dns-1/10.0.0.2", &json!({}));
        node.program();
        let client = UdpSocket::bind("10.0.0.1:0").unwrap();
        let send = || client.send_to(b"?", (IpAddr::from(CLUSTER_IP), 53)).unwrap();
        send();
        assert_eq!(sockets[0].recv(&mut [0; 8]).unwrap(), 1);
        assert_eq!(forget_stale(&node.topology).unwrap(), 0, "it leads where it should");
        node.remove("endpoint/shop/dns-1/10.0.0.2");
        node.set("endpoint/shop/dns-1/10.0.0.3", &json!({}));
        assert!(node.topology.take_changes().disturbs_udp);
        node.compare();
        assert_eq!(forget_stale(&node.topology).unwrap(), 1);
        send();
        assert_eq!(sockets[1].recv(&mut [0; 8]).unwrap(), 1);
    });
}

#[test]
fn a_port_of_the_node_is_one_pods() {
    let services = Services::default();
    let claim = |ip: Option<[u8; 4]>, port| Claim {
        host_ip: ip.map(IpAddr::from),
        protocol: Protocol::Tcp,
        port,
    };
    let own = Some([192, 0, 2, 1]);
    assert!(services.claim("a", &[claim(None, 80), claim(own, 81)]));
    assert!(services.claim("a", &[claim(None, 80), claim(own, 81)]), "it has them");
    assert!(!services.claim("b", &[claim(None, 79), claim(own, 80)]));
    assert!(!services.claim("b", &[claim(None, 81)]));
    let udp = Claim { protocol: Protocol::Udp, ..claim(None, 80) };
    assert!(services.claim("b", &[claim(Some([192, 0, 2, 2]), 81), udp]));
    services.release("a");
    assert!(services.claim("c", &[claim(None, 80)]));
}

/// Endpoints of 5,000 Services, four each.
const MANY: usize = 5_000;
/// What an update may take there; each of several is held to it by the median.
const UPDATE: Duration = Duration::from_millis(50);

#[test]
fn a_change_among_thousands_of_services_costs_what_it_changes() {
    within("many", || {
        let mut node = Node::new(Version::V4);
        for number in 0..MANY {
            let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
            let service = json!({
                "clusterIPs": [format!("10.97.{high}.{low}")],
                "ports": [{"name": "web", "port": 80}],
            });
            node.records.put(&format!("service/shop/s{number}"), &service.to_string());
            let slice = json!({
                "service": format!("s{number}"), "family": "IPv4",
                "ports": [{"name": "web", "port": 8080}],
            });
            node.records.put(&format!("slice/shop/s{number}-1"), &slice.to_string());
            for replica in 0..4 {
                let address = format!("10.{}.{high}.{low}", 100 + replica);
                node.records.put(&format!("endpoint/shop/s{number}-1/{address}"), "{}");
            }
        }
        let timed = |what: &str, work: &mut dyn FnMut()| {
            let before = std::time::Instant::now();
            work();
            let took = before.elapsed();
            println!("{what}: {took:?}");
            took
        };
        timed("all read", &mut || node.topology.read_all(&node.records));
        timed("all programmed", &mut || assert_eq!(node.compare(), Found::Remade));
        timed("all compared", &mut || assert_eq!(node.compare(), Found::Right));
        let mut updates = Vec::new();
        for round in 0..20 {
            let gone = format!("endpoint/shop/s{}-1/10.100.0.{}", 7 + round, 7 + round);
            let new = format!("endpoint/shop/s{}-1/10.200.0.{}", 7 + round, 7 + round);
            // One moves, one comes, one goes.
            node.records.remove(&gone);
            node.records.put(&new, "{}");
            let more = format!("endpoint/shop/s{}-1/10.201.0.1", 100 + round);
            node.records.put(&more, "{}");
            let less = format!("endpoint/shop/s{0}-1/10.100.0.{0}", 200 + round);
            node.records.remove(&less);
            updates.push(timed("update", &mut || {
                let keys = [&*gone, &*new, &*more, &*less];
                node.topology.read(&node.records, keys.into_iter());
                let changes = node.topology.take_changes();
                node.kernel.change(&changes).unwrap();
            }));
        }
        updates.sort();
        assert!(updates[updates.len() / 2] <= UPDATE, "{updates:?}");
        assert_eq!(node.compare(), Found::Right);
    });
}
