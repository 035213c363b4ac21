//! Statements to expressions and back. It owns which expressions say what; both ways stand side by side, so
//! that what was applied is what is read back. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::expression::{CT_STATE, CT_STATUS, Expression, MetaKey, PayloadBase};
use super::model::{Condition, Family, Field, Protocol, Statement, States};
use crate::{Cidr, LinkName};

/// The length of a link's name in the kernel, closing zeros included: `IFNAMSIZ`.
const LINK_NAME_BYTES: usize = 16;
/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// Where the addresses stand in the two headers, and the ports in all transport headers that have some.
const IPV4_SOURCE: u32 = 12;
const IPV4_DESTINATION: u32 = 16;
const IPV6_SOURCE: u32 = 8;
const IPV6_DESTINATION: u32 = 24;
const PORT_SOURCE: u32 = 0;
const PORT_DESTINATION: u32 = 2;
/// `IPS_DST_NAT`.
const DESTINATION_NAT: u32 = 1 << 5;
/// `RTN_LOCAL`.
const LOCAL: u32 = 2;

/// The expressions of a rule.
pub(super) fn lower(family: Family, statements: &[Statement]) -> Vec<Expression> {
    let mut out = Vec::new();
    for statement in statements {
        match statement {
            Statement::Match(condition) => lower_condition(family, condition, &mut out),
            Statement::Counter => out.push(Expression::Counter { packets: 0, bytes: 0 }),
            Statement::SetMark(mark) => {
                out.push(Expression::Immediate { data: mark.to_ne_bytes().to_vec() });
                out.push(Expression::SetMeta(MetaKey::MARK));
            }
            Statement::Masquerade => out.push(Expression::Masquerade),
            Statement::Verdict(verdict) => out.push(Expression::Verdict(verdict.clone())),
            Statement::Step(step) => out.push(Expression::Step(step.clone())),
            Statement::Unknown(name) => out.push(Expression::Unknown(name.clone())),
        }
    }
    out
}

fn lower_condition(family: Family, condition: &Condition, out: &mut Vec<Expression>) {
    let equal = !condition.negated;
    match &condition.field {
        Field::InputInterface(link) => lower_link(MetaKey::INPUT_NAME, link, equal, out),
        Field::OutputInterface(link) => lower_link(MetaKey::OUTPUT_NAME, link, equal, out),
        Field::Source(network) => lower_address(family, network, true, equal, out),
        Field::Destination(network) => lower_address(family, network, false, equal, out),
        Field::State(states) => {
            out.push(Expression::ConnTrack(CT_STATE));
            out.push(Expression::Bitwise { mask: states.0.to_ne_bytes().to_vec() });
            // "In one of the states" is: what the mask leaves is not zero.
            out.push(Expression::Compare { equal: !equal, data: vec![0; 4] });
        }
        Field::Translated => {
            out.push(Expression::ConnTrack(CT_STATUS));
            out.push(Expression::Bitwise { mask: DESTINATION_NAT.to_ne_bytes().to_vec() });
            out.push(Expression::Compare { equal: !equal, data: vec![0; 4] });
        }
        Field::ToThisHost => {
            out.push(Expression::DestinationType);
            out.push(Expression::Compare { equal, data: LOCAL.to_ne_bytes().to_vec() });
        }
        Field::Protocol(protocol) => {
            out.push(Expression::Meta(MetaKey::L4_PROTOCOL));
            out.push(Expression::Compare { equal, data: vec![protocol.0] });
        }
        Field::SourcePort(protocol, port) => lower_port(*protocol, PORT_SOURCE, *port, equal, out),
        Field::DestinationPort(protocol, port) => {
            lower_port(*protocol, PORT_DESTINATION, *port, equal, out)
        }
        Field::Mark(mark) => {
            out.push(Expression::Meta(MetaKey::MARK));
            out.push(Expression::Compare { equal, data: mark.to_ne_bytes().to_vec() });
        }
    }
}

fn lower_link(key: MetaKey, link: &LinkName, equal: bool, out: &mut Vec<Expression>) {
    let mut data = link.as_str().as_bytes().to_vec();
    data.resize(LINK_NAME_BYTES, 0);
    out.push(Expression::Meta(key));
    out.push(Expression::Compare { equal, data });
}

fn lower_address(
    family: Family,
    network: &Cidr,
    source: bool,
    equal: bool,
    out: &mut Vec<Expression>,
) {
    let network = network.network();
    let (protocol, offset, data, mask) = match network.address() {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(network.length())).unwrap_or(0);
            let offset = if source { IPV4_SOURCE } else { IPV4_DESTINATION };
            (IPV4, offset, address.octets().to_vec(), mask.to_be_bytes().to_vec())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(network.length())).unwrap_or(0);
            let offset = if source { IPV6_SOURCE } else { IPV6_DESTINATION };
            (IPV6, offset, address.octets().to_vec(), mask.to_be_bytes().to_vec())
        }
    };
    if family == Family::Inet {
        // The header of the other protocol has something else in this place.
        out.push(Expression::Meta(MetaKey::NF_PROTOCOL));
        out.push(Expression::Compare { equal: true, data: vec![protocol] });
    }
    let length = if protocol == IPV4 { 4 } else { 16 };
    out.push(Expression::Payload { base: PayloadBase::Network, offset, length });
    if mask.iter().any(|byte| *byte != 0xff) {
        out.push(Expression::Bitwise { mask });
    }
    out.push(Expression::Compare { equal, data });
}

fn lower_port(protocol: Protocol, offset: u32, port: u16, equal: bool, out: &mut Vec<Expression>) {
    out.push(Expression::Meta(MetaKey::L4_PROTOCOL));
    out.push(Expression::Compare { equal: true, data: vec![protocol.0] });
    out.push(Expression::Payload { base: PayloadBase::Transport, offset, length: 2 });
    out.push(Expression::Compare { equal, data: port.to_be_bytes().to_vec() });
}

/// The statements of a rule.
pub(super) fn raise(family: Family, mut rest: &[Expression]) -> Vec<Statement> {
    let mut out = Vec::new();
    while let [first, after_first @ ..] = rest {
        let (statement, after) = raise_one(family, rest)
            .unwrap_or_else(|| (Statement::Unknown(format!("{first:?}")), after_first));
        out.push(statement);
        rest = after;
    }
    out
}

fn raise_one(family: Family, rest: &[Expression]) -> Option<(Statement, &[Expression])> {
    match rest {
        [Expression::Counter { .. }, after @ ..] => Some((Statement::Counter, after)),
        [Expression::Masquerade, after @ ..] => Some((Statement::Masquerade, after)),
        [Expression::Verdict(verdict), after @ ..] => {
            Some((Statement::Verdict(verdict.clone()), after))
        }
        [Expression::Step(step), after @ ..] => Some((Statement::Step(step.clone()), after)),
        [Expression::Immediate { data }, Expression::SetMeta(MetaKey::MARK), after @ ..] => {
            Some((Statement::SetMark(native(data)?), after))
        }
        _ => {
            let (field, negated, after) = raise_condition(family, rest)?;
            Some((Statement::Match(Condition { field, negated }), after))
        }
    }
}

/// The field, whether it is negated, and the expressions after it.
fn raise_condition(family: Family, rest: &[Expression]) -> Option<(Field, bool, &[Expression])> {
    use Expression::{Bitwise, Compare, ConnTrack, Meta, Payload};
    match rest {
        [Meta(MetaKey::INPUT_NAME), Compare { equal, data }, after @ ..] => {
            Some((Field::InputInterface(link(data)?), !equal, after))
        }
        [Meta(MetaKey::OUTPUT_NAME), Compare { equal, data }, after @ ..] => {
            Some((Field::OutputInterface(link(data)?), !equal, after))
        }
        [Meta(MetaKey::MARK), Compare { equal, data }, after @ ..] => {
            Some((Field::Mark(native(data)?), !equal, after))
        }
        [ConnTrack(CT_STATE), Bitwise { mask }, Compare { equal, data }, after @ ..]
            if data.iter().all(|byte| *byte == 0) =>
        {
            Some((Field::State(States(native(mask)?)), *equal, after))
        }
        [ConnTrack(CT_STATUS), Bitwise { mask }, Compare { equal, data }, after @ ..]
            if data.iter().all(|byte| *byte == 0) && native(mask)? == DESTINATION_NAT =>
        {
            Some((Field::Translated, *equal, after))
        }
        [Expression::DestinationType, Compare { equal, data }, after @ ..]
            if native(data)? == LOCAL =>
        {
            Some((Field::ToThisHost, !equal, after))
        }
        [
            Meta(MetaKey::L4_PROTOCOL),
            Compare { equal: true, data: protocol },
            Payload { base: PayloadBase::Transport, offset, length: 2 },
            Compare { equal, data },
            after @ ..,
        ] => {
            let protocol = Protocol(*protocol.first()?);
            let port = u16::from_be_bytes(data.as_slice().try_into().ok()?);
            let field = match *offset {
                PORT_SOURCE => Field::SourcePort(protocol, port),
                PORT_DESTINATION => Field::DestinationPort(protocol, port),
                _ => return None,
            };
            Some((field, !equal, after))
        }
        [Meta(MetaKey::L4_PROTOCOL), Compare { equal, data }, after @ ..] => {
            Some((Field::Protocol(Protocol(*data.first()?)), !equal, after))
        }
        [Meta(MetaKey::NF_PROTOCOL), Compare { equal: true, data }, after @ ..]
            if family == Family::Inet =>
        {
            raise_address(*data.first()?, after)
        }
        [Payload { .. }, ..] if family == Family::Ip => raise_address(IPV4, rest),
        [Payload { .. }, ..] if family == Family::Ip6 => raise_address(IPV6, rest),
        _ => None,
    }
}

fn raise_address(protocol: u8, rest: &[Expression]) -> Option<(Field, bool, &[Expression])> {
    use Expression::{Bitwise, Compare, Payload};
    let (offset, length, mask, equal, data, after) = match rest {
        [
            Payload { base: PayloadBase::Network, offset, .. },
            Bitwise { mask },
            Compare { equal, data },
            after @ ..,
        ] => {
            let length = mask.iter().map(|byte| byte.leading_ones()).sum::<u32>();
            (*offset, u8::try_from(length).ok()?, Some(mask), *equal, data, after)
        }
        [
            Payload { base: PayloadBase::Network, offset, .. },
            Compare { equal, data },
            after @ ..,
        ] => (*offset, u8::try_from(data.len().checked_mul(8)?).ok()?, None, *equal, data, after),
        _ => return None,
    };
    let address: IpAddr = match protocol {
        IPV4 => Ipv4Addr::from(<[u8; 4]>::try_from(data.as_slice()).ok()?).into(),
        IPV6 => Ipv6Addr::from(<[u8; 16]>::try_from(data.as_slice()).ok()?).into(),
        _ => return None,
    };
    let network = Cidr::new(address, length).ok()?;
    // A mask with holes is no prefix, and neither is one whose bits the address exceeds.
    let contiguous = mask.is_none_or(|mask| {
        let zeros = mask.iter().map(|byte| byte.count_ones()).sum::<u32>();
        zeros == u32::from(length)
    });
    if !contiguous || network.network() != network {
        return None;
    }
    let field = match (protocol, offset) {
        (IPV4, IPV4_SOURCE) | (IPV6, IPV6_SOURCE) => Field::Source(network),
        (IPV4, IPV4_DESTINATION) | (IPV6, IPV6_DESTINATION) => Field::Destination(network),
        _ => return None,
    };
    Some((field, !equal, after))
}

fn link(data: &[u8]) -> Option<LinkName> {
    let end = data.iter().position(|byte| *byte == 0)?;
    LinkName::new(std::str::from_utf8(data.get(..end)?).ok()?).ok()
}

fn native(data: &[u8]) -> Option<u32> {
    data.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::model::{ChainName, Verdict};
    use super::*;

    fn fields() -> impl Strategy<Value = Field> {
        let link = "[a-z]{1,15}".prop_map(|name| LinkName::new(name).unwrap());
        let network = prop_oneof![
            (any::<[u8; 4]>(), 0..=32_u8)
                .prop_map(|(a, n)| Cidr::new(IpAddr::from(a), n).unwrap().network()),
            (any::<[u8; 16]>(), 0..=128_u8)
                .prop_map(|(a, n)| Cidr::new(IpAddr::from(a), n).unwrap().network()),
        ];
        let protocol = any::<u8>().prop_map(Protocol);
        prop_oneof![
            link.clone().prop_map(Field::InputInterface),
            link.prop_map(Field::OutputInterface),
            network.clone().prop_map(Field::Source),
            network.prop_map(Field::Destination),
            (1..128_u32).prop_map(|bits| Field::State(States(bits))),
            protocol.clone().prop_map(Field::Protocol),
            (protocol.clone(), any::<u16>()).prop_map(|(p, n)| Field::SourcePort(p, n)),
            (protocol, any::<u16>()).prop_map(|(p, n)| Field::DestinationPort(p, n)),
            any::<u32>().prop_map(Field::Mark),
            Just(Field::Translated),
            Just(Field::ToThisHost),
        ]
    }

    fn statements() -> impl Strategy<Value = Statement> {
        let chain = "[a-z_]{1,20}".prop_map(|name| ChainName::new(name).unwrap());
        prop_oneof![
            4 => (fields(), any::<bool>())
                .prop_map(|(field, negated)| Statement::Match(Condition { field, negated })),
            1 => Just(Statement::Counter),
            1 => any::<u32>().prop_map(Statement::SetMark),
            1 => Just(Statement::Masquerade),
            1 => Just(Statement::Verdict(Verdict::Accept)),
            1 => Just(Statement::Verdict(Verdict::Drop)),
            1 => Just(Statement::Verdict(Verdict::Return)),
            1 => chain.clone().prop_map(|chain| Statement::Verdict(Verdict::Jump(chain))),
            1 => chain.prop_map(|chain| Statement::Verdict(Verdict::Goto(chain))),
        ]
    }

    proptest! {
        #[test]
        fn what_is_lowered_is_raised_again(rule in proptest::collection::vec(statements(), 0..8)) {
            prop_assert_eq!(raise(Family::Inet, &lower(Family::Inet, &rule)), rule);
        }
    }

    #[test]
    fn a_mask_with_holes_is_unknown() {
        let expressions = [
            Expression::Payload { base: PayloadBase::Network, offset: IPV4_SOURCE, length: 4 },
            Expression::Bitwise { mask: vec![0xff, 0, 0xff, 0] },
            Expression::Compare { equal: true, data: vec![10, 0, 3, 0] },
        ];
        let statements = raise(Family::Ip, &expressions);
        assert!(
            statements.iter().all(|statement| matches!(statement, Statement::Unknown(_))),
            "{statements:?}"
        );
    }
}
