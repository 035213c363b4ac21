//! What pods ask a node's DNS, and what resolvers answer it.

use std::time::Duration;

use toono_names::{
    Ask, Cache, Judged, MAX_DATAGRAM, MAX_MESSAGE, Name, Server, Way, Whom, Zone, kind,
};
use toono_wire::pool::Records;

use super::no_giants;
use crate::{Decode, Grammar, Target};

const TOKENS: &[&str] = &[
    "\u{3}web\u{4}shop\u{3}svc\u{7}cluster\u{5}local\0\0\u{1}\0\u{1}",
    "\u{2}db",
    "\u{5}_http\u{4}_tcp",
    "\u{7}in-addr\u{4}arpa\0\0\u{c}\0\u{1}",
    "\u{3}www\u{4}test\0",
    "\0\0)\u{4}\0\0\0\0\0\0\0",
    "\0!\0\u{1}",
];
/// The id of the question to a resolver.
const ID: u16 = 7;

pub(super) const QUESTION: Target = Target {
    name: "dns-question",
    grammar: Grammar::Bytes,
    tokens: TOKENS,
    max_bytes: MAX_DATAGRAM,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: question,
    giants: no_giants,
};

fn question() -> Decode {
    let Some((mut server, records)) = shop() else { return Box::new(|_| ()) };
    let mut out = Vec::new();
    Box::new(move |input| {
        for (way, most) in [(Way::Udp, MAX_DATAGRAM), (Way::Tcp(1), MAX_MESSAGE)] {
            let whom = Whom { address: ([10, 244, 0, 2], 53).into(), way };
            out.clear();
            server.receive(&records, input, whom, Duration::ZERO, &mut out);
            assert!(out.len() <= most, "longer than a client takes");
        }
    })
}

pub(super) const ANSWER: Target = Target {
    name: "dns-answer",
    grammar: Grammar::Bytes,
    tokens: TOKENS,
    max_bytes: MAX_MESSAGE,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: answer,
    giants: no_giants,
};

fn answer() -> Decode {
    let made = shop().zip(Name::of("www.test").ok());
    let Some(((mut server, records), name)) = made else { return Box::new(|_| ()) };
    let ask = Ask::of(name, kind::A);
    let alias = Name::of("out.shop.svc.cluster.local").map(|it| Ask::of(it, kind::A));
    let questions = [Ok(ask.clone()), alias];
    Box::new(move |input| {
        let whom = Whom { address: ([10, 244, 0, 2], 53).into(), way: Way::Udp };
        for by_tcp in [false, true] {
            let judged = ask.judge(ID, input, by_tcp, true);
            // Nothing is kept beyond this input.
            server.failed(&ask, Duration::ZERO, |_, _| ());
            for question in questions.iter().flatten() {
                let message = question.message(ID, true);
                server.receive(&records, &message, whom, Duration::ZERO, &mut Vec::new());
            }
            if let Judged::Said(said) = judged {
                server.said(&ask, &said, Duration::ZERO, |_, bytes| {
                    assert!(bytes.len() <= MAX_DATAGRAM, "longer than a client takes");
                });
            }
        }
    })
}

/// A node's DNS with some records.
fn shop() -> Option<(Server, Records)> {
    let mut records = Records::default();
    for (key, text) in [
        ("service/shop/web", r#"{"clusterIPs":["10.96.0.7"],"ports":[{"name":"http","port":80}]}"#),
        ("service/shop/db", r#"{"clusterIPs":["None"],"ports":[{"name":"sql","port":5432}]}"#),
        ("slice/shop/db-x", r#"{"service":"db","ports":[{"name":"sql","port":5432}]}"#),
        ("service/shop/out", r#"{"type":"ExternalName","externalName":"www.test"}"#),
    ] {
        records.put(key, text);
    }
    for number in 0..100 {
        records.put(&format!("endpoint/shop/db-x/10.244.7.{number}"), "{}");
    }
    let mut zone = Zone::new("cluster.local", vec![[10, 96, 0, 10].into()]).ok()?;
    zone.replace(&records);
    // Too small to keep anything: each input is judged by itself.
    Some((Server::new(zone, Cache::new(0)), records))
}
