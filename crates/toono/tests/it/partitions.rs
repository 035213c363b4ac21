//! A pool that loses its inner wires, the cloud, its hub or an endpoint, alone and together: its clients are answered
//! by what is left of it, and nothing of theirs leaves the site.
//!
//! What happens is chosen by a seed, as in [`chaos`](crate::chaos): `scripts/partitions` does it for hours.

mod site;

use std::time::Duration;

use self::site::{Site, packets};
use crate::{chaos::Dice, edge::Edge};

/// All have a client. The first is the pool's hub.
const NODES: [&str; 3] = ["pool-a-1", "pool-a-2", "pool-a-3"];
const HUB: usize = 0;
/// Which of them have an endpoint of the Service.
const ENDPOINTS: [usize; 2] = [0, 1];
/// What is promised of clients whose node reaches an endpoint that is well.
const LONGEST_GAP: f64 = 10.0;
/// A step lasts for longer than that.
const HOLD: Duration = Duration::from_secs(12);
/// One step in so many lasts until the cloud has given up whom it cannot hear, where there are many.
const LONG_HOLD: Duration = Duration::from_secs(55);
const LONG_ONE_IN: usize = 5;
const ROUNDS: u32 = 2;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The site has no cloud.
    CutOff,
    /// A node has no neighbours.
    Alone(usize),
    /// The hub's daemon is killed, and its pods run on.
    HubDies,
    /// A pod takes connections and answers nothing.
    Hangs(usize),
    /// A node loses power.
    Dies(usize),
}

#[test]
fn clients_are_answered_by_what_is_left_of_their_pool() {
    let mut edge = Edge::prepare();
    edge.plan(2, 3, &[], &[]);
    edge.run_up();
    let mut site = Site::of(edge);
    site.the_capture_sees_what_leaves();
    let leaving = site.capture();
    let mut dice = Dice::new(ROUNDS);
    let mut longest = 0.0;
    for round in 0..dice.rounds {
        let faults = draw(&mut dice);
        let is_long = dice.rounds > ROUNDS && dice.below(LONG_ONE_IN) == 0;
        let told = format!("seed {}, round {round}: {faults:?}", dice.seed);
        let gaps = site.step(&faults, if is_long { LONG_HOLD } else { HOLD });
        println!("{told}, long: {is_long}; nothing was answered for {gaps:?} s");
        for (client, gap) in gaps.into_iter().enumerate() {
            if is_served(client, &faults) {
                assert!(gap <= LONGEST_GAP, "{told}: no answer for {gap} s at {}", NODES[client]);
                longest = f64::max(longest, gap);
            }
        }
    }
    let seen = leaving.end();
    assert_eq!(packets(&seen), 0, "seed {}: the Service's packets left the site", dice.seed);
    println!("seed {}, {} rounds, the longest gap {longest:.1} s", dice.seed, dice.rounds);
}

/// One to three faults that leave somebody an endpoint.
fn draw(dice: &mut Dice) -> Vec<Fault> {
    loop {
        let mut faults = Vec::new();
        if dice.roll() < 0.5 {
            faults.push(Fault::CutOff);
        }
        for _ in 0..=dice.below(2) {
            let fault = match dice.below(4) {
                0 => Fault::Alone(dice.below(NODES.len())),
                1 => Fault::HubDies,
                2 => Fault::Hangs(ENDPOINTS[dice.below(ENDPOINTS.len())]),
                _ => Fault::Dies(dice.below(NODES.len())),
            };
            // Who is dead does nothing else.
            let victim = fault.node();
            if faults.iter().all(|known| victim.is_none() || known.node() != victim) {
                faults.push(fault);
            }
        }
        if (0..NODES.len()).any(|client| is_served(client, &faults)) {
            return faults;
        }
    }
}

impl Fault {
    /// Whose it is, of those that one node has one of at most.
    fn node(self) -> Option<usize> {
        match self {
            Self::CutOff | Self::Alone(_) => None,
            Self::HubDies => Some(HUB),
            Self::Hangs(node) | Self::Dies(node) => Some(node),
        }
    }
}

/// Whether a client is to be answered: its node reaches an endpoint that is well, and can find out which those are.
fn is_served(client: usize, faults: &[Fault]) -> bool {
    let has = |fault| faults.contains(&fault);
    let is_well = |node: &&usize| !has(Fault::Dies(**node)) && !has(Fault::Hangs(**node));
    let is_reached = |node: &&usize| {
        **node == client || !has(Fault::Alone(**node)) && !has(Fault::Alone(client))
    };
    let left = ENDPOINTS.iter().filter(is_well).filter(is_reached).count();
    // Rules stay as they are without the daemon, which is enough as long as they are right.
    let is_blind = client == HUB && has(Fault::HubDies);
    let least = if is_blind { ENDPOINTS.len() } else { 1 };
    left >= least && !has(Fault::Dies(client))
}
