//! Bytes from anywhere: every parser answers or refuses, and what it takes it can print again.

use proptest::prelude::*;
use toono_wire::{
    bundle::Bundle,
    datagram::{
        DOWNLINK_HEADER, DownlinkHeader, DownlinkKind, HeartbeatBody, MAX_DATAGRAM, Poke,
        ReplyBody, SealedDownlink, TAG, UPLINK_HEADER, UplinkHeader,
    },
    join::{JoinRequest, JoinResponse},
    remote::{Frame, FrameReader, FrameTooLarge, MAX_PAYLOAD},
    report::{Report, ReportReply},
};

/// Bytes as they come, and ones that begin like a datagram of ours.
fn datagrams() -> impl Strategy<Value = Vec<u8>> {
    let anything = prop::collection::vec(any::<u8>(), 0..=2 * MAX_DATAGRAM);
    let near = (0x10_u8..0x16, prop_oneof![Just(59), Just(55), Just(48)])
        .prop_flat_map(|(first, rest)| (Just(first), prop::collection::vec(any::<u8>(), rest)))
        .prop_map(|(first, rest)| [vec![first], rest].concat());
    prop_oneof![anything, near]
}

/// Frames with payloads of any length, some of which need several frames.
fn payloads() -> impl Strategy<Value = Vec<(u8, usize)>> {
    let length = prop_oneof![0..200_usize, MAX_PAYLOAD - 2..MAX_PAYLOAD + 2, Just(2 * MAX_PAYLOAD)];
    prop::collection::vec((any::<u8>(), length), 0..6)
}

/// Reads all that is there, and how it ended.
fn frames(chunks: &[&[u8]]) -> (Vec<Frame>, Result<(), FrameTooLarge>) {
    let mut reader = FrameReader::default();
    let mut read = Vec::new();
    for chunk in chunks {
        reader.push(chunk);
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => read.push(frame),
                Ok(None) => break,
                Err(error) => return (read, Err(error)),
            }
        }
    }
    (read, Ok(()))
}

proptest! {
    // The frames are long.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn frames_are_the_same_however_they_are_cut(
        payloads in payloads(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut sent = Vec::new();
        for (channel, length) in &payloads {
            sent.extend_from_slice(&Frame::encode(*channel, &vec![*channel; *length]));
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(sent.len() + 1)).collect();
        cuts.extend([0, sent.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|cut| &sent[cut[0]..cut[1]]).collect();
        let (read, end) = frames(&chunks);
        prop_assert_eq!(end, Ok(()));
        prop_assert!(read.iter().all(|frame| frame.payload.len() <= MAX_PAYLOAD));
        let expected: Vec<u8> =
            payloads.iter().flat_map(|(channel, length)| vec![*channel; *length]).collect();
        let got: Vec<u8> = read.iter().flat_map(|frame| frame.payload.to_vec()).collect();
        prop_assert!(got == expected);
    }
}

proptest! {
    #[test]
    fn a_datagram_is_refused_or_is_what_it_says(bytes in datagrams()) {
        if let Ok((header, body, tag)) = UplinkHeader::split(&bytes) {
            let body = HeartbeatBody::decode(&body).encode();
            prop_assert_eq!([header.encode().as_slice(), &body, &tag].concat(), &bytes[..]);
        }
        if let Ok((header, sealed)) = DownlinkHeader::split(&bytes) {
            prop_assert_eq!(&header.encode()[..], &bytes[..DOWNLINK_HEADER]);
            let rest = match sealed {
                SealedDownlink::Reply(body, tag) => {
                    prop_assert_eq!(header.kind, DownlinkKind::Reply);
                    [ReplyBody::decode(&body).encode().as_slice(), &tag].concat()
                }
                SealedDownlink::Poke(body, tag) => {
                    prop_assert_eq!(header.kind, DownlinkKind::Poke);
                    let again = Poke::decode(&body).map_or(body, |poke| poke.encode());
                    [again.as_slice(), &tag].concat()
                }
            };
            prop_assert_eq!(&rest, &bytes[DOWNLINK_HEADER..]);
        }
        prop_assert!(bytes.len() >= UPLINK_HEADER + TAG || UplinkHeader::split(&bytes).is_err());
    }

    #[test]
    fn streams_of_anything_end_in_frames_or_a_refusal(
        bytes in prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..4_000),
    ) {
        let (whole, end) = frames(&[&bytes]);
        let one_by_one: Vec<&[u8]> = bytes.chunks(1).collect();
        let (same, same_end) = frames(&one_by_one);
        prop_assert_eq!((&whole, &end), (&same, &same_end));
        let mut again: Vec<u8> = Vec::new();
        for frame in &whole {
            again.extend_from_slice(&Frame::encode(frame.channel, &frame.payload));
        }
        prop_assert!(bytes.starts_with(&again));
        if let Err(FrameTooLarge { claimed }) = end {
            prop_assert!(claimed > MAX_PAYLOAD);
        }
    }

    #[test]
    fn json_of_anything_is_taken_or_refused(text in r#"[\[\]{}:,"a-z0-9 .\\-]{0,80}"#) {
        // Whether it parses does not matter; that it returns does.
        let _ = serde_json::from_str::<Bundle>(&text);
        let _ = serde_json::from_str::<Report>(&text);
        let _ = serde_json::from_str::<ReportReply>(&text);
        let _ = serde_json::from_str::<JoinRequest>(&text);
        let _ = serde_json::from_str::<JoinResponse>(&text);
    }
}

#[test]
fn unknown_fields_of_a_report_are_refused() {
    assert!(serde_json::from_str::<Report>("{}").is_ok());
    let error = serde_json::from_str::<Report>(r#"{"owner": "me"}"#).unwrap_err();
    assert!(error.to_string().contains("unknown field `owner`"), "{error}");
}
