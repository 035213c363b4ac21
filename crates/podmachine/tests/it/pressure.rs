//! Who makes room on a node that runs short, when, and what is said of it.

use std::time::Duration;

use toono_podmachine::pressure::{
    Candidate, Condition, Level, Newcomer, Pressure, Share, Shortage, Signal, Thresholds, quantity,
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
    Shortage { signal, least: 100 * MIB, available: 50 * MIB + 1 }
}

#[test]
fn a_condition_stays_five_minutes_after_it_was_last_seen() {
    let mut pressure = Pressure::new(Thresholds::default());
    assert_eq!(pressure.observe(&memory(100 * MIB), at(0)), []);
    let short = pressure.observe(&memory(99 * MIB), at(10));
    assert_eq!(short, [Shortage { signal: Signal::Memory, least: 100 * MIB, available: 99 * MIB }]);
    assert!(pressure.holds(Condition::Memory, at(10)) && !pressure.holds(Condition::Disk, at(10)));
    assert_eq!(pressure.observe(&memory(200 * MIB), at(20)), []);
    assert!(
        pressure.holds(Condition::Memory, at(309)) && !pressure.holds(Condition::Memory, at(310))
    );
}

#[test]
fn memory_is_taken_care_of_before_disks() {
    let mut pressure = Pressure::new(Thresholds::default());
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
    let mut pressure = Pressure::new(Thresholds::default());
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
