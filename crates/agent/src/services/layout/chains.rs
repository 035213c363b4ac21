//! The chains of the table: what packets meet on their way. Pure.

use std::net::Ipv4Addr;

use toono_net::{
    Cidr, LinkName,
    nft::{
        Base, Chain, ChainKind, ChainName, Field, Hook, NameError, PRIORITY_DSTNAT,
        PRIORITY_FILTER, PRIORITY_SRCNAT, Policy, Protocol, Register, Rule, Source, Statement,
        States, Step, Verdict, Version,
    },
};

use super::{Kind, Layout, Name, REFUSE, Way};

/// The first registers of keys, and of what is looked up after them.
const FIRST: Register = Register::new(1);
const SECOND: Register = Register::new(2);
const THIRD: Register = Register::new(3);

impl Layout {
    /// The rules of a chain that chooses.
    pub(super) fn choice(
        &self,
        way: Way,
        size: u32,
        affinity: u32,
    ) -> Result<Vec<Rule>, NameError> {
        let lookup = |name: Name, key, into| -> Result<Statement, NameError> {
            Ok(Statement::Step(Step::Lookup { map: name.set()?, key, into }))
        };
        let load = |source, into| Statement::Step(Step::Load { source, into });
        let width = self.width();
        // Behind the longest key: address, protocol and port.
        let address = Register::new(width + 3);
        let port = Register::new(2 * width + 3);
        let group = Register::new(2 * width + 4);
        let translate = Statement::Step(Step::Translate { version: self.version, address, port });
        let keyed = |comment: &str| Rule {
            statements: self.load_front(way.kind, false),
            ..Rule::new(comment)
        };
        let groups = Name::Groups(way);
        let draw = |rule: Rule| -> Result<Rule, NameError> {
            Ok(rule
                .then(lookup(groups, FIRST, FIRST)?)
                .then(load(Source::Random(size), SECOND))
                .then(lookup(Name::Endpoints, FIRST, address)?))
        };
        if affinity == 0 {
            return Ok(vec![draw(keyed("one of these"))?.then(translate)]);
        }
        let clients = || Name::Clients.set();
        let remember =
            Step::Remember { map: clients()?, key: FIRST, value: address, seconds: affinity };
        let member = Step::Member { set: Name::Members.set()?, key: address, negated: false };
        let client = || load(Source::From(self.version), SECOND);
        let again = keyed("where the client was before, if that is there")
            .then(lookup(groups, FIRST, FIRST)?)
            .then(client())
            .then(lookup(Name::Clients, FIRST, address)?)
            .then(Statement::Step(member))
            .then(Statement::Step(remember.clone()))
            .then(translate.clone());
        let first = draw(keyed("one of these, and again").then(lookup(groups, FIRST, group)?))?
            .then(client())
            .then(Statement::Step(Step::Forget { map: clients()?, key: FIRST, value: address }))
            .then(Statement::Step(remember))
            .then(translate.clone());
        // Where there are more clients than can be remembered they are served nevertheless.
        let forgotten = draw(keyed("one of these"))?.then(translate);
        Ok(vec![again, first, forgotten])
    }

    /// Loads a front's key, as the packet has it or as it had it before translation.
    fn load_front(&self, kind: Kind, original: bool) -> Vec<Statement> {
        let (to, port) = match original {
            true => (Source::OriginalTo, Source::OriginalToPort),
            false => (Source::To(self.version), Source::ToPort),
        };
        let width = self.width();
        let loads = match kind {
            Kind::Address => vec![
                (to, FIRST),
                (Source::Protocol, Register::new(width + 1)),
                (port, Register::new(width + 2)),
            ],
            Kind::NodePort => vec![(Source::Protocol, FIRST), (port, SECOND)],
        };
        let step = |(source, into)| Statement::Step(Step::Load { source, into });
        loads.into_iter().map(step).collect()
    }

    /// The chains that are always there.
    pub(super) fn chains(&self) -> Result<Vec<Chain>, NameError> {
        let chain = |name, kind, hook, priority, rules| -> Result<Chain, NameError> {
            let base = Some(Base { kind, hook, priority, policy: Policy::Accept });
            Ok(Chain { name: ChainName::new(name)?, base, rules })
        };
        use ChainKind::{Filter, Nat};
        let [outside @ .., _, _] = Way::all();
        let [.., addresses, node_ports] = Way::all();
        let lead = |ways: &[Way]| -> Result<Vec<Rule>, NameError> {
            ways.iter().map(|way| self.lead(*way)).collect()
        };
        // A reset is not lost as a message of ICMP may be: by its rate, or while the sender is still sending.
        let reset = Rule::new("nobody listens")
            .when(Field::Protocol(Protocol::TCP))
            .then(Statement::Step(Step::Reset));
        let refuse = Rule::new("nobody listens").then(Statement::Step(Step::Refuse(self.version)));
        let arriving = lead(&[outside.as_slice(), &[addresses, node_ports]].concat())?;
        let own = lead(&[addresses, node_ports])?;
        Ok(vec![
            Chain { name: ChainName::new(REFUSE)?, base: None, rules: vec![reset, refuse] },
            chain("prerouting", Nat, Hook::Prerouting, PRIORITY_DSTNAT, arriving)?,
            chain("output", Nat, Hook::Output, PRIORITY_DSTNAT, own)?,
            chain("input", Filter, Hook::Input, PRIORITY_FILTER, self.refusals()?)?,
            chain("forward", Filter, Hook::Forward, PRIORITY_FILTER, self.refusals()?)?,
            chain("sent", Filter, Hook::Output, PRIORITY_FILTER, self.refusals()?)?,
            chain("postrouting", Nat, Hook::Postrouting, PRIORITY_SRCNAT, self.masquerades()?)?,
        ])
    }

    /// Packets to fronts go on to where an endpoint is chosen.
    fn lead(&self, way: Way) -> Result<Rule, NameError> {
        let mut rule = Rule::new(&format!("to {}", way.text()));
        if way.outside {
            rule = rule.unless(Field::InputInterface(self.bridge.clone()));
        }
        rule = self.only_node(way.kind, rule);
        rule.statements.extend(self.load_front(way.kind, false));
        let map = Name::Chains(way).set()?;
        Ok(rule.then(Statement::Step(Step::Decide { map, key: FIRST })))
    }

    /// Ports of the node are those of all its addresses but the loopback's, whose packets cannot leave.
    fn only_node(&self, kind: Kind, rule: Rule) -> Rule {
        match kind {
            Kind::Address => rule,
            Kind::NodePort => {
                let rule = rule.when(Field::ToThisHost);
                match loopback(self.version) {
                    Some(loopback) => rule.unless(Field::Destination(loopback)),
                    None => rule,
                }
            }
        }
    }

    /// What becomes of connections that lead nowhere.
    fn refusals(&self) -> Result<Vec<Rule>, NameError> {
        let new = |comment| {
            let rule = Rule::new(comment).when(Field::State(States::NEW));
            rule.unless(Field::Translated)
        };
        let mut rules = Vec::new();
        for kind in [Kind::Address, Kind::NodePort] {
            let mut rule = self.only_node(kind, new("no endpoint"));
            rule.statements.extend(self.load_front(kind, false));
            let map = Name::Refused(kind).set()?;
            rules.push(rule.then(Statement::Step(Step::Decide { map, key: FIRST })));
        }
        let to = Step::Load { source: Source::To(self.version), into: FIRST };
        let is_cluster = Step::Member { set: Name::ClusterIps.set()?, key: FIRST, negated: false };
        let elsewhere = new("no such port").then(Statement::Step(to));
        let goto = Verdict::Goto(ChainName::new(REFUSE)?);
        rules.push(elsewhere.then(Statement::Step(is_cluster)).then(Statement::Verdict(goto)));
        Ok(rules)
    }

    /// Connections whose answers would not come back to be translated, if they did not seem to be the node's.
    fn masquerades(&self) -> Result<Vec<Rule>, NameError> {
        let load = |source, into| Statement::Step(Step::Load { source, into });
        let second = Register::new(self.width() + 1);
        let own = Step::Member { set: Name::Own.set()?, key: FIRST, negated: false };
        let itself = Rule::new("from a pod to itself")
            .when(Field::Translated)
            .then(load(Source::From(self.version), FIRST))
            .then(load(Source::To(self.version), second))
            .then(Statement::Step(own))
            .masquerade();
        let mut rules = vec![itself];
        for kind in [Kind::Address, Kind::NodePort] {
            let mut rule = Rule::new("from outside, on to another node")
                .when(Field::Translated)
                .unless(Field::Source(self.network.network()))
                .unless(Field::OutputInterface(self.bridge.clone()))
                .unless(Field::OutputInterface(LinkName::loopback()));
            rule.statements.extend(self.load_front(kind, true));
            let map = Name::Groups(Way { kind, outside: false }).set()?;
            let found = Step::Lookup { map, key: FIRST, into: THIRD };
            rules.push(rule.then(Statement::Step(found)).masquerade());
        }
        Ok(rules)
    }
}

fn loopback(version: Version) -> Option<Cidr> {
    match version {
        Version::V4 => Cidr::new(Ipv4Addr::new(127, 0, 0, 0), 8).ok(),
        Version::V6 => None,
    }
}
