//! Tables by identifiers that this crate gave out itself: small numbers, which nobody can choose so that
//! they collide. They need no hash that withstands that, and are looked up for each node that a rule counts.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
};

/// A table by identifiers.
pub(crate) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;
/// A set of identifiers.
pub(crate) type IdSet<K> = HashSet<K, BuildHasherDefault<IdHasher>>;

/// An odd number whose bits are well mixed: 2^64 by the golden ratio.
const MIXER: u64 = 0x9E37_79B9_7F4A_7C15;

/// Mixes numbers by multiplication.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let number = chunk.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
            self.write_u64(number);
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(MIXER);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn finish(&self) -> u64 {
        // Tables choose places by the low bits, and the high ones are the best mixed.
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn numbers_that_follow_each_other_fall_into_different_places() {
        let hasher = BuildHasherDefault::<IdHasher>::default();
        for stride in [1, 1000, 4096, 1 << 20] {
            let places: HashSet<u64> =
                (0..4096_u32).map(|number| hasher.hash_one(number * stride) & 0xFFFF).collect();
            assert!(places.len() > 3_000, "{stride}: {}", places.len());
        }
    }
}
