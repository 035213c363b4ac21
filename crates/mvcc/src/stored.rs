//! Objects at rest: those that no event shares any more are packed, each against another object of its kind.
//!
//! Objects of a kind are alike, and of one kind there are a million. So the bytes of one of them are the
//! dictionary for the others (LZ4's, <https://lz4.org>): what is left of a Node is its name, its
//! identifiers and its times. It must not look into the bytes.

use std::sync::Arc;

use bytes::Bytes;
use lz4_flex::block::{compress_with_dict, decompress_with_dict};

use crate::{Entry, Key, Owner, Rev};

/// Smaller values than this stay as they are: the packing has a cost of its own.
const PACK_MIN_BYTES: usize = 256;
/// Larger ones too: they are few, and unpacking one takes long.
const PACK_MAX_BYTES: usize = 64 * 1024;
/// A value is packed if that saves a quarter of it at least.
const WORTH: (usize, usize) = (3, 4);
/// After so many values in a row that were not worth it, the next one is what others are packed against.
const PATIENCE: usize = 32;

/// The bytes of an object as the table keeps them.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Whole(Bytes),
    Packed {
        base: Base,
        /// The length of the whole value, 4 bytes, and its LZ4 block.
        block: Arc<[u8]>,
    },
}

/// The object that others are packed against. Behind a pointer to the pointer, as every packed object
/// has one of these.
type Base = Arc<Box<[u8]>>;

impl Value {
    /// The bytes that it keeps in memory, but for what others are packed against too.
    pub(crate) fn held_bytes(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Packed { block, .. } => block.len(),
        }
    }

    /// The whole bytes.
    pub(crate) fn whole(&self) -> Bytes {
        match self {
            Self::Whole(bytes) => bytes.clone(),
            Self::Packed { base, block } => unpack(base, block),
        }
    }
}

#[expect(clippy::expect_used, reason = "it was packed by this process from these very bytes")]
fn unpack(base: &[u8], block: &[u8]) -> Bytes {
    let (length, block) = block.split_first_chunk().expect("a length");
    let length = usize::try_from(u32::from_le_bytes(*length)).expect("the length of a value");
    decompress_with_dict(block, length, base).expect("a block").into()
}

/// Packs the values of one kind.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    base: Option<Base>,
    /// Values in a row that were not worth it.
    poor: usize,
}

impl Packer {
    /// The value packed, if that is worth it.
    pub(crate) fn pack(&mut self, value: &Value) -> Option<Value> {
        let Value::Whole(bytes) = value else { return None };
        if !(PACK_MIN_BYTES..=PACK_MAX_BYTES).contains(&bytes.len()) {
            return None;
        }
        if self.poor >= PATIENCE {
            self.base = None;
            self.poor = 0;
        }
        let base = self.base.get_or_insert_with(|| Arc::new(Box::from(&**bytes)));
        let block = compress_with_dict(bytes, base);
        let (some, of) = WORTH;
        if block.len() * of > bytes.len() * some {
            self.poor += 1;
            return None;
        }
        self.poor = 0;
        let length = u32::try_from(bytes.len()).ok()?.to_le_bytes();
        let block = length.iter().chain(&block).copied().collect();
        Some(Value::Packed { base: Arc::clone(base), block })
    }
}

/// One version of an object as the table keeps it: cheap to take out while others wait, and made an [`Entry`]
/// afterwards.
#[derive(Clone, Debug)]
pub struct Stored {
    pub(crate) key: Key,
    pub(crate) value: Value,
    pub(crate) created: Rev,
    pub(crate) modified: Rev,
    pub(crate) owner: Owner,
}

impl Stored {
    /// The object with its bytes as they are kept elsewhere, or else packed, if that is worth it.
    pub(crate) fn packed(entry: &Entry, kept: Option<&Value>, packer: &mut Packer) -> Self {
        let Entry { key, value, created, modified, owner } = entry.clone();
        let value = match kept {
            Some(kept) => kept.clone(),
            None => {
                let whole = Value::Whole(value);
                packer.pack(&whole).unwrap_or(whole)
            }
        };
        Self { key, value, created, modified, owner }
    }
}

impl From<Stored> for Entry {
    fn from(stored: Stored) -> Self {
        let Stored { key, value, created, modified, owner } = stored;
        Self { key, value: value.whole(), created, modified, owner }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn node(number: u32) -> Bytes {
        let fields = "\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}],\"capacity\":{\"pods\":\"110\"},";
        format!(
            "{{\"name\":\"node-{number}\",{}\"uid\":\"{:08x}\"}}",
            fields.repeat(10),
            number.wrapping_mul(0x9e37_79b9)
        )
        .into()
    }

    #[test]
    fn what_is_alike_becomes_small() {
        let mut packer = Packer::default();
        for number in 0..100 {
            let value = Value::Whole(node(number));
            let packed = packer.pack(&value).unwrap();
            let Value::Packed { block, .. } = &packed else { panic!("not packed") };
            assert!(block.len() < 100, "{} of {} bytes", block.len(), node(number).len());
            assert_eq!(packed.whole(), node(number));
            assert!(packer.pack(&packed).is_none());
        }
        assert!(packer.pack(&Value::Whole(Bytes::from_static(b"{}"))).is_none());
    }

    #[test]
    fn another_base_is_taken_when_one_does_not_fit() {
        let mut packer = Packer::default();
        packer.pack(&Value::Whole(node(1)));
        let mut noise = 1_u64;
        let mut random = || -> Bytes {
            let next = |_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                noise.to_be_bytes()[0]
            };
            (0..1000).map(next).collect::<Vec<u8>>().into()
        };
        for _ in 0..PATIENCE {
            assert!(packer.pack(&Value::Whole(random())).is_none());
        }
        let other = random();
        packer.pack(&Value::Whole(other.clone()));
        assert!(packer.pack(&Value::Whole(other)).is_some());
    }

    proptest! {
        #[test]
        fn every_value_comes_back(
            values in vec((vec(any::<u8>(), 0..600), any::<u8>(), 0..400_usize), 0..20)
        ) {
            let mut packer = Packer::default();
            for (mut bytes, fill, count) in values {
                bytes.extend(std::iter::repeat_n(fill, count));
                let value = Value::Whole(bytes.clone().into());
                let packed = packer.pack(&value).unwrap_or(value);
                prop_assert_eq!(packed.whole(), bytes);
            }
        }
    }
}
