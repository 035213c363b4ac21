//! What a heartbeat costs the cloud: microseconds of one core, and bytes of table per node.
//!
//! `cargo run --release -p toono-session --example heartbeats [NODES]`
//!
//! Each node has an identity and a key of its own. Measured is what a server does for a datagram:
//! derive the node's key, open the heartbeat, judge it, seal the reply. Sockets are not in it.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program that prints figures")]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use toono_session::{
    Answer, ClusterSecret, Datagram, NodeIndex, NodeSession, NodeUid, Observed, ReplyFlags,
    ServerSessions,
};
use toono_wire::join::SessionGrant;

const NODES: u32 = 1_000_000;
/// Rounds of fresh heartbeats; the last one is printed, warm.
const ROUNDS: u64 = 3;
const ANSWER: Answer =
    Answer { desired_revision: 7, flags: ReplyFlags(0), interval: Duration::from_secs(10) };
const OBSERVED: Observed = Observed { revision: 7, bundle: 1, status: 1 };

fn main() {
    let nodes = std::env::args().nth(1).map_or(NODES, |text| text.parse().unwrap());
    let secret = ClusterSecret::new(1, &[42; 32]);
    let before = resident_bytes();
    let mut server = ServerSessions::new(99, vec![secret.clone()]);
    for index in 0..nodes {
        server.admit(NodeIndex(index), uid(index), 1);
    }
    let table = resident_bytes() - before;

    let mut fleet: Vec<NodeSession> = (0..nodes).map(|index| node(&secret, index)).collect();
    let mut heartbeats: Vec<Datagram> = fleet.iter_mut().map(|node| beat(node, 0)).collect();
    let (first, replies) = serve(&mut server, &heartbeats, nodes);
    learn(&mut fleet, &replies);
    let mut fresh = first;
    for round in 1..=ROUNDS {
        heartbeats = fleet.iter_mut().map(|node| beat(node, round)).collect();
        let (took, replies) = serve(&mut server, &heartbeats, nodes);
        learn(&mut fleet, &replies);
        fresh = took;
    }
    assert!((0..nodes).all(|index| server.fresh(NodeIndex(index)).is_some()));

    let each = |took: Duration| took.as_secs_f64() * 1e6 / f64::from(nodes);
    println!("nodes                         {nodes}");
    println!("table, bytes per node         {:.0}", table as f64 / f64::from(nodes));
    println!("after a restart, us each      {:.2}", each(first));
    println!("fresh heartbeat, us each      {:.2}", each(fresh));
    println!("heartbeats/s on one core      {:.0}", 1e6 / each(fresh));
}

/// Serves all heartbeats, in an order that no cache likes.
fn serve(
    server: &mut ServerSessions,
    heartbeats: &[Datagram],
    nodes: u32,
) -> (Duration, Vec<Option<Datagram>>) {
    let from: SocketAddr = "192.0.2.1:4000".parse().unwrap();
    let mut replies = vec![None; heartbeats.len()];
    // A prime step visits every index once.
    let mut at = 0;
    let start = Instant::now();
    for _ in 0..nodes {
        at = (at + 611_953) % heartbeats.len();
        let now = start.elapsed();
        let opened = server.receive(heartbeats.get(at).unwrap().as_bytes(), from, now).unwrap();
        *replies.get_mut(at).unwrap() = Some(server.reply(&opened, &ANSWER));
    }
    (start.elapsed(), replies)
}

fn learn(fleet: &mut [NodeSession], replies: &[Option<Datagram>]) {
    for (node, reply) in fleet.iter_mut().zip(replies) {
        node.receive(reply.as_ref().unwrap().as_bytes(), Duration::ZERO).unwrap();
    }
}

fn beat(node: &mut NodeSession, round: u64) -> Datagram {
    node.heartbeat(Duration::from_secs(10 * round), OBSERVED).unwrap()
}

fn node(secret: &ClusterSecret, index: u32) -> NodeSession {
    let grant = SessionGrant {
        index,
        generation: 1,
        epoch: 1,
        key_hex: secret.session_key(&uid(index), 1).to_hex(),
        udp_port: 1,
        interval_ms: 10_000,
        boot_floor: 0,
        servers: Vec::new(),
    };
    NodeSession::new(&grant, 1, index).unwrap()
}

fn uid(index: u32) -> NodeUid {
    NodeUid::new(&format!("uid-{index}"))
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
