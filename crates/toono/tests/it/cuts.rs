//! Twelve nodes of which some are cut off in different ways at once: who is called NotReady, and who never is.
//! `toono-sim edge` does the same with hundreds, for minutes, at random.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use toono_lab::{LabName, Loss};

use crate::{
    edge::{Edge, condition, success},
    udp_blocked::heartbeat_age_ms,
    wait::until,
};

/// 40 s of grace, and time for the test machine.
const NOTICED: Duration = Duration::from_secs(70);
/// What is promised of links that come back.
const BACK: Duration = Duration::from_secs(60);
/// More than one heartbeat is lost, and the node is not silent yet.
const SHORT: Duration = Duration::from_secs(15);

#[test]
fn only_nodes_that_are_not_heard_are_called_so_and_all_come_back() {
    let edge = Edge::prepare_beside();
    let mut arguments = edge.up_arguments();
    arguments.extend(["--pools", "3", "--nodes-per-pool", "4"].map(str::to_owned));
    success("toono up", edge.toono(&arguments));
    let lab = LabName::new(edge.wan_interface().trim_end_matches("-wan")).unwrap();
    let (pods, ready) = (pods(&edge), ready_since(&edge));
    assert_eq!(ready.len(), 12);

    let cuts = [
        ("pool-a", Loss::All),
        ("pool-b-1", Loss::Outbound),
        ("pool-b-2", Loss::All),
        ("pool-c", Loss::Udp),
    ];
    for (place, loss) in cuts {
        toono_lab::cut(&lab, place, loss).unwrap();
    }
    until("a lost heartbeat", NOTICED, || {
        (u128::from(heartbeat_age_ms(&edge, "pool-b-2")) > SHORT.as_millis()).then_some(())
    });
    toono_lab::heal(&lab, "pool-b-2").unwrap();
    let silent = ["pool-a-1", "pool-a-2", "pool-a-3", "pool-a-4", "pool-b-1"];
    until("the silent to be found", NOTICED, || {
        (edge.nodes_with_ready("Unknown") == silent).then_some(())
    });
    for (place, _) in cuts {
        toono_lab::heal(&lab, place).unwrap();
    }
    until("every node to be Ready", BACK, || {
        (edge.nodes_with_ready("True").len() == 12).then_some(())
    });
    let mut changed = ready_since(&edge);
    changed.retain(|node, since| ready.get(node) != Some(since));
    assert_eq!(changed.into_keys().collect::<Vec<_>>(), silent, "nobody else was NotReady");
    until("every pod to be Ready", BACK, || {
        edge.pods().iter().all(|pod| condition(pod, "Ready") == "True").then_some(())
    });
    assert_eq!(self::pods(&edge), pods, "no pod was evicted, no container restarted");
}

/// When each node's readiness changed last.
fn ready_since(edge: &Edge) -> BTreeMap<String, Value> {
    let nodes = edge.kubectl_json(&["get", "nodes"]);
    let since = nodes["items"].as_array().unwrap().iter().map(|node| {
        let mut conditions = node["status"]["conditions"].as_array().unwrap().iter();
        let ready = conditions.find(|condition| condition["type"] == "Ready").unwrap();
        let name = node["metadata"]["name"].as_str().unwrap().to_owned();
        (name, ready["lastTransitionTime"].clone())
    });
    since.collect()
}

/// Container and restarts of each pod, by the pod's uid.
fn pods(edge: &Edge) -> BTreeMap<String, (Value, Value)> {
    let pods = edge.pods().into_iter().map(|pod| {
        let container = &pod["status"]["containerStatuses"][0];
        let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
        (uid, (container["containerID"].clone(), container["restartCount"].clone()))
    });
    pods.collect()
}
