//! Sites: what gets through their routers and what does not, made twice, broken, mended, cut and removed.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use toono_lab::{LabConfig, LabError, LabName, Loss};
use toono_net::nft::{Family, Nftables, TableName};
use toono_net::{LinkName, Mark, Netlink, NetlinkError, netns};

/// How long to wait for what should arrive.
const ARRIVES: Duration = Duration::from_secs(5);
/// How long to wait for what should not.
const STAYS_AWAY: Duration = Duration::from_millis(300);

/// A lab that is removed with this value.
struct TestLab {
    config: LabConfig,
}

impl TestLab {
    fn new(pools: usize, nodes: usize) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // A process id and a number make a name of four letters and a network that no other test has.
        let seed = std::process::id()
            .wrapping_mul(16)
            .wrapping_add(NUMBER.fetch_add(1, Ordering::Relaxed));
        let digits = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let tail: String = (0..4)
            .map(|place| char::from(digits[(seed / 36_u32.pow(place) % 36) as usize]))
            .collect();
        let mut config =
            LabConfig::uniform(LabName::new(format!("toono-{tail}")).unwrap(), pools, nodes);
        config.subnet = format!("100.{}.{}.0/24", 65 + seed / 256 % 63, seed % 256);
        Self { config }
    }

    fn name(&self) -> &LabName {
        &self.config.name
    }

    fn cloud(&self) -> IpAddr {
        self.config.cloud_address().unwrap().into()
    }

    /// Runs `work` inside the namespace of the node.
    fn on<T: Send>(&self, node: &str, work: impl FnOnce() -> T + Send) -> T {
        toono_lab::namespace(self.name(), node).unwrap().run(work).unwrap()
    }

    /// A datagram from the node to the cloud and back: who the cloud saw.
    fn round_trip(&self, node: &str, patience: Duration) -> Option<IpAddr> {
        let cloud = UdpSocket::bind((self.cloud(), 0)).unwrap();
        cloud.set_read_timeout(Some(patience)).unwrap();
        let edge = self.on(node, || UdpSocket::bind("0.0.0.0:0").unwrap());
        edge.set_read_timeout(Some(patience)).unwrap();
        edge.send_to(b"ping", cloud.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 16];
        let (_, from) = cloud.recv_from(&mut buffer).ok()?;
        cloud.send_to(b"pong", from).unwrap();
        edge.recv_from(&mut buffer).ok()?;
        Some(from.ip())
    }

    fn link(&self, tail: &str) -> LinkName {
        LinkName::new(format!("{}-{tail}", self.name())).unwrap()
    }

    /// The lab's links on the host with their indexes, and its namespaces with their identities.
    async fn everything(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        let prefix = self.name().as_str();
        let host = Netlink::current().unwrap();
        for link in host.links().await.unwrap() {
            if link.name.as_str().starts_with(prefix) {
                all.insert(format!("link {} {}", link.name, link.index));
            }
        }
        for name in netns::list(prefix).unwrap() {
            let netns = netns::open(&name).unwrap();
            all.insert(format!("netns {name} {:?}", netns.identity().unwrap()));
            let inside = Netlink::in_namespace(&netns).unwrap();
            for link in inside.links().await.unwrap() {
                all.insert(format!("link {name} {} {}", link.name, link.index));
            }
        }
        all
    }
}

impl Drop for TestLab {
    fn drop(&mut self) {
        let name = self.name().clone();
        // A runtime of its own: the test's is busy unwinding, or is this very thread's.
        let removed = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(toono_lab::down(&name)).unwrap();
        });
        if removed.join().is_err() {
            eprintln!("the lab {} could not be removed", self.name());
        }
    }
}

#[tokio::test]
async fn nodes_reach_out_and_nobody_reaches_in() {
    let lab = TestLab::new(2, 2);
    toono_lab::up(&lab.config).await.unwrap();
    let status = toono_lab::status(lab.name()).await.unwrap().unwrap();
    assert_eq!(status.pools.iter().map(|pool| pool.nodes.len()).collect::<Vec<_>>(), [2, 2]);
    for pool in &status.pools {
        assert!(pool.whole && !pool.cut, "{pool:?}");
        for node in &pool.nodes {
            assert!(node.whole, "{node:?}");
            assert_eq!(lab.round_trip(&node.name, ARRIVES), Some(pool.wan.into()), "{}", node.name);
        }
    }

    // The same with TCP, and what the cloud answers comes back through the NAT.
    let listener = TcpListener::bind((lab.cloud(), 0)).unwrap();
    let target = listener.local_addr().unwrap();
    let mut edge = lab.on("pool-a-1", || TcpStream::connect_timeout(&target, ARRIVES).unwrap());
    let (mut cloud, from) = listener.accept().unwrap();
    assert_eq!(from.ip(), IpAddr::V4(status.pools[0].wan));
    cloud.write_all(b"hello").unwrap();
    drop(cloud);
    let mut text = String::new();
    edge.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");

    // Inward: a node's own address has no route, and the router neither answers nor passes on.
    let inside = lab.on("pool-a-1", || TcpListener::bind("0.0.0.0:0").unwrap());
    let port = inside.local_addr().unwrap().port();
    let router = netns::open(&status.pools[0].router).unwrap();
    let _listening = router.run(|| TcpListener::bind(("0.0.0.0", port)).unwrap()).unwrap();
    let target = SocketAddr::from((status.pools[0].wan, port));
    let refused = TcpStream::connect_timeout(&target, STAYS_AWAY).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::TimedOut, "dropped, not refused");
    let host = Netlink::current().unwrap();
    let way_in =
        toono_net::Route::via("192.168.1.10/32".parse().unwrap(), status.pools[0].wan.into());
    // Even a cloud that knows the way does not get through. The route goes with the bridge.
    host.replace_route(&way_in).await.unwrap();
    let target = SocketAddr::from((Ipv4Addr::new(192, 168, 1, 10), port));
    assert!(TcpStream::connect_timeout(&target, STAYS_AWAY).is_err());
    host.delete_route(&way_in).await.unwrap();

    // Sites are strangers to each other; nodes of a site are neighbours.
    let neighbour = SocketAddr::from((Ipv4Addr::new(192, 168, 1, 10), port));
    assert!(lab.on("pool-a-2", || TcpStream::connect_timeout(&neighbour, ARRIVES)).is_ok());
    assert!(lab.on("pool-b-1", || TcpStream::connect_timeout(&neighbour, STAYS_AWAY)).is_err());
}

#[tokio::test]
async fn a_cut_link_is_silent_until_it_is_healed() {
    let lab = TestLab::new(2, 1);
    toono_lab::up(&lab.config).await.unwrap();
    assert!(lab.round_trip("pool-a-1", ARRIVES).is_some());
    for _ in 0..2 {
        toono_lab::cut(lab.name(), "pool-a", Loss::All).unwrap();
    }
    assert_eq!(lab.round_trip("pool-a-1", STAYS_AWAY), None);
    assert!(lab.round_trip("pool-b-1", ARRIVES).is_some(), "the other site has its link");
    let status = toono_lab::status(lab.name()).await.unwrap().unwrap();
    assert!(status.pools[0].cut && status.pools[0].whole && !status.pools[1].cut);
    // Nobody is told: connecting waits, it is not refused.
    let listener = TcpListener::bind((lab.cloud(), 0)).unwrap();
    let target = listener.local_addr().unwrap();
    let waited =
        lab.on("pool-a-1", || TcpStream::connect_timeout(&target, STAYS_AWAY).unwrap_err());
    assert_eq!(waited.kind(), std::io::ErrorKind::TimedOut);
    // `up` mends what is broken, but a cut link was cut on purpose.
    toono_lab::up(&lab.config).await.unwrap();
    assert_eq!(lab.round_trip("pool-a-1", STAYS_AWAY), None);
    for _ in 0..2 {
        toono_lab::heal(lab.name(), "pool-a").unwrap();
    }
    assert!(lab.round_trip("pool-a-1", ARRIVES).is_some());
    assert!(matches!(
        toono_lab::cut(lab.name(), "pool-z", Loss::All),
        Err(LabError::NoPool { .. })
    ));
}

#[tokio::test]
async fn a_cut_stops_what_is_under_way_both_ways() {
    let lab = TestLab::new(1, 1);
    toono_lab::up(&lab.config).await.unwrap();
    let cloud = UdpSocket::bind((lab.cloud(), 0)).unwrap();
    let edge = lab.on("pool-a-1", || UdpSocket::bind("0.0.0.0:0").unwrap());
    edge.connect(cloud.local_addr().unwrap()).unwrap();
    edge.send(b"hello").unwrap();
    let mut buffer = [0; 16];
    cloud.set_read_timeout(Some(ARRIVES)).unwrap();
    let (_, mapped) = cloud.recv_from(&mut buffer).unwrap();

    toono_lab::cut(lab.name(), "pool-a", Loss::All).unwrap();
    cloud.send_to(b"lost", mapped).unwrap();
    edge.set_read_timeout(Some(STAYS_AWAY)).unwrap();
    assert_eq!(edge.recv(&mut buffer).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    edge.send(b"lost").unwrap();
    cloud.set_read_timeout(Some(STAYS_AWAY)).unwrap();
    assert_eq!(cloud.recv_from(&mut buffer).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);

    // The NAT remembers: what was under way goes on, from the same port.
    toono_lab::heal(lab.name(), "pool-a").unwrap();
    cloud.send_to(b"again", mapped).unwrap();
    edge.set_read_timeout(Some(ARRIVES)).unwrap();
    assert_eq!(edge.recv(&mut buffer).unwrap(), 5);
    edge.send(b"hello").unwrap();
    cloud.set_read_timeout(Some(ARRIVES)).unwrap();
    assert_eq!(cloud.recv_from(&mut buffer).unwrap().1, mapped);
}

#[tokio::test]
async fn a_node_is_cut_alone_and_one_way_alone() {
    let lab = TestLab::new(1, 2);
    toono_lab::up(&lab.config).await.unwrap();
    let cloud = UdpSocket::bind((lab.cloud(), 0)).unwrap();
    let edge = lab.on("pool-a-1", || UdpSocket::bind("0.0.0.0:0").unwrap());
    edge.connect(cloud.local_addr().unwrap()).unwrap();
    edge.send(b"hello").unwrap();
    let mut buffer = [0; 16];
    cloud.set_read_timeout(Some(ARRIVES)).unwrap();
    let (_, mapped) = cloud.recv_from(&mut buffer).unwrap();
    // What arrives at the cloud, and what at the node.
    let arrives = || {
        edge.send(b"out").unwrap();
        cloud.set_read_timeout(Some(STAYS_AWAY)).unwrap();
        let out = cloud.recv_from(&mut [0; 16]).is_ok();
        cloud.send_to(b"in", mapped).unwrap();
        edge.set_read_timeout(Some(STAYS_AWAY)).unwrap();
        (out, edge.recv(&mut [0; 16]).is_ok())
    };
    for place in ["pool-a-1", "pool-a"] {
        for (loss, expected) in [
            (Loss::All, (false, false)),
            (Loss::Udp, (false, false)),
            (Loss::Outbound, (false, true)),
            (Loss::Inbound, (true, false)),
        ] {
            toono_lab::cut(lab.name(), place, loss).unwrap();
            assert_eq!(arrives(), expected, "{place} {loss:?}");
        }
        let other = lab.round_trip("pool-a-2", STAYS_AWAY).is_some();
        assert_eq!(other, place == "pool-a-1", "the neighbour, with {place} cut");
        toono_lab::heal(lab.name(), place).unwrap();
        assert_eq!(arrives(), (true, true), "{place} healed");
    }
    // Neither cut is the other's.
    toono_lab::cut(lab.name(), "pool-a-1", Loss::All).unwrap();
    toono_lab::cut(lab.name(), "pool-a", Loss::All).unwrap();
    toono_lab::heal(lab.name(), "pool-a").unwrap();
    assert_eq!(arrives(), (false, false));
    assert!(lab.round_trip("pool-a-2", ARRIVES).is_some());
}

#[tokio::test]
async fn an_idle_link_is_silent() {
    let lab = TestLab::new(1, 2);
    toono_lab::up(&lab.config).await.unwrap();
    let router = netns::open(&format!("{}-pool-a-router", lab.name())).unwrap();
    let packets = || {
        let text =
            router.run(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap()).unwrap();
        let counted = |line: &str| {
            let (link, fields) = line.split_once(':')?;
            let fields = fields.split_ascii_whitespace().map(|field| field.parse::<u64>().unwrap());
            let fields = fields.collect::<Vec<_>>();
            Some((link.trim().to_owned(), fields[1] + fields[9]))
        };
        text.lines().filter_map(counted).collect::<Vec<_>>()
    };
    // A bridge greets its groups when it comes up. That nothing comes is no event to wait for.
    std::thread::sleep(Duration::from_millis(1500));
    let before = packets();
    assert_eq!(
        before.iter().filter(|(link, _)| link.starts_with("node-")).count(),
        2,
        "{before:?}"
    );
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(packets(), before);
}

#[tokio::test]
async fn up_twice_changes_nothing_and_mends_what_is_broken() {
    let lab = TestLab::new(1, 2);
    toono_lab::up(&lab.config).await.unwrap();
    let first = lab.everything().await;
    toono_lab::up(&lab.config).await.unwrap();
    assert_eq!(lab.everything().await, first);

    let host = Netlink::current().unwrap();
    let node = toono_lab::namespace(lab.name(), "pool-a-1").unwrap();
    let node = Netlink::in_namespace(&node).unwrap();
    let router = netns::open(&format!("{}-pool-a-router", lab.name())).unwrap();
    // The cable to the cloud, the cable of a node, the router's rules, a whole namespace.
    assert!(host.delete_link(&lab.link("w0")).await.unwrap());
    assert!(node.delete_link(&LinkName::new("eth0").unwrap()).await.unwrap());
    let table = TableName::new("toono_router").unwrap();
    assert!(Nftables::in_namespace(&router).unwrap().delete(Family::Inet, &table).unwrap());
    netns::delete(&format!("{}-pool-a-2", lab.name())).unwrap();
    let status = toono_lab::status(lab.name()).await.unwrap().unwrap();
    assert!(
        !status.pools[0].whole && status.pools[0].nodes.iter().all(|node| !node.whole),
        "{status:?}"
    );

    toono_lab::up(&lab.config).await.unwrap();
    for node in ["pool-a-1", "pool-a-2"] {
        assert_eq!(lab.round_trip(node, ARRIVES), Some(status.pools[0].wan.into()), "{node}");
    }

    // A smaller lab of the same name leaves no rest of the larger one.
    let mut smaller = lab.config.clone();
    smaller.pools[0].nodes = 1;
    toono_lab::up(&smaller).await.unwrap();
    assert!(matches!(toono_lab::namespace(lab.name(), "pool-a-2"), Err(LabError::NoNode { .. })));
    assert_eq!(netns::list(&format!("{}-pool-a-2", lab.name())).unwrap(), [""; 0]);
    assert!(lab.round_trip("pool-a-1", ARRIVES).is_some());
}

#[tokio::test]
async fn down_leaves_nothing() {
    let lab = TestLab::new(2, 2);
    toono_lab::down(lab.name()).await.unwrap();
    toono_lab::up(&lab.config).await.unwrap();
    toono_lab::cut(lab.name(), "pool-b", Loss::All).unwrap();
    assert!(!lab.everything().await.is_empty());
    toono_lab::down(lab.name()).await.unwrap();
    assert_eq!(lab.everything().await, BTreeSet::new());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(lab.name().as_str()), "{mounts}");
    assert_eq!(toono_lab::status(lab.name()).await.unwrap(), None);
    assert!(matches!(toono_lab::heal(lab.name(), "pool-b"), Err(LabError::NoLab { .. })));

    // Half of one: a namespace without a file, and a link with the mark.
    netns::create(&format!("{}-pool-c-router", lab.name())).unwrap();
    let host = Netlink::current().unwrap();
    let mark = Mark::new(format!("toono:lab/{}", lab.name())).unwrap();
    host.ensure_bridge(&lab.link("wan"), &mark).await.unwrap();
    toono_lab::down(lab.name()).await.unwrap();
    assert_eq!(lab.everything().await, BTreeSet::new());
}

#[tokio::test]
async fn what_is_in_the_way_is_named() {
    let (lab, other) = (TestLab::new(1, 1), TestLab::new(1, 1));
    toono_lab::up(&lab.config).await.unwrap();
    let overlapping = LabConfig { subnet: lab.config.subnet.clone(), ..other.config.clone() };
    let error = toono_lab::up(&overlapping).await.unwrap_err();
    assert!(matches!(error, LabError::SubnetTaken { .. }), "{error}");
    assert!(error.hint().is_some());
    assert_eq!(other.everything().await, BTreeSet::new(), "nothing half-made stays");

    let host = Netlink::current().unwrap();
    host.ensure_bridge(&other.link("wan"), &Mark::new("toono:test/foreign").unwrap())
        .await
        .unwrap();
    let error = toono_lab::up(&other.config).await.unwrap_err();
    assert!(matches!(error, LabError::Netlink(NetlinkError::Foreign { .. })), "{error}");
    assert!(error.hint().is_some());
    assert_eq!(toono_lab::status(other.name()).await.unwrap(), None, "nothing half-made stays");
    assert!(host.delete_link(&other.link("wan")).await.unwrap(), "what is foreign does");
}

#[tokio::test]
async fn commands_run_on_a_node() {
    let lab = TestLab::new(1, 1);
    toono_lab::up(&lab.config).await.unwrap();
    let sh = |script: &str| {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned);
        toono_lab::shell(lab.name(), "pool-a-1", &argv).unwrap()
    };
    assert_eq!(sh("exit 7"), 7);
    assert_eq!(sh("kill -9 $$"), 128 + 9);
    // The node's namespace has its own link and not the host's.
    assert_eq!(sh("grep -q eth0: /proc/net/dev && ! grep -q wan: /proc/net/dev"), 0);
    assert_eq!(sh("test $(wc -l < /proc/net/if_inet6) = 0"), 0, "no IPv6, so no noise");
    let missing = toono_lab::shell(lab.name(), "pool-a-1", &["/no/such".to_owned()]);
    assert!(matches!(missing, Err(LabError::Shell { .. })));
    assert!(matches!(toono_lab::shell(lab.name(), "nobody", &[]), Err(LabError::NoNode { .. })));
}
