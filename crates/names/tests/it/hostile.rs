//! Messages that nobody should send: no panic, and never more bytes back than a question of that name may cost.

use proptest::prelude::*;
use toono_names::{Ask, Judged, Name, Reaction, Way, kind};

use crate::node::{Node, question, read, upstream, whom};

#[test]
fn what_is_no_question_is_refused_in_few_bytes_or_not_answered() {
    let mut node = Node::new();
    let good = question(1, "www.test", kind::A, None);
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let mut twice = question(1, "www.test", kind::A, Some(512));
    twice[11] = 2;
    twice.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    let mut newer = question(1, "www.test", kind::A, Some(512));
    let at = newer.len() - 5;
    newer[at] = 1;
    for (message, code) in [
        (changed(2, 0x81), None),
        (good[..11].to_vec(), None),
        (Vec::new(), None),
        (changed(2, 0x29), Some(4)),
        (changed(5, 2), Some(1)),
        (changed(5, 0), Some(1)),
        (changed(12, 0xc0), Some(1)),
        (good[..good.len() - 1].to_vec(), Some(1)),
        (question(1, "www.test", 252, None), Some(4)),
        (changed(good.len() - 1, 3), Some(5)),
        (twice, Some(1)),
        (newer, Some(1)),
    ] {
        let (reaction, out) = node.send(&message, whom(1, Way::Udp));
        match code {
            None => assert_eq!((reaction, out.len()), (Reaction::Nothing, 0)),
            Some(code) => {
                assert_eq!((reaction, out.len()), (Reaction::Answer, 12));
                assert_eq!(read(&out).code, code);
            }
        }
    }
}

proptest! {
    #[test]
    fn no_message_makes_it_stumble(bytes: Vec<u8>, at: usize, value: u8, cut: usize) {
        let mut node = Node::new();
        node.send(&bytes, whom(1, Way::Udp));
        let mut near = question(1, "web.shop.svc.cluster.local", kind::SRV, Some(1232));
        let at = at % near.len();
        near[at] = value;
        near.truncate(near.len() - cut % 4);
        let (reaction, out) = node.send(&near, whom(1, Way::Udp));
        if reaction == Reaction::Answer {
            read(&out);
        }
    }

    #[test]
    fn no_answer_makes_it_stumble(bytes: Vec<u8>, at: usize, value: u8) {
        let ask = Ask::of(Name::of("www.test").unwrap(), kind::A);
        let records: [&[&str]; 2] = [&["www.test 60 CNAME a.test", "a.test 60 A 192.0.2.1"], &["test 9 SOA ns.test 20"]];
        let mut near = upstream(&ask, 3, 0, records);
        let at = at % near.len();
        near[at] = value;
        for bytes in [near, bytes] {
            let mut node = Node::new();
            node.put("service/shop/out", r#"{"type":"ExternalName","externalName":"www.test"}"#);
            for name in ["www.test", "out.shop.svc.cluster.local"] {
                node.send(&question(1, name, kind::A, Some(600)), whom(1, Way::Udp));
            }
            if let Judged::Said(said) = ask.judge(3, &bytes, false, true) {
                let mut told = 0;
                node.server.said(&ask, &said, node.now, |_, bytes| {
                    told += 1;
                    assert!(bytes.len() <= 600);
                });
                prop_assert_eq!(told, 2);
            }
        }
    }
}
