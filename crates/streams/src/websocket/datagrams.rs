//! Datagrams in a WebSocket, either end: one binary message each, nothing else.
//!
//! It knows nothing of what the datagrams say, and draws no random numbers: a client passes in where its
//! masks come from.

use bytes::{Bytes, BytesMut};

use super::frame::{
    BINARY, CLOSE, CloseCode, Decoder, Item, PONG, put_binary, put_close, put_masked, put_pong,
};
use crate::codec::ProtocolError;

/// The longest message. Session datagrams are shorter, and a longer one is a mistake.
pub const MAX_DATAGRAM_MESSAGE: usize = 1024;

/// One end of such a connection, after the upgrade.
#[derive(Debug)]
pub struct Datagrams {
    decoder: Decoder,
    /// The message under way.
    message: BytesMut,
    output: BytesMut,
    /// The client's source of masks (RFC 6455, 5.3: not to be guessed by who chooses the data).
    masks: Option<fn() -> u32>,
    ended: bool,
}

impl Datagrams {
    /// The server's end.
    #[must_use]
    pub fn server() -> Self {
        Self::new(Decoder::default(), None)
    }

    /// The client's end.
    #[must_use]
    pub fn client(masks: fn() -> u32) -> Self {
        Self::new(Decoder::of_server(), Some(masks))
    }

    fn new(decoder: Decoder, masks: Option<fn() -> u32>) -> Self {
        let (message, output) = (BytesMut::new(), BytesMut::new());
        Self { decoder, message, output, masks, ended: false }
    }

    /// Takes bytes from the peer.
    ///
    /// # Errors
    /// When more than any message needs lies unread.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        self.decoder.push(bytes)
    }

    /// The next whole datagram, or none until more bytes arrive.
    ///
    /// # Errors
    /// When the peer breaks the protocol, or sends longer messages than [`MAX_DATAGRAM_MESSAGE`].
    pub fn next_datagram(&mut self) -> Result<Option<Bytes>, ProtocolError> {
        while let Some(item) = self.decoder.next()? {
            match item {
                Item::Ping(data) => self.put(&data, put_pong, PONG),
                Item::Close => self.close(),
                Item::Chunk { data, last } => {
                    let (claimed, limit) = (self.message.len() + data.len(), MAX_DATAGRAM_MESSAGE);
                    if claimed > limit {
                        let (claimed, limit) = (claimed as u64, limit as u64);
                        return Err(ProtocolError::TooLarge { what: "datagram", claimed, limit });
                    }
                    self.message.extend_from_slice(&data);
                    if last {
                        return Ok(Some(self.message.split().freeze()));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Queues a datagram.
    pub fn send(&mut self, datagram: &[u8]) {
        self.put(datagram, |out, data| put_binary(out, &[], data), BINARY);
    }

    fn put(&mut self, data: &[u8], plain: impl FnOnce(&mut BytesMut, &[u8]), opcode: u8) {
        match self.masks {
            _ if self.ended => {}
            None => plain(&mut self.output, data),
            Some(masks) => put_masked(&mut self.output, opcode, data, masks()),
        }
    }

    /// Queues the last frame.
    pub fn close(&mut self) {
        let code = (CloseCode::Normal as u16).to_be_bytes();
        self.put(&code, |out, _| put_close(out, CloseCode::Normal), CLOSE);
        self.ended = true;
    }

    /// Whether this end has said, or answered, that it is the end.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Bytes for the peer, to be taken out.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(from: &mut Datagrams, to: &mut Datagrams) {
        to.push(&from.output().split()).unwrap();
    }

    #[test]
    fn datagrams_arrive_as_they_were_sent_both_ways() {
        let (mut client, mut server) = (Datagrams::client(|| 0xdead_beef), Datagrams::server());
        for length in [0, 1, 49, 64, 125, 126, MAX_DATAGRAM_MESSAGE] {
            let datagram: Vec<u8> = (0..length).map(|at| at as u8).collect();
            client.send(&datagram);
            assert!(length < 8 || !client.output().windows(8).any(|part| part == &datagram[..8]));
            pass(&mut client, &mut server);
            assert_eq!(server.next_datagram().unwrap().unwrap(), datagram);
            server.send(&datagram);
            pass(&mut server, &mut client);
            assert_eq!(client.next_datagram().unwrap().unwrap(), datagram);
        }
    }

    #[test]
    fn pieces_are_put_together_and_pings_answered() {
        let mut client = Datagrams::client(|| 7);
        // "Hello" in two fragments with a ping between them (RFC 6455, 5.7).
        for byte in [&[2, 3, b'H', b'e', b'l', 0x89, 1, b'?', 0x80, 2, b'l', b'o'][..]].concat() {
            client.push(&[byte]).unwrap();
            if byte == b'o' {
                assert_eq!(client.next_datagram().unwrap().unwrap(), "Hello");
            } else {
                assert_eq!(client.next_datagram(), Ok(None));
            }
        }
        assert_eq!(client.output().split()[..], [0x8a, 0x81, 0, 0, 0, 7, b'?']);
    }

    #[test]
    fn the_end_is_answered_once_and_nothing_follows_it() {
        let (mut client, mut server) = (Datagrams::client(|| 7), Datagrams::server());
        client.close();
        client.send(b"late");
        pass(&mut client, &mut server);
        assert_eq!(server.next_datagram(), Ok(None));
        assert!(server.is_ended());
        pass(&mut server, &mut client);
        assert_eq!(client.next_datagram(), Ok(None));
        assert!(client.output().is_empty());
    }

    #[test]
    fn what_is_too_long_or_masked_wrongly_is_refused() {
        let mut server = Datagrams::server();
        let mut client = Datagrams::client(|| 7);
        client.send(&[0; MAX_DATAGRAM_MESSAGE + 1]);
        pass(&mut client, &mut server);
        assert!(server.next_datagram().is_err());
        let mut other = Datagrams::client(|| 7);
        client.send(b"x");
        pass(&mut client, &mut other);
        assert!(other.next_datagram().is_err(), "a server never masks");
        let (mut one, mut two) = (Datagrams::server(), Datagrams::server());
        one.send(b"x");
        pass(&mut one, &mut two);
        assert!(two.next_datagram().is_err(), "a client always does");
    }
}
