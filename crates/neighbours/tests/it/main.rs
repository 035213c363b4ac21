//! A pool on virtual time: nodes that die and come back, wires that lose, go one way, or are cut. A failure prints
//! the seed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, with the error that it met")]
#![expect(clippy::indexing_slicing, reason = "numbers of nodes are those of the pool's")]

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    net::IpAddr,
    time::Duration,
};

use toono_neighbours::{Circle, Key, Neighbour, Standing, Word};

/// Within this everybody knows: what is promised is 10 s.
const SOON: Duration = Duration::from_secs(9);
/// From one node to another.
const DELAY: Duration = Duration::from_millis(3);

fn name(node: usize) -> String {
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
fn pod(node: usize) -> Word {
    Word::new([address(node + 300)].into()).unwrap()
}

/// When it arrives, a number that keeps the order, for whom, what.
type UnderWay = (Duration, u64, usize, Vec<u8>);

struct Pool {
    now: Duration,
    nodes: Vec<Option<Circle>>,
    /// From where to where nothing goes.
    cuts: BTreeSet<(usize, usize)>,
    loss: f64,
    dice: fastrand::Rng,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    sent: u64,
}

impl Pool {
    fn new(count: usize, seed: u64) -> Self {
        let mut pool = Self {
            now: Duration::from_secs(100),
            nodes: (0..count).map(|_| None).collect(),
            cuts: BTreeSet::new(),
            loss: 0.0,
            dice: fastrand::Rng::with_seed(seed),
            under_way: BinaryHeap::new(),
            sent: 0,
        };
        (0..count).for_each(|node| pool.start(node, false));
        pool
    }

    fn start(&mut self, node: usize, was_heard: bool) {
        let mut circle = Circle::new(name(node), self.dice.u64(..));
        circle.set_key(Some(Key::new(&[7; 32])));
        circle.say(self.now, Some(pod(node)), false);
        let neighbour =
            |node| Neighbour { name: name(node).into(), address: address(node), is_used: true };
        circle.set_members(self.now, (0..self.nodes.len()).map(neighbour), |_| was_heard);
        self.nodes[node] = Some(circle);
        self.post(node);
    }

    /// Sends what a node has to send.
    fn post(&mut self, node: usize) {
        let Some(circle) = &mut self.nodes[node] else { return };
        for (to, bytes) in circle.take_datagrams() {
            let to = node_at(to);
            self.sent += 1;
            if !self.cuts.contains(&(node, to)) && self.dice.f64() >= self.loss {
                let at = self.now + DELAY;
                self.under_way.push(Reverse((at, self.sent, to, bytes)));
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let waker =
                |(node, circle): (usize, &Option<Circle>)| Some((circle.as_ref()?.next()?, node));
            let wakes = self.nodes.iter().enumerate().filter_map(waker).min();
            let arrives = self.under_way.peek().map(|Reverse(it)| it.0);
            let at = wakes.map(|it| it.0).into_iter().chain(arrives).min();
            let Some(at) = at.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            if arrives.is_some_and(|arrives| arrives <= at) {
                let Some(Reverse((_, _, to, bytes))) = self.under_way.pop() else { break };
                if let Some(circle) = &mut self.nodes[to] {
                    circle.receive(self.now, &bytes);
                }
                self.post(to);
            } else if let Some((_, node)) = wakes {
                if let Some(circle) = &mut self.nodes[node] {
                    circle.wake(self.now);
                    assert!(circle.next().is_none_or(|next| next > self.now), "it spins");
                }
                self.post(node);
            }
        }
        self.now = end;
    }

    fn reaches(&self, a: usize, b: usize) -> bool {
        !self.cuts.contains(&(a, b)) && !self.cuts.contains(&(b, a)) && self.nodes[b].is_some()
    }

    /// Everyone has seen what there is to see.
    fn check(&self, what: &str) {
        for (a, circle) in self.nodes.iter().enumerate() {
            let Some(circle) = circle else { continue };
            for b in (0..self.nodes.len()).filter(|b| *b != a) {
                let (standing, word) = circle.view(&name(b)).unwrap();
                let is_alive = standing == Standing::Alive;
                assert_eq!(is_alive, self.reaches(a, b), "{what}: {a} sees {b} {standing:?}");
                if is_alive {
                    assert_eq!(word, Some(&pod(b)), "{what}: {a} of {b}");
                }
            }
        }
    }
}

#[test]
fn whoever_dies_or_is_cut_off_is_left_by_those_who_do_not_reach_it_and_no_others() {
    for seed in 0..60 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let count = dice.usize(2..12);
        let mut pool = Pool::new(count, seed);
        pool.run(Duration::from_secs(1));
        pool.check(&format!("seed {seed}, at the start"));
        for step in 0..12 {
            pool.run(Duration::from_millis(dice.u64(0..4_000)));
            let (a, b) = (dice.usize(0..count), dice.usize(0..count));
            match dice.u8(0..5) {
                0 => pool.nodes[a] = None,
                1 => (0..count).for_each(|node| {
                    if pool.nodes[node].is_none() {
                        pool.start(node, true);
                    }
                }),
                2 if a != b => drop(pool.cuts.insert((a, b))),
                3 => pool.cuts.clear(),
                // The pool falls apart.
                4 => pool.cuts.extend((0..a).flat_map(|x| (a..count).map(move |y| (x, y)))),
                _ => {}
            }
            pool.run(SOON);
            pool.check(&format!("seed {seed}, step {step}"));
        }
    }
}

#[test]
fn a_wire_that_loses_a_tenth_makes_nobody_dead_for_long() {
    let mut pool = Pool::new(6, 1);
    pool.run(Duration::from_secs(5));
    pool.loss = 0.1;
    let (mut looks, mut dead) = (0, 0);
    for _ in 0..1_200 {
        pool.run(Duration::from_secs(1));
        for circle in pool.nodes.iter().flatten() {
            let standings = (0..6).filter_map(|b| circle.view(&name(b)));
            for (standing, _) in standings {
                looks += 1;
                dead += u32::from(standing == Standing::Dead);
            }
        }
    }
    assert!(dead * 500 < looks, "{dead} of {looks}");
}

#[test]
fn a_pod_that_fails_is_known_at_once_when_its_node_tells() {
    let mut pool = Pool::new(5, 9);
    pool.run(Duration::from_secs(3));
    let now = pool.now;
    pool.nodes[2].as_mut().unwrap().say(now, Some(Word::default()), true);
    pool.post(2);
    pool.run(Duration::from_secs(1));
    for node in [0, 1, 3, 4] {
        let view = pool.nodes[node].as_ref().unwrap().view(&name(2)).unwrap();
        assert_eq!(view, (Standing::Alive, Some(&Word::default())), "{node}");
    }
    // What the cloud says meanwhile may be newer, until the node was asked.
    let circle = pool.nodes[0].as_mut().unwrap();
    circle.doubt(now + Duration::from_secs(1), &name(2));
    assert_eq!(circle.view(&name(2)), Some((Standing::Alive, None)));
    pool.run(Duration::from_secs(1));
    let view = pool.nodes[0].as_ref().unwrap().view(&name(2)).unwrap();
    assert_eq!(view.1, Some(&Word::default()));
}

#[test]
fn who_never_answered_is_not_judged_and_who_did_is() {
    let mut pool = Pool::new(3, 4);
    pool.nodes[1] = None;
    pool.run(SOON);
    assert_eq!(pool.nodes[0].as_ref().unwrap().view(&name(1)).unwrap().0, Standing::Unknown);
    assert_eq!(pool.nodes[0].as_mut().unwrap().take_heard().unwrap().len(), 1);
    pool.start(0, true);
    pool.run(SOON);
    assert_eq!(pool.nodes[0].as_ref().unwrap().view(&name(1)).unwrap().0, Standing::Dead);
    // Nobody has the key of another pool.
    pool.nodes[2].as_mut().unwrap().set_key(Some(Key::new(&[8; 32])));
    pool.run(SOON);
    assert_eq!(pool.nodes[0].as_ref().unwrap().view(&name(2)).unwrap().0, Standing::Dead);
}
