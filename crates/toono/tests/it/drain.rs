//! `kubectl drain` of a node whose pods a PodDisruptionBudget protects.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStderr, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{
    edge::{Edge, condition, kubectls},
    wait::until,
};

const SOON: Duration = Duration::from_secs(20);
const DRAINED: &str = "pool-a-1";
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// Every pod of `hello`, as `up` makes it.
const PODS: usize = 4;

#[test]
fn a_drain_waits_for_the_budget_and_the_pod_moves() {
    let edge = Edge::up();
    let wanted = format!("--min-available={PODS}");
    edge.kubectl(&["create", "pdb", "hello", "--selector=app=hello", &wanted]);
    budget_allows(&edge, 0);
    let kept = uids_on(&ready(&edge), DRAINED);
    assert_eq!(kept.len(), 1);

    let programs = kubectls();
    edge.use_kubectl(programs[1].clone());
    let impatient = Drain::refused(&edge, "--timeout=1s");
    edge.use_kubectl(programs.last().unwrap().clone());
    let patient = Drain::refused(&edge, "--timeout=60s");
    assert_eq!(uids_on(&ready(&edge), DRAINED), kept);
    assert!(edge.kubectl(&["get", "node", DRAINED]).contains("Ready,SchedulingDisabled"));
    // Each asks again 5 s after it was refused; the first one has no time left by then.
    scale(&edge, PODS + 1);
    let (succeeded, text) = impatient.end();
    assert!(!succeeded && text.contains("global timeout reached: 1s"), "{text}");
    let (succeeded, text) = patient.end();
    assert!(succeeded && text.contains("pool-a-1 drained"), "{text}");
    the_pod_moved_and_the_node_takes_others(&edge, PODS + 1, &text);

    // With a budget to spend, nothing is waited for.
    edge.use_kubectl(programs[1].clone());
    budget_allows(&edge, 2);
    let text = edge.kubectl(&["drain", DRAINED, "--timeout=20s"]);
    the_pod_moved_and_the_node_takes_others(&edge, PODS + 2, &text);
}

/// A running `kubectl drain`.
struct Drain {
    child: Child,
    errors: BufReader<ChildStderr>,
    told: String,
}

impl Drain {
    /// Started, and refused once by the budget.
    fn refused(edge: &Edge, timeout: &str) -> Self {
        let mut child = edge
            .kubectl_command(&["drain", DRAINED, timeout])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut told = String::new();
        while !told.contains(REFUSED) {
            assert_ne!(errors.read_line(&mut told).unwrap(), 0, "the drain ended: {told}");
        }
        Self { child, errors, told }
    }

    /// Whether it succeeded at last, and everything it said.
    fn end(mut self) -> (bool, String) {
        self.errors.read_to_string(&mut self.told).unwrap();
        let output = self.child.wait_with_output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        (output.status.success(), format!("{shown}{}", self.told))
    }
}

fn the_pod_moved_and_the_node_takes_others(edge: &Edge, pods: usize, shown: &str) {
    assert_eq!(shown.matches(" evicted").count(), 1, "{shown}");
    let all =
        until("the replacement", SOON, || Some(ready(edge)).filter(|found| found.len() == pods));
    assert_eq!(uids_on(&all, DRAINED), [""; 0], "pods on the drained node");
    assert!(edge.kubectl(&["uncordon", DRAINED]).contains("uncordoned"));
    // The node is the emptiest.
    scale(edge, pods + 1);
    assert_eq!(uids_on(&ready(edge), DRAINED).len(), 1);
}

/// Changes the number of pods, and waits until all are ready.
fn scale(edge: &Edge, pods: usize) {
    edge.kubectl(&["scale", "deployment/hello", &format!("--replicas={pods}")]);
    until("the pods", SOON, || (ready(edge).len() == pods).then_some(()));
}

/// Waits for what the budget's controller finds.
fn budget_allows(edge: &Edge, disruptions: u64) {
    until("the budget's status", SOON, || {
        let budget = edge.kubectl_json(&["get", "pdb", "hello"]);
        let seen = budget["status"]["observedGeneration"] == budget["metadata"]["generation"];
        (seen && budget["status"]["disruptionsAllowed"] == disruptions).then_some(())
    });
}

/// The pods that are ready and stay.
fn ready(edge: &Edge) -> Vec<Value> {
    let stays = |pod: &Value| pod["metadata"]["deletionTimestamp"].is_null();
    let pods = edge.pods().into_iter();
    pods.filter(|pod| stays(pod) && condition(pod, "Ready") == "True").collect()
}

fn uids_on(pods: &[Value], node: &str) -> Vec<String> {
    let here = pods.iter().filter(|pod| pod["spec"]["nodeName"] == node);
    let mut uids: Vec<_> =
        here.map(|pod| pod["metadata"]["uid"].as_str().unwrap().to_owned()).collect();
    uids.sort();
    uids
}
