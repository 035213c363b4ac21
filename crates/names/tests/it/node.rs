//! A node's DNS with its records, and a reader of answers that shares no code with it.

use std::{collections::BTreeMap, net::Ipv6Addr, time::Duration};

use toono_names::{Ask, Cache, Name, Reaction, Server, Way, Whom, Zone, kind};
use toono_wire::pool::Records;

pub struct Node {
    pub server: Server,
    pub records: Records,
    pub now: Duration,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub id: u16,
    pub code: u16,
    pub authoritative: bool,
    pub cut: bool,
    /// The question's bytes.
    pub asked: Vec<u8>,
    pub answers: Vec<String>,
    pub authority: Vec<String>,
    pub additional: Vec<String>,
    pub edns: bool,
    pub ttl: u32,
}

pub fn whom(last: u8, way: Way) -> Whom {
    Whom { address: ([10, 244, 7, last], 5353).into(), way }
}

/// A question with the case of this text, and EDNS when a size is given.
pub fn question(id: u16, name: &str, kind: u16, size: Option<u16>) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(id.to_be_bytes());
    out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(size.is_some())]);
    for label in name.split('.').filter(|it| !it.is_empty()) {
        out.push(label.len() as u8);
        out.extend(label.bytes());
    }
    out.push(0);
    out.extend(kind.to_be_bytes());
    out.extend([0, 1]);
    if let Some(size) = size {
        out.extend([0, 0, 41]);
        out.extend(size.to_be_bytes());
        out.extend([0; 6]);
    }
    out
}

impl Node {
    pub fn new() -> Self {
        let zone = Zone::new("cluster.local", vec![[10, 96, 0, 10].into()]).unwrap();
        let server = Server::new(zone, Cache::new(64 * 1024));
        Self { server, records: Records::default(), now: Duration::from_secs(1000) }
    }

    pub fn put(&mut self, key: &str, text: &str) {
        if let Some(key) = self.records.put(key, text) {
            self.server.zone().put(&key, text);
        }
    }

    pub fn remove(&mut self, key: &str) {
        let key = self.records.remove(key).expect("it is there");
        self.server.zone().remove(&key);
    }

    pub fn send(&mut self, message: &[u8], whom: Whom) -> (Reaction, Vec<u8>) {
        let mut out = Vec::new();
        let reaction = self.server.receive(&self.records, message, whom, self.now, &mut out);
        (reaction, out)
    }

    /// What a name of the cluster means, as a pod hears it by TCP.
    pub fn ask(&mut self, name: &str, kind: u16) -> Answer {
        let (reaction, out) = self.send(&question(7, name, kind, None), whom(2, Way::Tcp(1)));
        assert_eq!(reaction, Reaction::Answer, "{name}");
        read(&out)
    }

    /// The answers to a question that must have some.
    pub fn answers(&mut self, name: &str, kind: u16) -> Vec<String> {
        let mut answer = self.ask(name, kind);
        assert_eq!(answer.code, 0, "{name}: {answer:?}");
        answer.answers.sort();
        answer.answers
    }
}

/// An upstream's answer, with records in the text of [`read`].
pub fn upstream(ask: &Ask, id: u16, code: u8, records: [&[&str]; 2]) -> Vec<u8> {
    let mut out = ask.message(id, false);
    out[2] |= 0x80;
    out[3] = 0x80 | code;
    for (section, records) in records.into_iter().enumerate() {
        out[7 + 2 * section] = records.len() as u8;
        for record in records {
            put(&mut out, record);
        }
    }
    out
}

fn put(out: &mut Vec<u8>, record: &str) {
    let words: Vec<&str> = record.split(' ').collect();
    let name = |text: &str| Name::of(text).unwrap().as_bytes().to_vec();
    out.extend(name(words[0]));
    let (kind, data) = match words[2] {
        "A" => (kind::A, words[3].parse::<std::net::Ipv4Addr>().unwrap().octets().to_vec()),
        "CNAME" => (kind::CNAME, name(words[3])),
        "SOA" => {
            let mut data = name(words[3]);
            data.extend(name(words[3]));
            for number in [1_u32, 2, 3, 4, words[4].parse().unwrap()] {
                data.extend(number.to_be_bytes());
            }
            (kind::SOA, data)
        }
        other => panic!("{other}"),
    };
    out.extend(kind.to_be_bytes());
    out.extend([0, 1]);
    out.extend(words[1].parse::<u32>().unwrap().to_be_bytes());
    out.extend((data.len() as u16).to_be_bytes());
    out.extend(data);
}

/// Reads an answer: each record as `NAME KIND DATA`.
pub fn read(message: &[u8]) -> Answer {
    let number = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
    let flags = number(2);
    assert_ne!(flags & 0x8000, 0, "an answer");
    let mut answer = Answer {
        id: number(0),
        code: flags & 15,
        authoritative: flags & 0x400 != 0,
        cut: flags & 0x200 != 0,
        ttl: u32::MAX,
        ..Answer::default()
    };
    if number(4) == 0 {
        assert_eq!(message.len(), 12);
        return answer;
    }
    let mut at = 12;
    name(message, &mut at);
    answer.asked = message[12..at + 4].to_vec();
    at += 4;
    let mut sections = BTreeMap::<usize, Vec<String>>::new();
    for section in 0..3 {
        for _ in 0..number(6 + 2 * section) {
            let owner = name(message, &mut at);
            let (kind, ttl) =
                (number(at), u32::from(number(at + 4)) << 16 | u32::from(number(at + 6)));
            let length = usize::from(number(at + 8));
            at += 10;
            if kind == 41 {
                answer.edns = true;
            } else {
                answer.ttl = answer.ttl.min(ttl);
                let text = format!("{owner} {}", data(message, kind, at, length));
                sections.entry(section).or_default().push(text);
            }
            at += length;
        }
    }
    assert_eq!(at, message.len(), "nothing behind it");
    answer.answers = sections.remove(&0).unwrap_or_default();
    answer.authority = sections.remove(&1).unwrap_or_default();
    answer.additional = sections.remove(&2).unwrap_or_default();
    answer
}

fn data(message: &[u8], kind: u16, at: usize, length: usize) -> String {
    let bytes = &message[at..at + length];
    let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let name_at = |from: usize| {
        let mut place = at + from;
        name(message, &mut place)
    };
    match kind {
        1 => format!("A {}.{}.{}.{}", bytes[0], bytes[1], bytes[2], bytes[3]),
        2 => format!("NS {}", name_at(0)),
        5 => format!("CNAME {}", name_at(0)),
        6 => format!("SOA {}", name_at(0)),
        12 => format!("PTR {}", name_at(0)),
        16 => format!("TXT {}", String::from_utf8_lossy(&bytes[1..])),
        28 => format!("AAAA {}", Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap())),
        33 => format!("SRV {} {} {} {}", number(0), number(2), number(4), name_at(6)),
        other => format!("{other} {bytes:?}"),
    }
}

fn name(message: &[u8], at: &mut usize) -> String {
    let (mut text, mut place, mut jumped) = (String::new(), *at, false);
    loop {
        let length = usize::from(message[place]);
        if length >= 0xc0 {
            if !jumped {
                *at = place + 2;
            }
            jumped = true;
            place = (length & 0x3f) << 8 | usize::from(message[place + 1]);
            continue;
        }
        place += 1;
        if length == 0 {
            break;
        }
        text.push_str(&String::from_utf8_lossy(&message[place..place + length]));
        text.push('.');
        place += length;
    }
    if !jumped {
        *at = place;
    }
    text
}
