//! A host behind a NAT router: what it sends arrives with the router's address, and nobody can reach in.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use toono_net::nft::{
    Base, Chain, ChainKind, ChainName, Family, Field, Hook, Nftables, PRIORITY_FILTER,
    PRIORITY_SRCNAT, Policy, Rule, States, Table, TableName,
};
use toono_net::{Cidr, Netlink, Route, VethPeer};

use crate::{TestNetNs, link, mark};

/// How long to wait for a datagram that should come.
const ARRIVES: Duration = Duration::from_secs(5);
/// How long to wait for one that should not.
const STAYS_AWAY: Duration = Duration::from_millis(300);

fn socket_in(test: &TestNetNs, address: &str) -> UdpSocket {
    test.netns.run(|| UdpSocket::bind((address, 0))).unwrap().unwrap()
}

fn receive(socket: &UdpSocket, patience: Duration) -> Option<(Vec<u8>, SocketAddr)> {
    socket.set_read_timeout(Some(patience)).unwrap();
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer).ok()?;
    Some((buffer[..length].to_vec(), from))
}

async fn cable(a: (&TestNetNs, &str, &str), b: (&TestNetNs, &str, &str)) {
    let (near, far) = (link(a.1), link(b.1));
    let here = Netlink::in_namespace(&a.0.netns).unwrap();
    let there = Netlink::in_namespace(&b.0.netns).unwrap();
    let peer = VethPeer { netns: &b.0.netns, name: &far };
    here.ensure_veth(&near, &peer, &mark("nat")).await.unwrap();
    for (netlink, name, address) in [(&here, &near, a.2), (&there, &far, b.2)] {
        netlink.ensure_address(name, address.parse::<Cidr>().unwrap()).await.unwrap();
        netlink.set_up(name).await.unwrap();
    }
}

fn router_table() -> Table {
    let base = |kind, hook, priority| Some(Base { kind, hook, priority, policy: Policy::Accept });
    let forward = vec![
        Rule::new("known").when(Field::State(States::ESTABLISHED.or(States::RELATED))).accept(),
        Rule::new("uninvited").when(Field::InputInterface(link("wan"))).counted().drop(),
    ];
    let nat =
        vec![Rule::new("nat").when(Field::OutputInterface(link("wan"))).counted().masquerade()];
    Table {
        family: Family::Inet,
        name: TableName::new("toono_nat").unwrap(),
        sets: Vec::new(),
        chains: vec![
            Chain {
                name: ChainName::new("forward").unwrap(),
                base: base(ChainKind::Filter, Hook::Forward, PRIORITY_FILTER),
                rules: forward,
            },
            Chain {
                name: ChainName::new("postrouting").unwrap(),
                base: base(ChainKind::Nat, Hook::Postrouting, PRIORITY_SRCNAT),
                rules: nat,
            },
        ],
    }
}

#[tokio::test]
async fn a_host_behind_a_nat_router() {
    let (cloud, router, site) =
        (TestNetNs::new("cloud"), TestNetNs::new("router"), TestNetNs::new("site"));
    cable((&router, "wan", "100.64.0.2/24"), (&cloud, "eth0", "100.64.0.1/24")).await;
    cable((&router, "lan", "192.168.7.1/24"), (&site, "eth0", "192.168.7.10/24")).await;
    router.netns.write_sysctl("net/ipv4/ip_forward", "1").unwrap();
    let site_links = Netlink::in_namespace(&site.netns).unwrap();
    site_links
        .replace_route(&Route::default_via(Ipv4Addr::new(192, 168, 7, 1).into()))
        .await
        .unwrap();
    // The cloud knows the way, so that only the filter can keep it out.
    let inward = Route::via("192.168.7.0/24".parse().unwrap(), Ipv4Addr::new(100, 64, 0, 2).into());
    Netlink::in_namespace(&cloud.netns).unwrap().replace_route(&inward).await.unwrap();
    let mut nft = Nftables::in_namespace(&router.netns).unwrap();
    let table = router_table();

    let (outside, inside) = (socket_in(&cloud, "100.64.0.1"), socket_in(&site, "192.168.7.10"));
    outside.send_to(b"open", inside.local_addr().unwrap()).unwrap();
    assert!(receive(&inside, ARRIVES).is_some(), "without the filter the way is open");

    nft.apply(&table).unwrap();
    inside.send_to(b"out", outside.local_addr().unwrap()).unwrap();
    let (data, from) = receive(&outside, ARRIVES).unwrap();
    assert_eq!(
        (data.as_slice(), from.ip()),
        (b"out".as_slice(), Ipv4Addr::new(100, 64, 0, 2).into())
    );
    outside.send_to(b"back", from).unwrap();
    assert_eq!(receive(&inside, ARRIVES).unwrap().0, b"back");

    let stranger = socket_in(&cloud, "100.64.0.1");
    stranger.send_to(b"in", inside.local_addr().unwrap()).unwrap();
    assert_eq!(receive(&inside, STAYS_AWAY), None);
    let counters = nft.read(table.family, &table.name).unwrap().unwrap().counters;
    let counted = counters
        .iter()
        .map(|counter| (counter.comment.as_str(), counter.packets))
        .collect::<Vec<_>>();
    assert_eq!(counted, [("uninvited", 1), ("nat", 1)]);
}
