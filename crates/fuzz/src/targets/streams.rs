//! What clients of exec, attach and port-forward send once the connection is theirs.

use toono_streams::{
    CloseReason, Codec, Event, Kind, ResizeReader, Tunnel,
    negotiate::{WEBSOCKET_COMMAND, choose_command},
    spdy::Connection,
    websocket::Channels,
};

use crate::{Grammar, Target};

/// What one connection is fed: many times what a codec may hold.
const BYTES: usize = 1024 * 1024;
/// As the server reads from its sockets.
const READ: usize = 32 * 1024;

pub(super) const SPDY: Target = Target {
    name: "spdy",
    grammar: Grammar::Bytes,
    tokens: FRAMES,
    max_bytes: BYTES,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: || Box::new(|input| converse(&mut Connection::new(), input)),
    giants: |bytes| {
        [
            PING,
            RESET,
            &[0, 0, 0, 1, 0, 0, 0, 0],
            &[0x80, 3, 0, 1, 0, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        ]
        .map(|frame| frame.repeat(bytes / frame.len()))
        .into()
    },
};

const PING: &[u8] = &[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1];
const RESET: &[u8] = &[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 5];
const FRAMES: &[&str] = &[
    "\0\0\0\u{1}",
    "\0\0\0\u{3}\u{1}",
    "\0\u{1}\0\0\0",
    "\0\u{3}",
    "\0\u{4}",
    "\0\u{6}",
    "\0\u{7}",
];

pub(super) const WEBSOCKET: Target = Target {
    name: "websocket",
    grammar: Grammar::Bytes,
    tokens: &["\0", "\u{1}", "\u{2}", "\u{4}", "\u{7f}", "~", "{\"Width\":1,\"Height\":2}", "aGk="],
    max_bytes: BYTES,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: || {
        Box::new(|input| {
            for name in ["v5.channel.k8s.io", "v4.base64.channel.k8s.io"] {
                let Some(protocol) = choose_command(&[name], &WEBSOCKET_COMMAND) else { return };
                let kinds = [Kind::Stdin, Kind::Stdout, Kind::Stderr, Kind::Error, Kind::Resize];
                converse(&mut Channels::new(protocol, kinds), input);
            }
        })
    },
    giants: |bytes| {
        [
            // Empty messages, pings, single bytes of one message, one message of all.
            frame(0x82, &[], 0),
            frame(0x89, &[], 0),
            frame(0x01, b"1", 0),
            frame(0x02, &[0, 1, 2], 0),
            frame(0x81, &[b'0'; 8000], 0),
        ]
        .map(|frame| frame.repeat(bytes / frame.len()))
        .into()
    },
};

/// A client's frame, masked by one byte.
fn frame(first: u8, payload: &[u8], mask: u8) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or_default();
    let mut out = vec![first, 0x80 | 126];
    out.extend(length.to_be_bytes());
    out.extend([mask; 4]);
    out.extend(payload.iter().map(|byte| byte ^ mask));
    out
}

pub(super) const TUNNEL: Target = Target {
    name: "tunnel",
    grammar: Grammar::Bytes,
    tokens: FRAMES,
    max_bytes: BYTES,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: || Box::new(|input| converse(&mut Tunnel::new(), input)),
    giants: |bytes| {
        let message = frame(0x82, PING, 0);
        vec![message.repeat(bytes / message.len())]
    },
};

/// Reads all, and answers what can be answered.
fn converse(codec: &mut dyn Codec, input: &[u8]) {
    let mut sizes = ResizeReader::default();
    for part in input.chunks(READ) {
        if codec.push(part).is_err() {
            break;
        }
        loop {
            match codec.next_event() {
                Ok(Some(Event::Data { stream, data })) => {
                    sizes.push(&data);
                    codec.send(stream, data.get(..1).unwrap_or_default());
                }
                Ok(Some(Event::HalfClosed { stream })) => codec.finish(stream),
                Ok(Some(_)) => codec.keep_alive(),
                Ok(None) => break,
                Err(error) => {
                    drop(error.to_string());
                    codec.close(CloseReason::ProtocolError);
                    return;
                }
            }
            // As the server does once the client takes it.
            codec.output().clear();
        }
    }
    codec.close(CloseReason::Done);
}
