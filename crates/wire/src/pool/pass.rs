//! The cloud's word that a node is of a pool, which the node shows to the pool's hub.

use std::{fmt, str::FromStr};

use bytes::BufMut;

/// What a signature is over begins so: no frame, certificate or token does.
const DOMAIN: &[u8] = b"toono pool pass\0";
/// Longest signature that is looked at; that of an RSA key of 8,192 bits.
const MAX_SIGNATURE: usize = 1_024;

/// A pass: for whom and which pool is in what is signed alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// The Unix second until which it is good.
    pub until: u64,
    /// The cloud's signature of [`Pass::statement`].
    pub signature: Vec<u8>,
}

/// The text is no pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a pool's pass")]
pub struct BadPass;

impl Pass {
    /// What the cloud signs: names are behind their lengths.
    #[must_use]
    pub fn statement(&self, pool: &str, node: &str) -> Vec<u8> {
        let mut out = DOMAIN.to_vec();
        out.put_u64(self.until);
        for name in [pool, node] {
            out.put_u64(name.len() as u64);
            out.put_slice(name.as_bytes());
        }
        out
    }
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.until)?;
        self.signature.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Pass {
    type Err = BadPass;

    fn from_str(text: &str) -> Result<Self, BadPass> {
        let (until, hex) = text.split_once(':').ok_or(BadPass)?;
        if hex.len() > 2 * MAX_SIGNATURE || !hex.len().is_multiple_of(2) {
            return Err(BadPass);
        }
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|it| u8::try_from(it).ok());
        let byte = |pair: &[u8]| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        };
        let signature = hex.as_bytes().chunks(2).map(byte).collect::<Option<_>>();
        let until = until.parse().map_err(|_| BadPass)?;
        Ok(Self { until, signature: signature.ok_or(BadPass)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_reads_as_it_is_printed() {
        let pass = Pass { until: 1_700_000_000, signature: vec![0, 0x1f, 0xff] };
        assert_eq!(pass.to_string(), "1700000000:001fff");
        assert_eq!(pass.to_string().parse(), Ok(pass.clone()));
        for bad in ["", ":", "1", "x:00", "1:0", "1:0g", "1:é", "-1:00"] {
            assert_eq!(bad.parse::<Pass>(), Err(BadPass), "{bad}");
        }
        assert_ne!(pass.statement("a", "bc"), pass.statement("ab", "c"));
    }
}
