//! Makes new inputs of known ones, by their grammar.

mod json;

use fastrand::Rng;
use serde_json::Value;

use crate::{Grammar, Target};

/// Most mutations of one input at once.
const STACKED_MAX: u32 = 6;
/// Mutated inputs stay shorter than this, so that many can be tried, ...
const USUAL_BYTES: usize = 16 * 1024;
/// ... but one in so many may grow as long as the server takes it.
const LONG_ONE_IN: u32 = 256;
/// Bytes at which codes change their meaning.
const EDGES: [u8; 10] = [0, 1, 0x7f, 0x80, 0xff, b' ', b'"', b'\\', b'\n', b'{'];

/// One new input in the making.
pub(crate) struct Mutator<'a> {
    target: &'a Target,
    pool: &'a [Vec<u8>],
    rng: &'a mut Rng,
    max_bytes: usize,
}

impl<'a> Mutator<'a> {
    pub(crate) fn new(target: &'a Target, pool: &'a [Vec<u8>], rng: &'a mut Rng) -> Self {
        let long = rng.u32(..LONG_ONE_IN) == 0;
        let max_bytes = if long { target.max_bytes } else { target.max_bytes.min(USUAL_BYTES) };
        Self { target, pool, rng, max_bytes }
    }

    /// The next input: no longer than the server takes it.
    pub(crate) fn next(mut self) -> Vec<u8> {
        let mut input = self.known();
        for _ in 0..self.rng.u32(1..=STACKED_MAX) {
            input = match self.target.grammar {
                Grammar::Json if self.rng.u8(..8) > 0 => self.json(input),
                Grammar::Request => self.request(input),
                _ => {
                    self.bytes(&mut input);
                    input
                }
            };
        }
        input.truncate(self.target.max_bytes);
        input
    }

    fn known(&mut self) -> Vec<u8> {
        self.rng.choice(self.pool).cloned().unwrap_or_default()
    }

    fn token(&mut self) -> &'static str {
        self.rng.choice(self.target.tokens).copied().unwrap_or_default()
    }

    fn json(&mut self, mut input: Vec<u8>) -> Vec<u8> {
        let Ok(mut document) = serde_json::from_slice(&input) else {
            self.bytes(&mut input);
            return input;
        };
        let donor = serde_json::from_slice(&self.known()).unwrap_or(Value::Null);
        json::mutate(&mut document, &donor, self.target.tokens, self.max_bytes, self.rng);
        document.to_string().into_bytes()
    }

    /// Either what is asked, or the body.
    fn request(&mut self, mut input: Vec<u8>) -> Vec<u8> {
        let end = input.windows(2).position(|pair| pair == b"\n\n");
        let Some(end) = end.filter(|_| self.rng.u8(..3) > 0) else {
            let head = end.unwrap_or(input.len());
            let body = input.split_off(head);
            self.bytes(&mut input);
            return [input, body].concat();
        };
        let body = self.json(input.split_off(end + 2));
        [input, body].concat()
    }

    /// Changes bytes wherever they stand.
    fn bytes(&mut self, input: &mut Vec<u8>) {
        let range = self.range(input.len());
        let at = range.start;
        match self.rng.u8(..12) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.rng.u8(..8);
                }
            }
            1 => {
                if let (Some(byte), Some(edge)) = (input.get_mut(at), self.rng.choice(EDGES)) {
                    *byte = edge;
                }
            }
            2 => drop(input.drain(range)),
            3 => {
                let part = input.get(range).unwrap_or_default().to_vec();
                let to = self.rng.usize(..=input.len());
                input.splice(to..to, part);
            }
            // Many times the same.
            4 => {
                let part = input.get(range).unwrap_or_default().to_vec();
                let most = self.max_bytes.saturating_sub(input.len()) / part.len().max(1);
                let times = self.few(most);
                input.splice(at..at, part.repeat(times));
            }
            5..=8 => {
                let token = self.token().as_bytes().to_vec();
                let replaced = if self.rng.bool() { at..at } else { range };
                input.splice(replaced, token);
            }
            9 => {
                let number = self.number().into_bytes();
                input.splice(range, number);
            }
            10 => {
                let other = self.known();
                let part = self.range(other.len());
                input.splice(range, other.get(part).unwrap_or_default().iter().copied());
            }
            _ => {
                // Lengths and the like, in either order of bytes.
                let mut number = self.rng.u32(..).to_be_bytes();
                if self.rng.bool() {
                    number = self.rng.u32(..0x400).to_be_bytes();
                }
                let width = self.rng.usize(1..=4);
                let number = number.get(4 - width..).unwrap_or_default();
                let end = (at + width).min(input.len());
                input.splice(at..end, number.iter().copied());
            }
        }
    }

    /// Part of something so long; mostly a short one.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.rng.usize(..=length);
        let most = length - start;
        start..start + self.few(most)
    }

    /// A number up to this one, mostly a small one.
    fn few(&mut self, most: usize) -> usize {
        let bits = self.rng.u32(..=most.checked_ilog2().unwrap_or(0) + 1);
        self.rng.usize(..1_usize << bits.min(62)).min(most)
    }

    fn number(&mut self) -> String {
        json::number(self.rng).to_string()
    }
}
