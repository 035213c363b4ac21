//! Verdicts to attributes and back, for rules and for elements of maps alike. Pure.

use super::{
    message::{Attributes, Reader},
    model::{ChainName, Verdict},
};

/// `NFTA_VERDICT_CODE`, `NFTA_VERDICT_CHAIN`.
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
/// `NF_DROP`, `NF_ACCEPT` and `enum nft_verdicts`.
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const JUMP: i32 = -3;
const GOTO: i32 = -4;
const RETURN: i32 = -5;

pub(super) fn encode(verdict: &Verdict) -> Attributes {
    let (code, chain) = match verdict {
        Verdict::Accept => (ACCEPT, None),
        Verdict::Drop => (DROP, None),
        Verdict::Return => (RETURN, None),
        Verdict::Jump(chain) => (JUMP, Some(chain)),
        Verdict::Goto(chain) => (GOTO, Some(chain)),
    };
    let attributes = Attributes::default().number(VERDICT_CODE, code.cast_unsigned());
    match chain {
        Some(chain) => attributes.text(VERDICT_CHAIN, chain.as_str()),
        None => attributes,
    }
}

pub(super) fn decode(verdict: &Reader<'_>) -> Option<Verdict> {
    let chain = || ChainName::new(verdict.text(VERDICT_CHAIN)?).ok();
    match verdict.number(VERDICT_CODE)?.cast_signed() {
        ACCEPT => Some(Verdict::Accept),
        DROP => Some(Verdict::Drop),
        RETURN => Some(Verdict::Return),
        JUMP => chain().map(Verdict::Jump),
        GOTO => chain().map(Verdict::Goto),
        _ => None,
    }
}
