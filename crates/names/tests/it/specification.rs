//! The names of Kubernetes' DNS specification, by its sections.

use toono_names::{Way, kind};
use toono_wire::pool::near::Vantage;

use crate::node::{Node, question, read, whom};

fn shop() -> Node {
    let mut node = Node::new();
    node.put(
        "service/shop/web",
        r#"{"clusterIPs":["10.96.0.7","fd00::7"],"ports":[{"name":"http","port":80},{"name":"dns","protocol":"UDP","port":53}]}"#,
    );
    node.put("service/shop/db", r#"{"clusterIPs":["None"],"ports":[{"name":"sql","port":5432}]}"#);
    node.put(
        "slice/shop/db-x",
        r#"{"service":"db","family":"IPv4","ports":[{"name":"sql","port":15432}]}"#,
    );
    node.put("endpoint/shop/db-x/10.244.7.3", r#"{"hostname":"db-0"}"#);
    node.put("endpoint/shop/db-x/10.244.7.4", "{}");
    node.put("endpoint/shop/db-x/10.244.7.5", r#"{"unready":true}"#);
    node.put(
        "service/shop/out",
        r#"{"type":"ExternalName","externalName":"web.shop.svc.cluster.local"}"#,
    );
    node
}

#[test]
fn names_of_services_with_an_address() {
    let mut node = shop();
    let web = "web.shop.svc.cluster.local.";
    assert_eq!(node.answers(web, kind::A), [format!("{web} A 10.96.0.7")]);
    assert_eq!(node.answers(web, kind::AAAA), [format!("{web} AAAA fd00::7")]);
    let srv = format!("_http._tcp.{web}");
    assert_eq!(node.answers(&srv, kind::SRV), [format!("{srv} SRV 0 100 80 {web}")]);
    assert_eq!(
        node.ask(&srv, kind::SRV).additional,
        [format!("{web} A 10.96.0.7"), format!("{web} AAAA fd00::7")]
    );
    let srv = format!("_dns._udp.{web}");
    assert_eq!(node.answers(&srv, kind::SRV), [format!("{srv} SRV 0 100 53 {web}")]);
    let reverse = "7.0.96.10.in-addr.arpa.";
    assert_eq!(node.answers(reverse, kind::PTR), [format!("{reverse} PTR {web}")]);
    let reverse = format!("7.{}0.0.d.f.ip6.arpa.", "0.".repeat(27));
    assert_eq!(node.answers(&reverse, kind::PTR), [format!("{reverse} PTR {web}")]);
}

#[test]
fn names_of_headless_services_and_their_endpoints() {
    let mut node = shop();
    let db = "db.shop.svc.cluster.local.";
    let both = [format!("{db} A 10.244.7.3"), format!("{db} A 10.244.7.4")];
    assert_eq!(node.answers(db, kind::A), both);
    let (given, made) = (format!("db-0.{db}"), format!("10-244-7-4.{db}"));
    assert_eq!(node.answers(&given, kind::A), [format!("{given} A 10.244.7.3")]);
    assert_eq!(node.answers(&made, kind::A), [format!("{made} A 10.244.7.4")]);
    assert_eq!(node.ask(&format!("10-244-7-5.{db}"), kind::A).code, 3, "it is not ready");
    let srv = format!("_sql._tcp.{db}");
    assert_eq!(
        node.answers(&srv, kind::SRV),
        [format!("{srv} SRV 0 50 15432 {made}"), format!("{srv} SRV 0 50 15432 {given}")]
    );
    assert_eq!(node.ask(&srv, kind::SRV).additional.len(), 2);
    for (address, name) in [("3", &given), ("4", &made)] {
        let reverse = format!("{address}.7.244.10.in-addr.arpa.");
        assert_eq!(node.answers(&reverse, kind::PTR), [format!("{reverse} PTR {name}")]);
    }
    node.put("service/shop/db", r#"{"clusterIPs":["None"],"publishNotReady":true}"#);
    assert_eq!(node.answers(db, kind::A).len(), 3);
    for address in ["3", "4", "5"] {
        node.remove(&format!("endpoint/shop/db-x/10.244.7.{address}"));
    }
    assert_eq!(node.ask(db, kind::A).code, 3, "2.4.1");
}

#[test]
fn aliases_pods_and_the_zones_own_names() {
    let mut node = shop();
    let out = "out.shop.svc.cluster.local.";
    let web = "web.shop.svc.cluster.local.";
    assert_eq!(
        node.ask(out, kind::A).answers,
        [format!("{out} CNAME {web}"), format!("{web} A 10.96.0.7")]
    );
    assert_eq!(node.ask(out, kind::CNAME).answers, [format!("{out} CNAME {web}")]);
    let pod = "10-244-7-9.shop.pod.cluster.local.";
    assert_eq!(node.answers(pod, kind::A), [format!("{pod} A 10.244.7.9")]);
    assert_eq!(node.ask("x.shop.pod.cluster.local", kind::A).code, 3);
    let version = node.ask("dns-version.cluster.local", kind::TXT);
    assert_eq!(
        (version.answers, version.ttl),
        (vec!["dns-version.cluster.local. TXT 1.1.0".into()], 28_800)
    );
    assert_eq!(
        node.ask("cluster.local", kind::SOA).answers,
        ["cluster.local. SOA ns.dns.cluster.local."]
    );
    assert_eq!(
        node.answers("ns.dns.cluster.local", kind::A),
        ["ns.dns.cluster.local. A 10.96.0.10"]
    );
}

#[test]
fn what_is_not_there_is_told_from_what_has_no_such_record() {
    let mut node = shop();
    for (name, kind, code) in [
        ("none.shop.svc.cluster.local", kind::A, 3),
        ("web.none.svc.cluster.local", kind::A, 3),
        ("none.svc.cluster.local", kind::A, 3),
        ("web.shop.cluster.local", kind::A, 3),
        ("_none._tcp.web.shop.svc.cluster.local", kind::SRV, 3),
        ("_http._udp.web.shop.svc.cluster.local", kind::SRV, 3),
        ("_sctp.web.shop.svc.cluster.local", kind::SRV, 3),
        ("x.y.z.web.shop.svc.cluster.local", kind::A, 3),
        ("web.shop.svc.cluster.local", kind::MX, 0),
        ("_http._tcp.web.shop.svc.cluster.local", kind::A, 0),
        ("_tcp.web.shop.svc.cluster.local", kind::A, 0),
        ("db.shop.svc.cluster.local", kind::AAAA, 0),
        ("shop.svc.cluster.local", kind::A, 0),
        ("svc.cluster.local", kind::A, 0),
        ("cluster.local", kind::A, 0),
        ("7.0.96.10.in-addr.arpa", kind::A, 0),
    ] {
        let answer = node.ask(name, kind);
        assert_eq!(
            (answer.code, answer.answers.len(), answer.authoritative),
            (code, 0, true),
            "{name}"
        );
        assert_eq!(answer.authority, ["cluster.local. SOA ns.dns.cluster.local."], "{name}");
    }
}

#[test]
fn the_index_follows_every_change() {
    let mut node = shop();
    let reverse = "7.0.96.10.in-addr.arpa.";
    node.put("service/shop/web", r#"{"clusterIPs":["10.96.0.8"]}"#);
    let (reaction, _) = node.send(&question(1, reverse, kind::PTR, None), whom(2, Way::Udp));
    assert!(matches!(reaction, toono_names::Reaction::Ask(_)), "nobody here has it any more");
    assert_eq!(node.answers("8.0.96.10.in-addr.arpa", kind::PTR).len(), 1);
    node.put("slice/shop/db-x", r#"{"service":"web","family":"IPv4"}"#);
    assert_eq!(node.ask("db.shop.svc.cluster.local", kind::A).code, 3);
    node.put("slice/shop/db-x", r#"{"service":"db","family":"IPv4"}"#);
    assert_eq!(node.answers("db.shop.svc.cluster.local", kind::A).len(), 2);
    node.remove("slice/shop/db-x");
    assert_eq!(node.ask("db.shop.svc.cluster.local", kind::A).code, 3);
    let records = node.records.clone();
    node.server.zone().replace(&records);
    assert_eq!(node.answers("8.0.96.10.in-addr.arpa", kind::PTR).len(), 1);
}

#[test]
fn answers_fit_what_the_client_takes_and_addresses_take_turns() {
    let mut node = shop();
    for number in 0..200 {
        node.put(&format!("endpoint/shop/db-x/10.244.8.{number}"), "{}");
    }
    let mut firsts = std::collections::BTreeSet::new();
    for (size, most) in [(None, 512), (Some(100), 512), (Some(900), 900), (Some(4096), 1232)] {
        let message = question(9, "DB.shop.svc.Cluster.local", kind::A, size);
        let (_, out) = node.send(&message, whom(2, Way::Udp));
        let answer = read(&out);
        assert!(out.len() <= most && out.len() + 16 > most, "{} of {most}", out.len());
        assert_eq!((answer.cut, answer.edns, answer.id), (true, size.is_some(), 9));
        assert_eq!(answer.asked, message[12..12 + answer.asked.len()], "in the client's own case");
        firsts.insert(answer.answers[0].clone());
    }
    assert_eq!(firsts.len(), 4);
    let answer = node.ask("db.shop.svc.cluster.local", kind::A);
    assert_eq!((answer.answers.len(), answer.cut), (202, false));
}

#[test]
fn endpoints_of_a_service_that_stays_near_are_those_near() {
    let mut node = shop();
    let vantage = Vantage { node: "n1".into(), pool: "shop".into(), zone: String::new() };
    node.server.zone().set_vantage(vantage);
    node.put("endpoint/shop/db-x/10.244.7.3", r#"{"node":"n1"}"#);
    node.put("endpoint/shop/db-x/10.244.7.4", r#"{"node":"n2"}"#);
    let db = "db.shop.svc.cluster.local.";
    let [own, beside] = ["3", "4"].map(|last| format!("{db} A 10.244.7.{last}"));
    for (keys, expected) in [
        ("", vec![&own, &beside]),
        ("openyurt.io/nodepool", vec![&own, &beside]),
        ("kubernetes.io/hostname", vec![&own]),
        ("openyurt.io/nodepool,*", vec![&own]),
    ] {
        let record = format!(r#"{{"clusterIPs":["None"],"topologyKeys":"{keys}"}}"#);
        node.put("service/shop/db", &record);
        assert_eq!(node.answers(db, kind::A).iter().collect::<Vec<_>>(), expected, "{keys}");
    }
    node.put("node/n2", "{}");
    assert_eq!(node.answers(db, kind::A), [own, beside]);
    node.remove("endpoint/shop/db-x/10.244.7.3");
    node.put(
        "service/shop/db",
        r#"{"clusterIPs":["None"],"topologyKeys":"kubernetes.io/hostname"}"#,
    );
    assert_eq!(node.ask(db, kind::A).code, 3, "none is here");
}
