//! nftables: what is applied is what the kernel has.

use toono_net::nft::{
    Base, Chain, ChainKind, ChainName, Family, Field, Hook, NftError, Nftables, PRIORITY_FILTER,
    PRIORITY_SRCNAT, Policy, Protocol, Rule, Statement, States, Table, TableName, Verdict,
};

use crate::{TestNetNs, link};

fn chain(name: &str, base: Option<Base>, rules: Vec<Rule>) -> Chain {
    Chain { name: ChainName::new(name).unwrap(), base, rules }
}

fn base(kind: ChainKind, hook: Hook, priority: i32, policy: Policy) -> Option<Base> {
    Some(Base { kind, hook, priority, policy })
}

/// A table with every statement and every field.
fn everything(family: Family) -> Table {
    let web = ChainName::new("web").unwrap();
    let network = |text: &str| text.parse().unwrap();
    let (v4, v6) = (family != Family::Ip6, family != Family::Ip);
    let mut addresses = Vec::new();
    for (wanted, source, destination) in
        [(v4, "10.1.0.0/16", "10.2.3.4/32"), (v6, "2001:db8::/33", "2001:db8::1/128")]
    {
        if wanted {
            addresses
                .push(Rule::new("from").when(Field::Source(network(source))).counted().accept());
            addresses.push(Rule::new("").unless(Field::Destination(network(destination))).drop());
        }
    }
    let mut forward = vec![
        Rule::new("known")
            .when(Field::State(States::ESTABLISHED.or(States::RELATED)))
            .counted()
            .accept(),
        Rule::new("odd").unless(Field::State(States::NEW)).drop(),
        Rule::new("web")
            .when(Field::InputInterface(link("lan")))
            .unless(Field::OutputInterface(link("lan")))
            .when(Field::DestinationPort(Protocol::TCP, 80))
            .then(Statement::Verdict(Verdict::Jump(web.clone()))),
        Rule::new("mark").when(Field::Mark(7)).then(Statement::SetMark(8)),
        Rule::new("icmp")
            .unless(Field::Protocol(Protocol::ICMP))
            .then(Statement::Verdict(Verdict::Return)),
        Rule::new("dns")
            .unless(Field::SourcePort(Protocol::UDP, 53))
            .then(Statement::Verdict(Verdict::Goto(web))),
    ];
    forward.extend(addresses);
    let nat =
        vec![Rule::new("nat").when(Field::OutputInterface(link("wan"))).counted().masquerade()];
    Table {
        family,
        name: TableName::new("toono_test").unwrap(),
        sets: Vec::new(),
        chains: vec![
            chain("web", None, vec![Rule::new("").counted()]),
            chain(
                "forward",
                base(ChainKind::Filter, Hook::Forward, PRIORITY_FILTER, Policy::Drop),
                forward,
            ),
            chain("input", base(ChainKind::Filter, Hook::Input, -5, Policy::Accept), Vec::new()),
            chain("output", base(ChainKind::Route, Hook::Output, 5, Policy::Accept), Vec::new()),
            chain(
                "postrouting",
                base(ChainKind::Nat, Hook::Postrouting, PRIORITY_SRCNAT, Policy::Accept),
                nat,
            ),
        ],
    }
}

#[test]
fn what_is_applied_is_read_back() {
    let test = TestNetNs::new("nft");
    let mut nft = Nftables::in_namespace(&test.netns).unwrap();
    for family in [Family::Inet, Family::Ip, Family::Ip6] {
        let table = everything(family);
        assert!(nft.apply(&table).unwrap(), "made");
        let installed = nft.read(family, &table.name).unwrap().unwrap();
        assert_eq!(installed.table, table);
        assert_eq!(installed.counters[0].comment, "");
        assert!(!nft.apply(&table).unwrap(), "an equal table is left alone");
    }
    assert_eq!(nft.tables().unwrap().len(), 3);
    let mut table = everything(Family::Inet);
    table.chains.retain(|chain| chain.base.is_none());
    assert!(nft.apply(&table).unwrap());
    assert_eq!(nft.read(Family::Inet, &table.name).unwrap().unwrap().table, table);
    assert!(nft.delete(Family::Inet, &table.name).unwrap());
    assert!(!nft.delete(Family::Inet, &table.name).unwrap());
    assert_eq!(nft.read(Family::Inet, &table.name).unwrap(), None);
}

#[test]
fn a_refused_table_changes_nothing() {
    let test = TestNetNs::new("nft");
    let mut nft = Nftables::in_namespace(&test.netns).unwrap();
    let table = everything(Family::Inet);
    nft.apply(&table).unwrap();
    let mut bad = table.clone();
    let nowhere = Verdict::Jump(ChainName::new("nowhere").unwrap());
    bad.chains[1].rules.insert(2, Rule::new("lost").then(Statement::Verdict(nowhere)));
    let error = nft.apply(&bad).unwrap_err();
    assert!(matches!(error, NftError::Refused { .. }));
    assert!(error.to_string().contains("rule 2 (lost) of the chain forward"), "{error}");
    assert_eq!(nft.read(table.family, &table.name).unwrap().unwrap().table, table);
    let mut unknown = table.clone();
    unknown.chains[1].rules[0].statements.insert(0, Statement::Unknown("fib".to_owned()));
    assert!(matches!(nft.apply(&unknown), Err(NftError::Unknown { .. })));
    // The socket is as good as before.
    bad.chains[1].rules.remove(2);
    bad.chains[1].rules.remove(0);
    assert!(nft.apply(&bad).unwrap());
}

#[test]
fn a_table_of_a_thousand_rules() {
    let test = TestNetNs::new("nft");
    let mut nft = Nftables::in_namespace(&test.netns).unwrap();
    let rules =
        (0..1000).map(|n| Rule::new(&format!("rule {n}")).when(Field::Mark(n)).counted().accept());
    let name = TableName::new("toono_large").unwrap();
    let table = Table {
        family: Family::Inet,
        name,
        sets: Vec::new(),
        chains: vec![chain("many", None, rules.collect())],
    };
    assert!(nft.apply(&table).unwrap());
    assert!(!nft.apply(&table).unwrap());
}
