//! The pool itself: its nodes, wires and virtual time.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    net::IpAddr,
    time::Duration,
};

use toono_neighbours::{Circle, Key, Neighbour, Standing, Word};

/// Within this everybody knows: what is promised is 10 s.
pub(crate) const SOON: Duration = Duration::from_secs(9);
/// From one node to another.
const DELAY: Duration = Duration::from_millis(3);

pub(crate) fn name(node: usize) -> String {
    format!("edge-{node:03}")
}

fn address(node: usize) -> IpAddr {
    [10, 0, u8::try_from(node / 250).unwrap(), u8::try_from(node % 250 + 1).unwrap()].into()
}

fn node_at(address: IpAddr) -> usize {
    let IpAddr::V4(address) = address else { return 0 };
    let [_, _, high, low] = address.octets();
    usize::from(high) * 250 + usize::from(low) - 1
}

/// A node's pod that answers.
pub(crate) fn pod(node: usize) -> Word {
    Word::new([address(node + 300)].into()).unwrap()
}

/// When it arrives, a number that keeps the order, for whom, what.
type UnderWay = (Duration, u64, usize, Vec<u8>);

/// What one node has cost.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Cost {
    /// Datagrams that it sent, and their bytes with the headers of UDP and IPv4.
    pub(crate) sent: u64,
    pub(crate) sent_bytes: u64,
    /// The same of what reached it.
    pub(crate) came: u64,
    pub(crate) came_bytes: u64,
    /// How often it woke up by itself.
    pub(crate) woken: u64,
}

pub(crate) struct Pool {
    pub(crate) now: Duration,
    pub(crate) nodes: Vec<Option<Circle>>,
    /// From where to where nothing goes.
    pub(crate) cuts: BTreeSet<(usize, usize)>,
    pub(crate) loss: f64,
    pub(crate) costs: Vec<Cost>,
    /// Whose endpoints all others use.
    has_endpoints: fn(usize) -> bool,
    dice: fastrand::Rng,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    /// When each wakes up by itself, in that order, and again by node.
    wakes: BTreeSet<(Duration, usize)>,
    wake_of: Vec<Option<Duration>>,
    sent: u64,
}

impl Pool {
    pub(crate) fn new(count: usize, seed: u64) -> Self {
        Self::using(count, seed, |_| true)
    }

    /// A pool in which only some have endpoints.
    pub(crate) fn using(count: usize, seed: u64, has_endpoints: fn(usize) -> bool) -> Self {
        let mut pool = Self {
            now: Duration::from_secs(100),
            nodes: (0..count).map(|_| None).collect(),
            cuts: BTreeSet::new(),
            loss: 0.0,
            dice: fastrand::Rng::with_seed(seed),
            costs: vec![Cost::default(); count],
            has_endpoints,
            under_way: BinaryHeap::new(),
            wakes: BTreeSet::new(),
            wake_of: vec![None; count],
            sent: 0,
        };
        (0..count).for_each(|node| pool.start(node, false));
        pool
    }

    /// A node starts, or starts anew.
    pub(crate) fn start(&mut self, node: usize, was_heard: bool) {
        let mut circle = Circle::new(name(node), self.dice.u64(..));
        circle.set_key(Some(Key::new(&[7; 32])));
        circle.say(self.now, Some(pod(node)), false);
        let neighbour = |node| Neighbour {
            name: name(node).into(),
            address: address(node),
            is_used: (self.has_endpoints)(node),
        };
        circle.set_members(self.now, (0..self.nodes.len()).map(neighbour), |_| was_heard);
        self.nodes[node] = Some(circle);
        self.post(node);
    }

    /// Sends what a node has to send, and looks when it wakes up next.
    pub(crate) fn post(&mut self, node: usize) {
        if let Some(at) = self.wake_of[node].take() {
            self.wakes.remove(&(at, node));
        }
        let Some(circle) = &mut self.nodes[node] else { return };
        let (datagrams, next) = (circle.take_datagrams(), circle.next());
        self.wakes.extend(next.map(|at| (at, node)));
        self.wake_of[node] = next;
        for (to, bytes) in datagrams {
            let to = node_at(to);
            self.sent += 1;
            self.costs[node].sent += 1;
            self.costs[node].sent_bytes += on_the_wire(&bytes);
            if !self.cuts.contains(&(node, to)) && self.dice.f64() >= self.loss {
                let at = self.now + DELAY;
                self.under_way.push(Reverse((at, self.sent, to, bytes)));
            }
        }
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let wakes = self.wakes.first().copied();
            let arrives = self.under_way.peek().map(|Reverse(it)| it.0);
            let at = wakes.map(|it| it.0).into_iter().chain(arrives).min();
            let Some(at) = at.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            if arrives.is_some_and(|arrives| arrives <= at) {
                let Some(Reverse((_, _, to, bytes))) = self.under_way.pop() else { break };
                if let Some(circle) = &mut self.nodes[to] {
                    circle.receive(self.now, &bytes);
                    self.costs[to].came += 1;
                    self.costs[to].came_bytes += on_the_wire(&bytes);
                }
                self.post(to);
            } else if let Some((_, node)) = wakes {
                if let Some(circle) = &mut self.nodes[node] {
                    self.costs[node].woken += 1;
                    circle.wake(self.now);
                    assert!(circle.next().is_none_or(|next| next > self.now), "it spins");
                }
                self.post(node);
            }
        }
        self.now = end;
    }

    /// Whether two reach each other, and the other lives.
    fn reaches(&self, a: usize, b: usize) -> bool {
        !self.cuts.contains(&(a, b)) && !self.cuts.contains(&(b, a)) && self.nodes[b].is_some()
    }

    /// Everyone has seen what there is to see.
    pub(crate) fn check(&self, what: &str) {
        for (a, circle) in self.nodes.iter().enumerate() {
            let Some(circle) = circle else { continue };
            let used = |b: &usize| *b != a && (self.has_endpoints)(*b);
            for b in (0..self.nodes.len()).filter(used) {
                let (standing, word) = circle.view(&name(b)).unwrap();
                let is_alive = standing == Standing::Alive;
                assert_eq!(is_alive, self.reaches(a, b), "{what}: {a} sees {b} {standing:?}");
                if is_alive {
                    assert_eq!(word, Some(&pod(b)), "{what}: {a} of {b}");
                }
            }
        }
    }

    /// Those that some node thinks dead.
    pub(crate) fn thought_dead(&self) -> Vec<(usize, usize)> {
        let all = 0..self.nodes.len();
        let sees = |a: usize, b: usize| Some(self.nodes[a].as_ref()?.view(&name(b))?.0);
        let pairs = all.clone().flat_map(|a| all.clone().map(move |b| (a, b)));
        pairs.filter(|(a, b)| sees(*a, *b) == Some(Standing::Dead)).collect()
    }

    /// A node ends.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node] = None;
        self.post(node);
    }

    /// Nothing goes between those for which this differs.
    pub(crate) fn part(&mut self, side: impl Fn(usize) -> bool) {
        let all = 0..self.nodes.len();
        let pairs = all.clone().flat_map(|a| all.clone().map(move |b| (a, b)));
        self.cuts.extend(pairs.filter(|(a, b)| side(*a) != side(*b)));
    }
}

/// With the headers of UDP and IPv4.
fn on_the_wire(bytes: &[u8]) -> u64 {
    bytes.len() as u64 + 28
}
