//! What a daemon makes of the pods that it finds when it starts.

use std::{collections::BTreeMap, time::Duration};

use toono_podmachine::{ContainerFound, Recovered, SandboxFound};

use crate::node::{Node, at, exit, simple};

#[test]
fn a_living_keeper_is_adopted_without_a_restart() {
    let wanted = simple("Always");
    let mut node = Node::new(&wanted);
    node.settle();
    node.exit("c", 0, 1);
    node.settle();
    let before = node.status();
    let alive = ContainerFound {
        name: "c".into(),
        attempt: 1,
        started_at: Some(at(node.now).wall),
        exit: None,
    };
    let found = Recovered {
        status: Some(before.clone()),
        sandbox: Some(SandboxFound {
            ip: Some("10.244.0.2".parse().unwrap()),
            containers: vec![alive.clone()],
        }),
        attempts: BTreeMap::from([("c".to_owned(), 1)]),
    };
    let mut after = Node::resume(&wanted, found.clone(), Duration::from_secs(5000));
    assert_eq!(after.take(), []);
    assert_eq!(after.status(), before, "the status is the same to the last field");
    after.exit("c", 1, 1);
    after.settle();
    assert_eq!(after.container().restart_count, 2);

    // Without the persisted status the keeper alone tells the count.
    let found = Recovered { status: None, ..found };
    let after = Node::resume(&wanted, found, Duration::from_secs(5000));
    assert_eq!((after.container().restart_count, after.state().as_str()), (1, "Running"));

    // It ended while no agent was there.
    let exited = ContainerFound { exit: Some(exit(7, node.now)), ..alive };
    let found = Recovered {
        status: Some(before),
        sandbox: Some(SandboxFound { ip: None, containers: vec![exited] }),
        attempts: BTreeMap::new(),
    };
    let mut after = Node::resume(&wanted, found, Duration::from_secs(5000));
    after.settle();
    let container = after.container();
    assert_eq!(container.restart_count, 2);
    assert_eq!(container.last_state.unwrap().terminated.unwrap().exit_code, 7);
}

#[test]
fn a_power_cut_counts_one_restart_each() {
    let wanted = simple("Always");
    let mut node = Node::new(&wanted);
    node.settle();
    let found = Recovered { status: Some(node.status()), ..Recovered::default() };
    let mut after = Node::resume(&wanted, found, Duration::ZERO);
    after.settle();
    let container = after.container();
    assert_eq!((after.state().as_str(), container.restart_count), ("Running", 1));
    let last = container.last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("ContainerStatusUnknown")));

    // The status was lost too, or older than the last start: the log files tell.
    let attempts = BTreeMap::from([("c".to_owned(), 4)]);
    let found = Recovered { status: Some(node.status()), attempts, ..Recovered::default() };
    let mut after = Node::resume(&wanted, found, Duration::ZERO);
    after.settle();
    assert_eq!(after.container().restart_count, 5);
}

#[test]
fn what_had_ended_before_a_power_cut_stays_ended() {
    let wanted = simple("Never");
    let mut node = Node::new(&wanted);
    node.settle();
    node.exit("c", 0, 0);
    node.settle();
    let found = Recovered { status: Some(node.status()), ..Recovered::default() };
    let mut after = Node::resume(&wanted, found, Duration::ZERO);
    assert_eq!((after.take(), after.phase().as_str()), (vec![], "Succeeded"));

    // And one that was running and must not restart has failed.
    let mut node = Node::new(&wanted);
    node.settle();
    let found = Recovered { status: Some(node.status()), ..Recovered::default() };
    let mut after = Node::resume(&wanted, found, Duration::ZERO);
    assert_eq!((after.take(), after.phase().as_str()), (vec![], "Failed"));
    assert_eq!(after.state(), "Terminated:ContainerStatusUnknown");
}
