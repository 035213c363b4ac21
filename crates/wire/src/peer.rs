//! What one server of a cluster tells another, each second: which nodes it has heard, whom to poke.

use serde::{Deserialize, Serialize};

/// The group of servers, as the `O` of the certificates that they show each other.
pub const GROUP_SERVERS: &str = "system:toono:servers";
/// Bits of a number's byte in [`Indexes`]; the highest one says that more follow.
const BITS: u32 = 7;
/// A 32-bit number has no more bytes than these.
const MOST_BYTES: u32 = 5;

/// Everything that happened since the last one that arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerNews {
    /// The server's name.
    pub from: String,
    /// Whether it reaches the store: one that does not follows no change and judges no node.
    pub connected: bool,
    /// Nodes that were heard.
    pub heard: Indexes,
    /// Nodes to be poked, with the tickets to come back to the sender with.
    pub dials: Vec<(u32, u64)>,
}

/// A set of node indexes as text: hexadecimal digits of their differences, seven bits a byte, lowest first. A
/// server of a million nodes that hears a tenth of them in a second needs a byte for nearly each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Indexes(String);

/// A text that is no set of indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a set of node indexes")]
pub struct BadIndexes;

impl Indexes {
    /// Of these, which become ordered and unique.
    #[must_use]
    pub fn new(indexes: &mut Vec<u32>) -> Self {
        indexes.sort_unstable();
        indexes.dedup();
        let mut bytes =
            Vec::with_capacity(indexes.len() + usize::try_from(MOST_BYTES).unwrap_or(0));
        let mut before = 0;
        for index in indexes {
            let mut rest = *index - before;
            before = *index;
            while rest >> BITS != 0 {
                bytes.push((rest & 0x7f) as u8 | 0x80);
                rest >>= BITS;
            }
            bytes.push(rest as u8);
        }
        Self(hex::encode(bytes))
    }

    /// In their order.
    ///
    /// # Errors
    /// When a number is not whole, or above 32 bits.
    pub fn decode(&self) -> Result<Vec<u32>, BadIndexes> {
        let bytes = hex::decode(&self.0).map_err(|_| BadIndexes)?;
        let mut indexes = Vec::with_capacity(bytes.len());
        let (mut before, mut rest, mut shift) = (0u32, 0u64, 0);
        for byte in bytes {
            rest |= u64::from(byte & 0x7f) << shift;
            shift += BITS;
            if byte & 0x80 != 0 {
                if shift >= BITS * MOST_BYTES {
                    return Err(BadIndexes);
                }
                continue;
            }
            let index = u32::try_from(rest).ok().and_then(|rest| before.checked_add(rest));
            before = index.ok_or(BadIndexes)?;
            indexes.push(before);
            (rest, shift) = (0, 0);
        }
        if shift == 0 { Ok(indexes) } else { Err(BadIndexes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_come_back_and_damage_is_seen() {
        for set in
            [vec![], vec![0], vec![u32::MAX], vec![0, 1, 127, 128, 300, 70_000, 1 << 31, u32::MAX]]
        {
            let mut shuffled: Vec<u32> = set.iter().rev().chain(&set).copied().collect();
            assert_eq!(Indexes::new(&mut shuffled).decode(), Ok(set));
        }
        let mut dense = (0..100_000).map(|index| index * 10).collect();
        assert_eq!(Indexes::new(&mut dense).0.len(), 200_000, "a byte each");
        for bad in ["8", "zz", "80", "ffffffff7f", "808080808000", "ffffffff0f01"] {
            assert_eq!(Indexes(bad.to_owned()).decode(), Err(BadIndexes), "{bad}");
        }
    }
}
