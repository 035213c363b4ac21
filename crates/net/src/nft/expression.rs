//! The expressions of the kernel's rule machine (`linux/netfilter/nf_tables.h`), to bytes and back. It owns
//! the numbers of their attributes, and does not know which expressions make up which statement.

use super::{
    message::{Attributes, Reader},
    model::{Step, Verdict},
    step, verdict,
};

/// The register that conditions are loaded into: `NFT_REG_1`, 16 bytes.
const REGISTER: u32 = 1;
/// The register of verdicts: `NFT_REG_VERDICT`.
const VERDICT_REGISTER: u32 = 0;

/// `NFTA_LIST_ELEM`.
const LIST_ELEMENT: u16 = 1;
/// `NFTA_EXPR_NAME`, `NFTA_EXPR_DATA`.
const NAME: u16 = 1;
const DATA: u16 = 2;
/// `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`.
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

/// What a `meta` expression loads or sets: `enum nft_meta_keys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MetaKey(pub(super) u32);

impl MetaKey {
    pub(super) const MARK: Self = Self(3);
    pub(super) const INPUT_NAME: Self = Self(6);
    pub(super) const OUTPUT_NAME: Self = Self(7);
    pub(super) const NF_PROTOCOL: Self = Self(15);
    pub(super) const L4_PROTOCOL: Self = Self(16);
}

/// `NFT_CT_STATE`, `NFT_CT_STATUS`.
pub(super) const CT_STATE: u32 = 0;
pub(super) const CT_STATUS: u32 = 2;
/// `NFT_FIB_RESULT_ADDRTYPE`, `NFTA_FIB_F_DADDR`.
const FIB_ADDRESS_TYPE: u32 = 3;
const FIB_DESTINATION: u32 = 2;

/// Where a `payload` expression starts: `enum nft_payload_bases`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PayloadBase {
    Network,
    Transport,
}

/// One step of the rule machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    Meta(MetaKey),
    SetMeta(MetaKey),
    ConnTrack(u32),
    Payload {
        base: PayloadBase,
        offset: u32,
        length: u32,
    },
    /// The register and this mask.
    Bitwise {
        mask: Vec<u8>,
    },
    /// Go on if the register equals, or does not equal, the data.
    Compare {
        equal: bool,
        data: Vec<u8>,
    },
    /// Load a constant.
    Immediate {
        data: Vec<u8>,
    },
    Verdict(Verdict),
    /// Load the type of the destination address, as the routes have it.
    DestinationType,
    /// Whatever works with registers of its own.
    Step(Step),
    Counter {
        packets: u64,
        bytes: u64,
    },
    Masquerade,
    Unknown(String),
}

/// Writes a rule's list of expressions.
pub(super) fn encode(expressions: &[Expression]) -> Attributes {
    expressions.iter().fold(Attributes::default(), |list, expression| {
        let (name, data) = encode_one(expression);
        list.nested(LIST_ELEMENT, Attributes::default().text(NAME, name).nested(DATA, data))
    })
}

fn encode_one(expression: &Expression) -> (&str, Attributes) {
    let none = Attributes::default();
    match expression {
        Expression::Meta(key) => ("meta", none.number(1, REGISTER).number(2, key.0)),
        Expression::SetMeta(key) => ("meta", none.number(2, key.0).number(3, REGISTER)),
        Expression::ConnTrack(key) => ("ct", none.number(1, REGISTER).number(2, *key)),
        Expression::Payload { base, offset, length } => {
            let base = match base {
                PayloadBase::Network => 1,
                PayloadBase::Transport => 2,
            };
            let place = none.number(1, REGISTER).number(2, base);
            ("payload", place.number(3, *offset).number(4, *length))
        }
        Expression::Bitwise { mask } => {
            let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
            let operands = none.number(1, REGISTER).number(2, REGISTER).number(3, length);
            ("bitwise", operands.nested(4, value(mask)).nested(5, value(&vec![0; mask.len()])))
        }
        Expression::Compare { equal, data } => {
            let operation = u32::from(!*equal);
            ("cmp", none.number(1, REGISTER).number(2, operation).nested(3, value(data)))
        }
        Expression::Immediate { data } => {
            ("immediate", none.number(1, REGISTER).nested(2, value(data)))
        }
        Expression::Verdict(verdict) => {
            let data = Attributes::default().nested(DATA_VERDICT, verdict::encode(verdict));
            ("immediate", none.number(1, VERDICT_REGISTER).nested(2, data))
        }
        Expression::DestinationType => {
            ("fib", none.number(1, REGISTER).number(2, FIB_ADDRESS_TYPE).number(3, FIB_DESTINATION))
        }
        Expression::Step(step) => step::encode(step),
        Expression::Counter { packets, bytes } => {
            ("counter", none.bytes(1, &bytes.to_be_bytes()).bytes(2, &packets.to_be_bytes()))
        }
        Expression::Masquerade => ("masq", none),
        Expression::Unknown(name) => (name, none),
    }
}

fn value(bytes: &[u8]) -> Attributes {
    Attributes::default().bytes(DATA_VALUE, bytes)
}

/// Reads a rule's list of expressions. What is not understood comes back as [`Expression::Unknown`].
pub(super) fn decode(list: Reader<'_>) -> Vec<Expression> {
    list.filter(|(kind, _)| *kind == LIST_ELEMENT)
        .map(|(_, element)| {
            let element = Reader::new(element);
            let name = element.text(NAME).unwrap_or("?");
            let data = element.nested(DATA).unwrap_or(Reader::new(&[]));
            decode_one(name, &data).unwrap_or_else(|| Expression::Unknown(name.to_owned()))
        })
        .collect()
}

fn decode_one(name: &str, data: &Reader<'_>) -> Option<Expression> {
    if let Some(step) = step::decode(name, data) {
        return Some(Expression::Step(step));
    }
    let constant = |kind| Some(data.nested(kind)?.find(DATA_VALUE)?.to_vec());
    match name {
        "meta" if data.number(1).is_some() => Some(Expression::Meta(MetaKey(data.number(2)?))),
        "meta" => Some(Expression::SetMeta(MetaKey(data.number(2)?))),
        "ct" => data.number(1).and(data.number(2)).map(Expression::ConnTrack),
        "payload" => {
            data.number(1)?;
            let base = match data.number(2)? {
                1 => PayloadBase::Network,
                2 => PayloadBase::Transport,
                _ => return None,
            };
            Some(Expression::Payload { base, offset: data.number(3)?, length: data.number(4)? })
        }
        // A missing operation is the boolean one, which older kernels do not name.
        "bitwise"
            if data.number(6).unwrap_or(0) == 0 && constant(5)?.iter().all(|byte| *byte == 0) =>
        {
            Some(Expression::Bitwise { mask: constant(4)? })
        }
        "cmp" => match data.number(2)? {
            0 => Some(Expression::Compare { equal: true, data: constant(3)? }),
            1 => Some(Expression::Compare { equal: false, data: constant(3)? }),
            _ => None,
        },
        "immediate" if data.number(1)? == VERDICT_REGISTER => {
            verdict::decode(&data.nested(2)?.nested(DATA_VERDICT)?).map(Expression::Verdict)
        }
        "immediate" => Some(Expression::Immediate { data: constant(2)? }),
        "fib"
            if data.number(2) == Some(FIB_ADDRESS_TYPE)
                && data.number(3) == Some(FIB_DESTINATION) =>
        {
            Some(Expression::DestinationType)
        }
        "counter" => Some(Expression::Counter { bytes: data.long(1)?, packets: data.long(2)? }),
        "masq" if data.number(2).is_none() && data.number(1).unwrap_or(0) == 0 => {
            Some(Expression::Masquerade)
        }
        _ => None,
    }
}
