//! Bytes that nobody should send: no panic, no event out of nothing, no memory by mere claims.

use proptest::prelude::*;
use toono_streams::negotiate::{WEBSOCKET_COMMAND, choose_command};
use toono_streams::spdy::Connection;
use toono_streams::websocket::Channels;
use toono_streams::{CloseReason, Codec, Event, Kind, StreamId, Tunnel};

use crate::websocket_client::{BINARY, message};
use crate::{push, spdy_client};

fn codecs() -> Vec<Box<dyn Codec>> {
    let mut all: Vec<Box<dyn Codec>> = vec![Box::new(Connection::new()), Box::new(Tunnel::new())];
    for name in ["v5.channel.k8s.io", "base64.channel.k8s.io"] {
        let protocol = choose_command(&[name], &WEBSOCKET_COMMAND).unwrap();
        all.push(Box::new(Channels::new(protocol, [Kind::Stdin, Kind::Stdout, Kind::Error])));
    }
    all
}

/// Feeds a codec and then commands it; checks that what it says and holds is bounded by the input.
fn abuse(codec: &mut dyn Codec, bytes: &[u8], parts: &[usize]) {
    let (events, _) = push(codec, bytes, parts);
    let heard: usize = events
        .iter()
        .map(|event| if let Event::Data { data, .. } = event { data.len() } else { 0 })
        .sum();
    assert!(heard <= bytes.len());
    // The largest answer to the smallest question: a reply of 26 bytes, in a tunnel 28, to the
    // stream that 18 bytes and a block open.
    assert!(codec.output().len() <= 2 * bytes.len() + 64, "{}", codec.output().len());
    for stream in [0, 1, 3, 300, u32::MAX].map(StreamId) {
        codec.send(stream, b"x");
        codec.finish(stream);
        codec.reset(stream);
    }
    codec.keep_alive();
    codec.close(CloseReason::ProtocolError);
}

/// A session with everything in it.
fn session() -> Vec<u8> {
    let mut client = spdy_client::Client::new();
    let mut bytes = client.open(1, true, &[("streamtype", "error"), ("port", "80")]);
    bytes.extend(client.open(3, false, &[("streamtype", "data"), ("port", "80")]));
    bytes.extend(spdy_client::data(3, false, b"some data"));
    bytes.extend(spdy_client::ping(1));
    bytes.extend(client.open(5, false, &[("streamtype", "stdin")]));
    bytes.extend(spdy_client::reset(3));
    bytes.extend(spdy_client::data(5, true, b"the end"));
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn noise(
        bytes in proptest::collection::vec(any::<u8>(), 0..3000),
        parts in proptest::collection::vec(1_usize..300, 1..8),
    ) {
        for mut codec in codecs() {
            abuse(codec.as_mut(), &bytes, &parts);
        }
    }

    /// Frames whose heads make sense get further than noise.
    #[test]
    fn plausible_frames(
        frames in proptest::collection::vec(
            (0_u16..12, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..60)), 0..20),
        parts in proptest::collection::vec(1_usize..300, 1..8),
    ) {
        let spdy: Vec<u8> =
            frames.iter().flat_map(|(kind, flags, body)| spdy_client::control(*kind, *flags, body)).collect();
        abuse(&mut Connection::new(), &spdy, &parts);
        abuse(&mut Tunnel::new(), &message(BINARY, &spdy), &parts);
        let websocket: Vec<u8> = frames
            .iter()
            .flat_map(|(kind, flags, body)| {
                let opcode = u8::try_from(*kind).unwrap();
                crate::websocket_client::frame(opcode, flags % 4 != 0, [*flags; 4], body)
            })
            .collect();
        for mut codec in codecs() {
            abuse(codec.as_mut(), &websocket, &parts);
        }
    }

    /// A good session with some bits wrong.
    #[test]
    fn flipped_bits(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..6),
        parts in proptest::collection::vec(1_usize..300, 1..8),
    ) {
        let mut bytes = session();
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        abuse(&mut Connection::new(), &bytes, &parts);
        abuse(&mut Tunnel::new(), &message(BINARY, &bytes), &parts);
    }
}
