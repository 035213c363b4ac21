//! Sets, maps and registers: what is applied is what the kernel has, and what it does with packets; and who is
//! told of changes.

use std::{
    collections::BTreeMap,
    io::Read,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use toono_net::{
    Netlink,
    conntrack::Conntrack,
    nft::{
        Base, Chain, ChainKind, ChainName, Datum, Edit, Family, Field, FilledBy, Hook, Key,
        Nftables, PRIORITY_DSTNAT, PRIORITY_FILTER, Policy, Register, Rule, Set, SetData, SetEdit,
        SetName, Source, Statement, Step, Table, TableName, Value, Verdict, Version,
        watch::{Heard, Watch},
    },
};

use crate::{TestNetNs, link};

/// The service that stands for all, and where it is served.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const PORT: u16 = 53;
/// The number of its endpoints' group.
const GROUP: u32 = 7;

fn register(number: u8) -> Register {
    Register::new(number)
}

fn set_name(name: &str) -> SetName {
    SetName::new(name).unwrap()
}

fn load(source: Source, into: u8) -> Statement {
    Statement::Step(Step::Load { source, into: register(into) })
}

fn front(protocol: u8) -> Key {
    Key::new().address(SERVICE.into()).protocol(protocol).port(PORT)
}

fn set(name: &str, key: Vec<Datum>, data: SetData, filled_by: FilledBy) -> Set {
    Set { name: set_name(name), key, data, filled_by, elements: BTreeMap::new() }
}

fn rule(comment: &str, statements: Vec<Statement>) -> Rule {
    Rule { statements, ..Rule::new(comment) }
}

/// Every kind of set, every step.
fn everything(version: Version) -> Table {
    use Datum::{Number, Port, Protocol};
    let (address, family, any) = match version {
        Version::V4 => (Datum::Ipv4, Family::Ip, IpAddr::from([10, 0, 0, 1])),
        Version::V6 => (Datum::Ipv6, Family::Ip6, "2001:db8::1".parse().unwrap()),
    };
    let step = Statement::Step;
    // Addresses take one register or four; all of a key must have been loaded.
    let width = if version == Version::V4 { 1 } else { 4 };
    let first = register(1);
    let (group, value, port) = (register(width + 3), register(width + 4), register(2 * width + 4));
    let lookup = Step::Lookup { map: set_name("groups"), key: first, into: group };
    let clients = || set_name("clients");
    let remember = Step::Remember { map: clients(), key: first, value: group, seconds: 10_800 };
    let choose = vec![
        load(Source::To(version), 1),
        load(Source::Protocol, width + 1),
        load(Source::ToPort, width + 2),
        step(lookup),
        load(Source::From(version), width + 4),
        step(Step::Member { set: set_name("members"), key: group, negated: false }),
        step(Step::Member { set: set_name("members"), key: group, negated: true }),
        load(Source::Random(3), 1),
        load(Source::From(version), 2),
        step(Step::Forget { map: clients(), key: first, value: group }),
        step(remember),
        load(Source::ToPort, 2 * width + 4),
        step(Step::Translate { version, address: value, port }),
    ];
    let lead = vec![
        Statement::Match(toono_net::nft::Condition { field: Field::ToThisHost, negated: true }),
        load(Source::OriginalTo, 1),
        load(Source::OriginalToPort, 2),
        load(Source::Protocol, 1),
        step(Step::Decide { map: set_name("fronts"), key: first }),
    ];
    let translated = Rule::new("known").when(Field::Translated).accept();
    let mut sets = vec![
        set("fronts", vec![Protocol, Port], SetData::Verdict, FilledBy::Keys),
        set("groups", vec![address, Protocol, Port], SetData::Values(vec![Number]), FilledBy::Keys),
        set("members", vec![Number, address], SetData::None, FilledBy::Keys),
        set("ports", vec![Port], SetData::Values(vec![address, Port]), FilledBy::Keys),
        set("networks", vec![address], SetData::None, FilledBy::Ranges),
        set(
            "clients",
            vec![Number, address],
            SetData::Values(vec![Number, address]),
            FilledBy::Packets { most: 1000 },
        ),
    ];
    let chain = ChainName::new("choose").unwrap();
    sets[0].elements.extend([
        (Key::new().protocol(6).port(80), Value::goto(chain.clone())),
        (Key::new().protocol(17).port(80), Value::Verdict(Verdict::Drop)),
    ]);
    // More than one message has.
    sets[1].elements = (0..1000)
        .map(|port| {
            let value = Value::Data(Key::new().number(u32::from(port)));
            (Key::new().address(any).protocol(6).port(port), value)
        })
        .collect();
    sets[2].elements.insert(Key::new().number(1).address(any), Value::None);
    sets[3].elements.insert(Key::new().port(9), Value::Data(Key::new().address(any).port(80)));
    let next = match any {
        IpAddr::V4(ip) => IpAddr::from(Ipv4Addr::from_bits(ip.to_bits() + 256)),
        IpAddr::V6(ip) => IpAddr::from(std::net::Ipv6Addr::from_bits(ip.to_bits() + 256)),
    };
    sets[4].elements.extend([
        (Key::new().address(any), Value::None),
        (Key::new().address(next).ending_range(), Value::None),
    ]);
    let refuse = Rule::new("refused").then(step(Step::Refuse(version)));
    let reset = Rule::new("reset")
        .when(Field::Protocol(toono_net::nft::Protocol::TCP))
        .then(step(Step::Reset));
    let base = |kind, hook, priority| Some(Base { kind, hook, priority, policy: Policy::Accept });
    let chain =
        |name: &str, base, rules| Chain { name: ChainName::new(name).unwrap(), base, rules };
    Table {
        family,
        name: TableName::new("toono_sets").unwrap(),
        sets,
        chains: vec![
            chain("choose", None, vec![rule("one of them", choose)]),
            chain("refuse", None, vec![reset, refuse]),
            chain(
                "prerouting",
                base(ChainKind::Nat, Hook::Prerouting, PRIORITY_DSTNAT),
                vec![rule("on", lead)],
            ),
            chain("input", base(ChainKind::Filter, Hook::Input, PRIORITY_FILTER), vec![translated]),
        ],
    }
}

#[test]
fn sets_and_steps_are_read_back() {
    let test = TestNetNs::new("sets");
    let mut nft = Nftables::in_namespace(&test.netns).unwrap();
    for version in [Version::V4, Version::V6] {
        let table = everything(version);
        assert!(nft.apply(&table).unwrap(), "made");
        let mut installed = nft.read(table.family, &table.name).unwrap().unwrap().table;
        installed.sets.sort_by_key(|set| table.sets.iter().position(|it| it.name == set.name));
        assert_eq!(installed, table);
        assert!(!nft.apply(&table).unwrap(), "an equal table is left alone");
        let frame = nft.read_frame(table.family, &table.name).unwrap().unwrap();
        assert_eq!(frame.chains, table.chains);
        assert!(frame.sets.iter().all(|set| set.elements.is_empty()));
    }
}

#[test]
fn an_edit_happens_as_a_whole_or_not_at_all() {
    let test = TestNetNs::new("edit");
    let mut nft = Nftables::in_namespace(&test.netns).unwrap();
    let mut table = everything(Version::V4);
    nft.apply(&table).unwrap();
    let groups = &table.sets[1];
    let key = |port| Key::new().address([10, 0, 0, 1].into()).protocol(6).port(port);
    let value = |number| Value::Data(Key::new().number(number));
    let new = ChainName::new("choose_4").unwrap();
    let chain = Chain {
        name: new.clone(),
        base: None,
        rules: vec![Rule::new("new").then(Statement::Step(Step::Refuse(Version::V4)))],
    };
    let mut edit = Edit {
        family: table.family,
        table: table.name.clone(),
        chains: vec![chain.clone()],
        sets: vec![
            SetEdit {
                name: groups.name.clone(),
                key: groups.key.clone(),
                data: groups.data.clone(),
                removed: vec![key(1), key(2)],
                added: vec![(key(1), value(9)), (key(5000), value(5))],
            },
            SetEdit {
                name: set_name("fronts"),
                key: table.sets[0].key.clone(),
                data: SetData::Verdict,
                removed: vec![],
                added: vec![(Key::new().protocol(6).port(81), Value::goto(new.clone()))],
            },
        ],
    };
    let mut bad = edit.clone();
    bad.sets[0].removed.push(key(7000));
    let error = nft.edit(&bad).unwrap_err();
    assert!(error.to_string().contains("take elements from the set groups"), "{error}");
    nft.edit(&edit).unwrap();
    edit.sets[0].removed.clear();
    edit.chains.clear();
    assert!(nft.edit(&edit).is_err(), "it is there already");
    let elements = &mut table.sets[1].elements;
    elements.remove(&key(2));
    elements.extend([(key(1), value(9)), (key(5000), value(5))]);
    table.sets[0].elements.insert(Key::new().protocol(6).port(81), Value::goto(new));
    table.chains.push(chain);
    let mut installed = nft.read(table.family, &table.name).unwrap().unwrap().table;
    installed.sets.sort_by_key(|set| table.sets.iter().position(|it| it.name == set.name));
    assert_eq!(installed, table);
}

/// A table that leads the service's packets, from this very host, to endpoints of a group; its clients stay.
fn proxy(endpoints: &[SocketAddr], stays: bool) -> Table {
    use Datum::{Ipv4, Number, Port, Protocol};
    let step = Statement::Step;
    let [first, third, fourth] = [1, 4, 5].map(register);
    let mut fronts =
        set("fronts", vec![Ipv4, Protocol, Port], SetData::Values(vec![Number]), FilledBy::Keys);
    for protocol in [6, 17] {
        fronts.elements.insert(front(protocol), Value::Data(Key::new().number(GROUP)));
    }
    let values = SetData::Values(vec![Ipv4, Port]);
    let mut slots = set("endpoints", vec![Number, Number], values.clone(), FilledBy::Keys);
    for (slot, at) in (0..).zip(endpoints) {
        let value = Value::Data(Key::new().address(at.ip()).port(at.port()));
        slots.elements.insert(Key::new().number(GROUP).number(slot), value);
    }
    let clients = set("clients", vec![Number, Ipv4], values, FilledBy::Packets { most: 100 });
    let key = vec![
        load(Source::To(Version::V4), 1),
        load(Source::Protocol, 2),
        load(Source::ToPort, 3),
        step(Step::Lookup { map: set_name("fronts"), key: first, into: first }),
    ];
    let client = || load(Source::From(Version::V4), 2);
    let clients_name = || set_name("clients");
    let translate = step(Step::Translate { version: Version::V4, address: third, port: fourth });
    let size = u32::try_from(endpoints.len()).unwrap();
    let mut again = key.clone();
    again.extend([
        client(),
        step(Step::Lookup { map: clients_name(), key: first, into: third }),
        translate.clone(),
    ]);
    let mut new = key;
    new.extend([
        load(Source::Random(size), 2),
        step(Step::Lookup { map: set_name("endpoints"), key: first, into: third }),
    ]);
    if stays {
        new.extend([
            client(),
            step(Step::Forget { map: clients_name(), key: first, value: third }),
            step(Step::Remember { map: clients_name(), key: first, value: third, seconds: 60 }),
        ]);
    }
    new.push(translate);
    let mut rules = vec![rule("new", new)];
    if stays {
        rules.insert(0, rule("again", again));
    }
    let base = Base {
        kind: ChainKind::Nat,
        hook: Hook::Output,
        priority: PRIORITY_DSTNAT,
        policy: Policy::Accept,
    };
    Table {
        family: Family::Ip,
        name: TableName::new("toono_proxy").unwrap(),
        sets: vec![fronts, slots, clients],
        chains: vec![Chain { name: ChainName::new("output").unwrap(), base: Some(base), rules }],
    }
}

/// A namespace in which the service has a route, and what runs there.
async fn host(role: &str) -> TestNetNs {
    let test = TestNetNs::new(role);
    let netlink = Netlink::in_namespace(&test.netns).unwrap();
    let lo = link("lo");
    netlink.set_up(&lo).await.unwrap();
    for address in ["10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32"] {
        netlink.ensure_address(&lo, address.parse().unwrap()).await.unwrap();
    }
    let mut to_service = toono_net::Route::on_link("10.96.0.0/16".parse().unwrap(), lo);
    to_service.source = Some([10, 0, 0, 1].into());
    netlink.replace_route(&to_service).await.unwrap();
    test
}

#[tokio::test]
async fn packets_are_led_to_endpoints_and_clients_stay() {
    let test = host("proxy").await;
    test.netns
        .run(|| {
            let listeners =
                ["10.0.0.2:0", "10.0.0.3:0"].map(|address| TcpListener::bind(address).unwrap());
            let endpoints = listeners.each_ref().map(|it| it.local_addr().unwrap());
            for listener in listeners {
                std::thread::spawn(move || {
                    use std::io::Write;
                    for connection in listener.incoming() {
                        let name = listener.local_addr().unwrap().ip().to_string();
                        let _ = connection.and_then(|mut it| it.write_all(name.as_bytes()));
                    }
                });
            }
            let ask = || {
                let address = SocketAddr::from((SERVICE, PORT));
                let mut text = String::new();
                let connected = TcpStream::connect_timeout(&address, Duration::from_secs(5));
                connected.unwrap().read_to_string(&mut text).unwrap();
                text
            };
            let mut nft = Nftables::current().unwrap();
            nft.apply(&proxy(&endpoints, false)).unwrap();
            let answers: std::collections::BTreeSet<String> = (0..64).map(|_| ask()).collect();
            assert_eq!(answers.len(), 2, "both serve");
            nft.apply(&proxy(&endpoints, true)).unwrap();
            let answers: std::collections::BTreeSet<String> = (0..64).map(|_| ask()).collect();
            assert_eq!(answers.len(), 1, "one stays");
        })
        .unwrap();
}

#[tokio::test]
async fn flows_are_listed_and_forgotten() {
    let test = host("flows").await;
    test.netns
        .run(|| {
            let [old, new] = ["10.0.0.2:0", "10.0.0.3:0"].map(|it| UdpSocket::bind(it).unwrap());
            for socket in [&old, &new] {
                socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            }
            let mut nft = Nftables::current().unwrap();
            nft.apply(&proxy(&[old.local_addr().unwrap()], false)).unwrap();
            let client = UdpSocket::bind("10.0.0.1:0").unwrap();
            let service = SocketAddr::from((SERVICE, PORT));
            client.send_to(b"one", service).unwrap();
            assert_eq!(old.recv(&mut [0; 8]).unwrap(), 3);
            nft.apply(&proxy(&[new.local_addr().unwrap()], false)).unwrap();
            client.send_to(b"four", service).unwrap();
            assert_eq!(old.recv(&mut [0; 8]).unwrap(), 4, "the flow goes on where it began");
            let mut conntrack = Conntrack::current().unwrap();
            let flows = conntrack.flows(17).unwrap();
            let flow = flows.iter().find(|flow| flow.destination == service).unwrap();
            assert_eq!(flow.source, client.local_addr().unwrap());
            assert_eq!(flow.answers, old.local_addr().unwrap());
            assert!(conntrack.forget(flow).unwrap());
            assert!(!conntrack.forget(flow).unwrap(), "once");
            client.send_to(b"seven", service).unwrap();
            assert_eq!(new.recv(&mut [0; 8]).unwrap(), 5);
        })
        .unwrap();
}

#[tokio::test]
async fn changes_of_rulesets_are_heard() {
    let test = TestNetNs::new("watch");
    let watch = Watch::in_namespace(&test.netns).unwrap();
    let mut nft = Nftables::in_namespace(&test.netns).unwrap();
    nft.apply(&everything(Version::V4)).unwrap();
    let heard = tokio::time::timeout(Duration::from_secs(5), watch.changed()).await;
    assert_eq!(heard.unwrap().unwrap(), Heard::Generation(nft.generation().unwrap()));
    let mut other = Nftables::in_namespace(&test.netns).unwrap();
    assert!(other.delete(Family::Ip, &TableName::new("toono_sets").unwrap()).unwrap());
    let heard = tokio::time::timeout(Duration::from_secs(5), watch.changed()).await;
    assert_ne!(heard.unwrap().unwrap(), Heard::Generation(nft.generation().unwrap()));
}
