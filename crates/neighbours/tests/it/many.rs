//! Pools with more nodes than any of them watches: what it costs, and that nobody is overlooked.

use std::time::Duration;

use toono_neighbours::{Circle, Key, MOST_WATCHED, Neighbour, Standing, Word};

use crate::pool::{Cost, Pool, SOON, name};

const MANY: usize = 200;
/// Where datagrams get lost: who is dead, or alive again, may have to be asked once more.
const SOON_WITH_LOSS: Duration = Duration::from_secs(10);
const LATER_WITH_LOSS: Duration = Duration::from_secs(25);

/// The most that a node cost since then, each figure for itself, by the second.
fn most_a_second(pool: &Pool, before: &[Cost], seconds: f64) -> [f64; 5] {
    let since = |figure: fn(&Cost) -> u64| {
        let each = pool.costs.iter().zip(before).map(|(now, then)| figure(now) - figure(then));
        each.max().unwrap() as f64 / seconds
    };
    [
        since(|cost| cost.sent),
        since(|cost| cost.sent_bytes),
        since(|cost| cost.came),
        since(|cost| cost.came_bytes),
        since(|cost| cost.woken),
    ]
}

#[test]
fn at_rest_no_node_of_many_costs_more_than_sixteen_probes_a_round() {
    let mut pool = Pool::new(MANY, 3);
    pool.run(Duration::from_secs(4));
    pool.check("at the start");
    let before = pool.costs.clone();
    pool.run(Duration::from_secs(20));
    let [sent, sent_bytes, came, came_bytes, woken] = most_a_second(&pool, &before, 20.0);
    // 16 probes in 2.5 s, as many answers, and now and then one to those that are not watched.
    let most = MOST_WATCHED as f64 / 2.5 * 2.0 + 3.0;
    assert!(sent <= most && came <= most, "{sent} and {came} datagrams a second, not {most}");
    assert!(sent_bytes < 1_100.0 && came_bytes < 1_100.0, "{sent_bytes}, {came_bytes} B/s");
    assert!(woken < 1.5, "{woken} wake-ups a second");
    println!(
        "{sent:.1} out, {sent_bytes:.0} B/s; {came:.1} in, {came_bytes:.0} B/s; {woken:.2} wake-ups"
    );
}

#[test]
fn who_uses_few_of_many_probes_those_and_nobody_else() {
    let mut pool = Pool::using(MANY, 4, |node| node % 80 == 7);
    pool.run(Duration::from_secs(4));
    pool.check("at the start");
    let before = pool.costs.clone();
    pool.run(Duration::from_secs(20));
    let spent = |node: usize, figure: fn(&Cost) -> u64| {
        (figure(&pool.costs[node]) - figure(&before[node])) as f64 / 20.0
    };
    // Three have endpoints: 7, 87, 167. All others ask these, each once a round.
    let of_others = spent(5, |cost| cost.sent);
    assert!((1.1..1.3).contains(&of_others), "{of_others} probes a second");
    assert!(spent(5, |cost| cost.came) < 1.3, "nothing but answers");
    let of_used = spent(7, |cost| cost.sent_bytes);
    assert!(of_used < 80.0 * 75.0, "{of_used} B/s of answers");
    pool.kill(87);
    pool.run(SOON);
    pool.check("one of the three is dead");
}

#[test]
fn one_of_many_that_dies_is_left_by_all_in_time_and_taken_back() {
    let seed = 3;
    let mut pool = Pool::new(MANY, seed);
    pool.run(Duration::from_secs(4));
    for dead in [37, 0] {
        let before = pool.costs.clone();
        pool.kill(dead);
        pool.run(SOON);
        pool.check(&format!("seed {seed}: {dead} is dead"));
        let [sent, sent_bytes, ..] = most_a_second(&pool, &before, SOON.as_secs_f64());
        // Those sixteen who watched it tell everybody twice.
        assert!(sent < 70.0 && sent_bytes < 6_000.0, "{sent} a second, {sent_bytes} B/s");
        pool.start(dead, true);
        pool.run(SOON);
        pool.check(&format!("seed {seed}: {dead} is back"));
    }
}

/// Every twentieth datagram is lost; whoever is called dead is.
#[test]
fn nobody_healthy_of_many_is_called_dead_and_the_dead_are() {
    let seed = 3;
    let mut pool = Pool::new(MANY, seed);
    pool.run(Duration::from_secs(4));
    pool.loss = 0.05;
    for _ in 0..30 {
        pool.run(Duration::from_secs(1));
        assert_eq!(pool.thought_dead(), [], "seed {seed} at {:?}", pool.now);
    }
    pool.kill(61);
    pool.run(SOON_WITH_LOSS);
    let found = pool.thought_dead();
    assert!(found.iter().all(|(_, b)| *b == 61), "seed {seed}: {found:?}");
    assert_eq!(found.len(), MANY - 1, "seed {seed}: all know of it");
    pool.start(61, true);
    pool.run(LATER_WITH_LOSS);
    assert_eq!(pool.thought_dead(), [], "seed {seed}: it is back");
}

/// Whether a node is in the one half.
type Side = fn(usize) -> bool;

/// However the halves lie in the ring, also where most of one half are watched by none of the other.
#[test]
fn halves_of_many_leave_each_other_in_time_and_come_together() {
    let sides: [(usize, Side); 4] = [
        (MANY, |node| node < 100),
        (80, |node| node % 2 == 0),
        (80, |node| node % 50 < 25),
        (80, |node| node == 9),
    ];
    for (seed, (count, side)) in (0..).zip(sides) {
        let mut pool = Pool::new(count, seed);
        pool.run(Duration::from_secs(4));
        let before = pool.costs.clone();
        pool.part(side);
        pool.run(SOON);
        pool.check(&format!("{seed}: apart"));
        let [sent, sent_bytes, ..] = most_a_second(&pool, &before, SOON.as_secs_f64());
        assert!(sent_bytes < 64_000.0, "{seed}: {sent} datagrams a second, {sent_bytes} B/s");
        println!("{seed}: {sent:.0} datagrams a second, {sent_bytes:.0} B/s while it is found");
        let before = pool.costs.clone();
        pool.run(Duration::from_secs(10));
        let [sent, sent_bytes, ..] = most_a_second(&pool, &before, 10.0);
        assert!(sent < 60.0 && sent_bytes < 4_000.0, "{seed}: {sent} a second, {sent_bytes} B/s");
        pool.cuts.clear();
        pool.run(SOON);
        pool.check(&format!("{seed}: together"));
    }
}

#[test]
fn halves_leave_each_other_also_where_datagrams_get_lost() {
    for seed in 0..2 {
        let mut pool = Pool::new(60, seed);
        pool.run(Duration::from_secs(4));
        pool.loss = 0.05;
        pool.part(|node| node < 30);
        pool.run(SOON_WITH_LOSS);
        pool.check(&format!("seed {seed}: apart"));
        pool.cuts.clear();
        pool.run(LATER_WITH_LOSS);
        pool.check(&format!("seed {seed}: together"));
    }
}

/// Nothing is sent, and there is no time to wake up at.
fn rests(circle: &mut Circle) -> bool {
    circle.take_datagrams().is_empty() && circle.next().is_none()
}

#[test]
fn a_node_that_uses_nobody_sends_nothing_and_never_wakes_up() {
    let mut pool = Pool::using(MANY, 1, |_| false);
    pool.run(Duration::from_secs(3_600));
    for cost in &pool.costs {
        assert_eq!((cost.sent, cost.came, cost.woken), (0, 0, 0));
    }
    let circle = pool.nodes[0].as_mut().unwrap();
    circle.say(pool.now, Some(Word::default()), false);
    circle.doubt(pool.now, &name(1));
    circle.receive(pool.now, b"whatever");
    circle.wake(pool.now);
    assert!(rests(circle), "whatever it is told");
}

#[test]
fn who_is_used_no_more_is_asked_no_more_whatever_was_known_of_it() {
    let neighbour =
        |is_used| Neighbour { name: name(1).into(), address: [10, 0, 0, 2].into(), is_used };
    for was_heard in [false, true] {
        for seconds in [0, 1, 4, 30] {
            let mut circle = Circle::new(name(0), 1);
            circle.set_key(Some(Key::new(&[7; 32])));
            let mut now = Duration::from_secs(100);
            circle.set_members(now, [neighbour(true)].into_iter(), |_| was_heard);
            let until = now + Duration::from_secs(seconds);
            while let Some(at) = circle.next().filter(|at| *at <= until) {
                now = at;
                circle.wake(now);
            }
            assert!(seconds == 0 || !circle.take_datagrams().is_empty(), "it was asked");
            circle.set_members(until, [neighbour(false)].into_iter(), |_| was_heard);
            // What was to be said of it once more is said.
            while let Some(at) = circle.next() {
                assert!(at < until + Duration::from_secs(2), "{was_heard} {seconds}: it goes on");
                circle.wake(at);
            }
            circle.take_datagrams();
            assert_eq!(circle.view(&name(1)), None);
            circle.wake(until + Duration::from_secs(60));
            assert!(rests(&mut circle), "{was_heard} {seconds}");
            circle.set_members(until, [neighbour(true)].into_iter(), |_| was_heard);
            assert_eq!(circle.view(&name(1)), Some((Standing::Unknown, None)));
        }
    }
}
