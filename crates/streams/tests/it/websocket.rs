//! WebSocket: channels, their encodings, tunnels.

use proptest::prelude::*;
use toono_streams::negotiate::{CommandProtocol, WEBSOCKET_COMMAND, choose_command};
use toono_streams::websocket::{Channels, MAX_BASE64_MESSAGE, MAX_FRAME, MAX_SEND};
use toono_streams::{CloseReason, Codec, Event, Kind, ProtocolError, StreamId, Tunnel};

use crate::spdy_client;
use crate::websocket_client::{
    BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, message, read,
};
use crate::{data, joined, push};

const WHOLE: &[usize] = &[60_000];
const ALL: [Kind; 5] = [Kind::Error, Kind::Stdin, Kind::Stdout, Kind::Stderr, Kind::Resize];

fn protocol(name: &str) -> CommandProtocol {
    choose_command(&[name], &WEBSOCKET_COMMAND).unwrap()
}

/// A command whose streams were told already.
fn command(name: &str) -> Channels {
    let mut channels = Channels::new(protocol(name), ALL);
    for kind in ALL {
        let event = channels.next_event().unwrap();
        assert!(
            matches!(event, Some(Event::Opened { kind: told, .. }) if told == kind),
            "{event:?}"
        );
    }
    channels
}

#[test]
fn only_the_fifth_version_closes_stdin() {
    let said =
        [message(BINARY, b"\x00abc"), message(BINARY, &[255, 0]), message(BINARY, b"\x00more")]
            .concat();
    let (events, result) = push(&mut command("v5.channel.k8s.io"), &said, WHOLE);
    result.unwrap();
    assert_eq!(events, [data(0, b"abc"), Event::HalfClosed { stream: StreamId(0) }]);
    let (events, result) = push(&mut command("v4.channel.k8s.io"), &said, WHOLE);
    result.unwrap();
    assert_eq!(joined(events), [data(0, b"abcmore")]);
}

#[test]
fn what_a_client_may_not_write_is_dropped() {
    let said: Vec<u8> = [&b"\x01x"[..], b"\x02x", b"\x03x", b"\x07x", b"\x00", b"", b"\x04{}"]
        .iter()
        .flat_map(|payload| message(TEXT, payload))
        .collect();
    let (events, result) = push(&mut command("v5.channel.k8s.io"), &said, &[1]);
    result.unwrap();
    assert_eq!(joined(events), [data(4, b"{}")]);
}

#[test]
fn fragments_are_one_message_and_pings_may_come_between() {
    let mask = [1, 2, 3, 4];
    let said = [
        frame(BINARY, false, mask, b""),
        frame(CONTINUATION, false, mask, b"\x00on"),
        frame(PING, true, mask, b"are you there"),
        frame(PONG, true, mask, b""),
        frame(CONTINUATION, false, mask, b"e "),
        frame(CONTINUATION, true, mask, b"message"),
        message(BINARY, b"\x04{}"),
        frame(CLOSE, true, mask, &1000_u16.to_be_bytes()),
    ]
    .concat();
    for part in 1..20 {
        let mut server = command("v5.channel.k8s.io");
        let (events, result) = push(&mut server, &said, &[part]);
        result.unwrap();
        assert_eq!(joined(events), [data(0, b"one message"), data(4, b"{}"), Event::Closed]);
        let replies = read(server.output());
        assert_eq!(replies, [(PONG, b"are you there".to_vec()), (CLOSE, vec![3, 232])]);
    }
}

#[test]
fn the_connection_closes_when_the_last_stream_is_finished() {
    let mut server = command("v5.channel.k8s.io");
    server.send(StreamId(1), &vec![7; MAX_SEND + 2]);
    server.send(StreamId(1), b"");
    for stream in [0, 4, 1, 2] {
        server.finish(StreamId(stream));
    }
    server.send(StreamId(1), b"after its end");
    server.keep_alive();
    server.send(StreamId(3), b"{}");
    server.finish(StreamId(3));
    server.keep_alive();
    server.close(CloseReason::Internal);
    let said: Vec<(u8, usize)> =
        read(server.output()).iter().map(|(opcode, payload)| (*opcode, payload.len())).collect();
    assert_eq!(
        said,
        [(BINARY, MAX_SEND + 1), (BINARY, 3), (BINARY, 1), (PONG, 0), (BINARY, 3), (CLOSE, 2)]
    );
}

#[test]
fn base64_is_text_both_ways() {
    let mut server = command("v4.base64.channel.k8s.io");
    let said = [
        message(TEXT, b"0aGVsbG8="),
        frame(TEXT, false, [9; 4], b"0aGV"),
        frame(CONTINUATION, true, [9; 4], b"sbG8="),
        message(TEXT, b""),
    ];
    let (events, result) = push(&mut server, &said.concat(), &[3]);
    result.unwrap();
    assert_eq!(joined(events), [data(0, b"hellohello")]);
    server.send(StreamId(1), b"hello");
    assert_eq!(read(server.output()), [(TEXT, b"1aGVsbG8=".to_vec())]);
    let (_, result) = push(&mut server, &message(TEXT, b"0%%%"), WHOLE);
    assert!(matches!(result, Err(ProtocolError::Malformed { .. })));
}

#[test]
fn frames_that_break_the_rfc_are_refused() {
    let mask = [0; 4];
    let long_control = [&[0x89, 0xfe, 0, 126][..], &[0; 130]].concat();
    let claim = [&[0x82, 0xff][..], &(MAX_FRAME + 1).to_be_bytes(), &mask].concat();
    let table = [
        (vec![0x82, 0x01, 0], "not masked"),
        (frame(BINARY | 0x40, true, mask, b""), "a reserved bit"),
        (frame(3, true, mask, b""), "a reserved opcode"),
        (frame(11, true, mask, b""), "a reserved control opcode"),
        (frame(PING, false, mask, b""), "a fragmented control frame"),
        (long_control, "a long control frame"),
        (frame(CONTINUATION, true, mask, b""), "nothing to continue"),
        (
            [frame(TEXT, false, mask, b"0"), frame(TEXT, true, mask, b"0")].concat(),
            "two messages at once",
        ),
        (claim, "a huge claim"),
    ];
    for (bytes, what) in table {
        let (_, result) = push(&mut command("v5.channel.k8s.io"), &bytes, &[1]);
        assert!(result.is_err(), "{what}");
    }
    let endless = frame(TEXT, false, mask, &vec![b'0'; MAX_BASE64_MESSAGE + 1]);
    let (_, result) = push(&mut command("base64.channel.k8s.io"), &endless, WHOLE);
    assert!(matches!(result, Err(ProtocolError::TooLarge { what: "base64 message", .. })));
}

#[test]
fn a_tunnel_carries_spdy_without_regard_to_messages() {
    let mut client = spdy_client::Client::new();
    let mut inner =
        client.open(1, false, &[("streamtype", "error"), ("port", "80"), ("requestid", "0")]);
    inner.extend(client.open(
        3,
        false,
        &[("streamtype", "data"), ("port", "80"), ("requestid", "0")],
    ));
    inner.extend(spdy_client::data(3, false, &[5; 10_000]));
    for size in [1, 10, 3000, 20_000] {
        let said: Vec<u8> = inner.chunks(size).flat_map(|part| message(BINARY, part)).collect();
        let mut client = spdy_client::Client::new();
        let mut server = Tunnel::new();
        let (events, result) = push(&mut server, &said, &[777]);
        result.unwrap();
        let events = joined(events);
        assert_eq!(events.len(), 3);
        assert_eq!(events[2], data(3, &[5; 10_000]));

        server.send(StreamId(3), b"answer");
        server.finish(StreamId(3));
        server.close(CloseReason::Done);
        let mut frames = read(server.output());
        assert_eq!(frames.pop(), Some((CLOSE, vec![3, 232])));
        let inner: Vec<u8> = frames.into_iter().flat_map(|(_, payload)| payload).collect();
        let said = client.read(&inner);
        assert_eq!(said.len(), 5, "{said:?}");
        let answer = spdy_client::Said::Data { stream: 3, fin: false, bytes: b"answer".to_vec() };
        assert_eq!(said[2], answer);
    }
}

proptest! {
    /// However a client fragments and masks, and however TCP cuts it, each message arrives whole.
    #[test]
    fn any_fragmentation_survives_any_cut(
        messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..2000), 1..12),
        fragment in 1_usize..700,
        mask in any::<[u8; 4]>(),
        parts in proptest::collection::vec(1_usize..400, 1..20),
    ) {
        let (mut said, mut expected) = (Vec::new(), Vec::new());
        for payload in &messages {
            let whole = [&[0], &payload[..]].concat();
            let pieces: Vec<&[u8]> = whole.chunks(fragment).collect();
            for (index, piece) in pieces.iter().enumerate() {
                let opcode = if index == 0 { BINARY } else { CONTINUATION };
                said.extend(frame(opcode, index + 1 == pieces.len(), mask, piece));
            }
            expected.push(data(0, payload));
        }
        let (events, result) = push(&mut command("v5.channel.k8s.io"), &said, &parts);
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(joined(events), joined(expected));
    }
}
