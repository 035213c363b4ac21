//! Names that are elsewhere: asked once, kept for their time, and told beyond it when nobody answers.

use std::time::Duration;

use toono_names::{Ask, Judged, Name, Reaction, Said, Way, Whom, kind};

use crate::node::{Answer, Node, question, read, upstream, whom};

fn asks(reaction: Reaction) -> Ask {
    match reaction {
        Reaction::Ask(ask) => ask,
        other => panic!("{other:?}"),
    }
}

fn says(ask: &Ask, code: u8, records: [&[&str]; 2]) -> Said {
    match ask.judge(3, &upstream(ask, 3, code, records), false, true) {
        Judged::Said(said) => said,
        other => panic!("{other:?}"),
    }
}

/// Hands an upstream's answer in; who is told what.
fn said(node: &mut Node, ask: &Ask, said: &Said) -> Vec<(Whom, Answer)> {
    let mut told = Vec::new();
    node.server.said(ask, said, node.now, |whom, bytes| told.push((whom, read(bytes))));
    told
}

fn failed(node: &mut Node, ask: &Ask) -> Vec<Answer> {
    let mut told = Vec::new();
    node.server.failed(ask, node.now, |_, bytes| told.push(read(bytes)));
    told
}

const WWW: [&[&str]; 2] = [&["www.test 60 A 192.0.2.1"], &[]];

#[test]
fn many_ask_once_and_all_are_told_in_their_own_words() {
    let mut node = Node::new();
    let (reaction, _) = node.send(&question(1, "www.test", kind::A, None), whom(1, Way::Udp));
    let ask = asks(reaction);
    for (id, last, name) in [(2, 2, "WWW.test"), (3, 3, "www.TEST"), (3, 3, "www.TEST")] {
        let (reaction, _) =
            node.send(&question(id, name, kind::A, Some(1232)), whom(last, Way::Udp));
        assert_eq!(reaction, Reaction::Nothing);
    }
    let answer = says(&ask, 0, WWW);
    let told = said(&mut node, &ask, &answer);
    assert_eq!(told.len(), 3, "the same question sent again is one");
    assert_eq!(told.iter().map(|(_, it)| it.id).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(told.iter().map(|(_, it)| it.edns).collect::<Vec<_>>(), [false, true, true]);
    assert!(told[2].1.asked.starts_with(b"\x03www\x04TEST\0"));
    assert_eq!((told[0].1.answers[0].as_str(), told[0].1.ttl), ("www.test. A 192.0.2.1", 60));
    node.now += Duration::from_secs(25);
    let (_, out) = node.send(&question(4, "www.test", kind::A, None), whom(1, Way::Udp));
    assert_eq!(read(&out).ttl, 35);
    let counters = node.server.counters();
    assert_eq!((counters.asked, counters.joined, counters.cache_hits), (1, 2, 1));
}

#[test]
fn without_an_upstream_what_was_known_is_told() {
    let mut node = Node::new();
    let ask = asks(node.send(&question(1, "www.test", kind::A, None), whom(1, Way::Udp)).0);
    assert_eq!(failed(&mut node, &ask)[0].code, 2, "nothing was known");
    let ask = asks(node.send(&question(1, "www.test", kind::A, None), whom(1, Way::Udp)).0);
    said(&mut node, &ask, &says(&ask, 0, WWW));
    node.now += Duration::from_secs(3600);
    asks(node.send(&question(2, "www.test", kind::A, None), whom(1, Way::Udp)).0);
    let told = failed(&mut node, &ask);
    assert_eq!((told[0].code, told[0].answers.len(), told[0].ttl), (0, 1, 30));
    let (reaction, _) = node.send(&question(3, "www.test", kind::A, None), whom(1, Way::Udp));
    assert_eq!(reaction, Reaction::Answer, "nobody is asked in vain for a while");
    node.now += Duration::from_secs(31);
    asks(node.send(&question(4, "www.test", kind::A, None), whom(1, Way::Udp)).0);
    // The upstream takes long: who waits is told, and who comes now does not wait.
    let mut told = 0;
    node.server.late(&ask, node.now, |_, _| told += 1);
    assert_eq!(told, 1);
    let (reaction, _) = node.send(&question(5, "www.test", kind::A, None), whom(1, Way::Udp));
    assert_eq!(reaction, Reaction::Answer);
    assert_eq!(said(&mut node, &ask, &says(&ask, 0, WWW)), []);
    let (_, out) = node.send(&question(6, "www.test", kind::A, None), whom(1, Way::Udp));
    assert_eq!(read(&out).ttl, 60);
}

#[test]
fn that_there_is_nothing_is_kept_as_its_zone_says() {
    let mut node = Node::new();
    for (code, name) in [(3, "none.test"), (0, "empty.test")] {
        let ask = asks(node.send(&question(1, name, kind::A, None), whom(1, Way::Udp)).0);
        let answer = says(&ask, code, [&[], &["test 900 SOA ns.test 20"]]);
        let told = said(&mut node, &ask, &answer);
        assert_eq!((told[0].1.code, told[0].1.authority.len()), (u16::from(code), 1));
        node.now += Duration::from_secs(19);
        let (reaction, out) = node.send(&question(1, name, kind::A, None), whom(1, Way::Udp));
        assert_eq!((reaction, read(&out).code), (Reaction::Answer, u16::from(code)));
        node.now += Duration::from_secs(1);
        let (reaction, _) = node.send(&question(1, name, kind::A, None), whom(1, Way::Udp));
        asks(reaction);
    }
    let ask = Ask::of(Name::of("odd.test").unwrap(), kind::A);
    said(&mut node, &ask, &says(&ask, 3, [&[], &[]]));
    let (reaction, _) = node.send(&question(1, "odd.test", kind::A, None), whom(1, Way::Udp));
    asks(reaction);
}

#[test]
fn an_alias_is_followed_to_the_end() {
    let mut node = Node::new();
    node.put("service/shop/out", r#"{"type":"ExternalName","externalName":"www.test"}"#);
    let out = "out.shop.svc.cluster.local";
    let ask = asks(node.send(&question(1, out, kind::A, None), whom(1, Way::Udp)).0);
    assert_eq!(ask.name().to_string(), "www.test.");
    let records: [&[&str]; 2] = [&["www.test 60 CNAME far.test", "far.test 60 A 192.0.2.1"], &[]];
    let told = said(&mut node, &ask, &says(&ask, 0, records));
    let expected = [
        format!("{out}. CNAME www.test."),
        "www.test. CNAME far.test.".into(),
        "far.test. A 192.0.2.1".into(),
    ];
    assert_eq!(told[0].1.answers, expected);
    let (_, again) = node.send(&question(1, out, kind::A, None), whom(1, Way::Udp));
    assert_eq!(read(&again).answers, expected);
    for (name, target) in [("a", "b"), ("b", "a")] {
        node.put(
            &format!("service/shop/{name}"),
            &format!(
                r#"{{"type":"ExternalName","externalName":"{target}.shop.svc.cluster.local"}}"#
            ),
        );
    }
    assert_eq!(node.ask("a.shop.svc.cluster.local", kind::A).answers.len(), 8, "a circle ends");
}

#[test]
fn only_the_answer_to_the_question_is_taken() {
    let ask = Ask::of(Name::of("www.test").unwrap(), kind::A);
    let good = upstream(&ask, 3, 0, WWW);
    let judge = |bytes: &[u8]| ask.judge(3, bytes, false, true);
    assert!(matches!(judge(&good), Judged::Said(_)));
    assert_eq!(ask.judge(4, &good, false, true), Judged::Other, "another id");
    for (at, flip) in [(2, 0x80), (13, 1), (22, 1), (24, 1), (5, 2)] {
        let mut bytes = good.clone();
        bytes[at] ^= flip;
        assert_eq!(judge(&bytes), Judged::Other, "at {at}");
    }
    let mut cut = good.clone();
    cut[2] |= 2;
    assert_eq!(judge(&cut), Judged::Cut);
    assert_eq!(judge(&upstream(&ask, 3, 2, [&[], &[]])), Judged::Failed(2));
    assert_eq!(judge(&upstream(&ask, 3, 1, [&[], &[]])), Judged::WithoutEdns);
    assert_eq!(judge(&good[..good.len() - 1]), Judged::Failed(1));
    // What EDNS added is for this hop alone.
    let mut with = good.clone();
    with[11] = 1;
    with.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    assert_eq!(judge(&with), judge(&good));
}

#[test]
fn no_client_takes_all_the_room() {
    let mut node = Node::new();
    let ask = |node: &mut Node, last: u8, number: u32| {
        let name = format!("n{number}.test");
        node.send(&question(1, &name, kind::A, None), whom(last, Way::Udp))
    };
    let asked = (0..100).filter(|it| matches!(ask(&mut node, 1, *it).0, Reaction::Ask(_))).count();
    assert_eq!(asked, 64);
    let (reaction, out) = ask(&mut node, 1, 1000);
    assert_eq!((reaction, read(&out).code), (Reaction::Answer, 2));
    assert!(matches!(ask(&mut node, 2, 1001).0, Reaction::Ask(_)));
    let all = (0..100).flat_map(|last| (0..10).map(move |it| (last, it)));
    let all = all.filter(|(last, it)| {
        matches!(ask(&mut node, 100 + last, 2000 + u32::from(*last) * 10 + it).0, Reaction::Ask(_))
    });
    assert_eq!(all.count(), 256 - 65);
    assert!(node.server.counters().crowded_out > 0);
}
