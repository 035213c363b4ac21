//! Policies, readiness, kinds of fronts: what kube-proxy does, in tables.

use serde_json::json;
use toono_topology::{HostPort, Protocol};
use toono_wire::pool::near::Vantage;

use crate::{Node, Outcome, to};

use Outcome::{Dropped, Refused, Unknown};

#[test]
fn traffic_policies() {
    // Of two endpoints one is here; of one none is; of none none.
    let local = json!({"externalLocal": true, "internalLocal": true});
    for (fields, two, far, none) in [
        (
            json!({}),
            [to(&[1, 2]), to(&[1, 2]), to(&[1, 2])],
            [to(&[2]), to(&[2]), to(&[2])],
            [(); 3].map(|()| Refused),
        ),
        (
            json!({"externalLocal": true}),
            [to(&[1, 2]), to(&[1, 2]), to(&[1])],
            [to(&[2]), to(&[2]), Dropped],
            [(); 3].map(|()| Refused),
        ),
        (
            json!({"internalLocal": true}),
            [to(&[1]), to(&[1, 2]), to(&[1, 2])],
            [Dropped, to(&[2]), to(&[2])],
            [(); 3].map(|()| Refused),
        ),
        (
            local,
            [to(&[1]), to(&[1, 2]), to(&[1])],
            [Dropped, to(&[2]), Dropped],
            [(); 3].map(|()| Refused),
        ),
        (
            json!({"topologyKeys": "kubernetes.io/hostname"}),
            [to(&[1]), to(&[1]), to(&[1])],
            [Refused, Refused, Refused],
            [(); 3].map(|()| Refused),
        ),
    ] {
        let mut node = Node::new();
        node.service(fields.clone());
        assert_eq!(node.web(), none, "{fields}");
        node.endpoint(2, json!({"node": "there"}));
        assert_eq!(node.web(), far, "{fields}");
        node.endpoint(1, json!({"node": "here"}));
        assert_eq!(node.web(), two, "{fields}");
    }
}

#[test]
fn who_is_ready_and_who_only_still_answers() {
    let ready = json!({"node": "here"});
    let unready = json!({"node": "here", "unready": true});
    let ending = json!({"node": "here", "unready": true, "serving": true, "terminating": true});
    let ended = json!({"node": "here", "unready": true, "terminating": true});
    let silent = json!({"node": "there", "unready": true, "silent": true});
    for (endpoints, expected) in [
        (vec![&ready, &unready, &ending], to(&[0])),
        (vec![&unready, &ending, &ended, &ending], to(&[1, 3])),
        (vec![&unready, &ended], Refused),
        (vec![&silent, &ready], to(&[1])),
        (vec![&silent, &ending], to(&[1])),
        (vec![&unready, &silent, &ended, &silent], to(&[1, 3])),
    ] {
        let mut node = Node::new();
        node.service(json!({}));
        for (last, endpoint) in (0..).zip(&endpoints) {
            node.endpoint(last, (*endpoint).clone());
        }
        assert_eq!(node.web()[0], expected, "{endpoints:?}");
    }
    let mut node = Node::new();
    node.service(json!({"publishNotReady": true}));
    node.endpoint(1, unready);
    assert_eq!(node.web()[0], to(&[1]));
}

#[test]
fn a_local_fallback_does_not_look_elsewhere() {
    let mut node = Node::new();
    node.service(json!({"externalLocal": true}));
    let ending = json!({"node": "here", "unready": true, "serving": true, "terminating": true});
    node.endpoint(1, ending);
    node.endpoint(2, json!({"node": "there"}));
    assert_eq!(node.web(), [to(&[2]), to(&[2]), to(&[1])]);
}

#[test]
fn ports_have_names_and_protocols() {
    let mut node = Node::new();
    let ports = json!([
        {"name": "dns", "protocol": "UDP", "port": 53}, {"name": "dns-tcp", "port": 53},
        {"name": "sctp", "protocol": "SCTP", "port": 53}, {"name": "none", "port": 54},
    ]);
    node.set("service/shop/dns", &json!({"clusterIPs": ["10.96.0.10"], "ports": ports}));
    let ports = json!([
        {"name": "dns", "protocol": "UDP", "port": 1053}, {"name": "dns-tcp", "port": 1054},
        {"name": "sctp", "protocol": "SCTP", "port": 1055}, {"name": "none"},
    ]);
    node.set("slice/shop/dns-1", &json!({"service": "dns", "family": "IPv4", "ports": ports}));
    node.set("endpoint/shop/dns-1/10.244.0.9", &json!({}));
    for (protocol, port, target) in [
        (Protocol::Udp, 53, "10.244.0.9:1053"),
        (Protocol::Tcp, 53, "10.244.0.9:1054"),
        (Protocol::Sctp, 53, "10.244.0.9:1055"),
    ] {
        let expected = Outcome::To([target.to_owned()].into(), 0);
        assert_eq!(node.at("10.96.0.10", port, protocol, false), expected);
    }
    assert_eq!(node.at("10.96.0.10", 54, Protocol::Tcp, false), Refused, "it has no number");
    let ips = node.topology.everything().cluster_ips;
    assert_eq!(ips.iter().map(|it| it.key.to_string()).collect::<Vec<_>>(), ["10.96.0.10"]);
}

#[test]
fn only_some_services_have_fronts() {
    for (fields, cluster, node_port) in [
        (json!({"clusterIPs": ["None"], "type": "ClusterIP"}), Unknown, Unknown),
        (
            json!({"clusterIPs": [], "type": "ExternalName", "externalName": "a.b"}),
            Unknown,
            Unknown,
        ),
        (json!({"type": "ClusterIP"}), to(&[1]), Unknown),
        (json!({"type": "LoadBalancer", "ingress": ["192.0.2.9"]}), to(&[1]), to(&[1])),
    ] {
        let mut node = Node::new();
        node.service(fields.clone());
        node.endpoint(1, json!({}));
        assert_eq!(node.at("10.96.0.7", 80, Protocol::Tcp, false), cluster, "{fields}");
        assert_eq!(node.at("node", 30080, Protocol::Tcp, false), node_port, "{fields}");
        assert_eq!(node.at("192.0.2.1", 80, Protocol::Tcp, false), to(&[1]), "{fields}");
        let ingress = node.at("192.0.2.9", 80, Protocol::Tcp, true);
        let expected = if fields.get("ingress").is_some() { to(&[1]) } else { Unknown };
        assert_eq!(ingress, expected, "{fields}");
    }
}

#[test]
fn other_families_are_left_out() {
    let mut node = Node::new();
    node.service(json!({"clusterIPs": ["fd00::7", "10.96.0.7"]}));
    node.set("endpoint/shop/web-1/fd00::1", &json!({}));
    assert_eq!(node.web()[0], Refused);
    assert_eq!(node.at("fd00::7", 80, Protocol::Tcp, false), Unknown);
}

#[test]
fn what_the_node_serves_itself_takes_the_place_of_endpoints() {
    let mut node = Node::new();
    node.service(json!({"internalLocal": true}));
    node.endpoint(1, json!({"node": "there"}));
    let at = "10.244.0.254:10272".parse().unwrap();
    node.topology.serve_here(&node.records, "shop/web", "web", Some(at));
    let expected = Outcome::To([at.to_string()].into(), 0);
    assert_eq!(node.web()[0], expected);
    node.endpoint(2, json!({}));
    assert_eq!(node.web()[0], expected, "also later");
    node.topology.serve_here(&node.records, "shop/web", "web", None);
    assert_eq!(node.web()[1], to(&[1, 2]));
}

#[test]
fn ports_of_pods_go_before_services_and_end_with_the_pod() {
    let mut node = Node::new();
    node.service(json!({}));
    node.endpoint(1, json!({}));
    let port = |host_ip, port| HostPort {
        host_ip,
        protocol: Protocol::Tcp,
        port,
        target: "10.244.0.5:8080".parse().unwrap(),
    };
    let address = [192, 0, 2, 50].into();
    node.topology.set_host_ports("u1", &[port(None, 30080), port(Some(address), 8000)]);
    assert_eq!(node.at("node", 30080, Protocol::Tcp, true), to(&[5]));
    assert_eq!(node.at("192.0.2.50", 8000, Protocol::Tcp, true), to(&[5]));
    assert_eq!(node.at("node", 8000, Protocol::Tcp, true), Unknown);
    node.topology.read_all(&node.records);
    assert_eq!(node.at("node", 30080, Protocol::Tcp, true), to(&[5]), "records do not know pods");
    node.topology.set_host_ports("u1", &[]);
    assert_eq!(node.web()[1], to(&[1]));
    assert_eq!(node.at("192.0.2.50", 8000, Protocol::Tcp, true), Unknown);
}

#[test]
fn of_two_who_want_an_address_one_gets_it_until_it_goes() {
    let mut node = Node::new();
    node.service(json!({}));
    node.endpoint(1, json!({}));
    let other = json!({
        "clusterIPs": ["10.96.0.8"], "externalIPs": ["192.0.2.1"], "ports": [{"port": 80}],
    });
    node.set("service/shop/a", &other);
    assert_eq!(node.at("192.0.2.1", 80, Protocol::Tcp, true), Refused, "shop/a comes first");
    node.remove("service/shop/a");
    assert_eq!(node.at("192.0.2.1", 80, Protocol::Tcp, true), to(&[1]));
}

#[test]
fn flows_of_datagrams_are_stale_when_they_would_go_elsewhere() {
    let mut node = Node::new();
    let ports = json!([{"name": "dns", "protocol": "UDP", "port": 53, "nodePort": 30053}]);
    let ips = json!(["10.96.0.10"]);
    node.set("service/shop/dns", &json!({"clusterIPs": ips, "type": "NodePort", "ports": ports}));
    let ports = json!([{"name": "dns", "protocol": "UDP", "port": 53}]);
    node.set("slice/shop/dns-1", &json!({"service": "dns", "family": "IPv4", "ports": ports}));
    node.set("endpoint/shop/dns-1/10.244.0.9", &json!({}));
    let stale = |original: &str, actual: &str| {
        node.topology.is_stale(Protocol::Udp, original.parse().unwrap(), actual.parse().unwrap())
    };
    for (original, actual, expected) in [
        ("10.96.0.10:53", "10.244.0.9:53", false),
        ("10.96.0.10:53", "10.244.0.8:53", true),
        ("10.96.0.10:53", "10.96.0.10:53", true),
        ("192.0.2.7:30053", "10.244.0.8:53", true),
        ("192.0.2.7:30053", "192.0.2.7:30053", false),
        ("8.8.8.8:53", "8.8.8.8:53", false),
    ] {
        assert_eq!(stale(original, actual), expected, "{original} {actual}");
    }
}

#[test]
fn keys_of_places_are_tried_one_after_another() {
    let here = || Vantage { node: "here".into(), pool: "shop".into(), zone: "z1".into() };
    let mut node = Node::new();
    node.topology.set_vantage(here());
    node.service(json!({"topologyKeys": "kubernetes.io/hostname, openyurt.io/nodepool, *"}));
    node.set("node/near", &json!({}));
    node.endpoint(3, json!({"node": "far"}));
    assert_eq!(node.web(), [(); 3].map(|()| to(&[3])));
    node.endpoint(2, json!({"node": "near"}));
    assert_eq!(node.web(), [(); 3].map(|()| to(&[2])));
    node.endpoint(1, json!({"node": "here"}));
    assert_eq!(node.web(), [(); 3].map(|()| to(&[1])));
    node.endpoint(1, json!({"node": "here", "unready": true}));
    assert_eq!(node.web(), [(); 3].map(|()| to(&[2])));
    node.endpoint(2, json!({"node": "near", "unready": true, "silent": true}));
    assert_eq!(node.web(), [(); 3].map(|()| to(&[3])), "the silent come last");
    node.endpoint(2, json!({"node": "near"}));
    // A node leaves the pool, or comes.
    node.remove("node/near");
    assert_eq!(node.web(), [(); 3].map(|()| to(&[2, 3])));
    node.set("node/far", &json!({}));
    assert_eq!(node.web(), [(); 3].map(|()| to(&[3])));
    node.service(json!({"topologyKeys": "openyurt.io/nodepool"}));
    assert_eq!(node.web(), [(); 3].map(|()| to(&[2, 3])), "the cloud tells no others");
    assert!(node.topology.set_vantage(Vantage { pool: String::new(), ..here() }));
    node.topology.read_all(&node.records);
    assert_eq!(node.web(), [(); 3].map(|()| Refused), "a node without a pool is alone");
}

#[test]
fn hints_are_followed_when_all_have_them() {
    let near = json!({"node": "here", "zones": ["z1"], "nodes": ["here"]});
    let beside = json!({"node": "there", "zones": ["z1"], "nodes": ["there"]});
    let far = json!({"node": "there", "zones": ["z2"]});
    for (zone, endpoints, expected) in [
        ("z1", [&near, &beside, &far], &[1, 2][..]),
        ("z2", [&near, &beside, &far], &[3]),
        ("z3", [&near, &beside, &far], &[1, 2, 3]),
        ("", [&near, &beside, &far], &[1, 2, 3]),
        ("z1", [&near, &beside, &beside], &[1]),
        ("z2", [&near, &beside, &json!({"node": "there"})], &[1, 2, 3]),
        ("z2", [&near, &beside, &json!({"node": "there", "unready": true})], &[1]),
    ] {
        let mut node = Node::new();
        node.topology.set_vantage(Vantage {
            node: "here".into(),
            zone: zone.into(),
            ..Vantage::default()
        });
        node.service(json!({"externalLocal": true}));
        for (last, endpoint) in (1..).zip(endpoints) {
            node.endpoint(last, endpoint.clone());
        }
        let all = to(expected);
        assert_eq!(node.web(), [all.clone(), all, to(&[1])], "{zone:?} {endpoints:?}");
    }
}

#[test]
fn only_some_pools_have_the_ports_of_a_service() {
    let mut node = Node::new();
    node.service(json!({"listen": "-shop,*"}));
    node.endpoint(1, json!({}));
    assert_eq!(node.web(), [(); 3].map(|()| to(&[1])), "a node without a pool has them");
    for (pool, port) in [("shop", Unknown), ("other", to(&[1]))] {
        node.topology.set_vantage(Vantage { pool: pool.into(), ..Vantage::default() });
        node.topology.read_all(&node.records);
        assert_eq!(node.web(), [to(&[1]), port.clone(), port], "{pool}");
    }
}
