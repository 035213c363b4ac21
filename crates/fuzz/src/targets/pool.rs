//! What nodes of a pool say to each other, and what the cloud offers to one of their pods.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use ring::hmac;
use toono_neighbours::{Circle, Key, MAX_DATAGRAM, Neighbour, Word};
use toono_wire::{
    pool::{LayerRequest, LayerSources, MAX_LAYER_ANSWER, MAX_LAYER_SOURCES},
    upgrade::{self, Offer},
};

use super::joined;
use crate::{Decode, Grammar, Target};

const KEY: [u8; 32] = [7; 32];
const OWN: &str = "edge-0";
/// Nodes beside this one.
const OTHERS: u8 = 3;
/// What a probe, an answer or a look ends with.
const TAG: usize = 16;

pub(super) const NEIGHBOUR: Target = Target {
    name: "neighbour",
    grammar: Grammar::Bytes,
    tokens: &[
        "\u{11}\0\0\0\0\0\0\0",
        "\u{12}\0\0\0\0\0\0\0\u{1}",
        "\u{13}\0\0\0\0\0\0\0\0",
        "\u{6}edge-1",
        "\u{6}edge-2",
        "\u{6}edge-0",
        "\u{4}\n\0\0\u{2}",
    ],
    max_bytes: MAX_DATAGRAM - TAG,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: neighbour,
    giants: |bytes| {
        let look =
            |name: &[u8]| [&b"\x13\0\0\0\0\0\0\0\0\x06edge-1\0\0\0\0\0\0\0\0"[..], name].concat();
        let mut all = vec![look(&b"\x06edge-2".repeat(bytes.saturating_sub(24) / 7))];
        all.push(look(&b"\x01x".repeat(bytes.saturating_sub(24) / 2)));
        all
    },
};

/// Inputs are what a node of the pool sealed, since nothing else is read; without the seal they are nothing.
fn neighbour() -> Decode {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &KEY);
    Box::new(move |input| {
        let mut circle = circle();
        let now = Duration::from_secs(100);
        circle.wake(now);
        let asked = circle.take_datagrams().len();
        assert_eq!(asked, usize::from(OTHERS), "each is asked once");
        circle.receive(now, input);
        assert!(circle.take_datagrams().is_empty(), "what nobody sealed is answered");

        let mut context = hmac::Context::with_key(&key);
        context.update(input);
        context.update(OWN.as_bytes());
        let mut sealed = input.to_vec();
        sealed.extend(context.sign().as_ref().iter().take(TAG));
        circle.receive(now, &sealed);
        circle.receive(now, &sealed);
        let answers = circle.take_datagrams();
        assert!(answers.len() <= 2, "a datagram makes more than one");
        let longest = answers.iter().map(|(_, bytes)| bytes.len()).max().unwrap_or_default();
        assert!(longest <= MAX_DATAGRAM, "longer than a datagram");
        assert!(answers.iter().all(|(to, _)| (1..=OTHERS).any(|it| *to == address(it))));
        // Whatever it said, what comes of it is bounded.
        let (mut wakes, mut sent) = (0, 0);
        while let Some(at) = circle.next().filter(|at| *at < now + Duration::from_secs(20)) {
            circle.wake(at);
            wakes += 1;
            sent += circle.take_datagrams().len();
            assert!(circle.next().is_none_or(|next| next > at), "it spins");
        }
        assert!(wakes < 200 && sent < 200, "{wakes} times awake, {sent} datagrams");
    })
}

/// A node among others that have answered before.
fn circle() -> Circle {
    let mut circle = Circle::new(OWN, 0);
    circle.set_key(Some(Key::new(&KEY)));
    let now = Duration::from_secs(99);
    circle.say(now, Word::new(BTreeSet::from([[10, 244, 0, 2].into()])), false);
    let others = (1..=OTHERS).map(|number| Neighbour {
        name: format!("edge-{number}").into(),
        address: address(number),
        is_used: true,
    });
    circle.set_members(now, others, |_| true);
    circle
}

fn address(number: u8) -> IpAddr {
    [10, 0, 0, number].into()
}

pub(super) const LAYER_SOURCES: Target = Target {
    name: "layer-sources",
    grammar: Grammar::Json,
    tokens: &["from", "keep", "edge-1", "true"],
    max_bytes: MAX_LAYER_ANSWER,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: || {
        Box::new(|input| {
            let Ok(sources) = LayerSources::decode(input) else { return };
            assert!(sources.from.len() <= MAX_LAYER_SOURCES, "more than are asked");
            let again = LayerSources::decode(&sources.encode());
            assert!(again.is_ok_and(|again| again == sources), "it reads otherwise than written");
        })
    },
    giants: |bytes| {
        let name = |at| format!(r#""edge-{at}""#);
        let names = joined(bytes / 14, ",", name);
        let long = "n".repeat(bytes.saturating_sub(30));
        vec![
            format!(r#"{{"from":[{names}],"keep":true}}"#).into(),
            format!(r#"{{"from":["{long}"],"keep":true}}"#).into(),
        ]
    },
};

pub(super) const LAYER_REQUEST: Target = Target {
    name: "layer-request",
    grammar: Grammar::Text,
    tokens: &[
        "GET ",
        "POST ",
        "/layers/",
        "/sources?claims=true&without=",
        "/have",
        "/lack",
        "?from=",
        "edge-1,",
        "18446744073709551615",
    ],
    // A line of HTTP is no longer.
    max_bytes: 64 * 1024,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: || Box::new(layer_request),
    giants: |bytes| {
        let hex = "0a".repeat(32);
        let names = "edge-1,".repeat(bytes.saturating_sub(120) / 7);
        vec![format!("POST /layers/{hex}/sources?claims=true&without={names}").into()]
    },
};

/// What is understood is written as it is read, and can be sent.
fn layer_request(input: &[u8]) {
    let Some((method, target)) = std::str::from_utf8(input).ok().and_then(|it| it.split_once(' '))
    else {
        return;
    };
    let parse = |is_post: bool, target: &str| {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        LayerRequest::parse(is_post, path, query)
    };
    let Ok(request) = parse(method == "POST", target) else { return };
    let again = request.target();
    assert!(again.len() <= 8 * 1024, "longer than servers take");
    assert!(again.parse::<http::Uri>().is_ok(), "no HTTP");
    assert_eq!(parse(request.is_post(), &again), Ok(request), "it reads otherwise than written");
}

pub(super) const OFFER: Target = Target {
    name: "offer",
    grammar: Grammar::Json,
    tokens: &[
        "revision",
        "images",
        "imagePullSecrets",
        "manifest",
        "web:2",
        "apiVersion: v1\nkind: Pod\n",
        "5d9",
    ],
    // All annotations of an object together.
    max_bytes: 256 * 1024,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: || Box::new(offer),
    giants: |bytes| {
        let images = joined(bytes / 12, ",", |at| format!(r#""web:{at}""#));
        vec![format!(r#"{{"revision":"5d9","images":[{images}]}}"#).into()]
    },
};

/// An offer survives its text, and a message of it is of it alone.
fn offer(input: &[u8]) {
    let Some(offer) = std::str::from_utf8(input).ok().and_then(Offer::parse) else { return };
    assert_eq!(Offer::parse(&offer.to_text()).as_ref(), Some(&offer), "otherwise than written");
    let message = upgrade::image_message(&offer.revision, "2 images are here: a: b");
    assert!(upgrade::is_of_revision(&message, &offer.revision), "not of its own revision");
    let other = format!("{}-", offer.revision);
    assert!(!upgrade::is_of_revision(&message, &other), "of another revision");
}
