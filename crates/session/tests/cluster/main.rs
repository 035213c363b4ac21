//! A cluster on virtual time: thousands of nodes, several servers with one ring of secrets, a network that
//! loses, repeats and reorders, restarts of everything, rolled-back disks, rebound NATs, stepped clocks,
//! rotated and revoked secrets, pods that change and change back, a store that is set back to a backup, and an
//! attacker who hears all and sends any of it again.
//!
//! Each run is a function of its seed, which a failure prints. The rules are in [`rules`]; that they would see
//! a broken protocol is proven by breaking it: see [`world::Bug`]. `simulation.rs` beside this one looks more
//! closely at a handful of nodes and one server.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a simulation that meets something unexpected ends there"
)]

mod bundles;
mod node;
mod random;
mod rules;
mod world;

use world::{Bug, Plan, World};

/// Runs seeds on two threads, in their order on each; the failures.
fn run(plan: &Plan, seeds: std::ops::Range<u64>) -> Vec<String> {
    std::thread::scope(|scope| {
        let halves = [0, 1].map(|half| {
            let seeds = seeds.clone().filter(move |seed| seed % 2 == half);
            scope.spawn(move || {
                let runs = seeds.map(|seed| {
                    World::new(plan, seed).run().map_err(|why| format!("seed {seed}: {why}"))
                });
                runs.filter_map(Result::err).collect::<Vec<_>>()
            })
        });
        halves.into_iter().flat_map(|half| half.join().unwrap()).collect()
    })
}

#[test]
fn small_clusters_in_trouble_keep_the_rules() {
    let plan = Plan { nodes: 24, servers: 3, seconds: 400, bug: Bug::None };
    assert_eq!(run(&plan, 0..12), [""; 0]);
}

#[test]
fn thousands_of_nodes_in_trouble_keep_the_rules() {
    let plan = Plan { nodes: 2_000, servers: 4, seconds: 60, bug: Bug::None };
    assert_eq!(run(&plan, 100..102), [""; 0]);
}

#[test]
fn each_rule_sees_the_bug_that_it_is_there_for() {
    for (bug, rule) in [
        (Bug::ReplaysAccepted, rules::ALIVE_BY_REPLAY),
        (Bug::FreshnessIgnored, rules::ALIVE_BY_REPLAY),
        (Bug::LivenessKept, rules::ALIVE_WITHOUT_SENDING),
        (Bug::SaltReused, rules::NONCE_TWICE),
        (Bug::InstanceReused, rules::NONCE_TWICE),
        (Bug::OldAnswersTaken, rules::OLD_ANSWER),
        (Bug::ForgeriesTaken, rules::FORGERY),
        (Bug::NothingAskedAgain, rules::DEAD_THOUGH_SENDING),
        (Bug::FloorIgnored, rules::NOT_BACK),
        (Bug::SomeNotCounted, rules::DEAD_THOUGH_SENDING),
        (Bug::ComparisonNotAsked, rules::NOT_TOLD),
        (Bug::ComparisonNotMade, rules::NOT_TOLD),
        (Bug::DigestOfBefore, rules::ASKED_IN_VAIN),
        (Bug::DigestNotSetBack, rules::AGREED_WRONGLY),
        (Bug::NothingChecked, rules::AGREED_WRONGLY),
        (Bug::NothingAgrees, rules::AGREED_WRONGLY),
    ] {
        let plan = Plan { nodes: 24, servers: 3, seconds: 400, bug };
        // Not every course of events brings every bug to light.
        let mut seen = Vec::new();
        let found = (0..8).any(|seed| {
            seen.extend(World::new(&plan, seed).run().err());
            seen.last().is_some_and(|broken| broken.contains(rule))
        });
        assert!(found, "{bug:?} goes unseen: {seen:?}");
    }
}
