//! The layouts of `docs/protocol.md`, byte by byte, and that nothing else is taken.

use toono_wire::datagram::{
    DownlinkHeader, DownlinkKind, HeartbeatBody, MAX_DATAGRAM, POKE_BODY, Poke, ReplyBody,
    ReplyFlags, SealedDownlink, TAG, UPLINK_HEADER, UplinkHeader, UplinkKind,
};

fn joined(header: &[u8], body: &[u8]) -> Vec<u8> {
    [header, body, &[0xaa; TAG]].concat()
}

#[test]
fn a_heartbeat_is_laid_out_as_documented() {
    let header = UplinkHeader {
        kind: UplinkKind::Heartbeat,
        epoch: 3,
        generation: 0x0102,
        index: 7,
        counter: (9 << 32) | 5,
        salt: 0xdead_beef,
    };
    let body = HeartbeatBody {
        observed_revision: 0x55,
        status_digest: 0x66,
        bundle_digest: 0x88,
        instance: 0x77,
    };
    let sent = joined(&header.encode(), &body.encode());
    assert_eq!(sent.len(), 60);
    assert_eq!(
        sent[..UPLINK_HEADER],
        [0x11, 3, 1, 2, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0, 5, 0xde, 0xad, 0xbe, 0xef]
    );
    let (parsed, sealed, tag) = UplinkHeader::split(&sent).unwrap();
    assert_eq!((parsed, HeartbeatBody::decode(&sealed), tag), (header, body, [0xaa; TAG]));
    let probe = UplinkHeader { kind: UplinkKind::Probe, ..header };
    let sent = joined(&probe.encode(), &body.encode());
    assert_eq!((sent[0], UplinkHeader::split(&sent).unwrap().0), (0x14, probe));
}

#[test]
fn replies_and_pokes_are_laid_out_as_documented() {
    let header = DownlinkHeader {
        kind: DownlinkKind::Reply,
        epoch: 1,
        generation: 2,
        index: 3,
        instance: 4,
        counter: 5,
    };
    let body =
        ReplyBody { echo: 6, desired_revision: 7, flags: ReplyFlags::REKEY, interval_ms: 10_000 };
    let sent = joined(&header.encode(), &body.encode());
    assert_eq!((sent.len(), sent[0]), (56, 0x12));
    let (parsed, sealed) = DownlinkHeader::split(&sent).unwrap();
    assert_eq!(parsed, header);
    assert!(matches!(sealed, SealedDownlink::Reply(bytes, _) if ReplyBody::decode(&bytes) == body));

    let header = DownlinkHeader { kind: DownlinkKind::Poke, ..header };
    let pool = Poke::PoolMoved { revision: 9 };
    for poke in [Poke::BundleMoved { revision: 8 }, Poke::DialBack { ticket: u64::MAX }, pool] {
        let sent = joined(&header.encode(), &poke.encode());
        assert_eq!((sent.len(), sent[0]), (49, 0x13));
        let (parsed, sealed) = DownlinkHeader::split(&sent).unwrap();
        assert_eq!(parsed, header);
        assert!(
            matches!(sealed, SealedDownlink::Poke(bytes, _) if Poke::decode(&bytes) == Some(poke))
        );
    }
    assert_eq!(Poke::decode(&[9; POKE_BODY]), None);
}

#[test]
fn every_other_length_version_or_kind_is_refused() {
    for length in 0..=2 * MAX_DATAGRAM {
        for first in [0x11, 0x12, 0x13, 0x14, 0x21, 0x00, 0x51] {
            let bytes = vec![first; length];
            let up = matches!(first, 0x11 | 0x14) && length == 60;
            assert_eq!(UplinkHeader::split(&bytes).is_ok(), up);
            let down = (first == 0x12 && length == 56) || (first == 0x13 && length == 49);
            assert_eq!(DownlinkHeader::split(&bytes).is_ok(), down);
        }
    }
}

#[test]
fn an_interval_that_three_bytes_do_not_hold_is_the_longest_that_they_do() {
    let body = |interval_ms| ReplyBody {
        echo: u32::MAX,
        desired_revision: u64::MAX,
        flags: ReplyFlags::COMPARE.with(ReplyFlags::REKEY),
        interval_ms,
    };
    for (told, read) in [(0, 0), (10_000, 10_000), (0xff_ffff, 0xff_ffff), (u32::MAX, 0xff_ffff)] {
        assert_eq!(ReplyBody::decode(&body(told).encode()), body(read));
    }
}
