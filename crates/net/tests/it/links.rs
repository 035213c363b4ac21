//! Namespaces, links, addresses, routes, neighbours and sysctls: what is set is what is read back.

use std::path::Path;

use toono_net::netns::{self, NetNsError};
use toono_net::{Cidr, LinkKind, MacAddress, Netlink, NetlinkError, Route, VethPeer};

use crate::{TestNetNs, link, mark};

#[test]
fn a_namespace_has_a_name_until_it_is_deleted() {
    let test = TestNetNs::new("name");
    assert!(matches!(netns::create(&test.name), Err(NetNsError::Exists { .. })));
    assert!(netns::list(&test.name).unwrap().contains(&test.name));
    let inside = test.netns.run(|| netns::current().unwrap().identity().unwrap()).unwrap();
    assert_eq!(inside, test.netns.identity().unwrap());
    assert_ne!(inside, netns::current().unwrap().identity().unwrap());
    let (same, made) = netns::ensure(&test.name).unwrap();
    assert!(!made && same.identity().unwrap() == inside);

    netns::delete(&test.name).unwrap();
    netns::delete(&test.name).unwrap();
    assert!(matches!(netns::open(&test.name), Err(NetNsError::Missing { .. })));
    assert!(!Path::new(netns::NETNS_DIR).join(&test.name).exists());
    // A name without a namespace, as a power cut leaves it, is made whole.
    std::fs::write(Path::new(netns::NETNS_DIR).join(&test.name), "").unwrap();
    assert!(netns::ensure(&test.name).unwrap().1);
    for bad in ["", "..", "a/b"] {
        assert!(matches!(netns::create(bad), Err(NetNsError::Name { .. })), "{bad:?}");
    }
}

#[test]
fn a_panic_inside_a_namespace_reaches_the_caller() {
    let test = TestNetNs::new("panic");
    let outcome = std::panic::catch_unwind(|| test.netns.run::<(), _>(|| panic!("inside")));
    assert_eq!(outcome.unwrap_err().downcast_ref(), Some(&"inside"));
}

#[test]
fn sysctls_belong_to_the_namespace() {
    let (one, other) = (TestNetNs::new("one"), TestNetNs::new("other"));
    let key = "net/ipv4/ip_forward";
    one.netns.write_sysctl(key, "1").unwrap();
    other.netns.write_sysctl(key, "0").unwrap();
    assert_eq!(one.netns.read_sysctl(key).unwrap(), "1");
    assert_eq!(other.netns.read_sysctl(key).unwrap(), "0");
    assert!(matches!(one.netns.write_sysctl("net/none", "1"), Err(NetNsError::Sysctl { .. })));
}

#[tokio::test]
async fn a_bridge_with_a_veth_into_another_namespace() {
    let (host, pod) = (TestNetNs::new("host"), TestNetNs::new("pod"));
    let (inside, outside) =
        (Netlink::in_namespace(&pod.netns).unwrap(), Netlink::in_namespace(&host.netns).unwrap());
    let (bridge, near, far) = (link("bridge"), link("near"), link("eth0"));
    let owner = mark("pods");

    let made = outside.ensure_bridge(&bridge, &owner).await.unwrap();
    assert_eq!((&made.kind, made.up, made.mark()), (&LinkKind::Bridge, false, Some(owner.clone())));
    for _ in 0..2 {
        let peer = VethPeer { netns: &pod.netns, name: &far };
        let veth = outside.ensure_veth(&near, &peer, &owner).await.unwrap();
        assert_eq!(veth.peer, Some(inside.link(&far).await.unwrap().index));
        outside.set_master(&near, Some(&bridge)).await.unwrap();
        outside.set_hairpin(&near).await.unwrap();
        outside.set_mtu(&near, 1400).await.unwrap();
        outside.set_up(&bridge).await.unwrap();
        outside.set_up(&near).await.unwrap();
        inside.set_up(&far).await.unwrap();
    }
    let shown = host.netns.run(|| {
        std::process::Command::new("ip").args(["-d", "link", "show", "near"]).output().unwrap()
    });
    let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
    assert!(shown.contains("hairpin on"), "{shown}");
    let veth = outside.link(&near).await.unwrap();
    assert_eq!((veth.master, veth.mtu, veth.up), (Some(made.index), 1400, true));
    let after = outside.link(&bridge).await.unwrap();
    assert_eq!(after.address, made.address, "a bridge keeps its address when it gets a port");
    let names = outside
        .links_of(&owner)
        .await
        .unwrap()
        .into_iter()
        .map(|link| link.name)
        .collect::<Vec<_>>();
    assert_eq!(names, [bridge.clone(), near.clone()]);
    assert_eq!(outside.links_of(&mark("other")).await.unwrap(), []);

    // The pod's namespace is made anew: the old pair is gone, or leads nowhere.
    let new = TestNetNs::new("new");
    outside.ensure_veth(&near, &VethPeer { netns: &new.netns, name: &far }, &owner).await.unwrap();
    assert_eq!(inside.find_link(&far).await.unwrap(), None);
    assert!(Netlink::in_namespace(&new.netns).unwrap().find_link(&far).await.unwrap().is_some());

    outside.set_down(&near).await.unwrap();
    outside.set_master(&near, None).await.unwrap();
    assert_eq!(outside.link(&near).await.unwrap().master, None);
    assert!(outside.delete_link(&near).await.unwrap());
    assert!(!outside.delete_link(&near).await.unwrap());
    assert!(matches!(outside.link(&near).await, Err(NetlinkError::NoLink { .. })));
}

#[tokio::test]
async fn links_of_others_are_left_alone() {
    let test = TestNetNs::new("foreign");
    let netlink = Netlink::in_namespace(&test.netns).unwrap();
    let bridge = link("bridge");
    netlink.ensure_bridge(&bridge, &mark("theirs")).await.unwrap();
    let error = netlink.ensure_bridge(&bridge, &mark("ours")).await.unwrap_err();
    assert!(matches!(error, NetlinkError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("toono:test/theirs"), "{error}");
    let peer = VethPeer { netns: &test.netns, name: &link("far") };
    let error = netlink.ensure_veth(&bridge, &peer, &mark("theirs")).await.unwrap_err();
    assert!(matches!(error, NetlinkError::Foreign { .. }), "{error}");
}

#[tokio::test]
async fn addresses_routes_and_neighbours() {
    let test = TestNetNs::new("routes");
    let netlink = Netlink::in_namespace(&test.netns).unwrap();
    let (bridge, lo) = (link("bridge"), link("lo"));
    netlink.ensure_bridge(&bridge, &mark("routes")).await.unwrap();
    netlink.set_mac(&bridge, MacAddress::new([2, 0, 0, 0, 0, 9])).await.unwrap();
    netlink.set_up(&bridge).await.unwrap();
    netlink.set_up(&lo).await.unwrap();
    assert_eq!(
        netlink.link(&bridge).await.unwrap().address.unwrap().to_string(),
        "02:00:00:00:00:09"
    );

    let own: Cidr = "10.9.0.1/24".parse().unwrap();
    netlink.ensure_address(&bridge, own).await.unwrap();
    netlink.ensure_address(&bridge, own).await.unwrap();
    assert!(netlink.addresses(&bridge).await.unwrap().contains(&own));

    let gateway = "10.9.0.254".parse().unwrap();
    let default = Route::default_via(gateway);
    let far = Route::via("10.20.0.0/16".parse().unwrap(), gateway);
    let near = Route::on_link("10.30.0.0/24".parse().unwrap(), bridge.clone());
    for route in [&default, &far, &near, &default] {
        netlink.replace_route(route).await.unwrap();
    }
    let routes = netlink.routes().await.unwrap();
    for route in [&default, &far, &near] {
        let wanted = |found: &&Route| {
            found.destination == route.destination && found.gateway == route.gateway
        };
        let found = routes.iter().filter(wanted).collect::<Vec<_>>();
        assert_eq!(found.len(), 1, "{route:?} in {routes:?}");
        assert_eq!(found[0].link.as_ref(), Some(&bridge));
    }
    assert!(netlink.delete_route(&far).await.unwrap());
    assert!(!netlink.delete_route(&far).await.unwrap());

    let mac = MacAddress::new([2, 0, 0, 0, 0, 7]);
    netlink.replace_neighbour(&bridge, gateway, mac).await.unwrap();
    let neighbours = netlink.neighbours(&bridge).await.unwrap();
    let entry = neighbours.iter().find(|entry| entry.address == gateway).unwrap();
    assert!(entry.permanent && entry.mac == Some(mac));
    assert!(netlink.delete_neighbour(&bridge, gateway).await.unwrap());

    assert!(netlink.delete_address(&bridge, own).await.unwrap());
    assert!(!netlink.delete_address(&bridge, own).await.unwrap());
    let error = netlink.replace_route(&far).await.unwrap_err();
    assert_eq!(error.errno(), Some(libc::ENETUNREACH), "{error}");
    assert!(error.to_string().contains("10.20.0.0/16 via 10.9.0.254"), "{error}");
}
