//! What nodes and the cloud say to each other.

use std::{net::SocketAddr, time::Duration};

use toono_session::{
    ClusterSecret, NodeIndex, NodeSession, NodeUid, ReferentDigest, ServerSessions,
};
use toono_wire::{
    bundle::Bundle,
    datagram::MAX_DATAGRAM,
    join::{JoinRequest, JoinResponse, SessionGrant},
    pool::{Part, Pass, frame::Frame},
    referent::Referent,
    remote::FrameReader,
    report::Report,
};

use super::{joined, no_giants};
use crate::{Decode, Grammar, Target};

pub(super) const DATAGRAM: Target = Target {
    name: "datagram",
    grammar: Grammar::Bytes,
    tokens: &["\u{11}", "\u{12}", "\u{13}", "\0\0\0\0"],
    max_bytes: MAX_DATAGRAM,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: datagram,
    giants: no_giants,
};

/// Nobody but the node has its key, so nothing that is mutated may be believed.
fn datagram() -> Decode {
    let uid = NodeUid::new("7b1c");
    let mut server = ServerSessions::new(9, vec![ClusterSecret::new(1, &[7; 32])]);
    server.admit(NodeIndex(0), uid, 1);
    let grant = server.grant(&uid, 1).map(|(epoch, key)| SessionGrant {
        index: 0,
        generation: 1,
        epoch,
        key_hex: key.to_hex(),
        udp_port: 1,
        interval_ms: 10_000,
        boot_floor: 0,
        servers: Vec::new(),
    });
    let mut node = grant.and_then(|grant| NodeSession::new(&grant, 1, 2).ok());
    let from = SocketAddr::from(([127, 0, 0, 1], 1));
    Box::new(move |input| {
        assert!(server.receive(input, from, Duration::ZERO).is_err(), "a forged heartbeat");
        if let Some(node) = &mut node {
            assert!(node.receive(input, Duration::ZERO).is_err(), "a forged answer");
        }
    })
}

pub(super) const FRAMES: Target = Target {
    name: "frames",
    grammar: Grammar::Bytes,
    tokens: &["\0\0\0\0\0", "\u{1}\0\0\0\u{1}", "\u{3}\0\u{1}\0\0", "\u{7f}"],
    max_bytes: 1024 * 1024,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: || Box::new(frames),
    giants: |bytes| vec![vec![0; bytes], [0, 0, 0, 0, 1, 7].repeat(bytes / 6), vec![0xff; bytes]],
};

fn frames(input: &[u8]) {
    // Parts of every size, since a frame may be cut anywhere.
    let mut reader = FrameReader::default();
    let mut rest = input;
    let mut size = 1;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(size.min(rest.len()));
        reader.push(now);
        loop {
            match reader.next_frame() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        rest = later;
        size = (size * 2).min(32 * 1024);
    }
}

pub(super) const POOL: Target = Target {
    name: "pool",
    grammar: Grammar::Bytes,
    tokens: &[
        "\u{1}\0",
        "\u{1}\u{4}shop",
        "\0\0\0\0\0\0\0\0",
        "{\"changed\":{",
        "\"gone\":[",
        "1:00",
    ],
    max_bytes: 1024 * 1024,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: || {
        Box::new(|input| {
            // Signatures are not looked at: also what the cloud signed by mistake may not do harm.
            for frame in Frame::decode_all(input.to_vec().into()).unwrap_or_default() {
                let mut bytes = Vec::new();
                frame.encode(&mut bytes);
                assert_eq!(bytes.len(), frame.size(), "a frame is as long as it says");
                let mut part = Part::default();
                if part.apply(&frame).is_ok() {
                    assert_eq!(part.records().digest(), frame.now.digest, "a digest that is wrong");
                }
            }
            drop(std::str::from_utf8(input).map(str::parse::<Pass>));
        })
    },
    giants: no_giants,
};

pub(super) const REPORTS: Target = Target {
    name: "reports",
    grammar: Grammar::Json,
    tokens: &[
        "digest",
        "node",
        "pods",
        "events",
        "namespace",
        "name",
        "uid",
        "status",
        "gone",
        "node_name",
        "pool",
        "csr_pem",
        "revision",
        "present",
        "session",
        "index",
        "generation",
        "epoch",
        "key_hex",
        "kind",
        "ConfigMap",
        "data",
        "binaryData",
        "immutable",
    ],
    // Some times what a full node reports; the server would take twice as much.
    max_bytes: 4 * 1024 * 1024,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: || {
        Box::new(|input| {
            drop(serde_json::from_slice::<Report>(input));
            drop(serde_json::from_slice::<JoinRequest>(input));
            drop(serde_json::from_slice::<JoinResponse>(input));
            drop(serde_json::from_slice::<Bundle>(input));
            if let Ok(referent) = serde_json::from_slice::<Referent<'_>>(input) {
                drop((referent.named(), ReferentDigest::of(&referent)));
            }
        })
    },
    giants: |bytes| {
        let pod =
            |at| format!(r#"{{"namespace":"n","name":"p{at}","uid":"u","status":{{"a":[1]}}}}"#);
        vec![format!(r#"{{"pods":[{}]}}"#, joined(bytes / 65, ",", pod)).into()]
    },
};
