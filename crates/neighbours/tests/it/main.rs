//! A pool on virtual time: nodes that die and come back, wires that lose, go one way, or are cut. A failure prints
//! the seed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, with the error that it met")]
#![expect(clippy::indexing_slicing, reason = "numbers of nodes are those of the pool's")]

mod many;
mod pool;

use std::time::Duration;

use toono_neighbours::{Key, Standing, Word};

use pool::{Pool, SOON, name};

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
                0 => pool.kill(a),
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
    pool.post(0);
    pool.run(Duration::from_secs(1));
    let view = pool.nodes[0].as_ref().unwrap().view(&name(2)).unwrap();
    assert_eq!(view.1, Some(&Word::default()));
}

#[test]
fn who_never_answered_is_not_judged_and_who_did_is() {
    let mut pool = Pool::new(3, 4);
    pool.kill(1);
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
