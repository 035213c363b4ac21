//! One datagram in place: sealed bytes ready to be sent, without an allocation.

use toono_wire::datagram::{MAX_DATAGRAM, TAG};

/// The bytes of one UDP datagram.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    bytes: [u8; MAX_DATAGRAM],
    len: usize,
}

impl Datagram {
    /// Header, sealed body and tag, one after the other. Their lengths are constants of the wire
    /// format, which add up to less than [`MAX_DATAGRAM`].
    pub(crate) fn assemble(header: &[u8], body: &[u8], tag: &[u8; TAG]) -> Self {
        let mut datagram = Self { bytes: [0; MAX_DATAGRAM], len: 0 };
        let parts = header.iter().chain(body).chain(tag);
        for (place, byte) in datagram.bytes.iter_mut().zip(parts) {
            *place = *byte;
            datagram.len += 1;
        }
        datagram
    }

    /// What goes on the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Datagram {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl std::fmt::Debug for Datagram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Datagram({})", hex::encode(self.as_bytes()))
    }
}
