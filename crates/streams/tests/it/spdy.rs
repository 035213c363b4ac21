//! SPDY: what a client says is what the caller hears, and the other way round.

use proptest::prelude::*;
use toono_streams::spdy::{
    Connection, MAX_CONTROL_FRAME, MAX_HEADER_BLOCK, MAX_HEADERS, MAX_SEND, MAX_STREAMS,
};
use toono_streams::{CloseReason, Codec, Event, Forward, Kind, ProtocolError, StreamId};

use crate::spdy_client::{Client, Said, control, data, ping, reset};
use crate::{joined, push};

const WHOLE: &[usize] = &[60_000];

fn opened(stream: u32, kind: Kind) -> Event {
    Event::Opened { stream: StreamId(stream), kind, forward: None }
}

#[test]
fn an_exec_as_kubectl_does_it() {
    let (mut client, mut server) = (Client::new(), Connection::new());
    let mut bytes = Vec::new();
    for (stream, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
        bytes.extend(client.open(stream, false, &[("streamtype", kind)]));
    }
    bytes.extend(data(3, false, b"hello"));
    bytes.extend(data(3, true, b""));
    bytes.extend(ping(1));
    for part in [1, 2, 7, 8, 9, 1000] {
        let (mut client, mut server) = (Client::new(), Connection::new());
        let (events, result) = push(&mut server, &bytes, &[part]);
        result.unwrap();
        let expected = [
            opened(1, Kind::Error),
            opened(3, Kind::Stdin),
            opened(5, Kind::Stdout),
            opened(7, Kind::Stderr),
            crate::data(3, b"hello"),
            Event::HalfClosed { stream: StreamId(3) },
        ];
        assert_eq!(joined(events), expected, "in parts of {part}");
        let replies: Vec<Said> = client.read(server.output());
        let reply = |stream| Said::Reply { stream, headers: vec![0; 4] };
        assert_eq!(replies, [reply(1), reply(3), reply(5), reply(7), Said::Ping(1)]);
    }

    push(&mut server, &bytes, WHOLE).1.unwrap();
    client.read(&server.output().split());
    server.send(StreamId(5), &vec![9; MAX_SEND + 1]);
    server.send(StreamId(9), b"no such stream");
    server.finish(StreamId(5));
    server.send(StreamId(5), b"after the end");
    server.finish(StreamId(3));
    server.reset(StreamId(7));
    server.close(CloseReason::Done);
    server.send(StreamId(1), b"after the goodbye");
    let said = client.read(server.output());
    let sent = |bytes: Vec<u8>| Said::Data { stream: 5, fin: false, bytes };
    let fin = |stream| Said::Data { stream, fin: true, bytes: Vec::new() };
    let expected = [
        sent(vec![9; MAX_SEND]),
        sent(vec![9]),
        fin(5),
        fin(3),
        Said::Reset { stream: 7, status: 5 },
        Said::GoAway { last: 7, status: 0 },
    ];
    assert_eq!(said, expected);
}

#[test]
fn forwarded_connections_are_paired() {
    let (mut client, mut server) = (Client::new(), Connection::new());
    let mut bytes =
        client.open(1, true, &[("port", "80"), ("requestid", "7"), ("streamtype", "error")]);
    bytes.extend(client.open(
        3,
        false,
        &[("port", "80"), ("requestid", "7"), ("streamtype", "data")],
    ));
    bytes.extend(client.open(5, false, &[("port", "81"), ("streamtype", "error")]));
    bytes.extend(client.open(7, false, &[("port", "81"), ("streamtype", "data")]));
    bytes.extend(reset(3));
    let (events, result) = push(&mut server, &bytes, WHOLE);
    result.unwrap();
    let forwarded = |stream, kind, request: &str, port| Event::Opened {
        stream: StreamId(stream),
        kind,
        forward: Some(Forward { request: request.to_owned(), port }),
    };
    let expected = [
        forwarded(1, Kind::Error, "7", 80),
        Event::HalfClosed { stream: StreamId(1) },
        forwarded(3, Kind::Data, "7", 80),
        forwarded(5, Kind::Error, "5", 81),
        forwarded(7, Kind::Data, "5", 81),
        Event::Reset { stream: StreamId(3) },
    ];
    assert_eq!(events, expected);
}

#[test]
fn streams_that_make_no_sense_are_refused_one_by_one() {
    let (mut client, mut server) = (Client::new(), Connection::new());
    let stdin = [("streamtype", "stdin")];
    let mut bytes = client.open(5, false, &stdin);
    bytes.extend(client.open(3, false, &stdin)); // not rising
    bytes.extend(client.open(8, false, &stdin)); // even
    bytes.extend(client.open(9, false, &[("streamtype", "telepathy")]));
    bytes.extend(client.open(11, false, &[]));
    bytes.extend(client.open(13, false, &[("streamtype", "data")])); // no port
    bytes.extend(client.open(15, false, &[("streamtype", "data"), ("port", "0")]));
    bytes.extend(client.open(17, false, &[("streamtype", "data"), ("port", "65536")]));
    let long = "1".repeat(65);
    let odd = [("streamtype", "data"), ("port", "1"), ("requestid", long.as_str())];
    bytes.extend(client.open(19, false, &odd));
    bytes.extend(data(9, false, b"nobody reads this"));
    let (events, result) = push(&mut server, &bytes, WHOLE);
    result.unwrap();
    assert_eq!(events, [opened(5, Kind::Stdin)]);
    let resets: Vec<(u32, u32)> = client
        .read(server.output())
        .into_iter()
        .filter_map(|said| match said {
            Said::Reset { stream, status } => Some((stream, status)),
            _ => None,
        })
        .collect();
    assert_eq!(resets, [(3, 1), (8, 1), (9, 3), (11, 3), (13, 3), (15, 3), (17, 3), (19, 3)]);
}

#[test]
fn streams_are_limited_and_places_are_given_back() {
    let (mut client, mut server) = (Client::new(), Connection::new());
    let limit = u32::try_from(MAX_STREAMS).unwrap();
    let ids = (0..=limit).map(|index| 2 * index + 1);
    let open: Vec<u8> =
        ids.flat_map(|id| client.open(id, false, &[("streamtype", "stdin")])).collect();
    let (events, result) = push(&mut server, &open, WHOLE);
    result.unwrap();
    assert_eq!(events.len(), MAX_STREAMS);
    assert_eq!(
        client.read(&server.output().split()).pop(),
        Some(Said::Reset { stream: 2 * limit + 1, status: 3 })
    );

    // One place by a reset, one by both ends' finish.
    server.finish(StreamId(3));
    let mut more = [reset(1), data(3, true, b"")].concat();
    for id in [2 * limit + 3, 2 * limit + 5, 2 * limit + 7] {
        more.extend(client.open(id, false, &[("streamtype", "stdin")]));
    }
    let (events, result) = push(&mut server, &more, WHOLE);
    result.unwrap();
    let open = events.iter().filter(|event| matches!(event, Event::Opened { .. })).count();
    assert_eq!(open, 2);
}

#[test]
fn limits_hold_before_anything_is_allocated() {
    let refused = |bytes: &[u8]| push(&mut Connection::new(), bytes, WHOLE).1.unwrap_err();
    let too_large = |error: &ProtocolError, name: &str| matches!(error, ProtocolError::TooLarge { what, .. } if *what == name);

    let claim = u32::try_from(MAX_CONTROL_FRAME + 1).unwrap().to_be_bytes();
    let error = refused(&[0x80, 3, 0, 1, 0, claim[1], claim[2], claim[3]]);
    assert!(too_large(&error, "control frame"), "{error}");

    // A few hundred bytes that inflate to megabytes.
    let bomb = Client::new().compress(&vec![0; 256 * MAX_HEADER_BLOCK]);
    assert!(bomb.len() < MAX_CONTROL_FRAME);
    let error = refused(&control(8, 0, &[&1_u32.to_be_bytes(), &bomb[..]].concat()));
    assert!(too_large(&error, "header block"), "{error}");

    let many = vec![("a", "b"); MAX_HEADERS + 1];
    let error = refused(&Client::new().open(1, false, &many));
    assert!(too_large(&error, "header count"), "{error}");

    let lying = Client::new().compress(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]);
    let error = refused(&control(1, 0, &[&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0], &lying[..]].concat()));
    assert!(matches!(error, ProtocolError::Malformed { .. }), "{error}");

    assert_eq!(refused(&[0x80, 2, 0, 1, 0, 0, 0, 0]), ProtocolError::SpdyVersion { version: 2 });
    assert!(matches!(refused(&[0; 8]), ProtocolError::Malformed { .. }));
    let mut unread = Connection::new();
    assert!(matches!(unread.push(&vec![0; 300_000]), Err(ProtocolError::Unread { .. })));
}

#[derive(Debug, Clone)]
enum Act {
    Open,
    Data(usize, Vec<u8>),
    Finish(usize),
    Reset(usize),
    Ping,
    Headers(usize),
    Settings,
    WindowUpdate,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let bytes = proptest::collection::vec(any::<u8>(), 1..600);
    let act = prop_oneof![
        2 => Just(Act::Open),
        6 => (any::<usize>(), bytes).prop_map(|(which, bytes)| Act::Data(which, bytes)),
        1 => any::<usize>().prop_map(Act::Finish),
        1 => any::<usize>().prop_map(Act::Reset),
        1 => Just(Act::Ping),
        1 => any::<usize>().prop_map(Act::Headers),
        1 => Just(Act::Settings),
        1 => Just(Act::WindowUpdate),
    ];
    proptest::collection::vec(act, 1..60)
}

proptest! {
    /// Whatever a client does and however TCP cuts it, the caller hears exactly that.
    #[test]
    fn any_session_survives_any_cut(
        acts in acts(),
        parts in proptest::collection::vec(1_usize..400, 1..20),
    ) {
        let (mut client, mut server) = (Client::new(), Connection::new());
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        let mut open: Vec<u32> = Vec::new();
        let mut next = 1;
        for act in acts {
            let pick = |which: usize| open.get(which % open.len().max(1)).copied();
            match act {
                Act::Open => {
                    bytes.extend(client.open(next, false, &[("streamtype", "stdin")]));
                    expected.push(opened(next, Kind::Stdin));
                    open.push(next);
                    next += 2;
                }
                Act::Data(which, sent) => if let Some(stream) = pick(which) {
                    bytes.extend(data(stream, false, &sent));
                    expected.push(crate::data(stream, &sent));
                },
                Act::Finish(which) => if let Some(stream) = pick(which) {
                    bytes.extend(data(stream, true, b""));
                    bytes.extend(data(stream, false, b"not said"));
                    expected.push(Event::HalfClosed { stream: StreamId(stream) });
                    open.retain(|one| *one != stream);
                },
                Act::Reset(which) => if let Some(stream) = pick(which) {
                    bytes.extend(reset(stream));
                    bytes.extend(data(stream, false, b"not said"));
                    expected.push(Event::Reset { stream: StreamId(stream) });
                    open.retain(|one| *one != stream);
                },
                Act::Ping => bytes.extend(ping(77)),
                Act::Headers(which) => if let Some(stream) = pick(which) {
                    let block = client.block(&[("x", "y")]);
                    bytes.extend(control(8, 0, &[&stream.to_be_bytes(), &block[..]].concat()));
                },
                Act::Settings => bytes.extend(control(4, 0, &[0, 0, 0, 1, 0, 0, 0, 7, 0, 1, 0, 0])),
                Act::WindowUpdate => bytes.extend(control(9, 0, &[0, 0, 0, 1, 0, 1, 0, 0])),
            }
        }
        let (events, result) = push(&mut server, &bytes, &parts);
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(joined(events), joined(expected));
    }
}
