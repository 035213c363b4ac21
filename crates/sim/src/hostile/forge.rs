//! Datagrams that no node sent: made of nothing, or of what was heard on the way.

use toono_wire::datagram::{HEARTBEAT_BODY, MAX_DATAGRAM, TAG, UplinkHeader, UplinkKind};

/// Longer than any datagram of a session, as long as a link takes.
const LONGEST: usize = 1_400;
/// What was heard and is kept; the oldest goes.
const HEARD: usize = 200_000;

/// What is sent, each kind as often as the others.
pub(super) const KINDS: [&str; 7] =
    ["random", "shaped", "truncated", "flipped", "replayed", "reordered", "misnamed"];

/// Makes them.
pub(super) struct Forge {
    random: u64,
    nodes: u32,
    heard: Vec<Vec<u8>>,
    next: usize,
    /// Where reordered ones come from, going backwards.
    backwards: usize,
}

impl Forge {
    /// Indexes of nodes are below `nodes`.
    pub(super) fn new(nodes: u32) -> Self {
        Self { random: 0, nodes, heard: Vec::new(), next: 0, backwards: 0 }
    }

    /// Somebody on the way has heard these. They have arrived already.
    pub(super) fn hear(&mut self, datagrams: Vec<Vec<u8>>) {
        for datagram in datagrams {
            if self.heard.len() < HEARD {
                self.heard.push(datagram);
            } else if let Some(place) = self.heard.get_mut(self.next % HEARD) {
                *place = datagram;
            }
            self.next = self.next.wrapping_add(1);
        }
    }

    /// The next datagram of a kind.
    pub(super) fn make(&mut self, kind: usize) -> Vec<u8> {
        match KINDS.get(kind % KINDS.len()).copied().unwrap_or_default() {
            "shaped" => self.shaped(),
            "truncated" => {
                let mut bytes = self.genuine();
                let length = self.below(bytes.len());
                bytes.truncate(length);
                bytes
            }
            "flipped" => {
                let mut bytes = self.genuine();
                let bit = self.below(bytes.len() * 8);
                if let Some(byte) = bytes.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
                bytes
            }
            "replayed" => self.genuine(),
            "reordered" => {
                self.backwards = self.backwards.checked_sub(1).unwrap_or(self.heard.len());
                self.heard.get(self.backwards).cloned().unwrap_or_default()
            }
            "misnamed" => {
                let mut bytes = self.genuine();
                let index = (self.random() as u32) % self.nodes.max(1);
                let own = bytes.get(4..8) == Some(&index.to_be_bytes()[..]);
                if let Some(place) = bytes.get_mut(4..8).filter(|_| !own) {
                    place.copy_from_slice(&index.to_be_bytes());
                }
                bytes
            }
            _ => {
                let longest = if self.below(8) == 0 { LONGEST } else { MAX_DATAGRAM };
                let length = self.below(longest);
                self.noise(length)
            }
        }
    }

    /// Right in all that can be known without a key, and ahead of every counter: only the tag is wrong.
    fn shaped(&mut self) -> Vec<u8> {
        let header = UplinkHeader {
            kind: UplinkKind::Heartbeat,
            epoch: 1,
            generation: 1,
            index: (self.random() as u32) % self.nodes.max(1),
            counter: self.random() | 1 << 63,
            salt: self.random() as u32,
        };
        let mut bytes = header.encode().to_vec();
        bytes.extend(self.noise(HEARTBEAT_BODY + TAG));
        bytes
    }

    fn genuine(&mut self) -> Vec<u8> {
        let place = self.below(self.heard.len());
        self.heard.get(place).cloned().unwrap_or_default()
    }

    fn noise(&mut self, length: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.random().to_be_bytes());
        let mut bytes: Vec<u8> = words.take(length.div_ceil(8)).flatten().collect();
        bytes.truncate(length);
        bytes
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.random() as usize) % bound.max(1)
    }

    /// splitmix64.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
