//! What a table is made of, as types: chains, rules, statements. It owns their meaning and their limits, and
//! asks the kernel nothing. Sets and maps have a file of their own, and so have the steps that work with
//! registers.

use std::fmt;

use super::set::Set;
pub use super::step::{Register, Source, Step};
use crate::{Cidr, LinkName};

/// What the name of every table of ours starts with: its mark.
pub const TABLE_PREFIX: &str = "toono";

/// The longest name of a table or a chain that we use. The kernel takes 255 bytes.
const NAME_MAX: usize = 64;

/// The longest comment of a rule in bytes, as `nft` has it.
const COMMENT_MAX: usize = 128;

/// The name of a table of ours: `toono`, then letters, digits and underscores.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName(String);

/// The name of a chain: letters, digits and underscores.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainName(String);

/// The name of a set or a map: letters, digits and underscores.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetName(String);

/// Why a text is not a name in a ruleset of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} cannot name {what}")]
pub struct NameError {
    /// The refused text.
    pub name: String,
    /// What it was to name, and the rule.
    pub what: &'static str,
}

fn plain(name: String, what: &'static str) -> Result<String, NameError> {
    if is_plain(&name) { Ok(name) } else { Err(NameError { name, what }) }
}

fn is_plain(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl TableName {
    /// Takes `name` when it marks the table as ours.
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        let name = name.into();
        if is_plain(&name) && name.starts_with(TABLE_PREFIX) {
            Ok(Self(name))
        } else {
            Err(NameError {
                name,
                what: "a table: it must be \"toono\" and up to 59 letters, digits and underscores",
            })
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ChainName {
    /// Takes `name` when it needs no quotes.
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        plain(name.into(), "a chain: it must have 1 to 64 letters, digits and underscores")
            .map(Self)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SetName {
    /// Takes `name` when it needs no quotes.
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        plain(name.into(), "a set: it must have 1 to 64 letters, digits and underscores").map(Self)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4 alone.
    Ip,
    /// IPv6 alone.
    Ip6,
}

/// A table with all that is in it: what [`super::Nftables::apply`] makes true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Which packets it sees.
    pub family: Family,
    /// Its name.
    pub name: TableName,
    /// Its sets and maps, in order.
    pub sets: Vec<Set>,
    /// Its chains, in order.
    pub chains: Vec<Chain>,
}

/// A list of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: ChainName,
    /// Where packets enter it; `None` when only other chains jump to it.
    pub base: Option<Base>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// How a chain hangs in the packets' way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// What the chain may do.
    pub kind: ChainKind,
    /// Where.
    pub hook: Hook,
    /// In what order among the chains of the hook; lower is earlier.
    pub priority: i32,
    /// What happens to a packet that no rule decides.
    pub policy: Policy,
}

/// What a base chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Let through or drop.
    Filter,
    /// Translate addresses; sees the first packet of a connection only.
    Nat,
    /// Filter, and route anew when the packet was changed.
    Route,
}

/// A place in a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// On arrival, before the route is chosen.
    Prerouting,
    /// To a socket of this host.
    Input,
    /// Through this host.
    Forward,
    /// From a socket of this host.
    Output,
    /// On leaving, after the route is chosen.
    Postrouting,
}

/// What a base chain does with a packet that no rule decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Let it through.
    Accept,
    /// Drop it.
    Drop,
}

/// The usual priority of address translation on arrival (`dstnat`).
pub const PRIORITY_DSTNAT: i32 = -100;
/// The usual priority of filters (`filter`).
pub const PRIORITY_FILTER: i32 = 0;
/// The usual priority of address translation on leaving (`srcnat`).
pub const PRIORITY_SRCNAT: i32 = 100;
/// Before connection tracking (`raw`): a packet dropped here leaves no trace.
pub const PRIORITY_RAW: i32 = -300;

/// One rule: conditions and what to do, in order, with a comment that says whose it is or why it is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// Run from the first to the last; a condition that does not hold ends the rule.
    pub statements: Vec<Statement>,
    /// Kept by the kernel with the rule, and shown by `nft list ruleset`.
    pub comment: String,
}

/// One step of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Statement {
    /// Go on only if the condition holds.
    Match(Condition),
    /// Count the packet.
    Counter,
    /// Set the packet's mark.
    SetMark(u32),
    /// Translate the source address to that of the link it leaves by.
    Masquerade,
    /// Decide.
    Verdict(Verdict),
    /// Work with registers and sets.
    Step(Step),
    /// Something in the kernel that these types do not know; never applied.
    Unknown(String),
}

/// A property of the packet that is so, or is not so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The property.
    pub field: Field,
    /// Whether it must *not* be so.
    pub negated: bool,
}

/// A property of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// It came in by this link.
    InputInterface(LinkName),
    /// It goes out by this link.
    OutputInterface(LinkName),
    /// Its source address is in this network.
    Source(Cidr),
    /// Its destination address is in this network.
    Destination(Cidr),
    /// Its connection is in one of these states.
    State(States),
    /// Its transport protocol.
    Protocol(Protocol),
    /// Its transport protocol and source port.
    SourcePort(Protocol, u16),
    /// Its transport protocol and destination port.
    DestinationPort(Protocol, u16),
    /// Its mark.
    Mark(u32),
    /// Its connection was led to another destination than it was made to.
    Translated,
    /// Its destination is an address of this host.
    ToThisHost,
}

/// A transport protocol, by its number of the internet protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// SCTP.
    pub const SCTP: Self = Self(132);
}

/// A set of states of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct States(pub(super) u32);

impl States {
    /// Belongs to no connection that makes sense.
    pub const INVALID: Self = Self(1);
    /// Packets were seen both ways.
    pub const ESTABLISHED: Self = Self(1 << 1);
    /// Belongs to another connection, such as an ICMP error.
    pub const RELATED: Self = Self(1 << 2);
    /// The first packet.
    pub const NEW: Self = Self(1 << 3);

    /// Either of both sets.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What becomes of the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on to the next base chain.
    Accept,
    /// It vanishes.
    Drop,
    /// Back to the chain that jumped here, or the policy.
    Return,
    /// On in another chain, and back.
    Jump(ChainName),
    /// On in another chain.
    Goto(ChainName),
}

impl Rule {
    /// An empty rule with a comment of at most 128 bytes; what is beyond is cut.
    pub fn new(comment: &str) -> Self {
        let mut end = comment.len().min(COMMENT_MAX);
        while !comment.is_char_boundary(end) {
            end -= 1;
        }
        Self { statements: Vec::new(), comment: comment.get(..end).unwrap_or_default().to_owned() }
    }

    /// Adds the condition that `field` is so.
    pub fn when(self, field: Field) -> Self {
        self.then(Statement::Match(Condition { field, negated: false }))
    }

    /// Adds the condition that `field` is not so.
    pub fn unless(self, field: Field) -> Self {
        self.then(Statement::Match(Condition { field, negated: true }))
    }

    /// Adds any statement.
    pub fn then(mut self, statement: Statement) -> Self {
        self.statements.push(statement);
        self
    }

    /// Counts the packets that get here.
    pub fn counted(self) -> Self {
        self.then(Statement::Counter)
    }

    /// Lets the packet through.
    pub fn accept(self) -> Self {
        self.then(Statement::Verdict(Verdict::Accept))
    }

    /// Drops the packet.
    pub fn drop(self) -> Self {
        self.then(Statement::Verdict(Verdict::Drop))
    }

    /// Translates the source address to that of the link it leaves by.
    pub fn masquerade(self) -> Self {
        self.then(Statement::Masquerade)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ours_and_plain() {
        assert!(TableName::new("toono_cut").is_ok());
        for bad in ["", "filter", "toono-cut", "toono cut"] {
            assert!(TableName::new(bad).is_err(), "{bad}");
        }
        assert!(ChainName::new("forward").is_ok());
        assert!(ChainName::new("a b").is_err());
    }

    #[test]
    fn long_comments_are_cut_between_characters() {
        let rule = Rule::new(&"ö".repeat(100));
        assert_eq!(rule.comment, "ö".repeat(64));
    }
}
