//! Who makes room on a node that runs short, when, and what is said of it.

use std::time::Duration;

use toono_podmachine::pressure::{
    Candidate, Condition, GracePeriods, Level, Newcomer, Pressure, Rules, Share, Shortage, Signal,
    Soft, Thresholds, period, quantity, written,
};

const MIB: u64 = 1 << 20;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn memory(available: u64) -> [(Signal, Level); 1] {
    [(Signal::Memory, Level { available, capacity: 1000 * MIB })]
}

fn pod(uid: &str, priority: i32, usage: u64, request: u64) -> Candidate {
    Candidate {
        uid: uid.to_owned(),
        priority,
        is_static: false,
        usage: usage * MIB,
        request: request * MIB,
        containers: vec![Share {
            name: "main".to_owned(),
            usage: usage * MIB,
            request: request * MIB,
        }],
    }
}

fn shortage(signal: Signal) -> Shortage {
    Shortage { signal, least: 100 * MIB, available: 50 * MIB + 1, grace: None }
}

#[test]
fn a_condition_stays_five_minutes_after_it_was_last_seen() {
    let mut pressure = Pressure::new(Rules::default());
    assert_eq!(pressure.observe(&memory(100 * MIB), at(0)), []);
    let short = pressure.observe(&memory(99 * MIB), at(10));
    assert_eq!(
        short,
        [Shortage { signal: Signal::Memory, least: 100 * MIB, available: 99 * MIB, grace: None }]
    );
    assert!(pressure.holds(Condition::Memory, at(10)) && !pressure.holds(Condition::Disk, at(10)));
    assert_eq!(pressure.observe(&memory(200 * MIB), at(20)), []);
    assert!(
        pressure.holds(Condition::Memory, at(309)) && !pressure.holds(Condition::Memory, at(310))
    );
}

#[test]
fn a_soft_threshold_may_be_crossed_for_a_while() {
    let soft = Soft::new(
        "memory.available<300Mi".parse().unwrap(),
        "memory.available=1m30s".parse().unwrap(),
        at(20),
    );
    let rules = Rules { soft: soft.unwrap(), transition: at(60), ..Rules::default() };
    let mut pressure = Pressure::new(rules);
    assert_eq!(pressure.observe(&memory(299 * MIB), at(0)), []);
    assert!(pressure.holds(Condition::Memory, at(0)), "told at once");
    assert_eq!(pressure.observe(&memory(300 * MIB), at(80)), []);
    assert_eq!(pressure.observe(&memory(200 * MIB), at(90)), [], "it counts anew");
    assert_eq!(pressure.observe(&memory(200 * MIB), at(179)), []);
    let due = pressure.observe(&memory(200 * MIB), at(180));
    let short = Shortage { least: 300 * MIB, available: 200 * MIB, ..shortage(Signal::Memory) };
    assert_eq!(due, [Shortage { grace: Some(at(20)), ..short }]);
    let hard = pressure.observe(&memory(90 * MIB), at(190));
    assert_eq!(hard, [Shortage { least: 100 * MIB, available: 90 * MIB, ..short }]);
    assert_eq!(pressure.observe(&memory(400 * MIB), at(200)), []);
    assert!(pressure.holds(Condition::Memory, at(249)));
    assert!(!pressure.holds(Condition::Memory, at(250)), "the period is a setting");
}

#[test]
fn soft_settings_are_the_kubelets() {
    let soft = |thresholds: &str, grace: &str| {
        let (thresholds, grace) = (thresholds.parse().unwrap(), grace.parse().unwrap());
        Soft::new(thresholds, grace, at(0))
    };
    let without = soft("memory.available<1Gi,nodefs.available<9%", "memory.available=5s");
    assert_eq!(
        without.unwrap_err().to_string(),
        "grace period must be specified for the soft eviction threshold nodefs.available"
    );
    let whole = soft("nodefs.available<9%", "nodefs.available=1h30s").unwrap();
    assert_eq!(whole.grace(Signal::Nodefs), at(3630));
    assert_eq!(whole.grace_periods().texts()["nodefs.available"], "1h0m30s");
    for (bad, why) in [
        ("memory.available", "invalid eviction grace period"),
        ("memory.available=5", "invalid eviction grace period"),
        ("memory.available=-5s", "invalid eviction grace period"),
        ("memory.free=5s", "unsupported eviction signal memory.free"),
        ("pid.available=5s,pid.available=5s", "found duplicate eviction threshold"),
    ] {
        let error = bad.parse::<GracePeriods>().unwrap_err().to_string();
        assert!(error.contains(why), "{bad}: {error}");
    }
    for text in ["45s", "5m0s", "2h0m1s"] {
        assert_eq!(written(period(text).unwrap()), text);
    }
}

#[test]
fn memory_is_taken_care_of_before_disks() {
    let mut pressure = Pressure::new(Rules::default());
    let disk = Level { available: 14, capacity: 100 };
    let levels = [
        (Signal::Imagefs, disk),
        (Signal::Nodefs, disk),
        (Signal::NodefsInodes, Level { available: 4, capacity: 100 }),
        (Signal::ImagefsInodes, Level::default()),
        memory(0)[0],
    ];
    let short: Vec<Signal> = pressure.observe(&levels, at(0)).iter().map(|it| it.signal).collect();
    assert_eq!(short, [Signal::Memory, Signal::NodefsInodes, Signal::Imagefs]);
}

#[test]
fn settings_are_the_kubelets() {
    let parsed: Thresholds =
        "memory.available<1Gi, nodefs.available<10%,pid.available<100".parse().unwrap();
    assert_eq!(parsed.least(Signal::Memory, 0), 1 << 30);
    assert_eq!(parsed.least(Signal::Nodefs, 1000), 100);
    assert_eq!(parsed.least(Signal::Imagefs, 1000), 0);
    for (bad, why) in [
        ("memory.available", "it must be a signal"),
        ("memory.available<x", "it must be a signal"),
        ("memory.available<101%", "it must be a signal"),
        ("memory.free<1Gi", "unsupported eviction signal memory.free"),
        ("pid.available<1,pid.available<2", "found duplicate eviction threshold"),
    ] {
        let error = bad.parse::<Thresholds>().unwrap_err().to_string();
        assert!(error.contains(why), "{bad}: {error}");
    }
}

#[test]
fn who_takes_more_than_it_asked_for_goes_first_and_the_less_important_of_them() {
    let pods = vec![
        pod("modest", -10, 90, 100),
        pod("important", 100, 500, 0),
        pod("small", 0, 20, 10),
        pod("greedy", 0, 200, 100),
        pod("system", 2_000_000_000, 900, 0),
        Candidate { is_static: true, ..pod("file", 0, 900, 0) },
    ];
    let order = |signal| -> Vec<String> {
        shortage(signal).order(pods.clone()).into_iter().map(|it| it.uid).collect()
    };
    assert_eq!(order(Signal::Memory), ["greedy", "small", "important", "modest"]);
    assert_eq!(order(Signal::Pids), ["modest", "greedy", "small", "important"]);
}

#[test]
fn the_message_is_the_kubelets() {
    assert_eq!(
        shortage(Signal::Memory).message(&pod("a", 0, 200, 100)),
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 52428801. \
         Container main was using 200Mi, request is 100Mi, has larger consumption of memory. "
    );
    assert_eq!(
        shortage(Signal::NodefsInodes).message(&pod("a", 0, 200, 0)),
        "The node was low on resource: inodes. Threshold quantity: 100Mi, available: 52428801. "
    );
    for (amount, text) in [(0, "0"), (1, "1"), (1024, "1Ki"), (1536, "1536"), (3 << 30, "3Gi")] {
        assert_eq!(quantity(amount), text);
    }
}

#[test]
fn under_memory_pressure_only_pods_that_ask_for_something_come() {
    let mut pressure = Pressure::new(Rules::default());
    let best_effort = Newcomer { is_best_effort: true, ..Newcomer::default() };
    assert_eq!(pressure.admit(&best_effort, at(0)), Ok(()));
    pressure.observe(&memory(0), at(0));
    let refused = pressure.admit(&best_effort, at(1)).unwrap_err();
    assert_eq!(refused, "The node had condition: [MemoryPressure]. ");
    assert_eq!(pressure.admit(&Newcomer::default(), at(1)), Ok(()));
    let tolerant = Newcomer { tolerates_memory_pressure: true, ..best_effort };
    assert_eq!(pressure.admit(&tolerant, at(1)), Ok(()));
    let critical = Newcomer { priority: 2_000_000_000, ..best_effort };
    assert_eq!(pressure.admit(&critical, at(1)), Ok(()));
    pressure.observe(&[(Signal::Nodefs, Level { available: 0, capacity: 10 })], at(2));
    assert!(pressure.admit(&Newcomer::default(), at(3)).is_err(), "disks run short for all");
}
