//! A site's link is cut for longer than the cloud's patience, and heals.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    edge::{Edge, condition},
    wait::until,
};

/// 40 s of grace, and time for the test machine.
const NOTICED: Duration = Duration::from_secs(70);

#[test]
fn a_cut_site_goes_on_and_comes_back_as_it_was() {
    let edge = Edge::up();
    let before = restarts_by_uid(&edge);
    let victim = pod_on(&edge, "pool-a-1");
    let uid = victim["metadata"]["uid"].as_str().unwrap().to_owned();
    let other = pod_on(&edge, "pool-a-2");
    let (other_uid, other_id) = (uid_of(&other), container_id(&other));

    edge.toono_here(&["lab", "cut"], &["pool-a"]);
    until("pool-a to be NotReady", NOTICED, || {
        (edge.nodes_with_ready("Unknown") == ["pool-a-1", "pool-a-2"]).then_some(())
    });
    assert_eq!(edge.nodes_with_ready("True"), ["pool-b-1", "pool-b-2"]);

    // Without the cloud: a crashed container restarts …
    let crashed = container_process(&uid);
    kill(Pid::from_raw(crashed), Signal::SIGKILL).unwrap();
    until("the crashed container to run again", Duration::from_secs(40), || {
        find_container_process(&uid).filter(|pid| *pid != crashed)
    });
    // … and a killed agent, started again, adopts what runs.
    let survivor = container_process(&other_uid);
    let agent = edge.process("node", "pool-a-2");
    kill(Pid::from_raw(agent), Signal::SIGKILL).unwrap();
    until("the agent's end", Duration::from_secs(5), || {
        kill(Pid::from_raw(agent), None).is_err().then_some(())
    });
    edge.run_up_without_waiting();
    assert_eq!(container_process(&other_uid), survivor, "adoption restarts nothing");

    edge.toono_here(&["lab", "heal"], &["pool-a"]);
    until("every node to be Ready", Duration::from_secs(15), || {
        (edge.nodes_with_ready("True").len() == 4).then_some(())
    });
    until("every pod to be Ready", Duration::from_secs(15), || {
        edge.pods().iter().all(|pod| condition(pod, "Ready") == "True").then_some(())
    });
    let mut expected = before;
    *expected.get_mut(&uid).unwrap() += 1;
    until("true restart counts", Duration::from_secs(15), || {
        (restarts_by_uid(&edge) == expected).then_some(())
    });
    assert_eq!(container_process(&other_uid), survivor);
    let after = pod_on(&edge, "pool-a-2");
    assert_eq!(container_id(&after), other_id);
}

impl Edge {
    /// Starts what is not running; the cloud's view of a cut site cannot become Ready meanwhile.
    pub(crate) fn run_up_without_waiting(&self) {
        let mut arguments = self.up_arguments();
        arguments.insert(1, "--no-wait".to_owned());
        let output = self.toono(&arguments);
        crate::edge::success("toono up --no-wait", output);
    }
}

fn restarts_by_uid(edge: &Edge) -> BTreeMap<String, u64> {
    edge.pods()
        .iter()
        .map(|pod| {
            let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap();
            (uid_of(pod), restarts)
        })
        .collect()
}

fn pod_on(edge: &Edge, node: &str) -> Value {
    edge.pods().into_iter().find(|pod| pod["spec"]["nodeName"] == node).unwrap()
}

fn uid_of(pod: &Value) -> String {
    pod["metadata"]["uid"].as_str().unwrap().to_owned()
}

fn container_id(pod: &Value) -> String {
    pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap().to_owned()
}

fn container_process(uid: &str) -> i32 {
    find_container_process(uid).unwrap_or_else(|| panic!("no container process of {uid}"))
}

/// The first process in the pod's container cgroup.
pub(crate) fn find_container_process(uid: &str) -> Option<i32> {
    container_cgroups(uid).iter().find_map(|folder| processes_in(folder).first().copied())
}

/// The cgroups of a pod's containers in which there are processes.
pub(crate) fn container_cgroups(uid: &str) -> Vec<PathBuf> {
    let mut folders = cgroups_naming(uid);
    folders.retain(|folder| !folder.ends_with("keeper") && !processes_in(folder).is_empty());
    folders
}

/// The processes in a cgroup, but for those in cgroups below it.
pub(crate) fn processes_in(folder: &std::path::Path) -> Vec<i32> {
    let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let mut found: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    found.sort_unstable();
    found
}

/// The cgroups with this in their path, of the one hierarchy, or of that of v1 which counts processes.
pub(crate) fn cgroups_naming(part: &str) -> Vec<PathBuf> {
    let roots = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];
    let root = roots.iter().find(|root| std::path::Path::new(root).exists());
    let mut folders: Vec<PathBuf> = root.into_iter().map(PathBuf::from).collect();
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
        if folder.to_string_lossy().contains(part) {
            found.push(folder);
        }
    }
    found.sort();
    found
}
