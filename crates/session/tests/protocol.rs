//! The rules one by one, known vectors, and bytes from anywhere.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected ends there")]

use std::{net::SocketAddr, time::Duration};

use proptest::prelude::*;
use toono_session::{
    Address, Answer, BundleDigest, ClusterSecret, Dropped, GrantError, NodeEvent, NodeIndex,
    NodeSession, NodeUid, Observed, PodDigest, Poke, ReferentDigest, Refused, ReplyFlags,
    ServerSessions,
};
use toono_wire::join::SessionGrant;

const FROM: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 4000);
const NOW: Duration = Duration::from_secs(5);
const ANSWER: Answer = Answer {
    desired_revision: 77,
    flags: ReplyFlags::RESEND_STATUS,
    interval: Duration::from_secs(10),
};

fn secret(epoch: u8) -> ClusterSecret {
    ClusterSecret::new(epoch, &[epoch; 32])
}

fn grant(epoch: u8) -> SessionGrant {
    SessionGrant {
        index: 3,
        generation: 2,
        epoch,
        key_hex: secret(epoch).session_key(&NodeUid::new("uid"), 2).to_hex(),
        udp_port: 6443,
        interval_ms: 10_000,
        boot_floor: 0,
        servers: Vec::new(),
    }
}

/// A node that holds the bundle of this revision.
fn held(revision: u64) -> Observed {
    Observed { revision, ..Observed::default() }
}

fn server(instance: u64) -> ServerSessions {
    let mut server = ServerSessions::new(instance, vec![secret(1), secret(9)]);
    server.admit(NodeIndex(3), NodeUid::new("uid"), 2);
    server
}

fn node() -> NodeSession {
    NodeSession::new(&grant(1), 1, 0x0a0b_0c0d).unwrap()
}

/// One heartbeat and its reply; whether it was fresh, and what the node makes of the reply.
fn exchange(node: &mut NodeSession, server: &mut ServerSessions) -> (bool, NodeEvent) {
    let heartbeat = node.heartbeat(NOW, held(70)).unwrap();
    let opened = server.receive(heartbeat.as_bytes(), FROM, NOW).unwrap();
    let reply = server.reply(&opened, &ANSWER);
    (opened.fresh, node.receive(reply.as_bytes(), NOW).unwrap())
}

#[test]
fn the_second_heartbeat_is_fresh() {
    let (mut node, mut server) = (node(), server(5));
    let (fresh, event) = exchange(&mut node, &mut server);
    assert!(!fresh && server.fresh(NodeIndex(3)).is_none());
    let expected = |send_again| NodeEvent::Reply {
        desired_revision: 77,
        flags: ReplyFlags::RESEND_STATUS,
        interval: Duration::from_secs(10),
        send_again,
        round_trip: Duration::ZERO,
    };
    assert_eq!(event, expected(true));
    assert_eq!(exchange(&mut node, &mut server), (true, expected(false)));
    let newest = server.fresh(NodeIndex(3)).unwrap();
    assert_eq!(
        (newest.address, newest.observed_revision, newest.counter),
        (FROM.into(), 70, (1 << 32) | 2)
    );
    assert_eq!(node.unanswered(), 0);
}

#[test]
fn a_boot_number_that_was_set_back_is_noticed() {
    let (mut before, mut server) = (node(), server(5));
    exchange(&mut before, &mut server);
    assert!(!before.counted(), "it only learnt the instance");
    exchange(&mut before, &mut server);
    assert!(before.counted());

    // The disk of before comes back: the same boot number, another salt.
    let mut again = NodeSession::new(&grant(1), 1, 7).unwrap();
    let refused = again.heartbeat(NOW, held(70)).unwrap();
    let judged = server.receive(refused.as_bytes(), FROM, NOW).map(|opened| opened.fresh);
    assert_eq!(judged, Err(Refused::Replayed));
    assert_eq!((again.counted(), again.unanswered()), (false, 1));
    let floor = u32::try_from(server.fresh(NodeIndex(3)).unwrap().counter >> 32).unwrap();
    let mut above = NodeSession::new(&grant(1), floor + 1, 7).unwrap();
    exchange(&mut above, &mut server);
    assert!(exchange(&mut above, &mut server).0 && above.counted());
}

#[test]
fn two_servers_in_turn_do_not_drive_a_node_in_circles() {
    let (mut node, mut a, mut b) = (node(), server(5), server(6));
    let again = |event| matches!(event, NodeEvent::Reply { send_again: true, .. });
    assert!(again(exchange(&mut node, &mut a).1));
    assert!(!again(exchange(&mut node, &mut b).1), "the repeated one asks for no other");
    assert!(again(exchange(&mut node, &mut a).1), "the next regular one may");
}

#[test]
fn duplicates_and_older_counters_are_refused() {
    let (mut node, mut server) = (node(), server(5));
    exchange(&mut node, &mut server);
    let first = node.heartbeat(NOW, held(0)).unwrap();
    let second = node.heartbeat(NOW, held(0)).unwrap();
    assert!(server.receive(second.as_bytes(), FROM, NOW).unwrap().fresh);
    for late in [first, second] {
        assert_eq!(server.receive(late.as_bytes(), FROM, NOW).unwrap_err(), Refused::Replayed);
    }
}

#[test]
fn a_reply_counts_once_and_a_stranger_must_answer_the_newest() {
    let (mut node, mut server, mut other) = (node(), server(5), server(6));
    exchange(&mut node, &mut server);
    let first = node.heartbeat(NOW, held(0)).unwrap();
    let opened = server.receive(first.as_bytes(), FROM, NOW).unwrap();
    let reply = server.reply(&opened, &ANSWER);
    let from_other = {
        let opened = other.receive(first.as_bytes(), FROM, NOW).unwrap();
        other.reply(&opened, &ANSWER)
    };
    node.heartbeat(NOW, held(0)).unwrap();
    assert_eq!(node.receive(from_other.as_bytes(), NOW), Err(Dropped::Stale));
    assert!(node.receive(reply.as_bytes(), NOW).is_ok(), "late, but from the server it knows");
    assert_eq!(node.receive(reply.as_bytes(), NOW), Err(Dropped::Stale));
}

#[test]
fn pokes_need_the_known_instance_and_count_once() {
    let (mut node, mut server, mut other) = (node(), server(5), server(6));
    assert!(server.poke(NodeIndex(3), Poke::DialBack { ticket: 1 }).is_none(), "no address yet");
    exchange(&mut node, &mut server);
    exchange(&mut node, &mut server);
    let (first, to) = server.poke(NodeIndex(3), Poke::DialBack { ticket: 1 }).unwrap();
    let (second, _) = server.poke(NodeIndex(3), Poke::BundleMoved { revision: 2 }).unwrap();
    assert_eq!(to, FROM.into());
    let mut lagging = self::node();
    exchange(&mut lagging, &mut other);
    assert_eq!(lagging.receive(first.as_bytes(), NOW), Err(Dropped::Replayed), "another instance");
    assert_eq!(
        node.receive(first.as_bytes(), NOW),
        Ok(NodeEvent::Poke(Poke::DialBack { ticket: 1 }))
    );
    assert!(node.receive(second.as_bytes(), NOW).is_ok());
    for old in [first, second] {
        assert_eq!(node.receive(old.as_bytes(), NOW), Err(Dropped::Replayed));
    }
    let (held_back, _) = server.poke(NodeIndex(3), Poke::BundleMoved { revision: 3 }).unwrap();
    exchange(&mut node, &mut server);
    assert_eq!(node.receive(held_back.as_bytes(), NOW), Err(Dropped::Replayed), "old news");
}

#[test]
fn who_names_the_same_bundle_twice_is_seen_to() {
    let (mut node, mut server) = (node(), server(5));
    exchange(&mut node, &mut server);
    let other = Observed { bundle: 1, ..held(70) };
    let told = [held(70), held(70), other, other, held(71), held(70), held(70)];
    let repeats = told.map(|observed| {
        let heartbeat = node.heartbeat(NOW, observed).unwrap();
        server.receive(heartbeat.as_bytes(), FROM, NOW).unwrap().repeats
    });
    assert_eq!(repeats, [false, true, false, true, false, false, true]);
}

#[test]
fn a_probe_counts_and_moves_nothing() {
    let (mut node, mut server) = (node(), server(5));
    exchange(&mut node, &mut server);
    exchange(&mut node, &mut server);
    let elsewhere = SocketAddr::from(([192, 0, 2, 9], 9));
    let probe = node.probe(NOW, held(71)).unwrap();
    let mut posing = probe.as_bytes().to_vec();
    posing[0] = 0x11;
    assert_eq!(server.receive(&posing, elsewhere, NOW).unwrap_err(), Refused::Unauthentic);
    let opened = server.receive(probe.as_bytes(), elsewhere, NOW).unwrap();
    let newest = *server.fresh(NodeIndex(3)).unwrap();
    assert_eq!((opened.fresh, newest.observed_revision), (true, 71));
    assert_eq!(newest.address, FROM.into());
    let heartbeat = node.heartbeat(NOW, held(71)).unwrap();
    server.receive(heartbeat.as_bytes(), Address::Stream(4), NOW).unwrap();
    let (_, to) = server.poke(NodeIndex(3), Poke::DialBack { ticket: 1 }).unwrap();
    assert_eq!(to, Address::Stream(4));
}

#[test]
fn older_epochs_are_accepted_and_seen() {
    let mut server = server(5);
    let mut node = NodeSession::new(&grant(9), 1, 1).unwrap();
    let heartbeat = node.heartbeat(NOW, held(0)).unwrap();
    assert!(server.receive(heartbeat.as_bytes(), FROM, NOW).unwrap().old_key);
    exchange(&mut node, &mut server);
    // The epochs change in the middle of a session: both ends go on, and what was said stays said.
    let mut current = NodeSession::new(&grant(1), 2, 1).unwrap();
    server.set_secrets(vec![secret(9), secret(1)]);
    let heartbeat = current.heartbeat(NOW, held(0)).unwrap();
    assert!(server.receive(heartbeat.as_bytes(), FROM, NOW).unwrap().old_key);
    let heartbeat = node.heartbeat(NOW, held(0)).unwrap();
    assert!(!server.receive(heartbeat.as_bytes(), FROM, NOW).unwrap().old_key);
    server.set_secrets(vec![secret(1)]);
    let heartbeat = node.heartbeat(NOW, held(0)).unwrap();
    assert_eq!(server.receive(heartbeat.as_bytes(), FROM, NOW).unwrap_err(), Refused::Unknown);
    assert!(server.poke(NodeIndex(3), Poke::DialBack { ticket: 1 }).is_none(), "no key to seal it");
    let mut unknown = NodeSession::new(&grant(4), 1, 1).unwrap();
    let heartbeat = unknown.heartbeat(NOW, held(0)).unwrap();
    assert_eq!(server.receive(heartbeat.as_bytes(), FROM, NOW).unwrap_err(), Refused::Unknown);
}

#[test]
fn another_generation_or_uid_ends_the_session() {
    let (mut node, mut server) = (node(), server(5));
    server.admit(NodeIndex(3), NodeUid::new("another"), 2);
    let heartbeat = node.heartbeat(NOW, held(0)).unwrap();
    assert_eq!(server.receive(heartbeat.as_bytes(), FROM, NOW).unwrap_err(), Refused::Unauthentic);
    server.admit(NodeIndex(3), NodeUid::new("uid"), 3);
    assert_eq!(server.receive(heartbeat.as_bytes(), FROM, NOW).unwrap_err(), Refused::Unknown);
    server.remove(NodeIndex(3));
    assert_eq!(server.receive(heartbeat.as_bytes(), FROM, NOW).unwrap_err(), Refused::Unknown);
}

#[test]
fn unusable_grants_are_refused() {
    let short = SessionGrant { key_hex: "00".into(), ..grant(1) };
    assert_eq!(NodeSession::new(&short, 1, 0).unwrap_err(), GrantError::Key);
    assert_eq!(NodeSession::new(&grant(1), 0, 0).unwrap_err(), GrantError::Boot);
}

/// What `docs/protocol.md` prints: any change here breaks every node in the field.
#[test]
fn the_documented_vectors_hold() {
    let mut node = node();
    let mut server = ServerSessions::new(0x1112_1314_1516_1718, vec![secret(1)]);
    server.admit(NodeIndex(3), NodeUid::new("uid"), 2);
    let all = Observed { revision: 70, bundle: pods().0, status: 9 };
    let first = node.heartbeat(NOW, all).unwrap();
    let opened = server.receive(first.as_bytes(), FROM, NOW).unwrap();
    let reply = server.reply(&opened, &ANSWER);
    node.receive(reply.as_bytes(), NOW).unwrap();
    let second = node.probe(NOW, all).unwrap();
    assert!(server.receive(second.as_bytes(), FROM, NOW).unwrap().fresh);
    let (poke, _) = server.poke(NodeIndex(3), Poke::BundleMoved { revision: 78 }).unwrap();
    assert!(node.receive(poke.as_bytes(), NOW).is_ok());

    let document = include_str!("../../../docs/protocol.md");
    assert!(document.contains(&grant(1).key_hex), "{}", grant(1).key_hex);
    for (datagram, header) in [(first, 20), (reply, 24), (second, 20), (poke, 24)] {
        let (header, sealed) = datagram.as_bytes().split_at(header);
        let vector = format!("header  {}\nsealed  {}\n", hex(header), hex(sealed));
        assert!(document.contains(&vector), "not in the document:\n{vector}");
    }
}

/// The digest of the two pods in the document.
fn pods() -> BundleDigest {
    let document = include_str!("../../../docs/protocol.md");
    let pods = document.lines().filter(|line| line.starts_with(r#"{"metadata""#));
    pods.map(|pod| PodDigest::of_json(pod).unwrap()).collect()
}

#[test]
fn the_documented_digests_hold() {
    let document = include_str!("../../../docs/protocol.md");
    let mut sum = BundleDigest::default();
    let mut lines = document.lines().skip_while(|line| !line.starts_with(r#"{"metadata""#));
    for _ in 0..2 {
        let pod = PodDigest::of_json(lines.next().unwrap()).unwrap();
        assert_eq!(lines.next().unwrap(), format!("pod     {:016x}", pod.0));
        sum = sum.with(pod);
    }
    assert_eq!(lines.next().unwrap(), format!("sum     {:08x}", sum.0));
    assert_eq!(sum, pods());
}

#[test]
fn the_documented_digests_of_referents_hold() {
    let document = include_str!("../../../docs/protocol.md");
    let mut sum = BundleDigest::default();
    let mut lines = document.lines().skip_while(|line| !line.starts_with(r#"{"kind""#));
    for _ in 0..2 {
        let referent = serde_json::from_str(lines.next().unwrap()).unwrap();
        let digest = ReferentDigest::of(&referent).unwrap();
        assert_eq!(lines.next().unwrap(), format!("referent {:016x}", digest.0));
        sum = sum.with(digest);
    }
    assert_eq!(lines.next().unwrap(), format!("sum     {:08x}", sum.0));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

proptest! {
    #[test]
    fn bytes_from_anywhere_change_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0x10u8..0x16) {
        let (mut node, mut server) = (node(), server(5));
        exchange(&mut node, &mut server);
        exchange(&mut node, &mut server);
        let before = *server.fresh(NodeIndex(3)).unwrap();
        let mut likely = bytes.clone();
        likely.resize(match kind { 0x12 => 56, 0x13 => 49, _ => 60 }, 0);
        likely[0] = kind;
        likely[1..8].copy_from_slice(&[1, 0, 2, 0, 0, 0, 3]);
        for bytes in [&bytes, &likely] {
            prop_assert!(server.receive(bytes, FROM, NOW).is_err());
            prop_assert!(node.receive(bytes, NOW).is_err());
        }
        prop_assert_eq!(*server.fresh(NodeIndex(3)).unwrap(), before);
    }

    #[test]
    fn any_flipped_bit_is_noticed(bit in 0usize..480) {
        let (mut node, mut server) = (node(), server(5));
        let mut heartbeat = node.heartbeat(NOW, held(0)).unwrap().as_bytes().to_vec();
        let opened = server.receive(&heartbeat, FROM, NOW).unwrap();
        let mut reply = server.reply(&opened, &ANSWER).as_bytes().to_vec();
        heartbeat[bit / 8] ^= 1 << (bit % 8);
        let bit = bit % (reply.len() * 8);
        reply[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(server.receive(&heartbeat, FROM, NOW).is_err());
        prop_assert!(node.receive(&reply, NOW).is_err());
    }
}
