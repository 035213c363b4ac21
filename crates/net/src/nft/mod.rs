//! nftables over nfnetlink: whole tables applied in one transaction, elements of their sets changed in one,
//! read back, compared, deleted. It owns
//! the tables whose names start with `toono`, and touches no other. It starts no program, and must not decide
//! what a rule should say.

mod edit;
mod expression;
mod lower;
pub(crate) mod message;
mod model;
mod set;
pub(crate) mod socket;
mod step;
mod verdict;
pub mod watch;

use std::io;
use std::sync::Arc;

pub use edit::{Edit, SetEdit};
pub use model::{
    Base, Chain, ChainKind, ChainName, Condition, Family, Field, Hook, NameError, PRIORITY_DSTNAT,
    PRIORITY_FILTER, PRIORITY_RAW, PRIORITY_SRCNAT, Policy, Protocol, Register, Rule, SetName,
    Source, Statement, States, Step, TABLE_PREFIX, Table, TableName, Verdict,
};
pub use set::{Datum, FilledBy, Key, Set, SetData, Value};
pub use step::Version;

use crate::netns::{self, NetNs, NetNsError};
use message::{Attributes, NFTABLES};
use socket::Socket;

/// `enum nf_tables_msg_types`.
const NEW_TABLE: u8 = 0;
const GET_TABLE: u8 = 1;
const DELETE_TABLE: u8 = 2;
const NEW_CHAIN: u8 = 3;
const GET_CHAIN: u8 = 4;
const NEW_RULE: u8 = 6;
const GET_RULE: u8 = 7;
const NEW_SET: u8 = 9;
const GET_SET: u8 = 10;
const NEW_ELEMENT: u8 = 12;
const GET_ELEMENT: u8 = 13;

/// The nftables of one network namespace. Calls block for as long as the kernel works, which is well below a
/// millisecond for a table of ours; deleting and replacing base chains may wait for running packets.
#[derive(Debug)]
pub struct Nftables {
    socket: Socket,
    netns: Arc<str>,
}

/// What failed about a table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NftError {
    /// The namespace could not be entered.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// No netlink socket.
    #[error("cannot open a netfilter socket in {netns}")]
    Socket {
        /// The namespace.
        netns: Arc<str>,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The table holds a statement that these types do not know, as only a table read back can.
    #[error("cannot apply the table {table}: nothing is known of {statement}")]
    Unknown {
        /// The table.
        table: TableName,
        /// The statement, as far as it was understood.
        statement: String,
    },
    /// The kernel refused; nothing was changed.
    #[error("cannot {action} in {netns}")]
    Refused {
        /// What was tried, on which table; for a transaction also which part of it.
        action: String,
        /// The namespace.
        netns: Arc<str>,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// A table as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// What [`Nftables::apply`] would have to be given to make it so.
    pub table: Table,
    /// What its counters show, in the order of the rules.
    pub counters: Vec<CounterValue>,
}

/// What the counter of a rule shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterValue {
    /// The rule's chain.
    pub chain: ChainName,
    /// The rule's place in its chain, from 0.
    pub rule: usize,
    /// The rule's comment.
    pub comment: String,
    /// Packets counted.
    pub packets: u64,
    /// Bytes counted.
    pub bytes: u64,
}

impl Nftables {
    /// Opens the nftables of `netns`.
    pub fn in_namespace(netns: &NetNs) -> Result<Self, NftError> {
        let label: Arc<str> = netns.label().into();
        let socket = netns.run(Socket::open)?;
        let socket = socket.map_err(|source| NftError::Socket { netns: label.clone(), source })?;
        Ok(Self { socket, netns: label })
    }

    /// Opens the nftables of the namespace that the calling thread is in.
    pub fn current() -> Result<Self, NftError> {
        Self::in_namespace(&netns::current()?)
    }

    /// Makes the kernel's table equal to `table`, in one transaction: at every moment packets see the whole
    /// old or the whole new table. A table that is equal already is left alone, with its counters. Whether it
    /// was changed.
    pub fn apply(&mut self, table: &Table) -> Result<bool, NftError> {
        if self.read(table.family, &table.name)?.is_some_and(|installed| installed.table == *table)
        {
            return Ok(false);
        }
        // Half of a rule would be worse than none.
        let statements =
            table.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.statements);
        for statement in statements {
            if let Statement::Unknown(statement) = statement {
                let (table, statement) = (table.name.clone(), statement.clone());
                return Err(NftError::Unknown { table, statement });
            }
        }
        let family = model_family(table.family);
        let name = || Attributes::default().text(1, table.name.as_str());
        let mut transaction = self.socket.transaction();
        // Deleting what is not there is an error, so it is made first.
        transaction.add("add the table", NEW_TABLE, message::CREATE, family, name());
        transaction.add("empty the table", DELETE_TABLE, 0, family, name());
        transaction.add("add the table", NEW_TABLE, message::CREATE, family, name());
        for (number, set) in (1..).zip(&table.sets) {
            let what = format!("add the set {}", set.name);
            let set = set::encode(table.name.as_str(), set, number);
            transaction.add(what, NEW_SET, message::CREATE, family, set);
        }
        for chain in &table.chains {
            let what = format!("add the chain {}", chain.name);
            transaction.add(what, NEW_CHAIN, message::CREATE, family, encode_chain(table, chain));
        }
        for chain in &table.chains {
            for (place, rule) in chain.rules.iter().enumerate() {
                let what =
                    format!("add rule {place} ({}) of the chain {}", rule.comment, chain.name);
                let flags = message::CREATE | message::APPEND;
                transaction.add(what, NEW_RULE, flags, family, encode_rule(table, chain, rule));
            }
        }
        for set in &table.sets {
            let elements = set.elements.iter().map(|(key, value)| (key, Some(value)));
            for message in set::encode_elements(table.name.as_str(), &set.shape(), elements) {
                let what = format!("fill the set {}", set.name);
                transaction.add(what, NEW_ELEMENT, message::CREATE, family, message);
            }
        }
        let outcome = self.socket.commit(&transaction);
        outcome.map(|()| true).map_err(|(step, source)| {
            self.refused(format!("{step} in the table {}", table.name), source)
        })
    }

    /// The table as the kernel has it, if it is there.
    pub fn read(
        &mut self,
        family: Family,
        name: &TableName,
    ) -> Result<Option<Installed>, NftError> {
        if !self.tables()?.contains(&(family, name.clone())) {
            return Ok(None);
        }
        let sets = self.read_sets(family, name)?;
        self.read_chains(family, name, sets).map(Some)
    }

    fn read_chains(
        &mut self,
        family: Family,
        name: &TableName,
        sets: Vec<Set>,
    ) -> Result<Installed, NftError> {
        let number = model_family(family);
        let refused = |what: &str| format!("read {what} of the table {name}");
        let chains = self.socket.list(NFTABLES, GET_CHAIN, number, &Attributes::default());
        let chains = chains.map_err(|source| self.refused(refused("the chains"), source))?;
        let filter = Attributes::default().text(1, name.as_str());
        let rules = self.socket.list(NFTABLES, GET_RULE, number, &filter);
        let rules = rules.map_err(|source| self.refused(refused("the rules"), source))?;

        let mut table = Table { family, name: name.clone(), sets, chains: Vec::new() };
        table.chains.extend(chains.iter().filter_map(|object| decode_chain(&table.name, object)));
        let mut counters = Vec::new();
        for object in &rules {
            decode_rule(&mut table, object, &mut counters);
        }
        Ok(Installed { table, counters })
    }

    /// As [`Nftables::read`], but for the elements of sets, of which there may be many.
    pub fn read_frame(
        &mut self,
        family: Family,
        name: &TableName,
    ) -> Result<Option<Table>, NftError> {
        if !self.tables()?.contains(&(family, name.clone())) {
            return Ok(None);
        }
        let sets = self.list_sets(family, name)?;
        Ok(Some(self.read_chains(family, name, sets)?.table))
    }

    fn list_sets(&mut self, family: Family, name: &TableName) -> Result<Vec<Set>, NftError> {
        let filter = Attributes::default().text(1, name.as_str());
        let listed = self.socket.list(NFTABLES, GET_SET, model_family(family), &filter);
        let objects = listed
            .map_err(|source| self.refused(format!("read the sets of the table {name}"), source))?;
        Ok(objects.iter().filter_map(|object| set::decode(name.as_str(), object)).collect())
    }

    fn read_sets(&mut self, family: Family, name: &TableName) -> Result<Vec<Set>, NftError> {
        let mut sets = self.list_sets(family, name)?;
        for set in &mut sets {
            if matches!(set.filled_by, FilledBy::Packets { .. }) {
                continue;
            }
            let filter = set::filter(name.as_str(), &set.name);
            let listed = self.socket.list(NFTABLES, GET_ELEMENT, model_family(family), &filter);
            let objects = listed.map_err(|source| {
                self.refused(format!("read the set {} of the table {name}", set.name), source)
            })?;
            set.elements.extend(objects.iter().flat_map(set::decode_elements));
        }
        Ok(sets)
    }

    /// The tables of ours.
    pub fn tables(&mut self) -> Result<Vec<(Family, TableName)>, NftError> {
        let listed = self.socket.list(NFTABLES, GET_TABLE, 0, &Attributes::default());
        let objects =
            listed.map_err(|source| self.refused("list the tables".to_owned(), source))?;
        let named = objects.iter().filter_map(|object| {
            let name = TableName::new(object.attributes().text(1)?).ok()?;
            Some((family_of(object.family)?, name))
        });
        Ok(named.collect())
    }

    /// Deletes the table with all that is in it; whether it was there.
    pub fn delete(&mut self, family: Family, name: &TableName) -> Result<bool, NftError> {
        let mut transaction = self.socket.transaction();
        let attributes = Attributes::default().text(1, name.as_str());
        transaction.add("delete", DELETE_TABLE, 0, model_family(family), attributes);
        match self.socket.commit(&transaction) {
            Ok(()) => Ok(true),
            Err((_, source)) if source.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err((_, source)) => Err(self.refused(format!("delete the table {name}"), source)),
        }
    }

    fn refused(&self, action: String, source: io::Error) -> NftError {
        NftError::Refused { action, netns: self.netns.clone(), source }
    }
}

/// `NFPROTO_*`.
fn model_family(family: Family) -> u8 {
    match family {
        Family::Inet => 1,
        Family::Ip => 2,
        Family::Ip6 => 10,
    }
}

fn family_of(number: u8) -> Option<Family> {
    [Family::Inet, Family::Ip, Family::Ip6]
        .into_iter()
        .find(|family| model_family(*family) == number)
}

/// `NFTA_CHAIN_*` and `NFTA_HOOK_*`.
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;

const KINDS: [(ChainKind, &str); 3] =
    [(ChainKind::Filter, "filter"), (ChainKind::Nat, "nat"), (ChainKind::Route, "route")];
const HOOKS: [(Hook, u32); 5] = [
    (Hook::Prerouting, 0),
    (Hook::Input, 1),
    (Hook::Forward, 2),
    (Hook::Output, 3),
    (Hook::Postrouting, 4),
];
const POLICIES: [(Policy, u32); 2] = [(Policy::Drop, 0), (Policy::Accept, 1)];

fn coded<A: PartialEq, B: Copy + Default>(table: &[(A, B)], value: &A) -> B {
    table.iter().find(|(key, _)| key == value).map(|(_, code)| *code).unwrap_or_default()
}

fn decoded<A: Copy, B: PartialEq>(table: &[(A, B)], code: &B) -> Option<A> {
    table.iter().find(|(_, known)| known == code).map(|(value, _)| *value)
}

fn encode_chain(table: &Table, chain: &Chain) -> Attributes {
    let named = Attributes::default()
        .text(CHAIN_TABLE, table.name.as_str())
        .text(CHAIN_NAME, chain.name.as_str());
    let Some(base) = &chain.base else { return named };
    let hook = Attributes::default()
        .number(HOOK_NUMBER, coded(&HOOKS, &base.hook))
        .number(HOOK_PRIORITY, base.priority.cast_unsigned());
    named
        .nested(CHAIN_HOOK, hook)
        .number(CHAIN_POLICY, coded(&POLICIES, &base.policy))
        .text(CHAIN_TYPE, coded(&KINDS, &base.kind))
}

fn decode_chain(table: &TableName, object: &socket::Object) -> Option<Chain> {
    let attributes = object.attributes();
    if attributes.text(CHAIN_TABLE) != Some(table.as_str()) {
        return None;
    }
    let base = attributes.nested(CHAIN_HOOK).and_then(|hook| {
        Some(Base {
            kind: decoded(&KINDS, &attributes.text(CHAIN_TYPE)?)?,
            hook: decoded(&HOOKS, &hook.number(HOOK_NUMBER)?)?,
            priority: hook.number(HOOK_PRIORITY)?.cast_signed(),
            policy: decoded(&POLICIES, &attributes.number(CHAIN_POLICY)?)?,
        })
    });
    let name = ChainName::new(attributes.text(CHAIN_NAME)?).ok()?;
    Some(Chain { name, base, rules: Vec::new() })
}

/// `NFTA_RULE_*`.
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
/// The type of a comment in a rule's user data, as `nft` has it: type, length, text, zero.
const USERDATA_COMMENT: u8 = 0;

fn encode_rule(table: &Table, chain: &Chain, rule: &Rule) -> Attributes {
    let expressions = expression::encode(&lower::lower(table.family, &rule.statements));
    let attributes = Attributes::default()
        .text(RULE_TABLE, table.name.as_str())
        .text(RULE_CHAIN, chain.name.as_str())
        .nested(RULE_EXPRESSIONS, expressions);
    let Ok(length @ 1..) = u8::try_from(rule.comment.len()) else { return attributes };
    let mut userdata = vec![USERDATA_COMMENT, length.saturating_add(1)];
    userdata.extend_from_slice(rule.comment.as_bytes());
    userdata.push(0);
    attributes.bytes(RULE_USERDATA, &userdata)
}

fn decode_rule(table: &mut Table, object: &socket::Object, counters: &mut Vec<CounterValue>) {
    let attributes = object.attributes();
    if attributes.text(RULE_TABLE) != Some(table.name.as_str()) {
        return;
    }
    let name = attributes.text(RULE_CHAIN);
    let Some(chain) = table.chains.iter_mut().find(|chain| Some(chain.name.as_str()) == name)
    else {
        return;
    };
    let expressions =
        attributes.nested(RULE_EXPRESSIONS).map(expression::decode).unwrap_or_default();
    let comment = attributes.find(RULE_USERDATA).and_then(decode_comment).unwrap_or_default();
    for expression in &expressions {
        if let expression::Expression::Counter { packets, bytes } = expression {
            let (packets, bytes) = (*packets, *bytes);
            let (rule, comment) = (chain.rules.len(), comment.clone());
            counters.push(CounterValue {
                chain: chain.name.clone(),
                rule,
                comment,
                packets,
                bytes,
            });
        }
    }
    chain.rules.push(Rule { statements: lower::raise(table.family, &expressions), comment });
}

fn decode_comment(userdata: &[u8]) -> Option<String> {
    let [kind, length, text @ ..] = userdata else { return None };
    if *kind != USERDATA_COMMENT {
        return None;
    }
    let text = text.get(..usize::from(*length))?;
    let text = text.strip_suffix(&[0]).unwrap_or(text);
    String::from_utf8(text.to_vec()).ok()
}
