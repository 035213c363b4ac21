//! A pod's row: the one-word status that sums up phase, containers and deletion.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, NAME, NONE, age, column, integer, name, since, text_or, wide};
use crate::{
    meta::{at, items_at, text_at},
    resource::Column,
};

/// Columns of pods.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "string"),
    column("Status", "string"),
    column("Restarts", "string"),
    AGE,
    wide("IP", "string"),
    wide("Node", "string"),
    wide("Nominated Node", "string"),
    wide("Readiness Gates", "string"),
];

/// A pod's row.
#[must_use]
pub fn row(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = Summary::of(pod);
    let restarts = match (summary.restarts, summary.last_restart) {
        (1.., Some(last)) => format!("{} ({} ago)", summary.restarts, since(Some(last), now)),
        (count, _) => count.to_string(),
    };
    vec![
        name(pod),
        format!("{}/{}", summary.ready, summary.containers).into(),
        summary.status.into(),
        restarts.into(),
        age(pod, now),
        text_or(pod, &["status", "podIP"], NONE).into(),
        text_or(pod, &["spec", "nodeName"], NONE).into(),
        text_or(pod, &["status", "nominatedNodeName"], NONE).into(),
        readiness_gates(pod).into(),
    ]
}

struct Summary<'v> {
    ready: usize,
    containers: usize,
    restarts: i64,
    last_restart: Option<&'v str>,
    status: String,
}

impl<'v> Summary<'v> {
    fn of(pod: &'v Value) -> Self {
        let mut summary = Self {
            ready: 0,
            containers: items_at(pod, &["spec", "containers"]).count()
                + items_at(pod, &["spec", "initContainers"]).filter(|c| is_sidecar(c)).count(),
            restarts: 0,
            last_restart: None,
            status: initial_status(pod),
        };
        let sidecar_restarts = summary.add_init_containers(pod);
        match sidecar_restarts {
            Progress::Initializing if conditions(pod).get("Initialized") != Some(&"True") => {}
            Progress::Initializing => summary.add_containers(pod, 0),
            Progress::Initialized { sidecar_restarts } => {
                summary.add_containers(pod, sidecar_restarts);
            }
        }
        if text_at(pod, &["metadata", "deletionTimestamp"]).is_some() {
            let phase = text_or(pod, &["status", "phase"], "");
            if text_at(pod, &["status", "reason"]) == Some("NodeLost") {
                summary.status = "Unknown".to_owned();
            } else if phase != "Succeeded" && phase != "Failed" {
                summary.status = "Terminating".to_owned();
            }
        }
        summary
    }

    fn count_restarts(&mut self, status: &'v Value) {
        self.restarts += integer(status, &["restartCount"]);
        let finished = text_at(status, &["lastState", "terminated", "finishedAt"]);
        // RFC 3339 in UTC orders as text.
        self.last_restart = self.last_restart.max(finished);
    }

    fn add_init_containers(&mut self, pod: &'v Value) -> Progress {
        let total = items_at(pod, &["spec", "initContainers"]).count();
        let mut sidecar_restarts = 0;
        let sidecars: BTreeSet<&str> = items_at(pod, &["spec", "initContainers"])
            .filter(|container| is_sidecar(container))
            .filter_map(|container| text_at(container, &["name"]))
            .collect();
        for (position, status) in items_at(pod, &["status", "initContainerStatuses"]).enumerate() {
            self.count_restarts(status);
            let sidecar = text_at(status, &["name"]).is_some_and(|name| sidecars.contains(name));
            if sidecar {
                sidecar_restarts += integer(status, &["restartCount"]);
            }
            let terminated = at(status, &["state", "terminated"]);
            if terminated.is_some_and(|end| integer(end, &["exitCode"]) == 0) {
                continue;
            }
            if sidecar && at(status, &["started"]) == Some(&Value::Bool(true)) {
                self.ready += usize::from(at(status, &["ready"]) == Some(&Value::Bool(true)));
                continue;
            }
            let waiting = text_or(status, &["state", "waiting", "reason"], "PodInitializing");
            self.status = match terminated {
                Some(end) => format!("Init:{}", terminated_text(end)),
                None if waiting != "PodInitializing" => format!("Init:{waiting}"),
                None => format!("Init:{position}/{total}"),
            };
            return Progress::Initializing;
        }
        Progress::Initialized { sidecar_restarts }
    }

    fn add_containers(&mut self, pod: &'v Value, sidecar_restarts: i64) {
        self.restarts = sidecar_restarts;
        let mut running = false;
        let statuses: Vec<&Value> = items_at(pod, &["status", "containerStatuses"]).collect();
        for status in statuses.into_iter().rev() {
            self.count_restarts(status);
            let waiting = text_or(status, &["state", "waiting", "reason"], "");
            if !waiting.is_empty() {
                self.status = waiting.to_owned();
            } else if let Some(end) = at(status, &["state", "terminated"]) {
                self.status = terminated_text(end);
            } else if at(status, &["ready"]) == Some(&Value::Bool(true))
                && at(status, &["state", "running"]).is_some()
            {
                running = true;
                self.ready += 1;
            }
        }
        if self.status == "Completed" && running {
            let ready = conditions(pod).get("Ready") == Some(&"True");
            self.status = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }
}

enum Progress {
    Initializing,
    Initialized { sidecar_restarts: i64 },
}

fn initial_status(pod: &Value) -> String {
    let gated = items_at(pod, &["status", "conditions"]).any(|condition| {
        text_at(condition, &["type"]) == Some("PodScheduled")
            && text_at(condition, &["reason"]) == Some("SchedulingGated")
    });
    if gated {
        return "SchedulingGated".to_owned();
    }
    let phase = text_or(pod, &["status", "phase"], "");
    text_or(pod, &["status", "reason"], phase).to_owned()
}

fn terminated_text(terminated: &Value) -> String {
    match (text_or(terminated, &["reason"], ""), integer(terminated, &["signal"])) {
        ("", 0) => format!("ExitCode:{}", integer(terminated, &["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn is_sidecar(container: &Value) -> bool {
    text_at(container, &["restartPolicy"]) == Some("Always")
}

/// The status of each condition.
fn conditions(pod: &Value) -> BTreeMap<&str, &str> {
    let mut statuses = BTreeMap::new();
    for condition in items_at(pod, &["status", "conditions"]) {
        let status = text_at(condition, &["status"]).unwrap_or_default();
        statuses.entry(text_at(condition, &["type"]).unwrap_or_default()).or_insert(status);
    }
    statuses
}

fn readiness_gates(pod: &Value) -> String {
    let gates: Vec<&Value> = items_at(pod, &["spec", "readinessGates"]).collect();
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let conditions = conditions(pod);
    let open = gates
        .iter()
        .filter_map(|gate| text_at(gate, &["conditionType"]))
        .filter(|kind| conditions.get(kind) == Some(&"True"))
        .count();
    format!("{open}/{}", gates.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(pod: &Value) -> (String, String, String) {
        let cells = row(pod, "2030-01-01T00:10:00Z".parse().unwrap());
        let text = |index: usize| cells[index].as_str().unwrap().to_owned();
        (text(1), text(2), text(3))
    }

    #[test]
    fn one_word_sums_up_the_pod() {
        let waiting = |reason: &str| {
            json!({"name": "a", "restartCount": 0, "ready": false,
            "state": {"waiting": {"reason": reason}}})
        };
        let running = json!({"name": "a", "restartCount": 1, "ready": true, "state": {"running": {}},
            "lastState": {"terminated": {"finishedAt": "2030-01-01T00:07:00Z", "exitCode": 1}}});
        let ended = |code: i64, reason: &str| {
            json!({"name": "a", "restartCount": 0, "ready": false,
            "state": {"terminated": {"exitCode": code, "reason": reason}}})
        };
        let pod = |phase: &str, statuses: Value| {
            json!({"metadata": {"name": "p"},
            "spec": {"containers": [{"name": "a"}]}, "status": {"phase": phase, "containerStatuses": statuses}})
        };
        for (pod, expected) in [
            (pod("Pending", json!([])), ("0/1", "Pending", "0")),
            (
                pod("Pending", json!([waiting("ContainerCreating")])),
                ("0/1", "ContainerCreating", "0"),
            ),
            (
                pod("Running", json!([waiting("CrashLoopBackOff")])),
                ("0/1", "CrashLoopBackOff", "0"),
            ),
            (pod("Running", json!([running])), ("1/1", "Running", "1 (3m ago)")),
            (pod("Succeeded", json!([ended(0, "Completed")])), ("0/1", "Completed", "0")),
            (pod("Failed", json!([ended(1, "Error")])), ("0/1", "Error", "0")),
            (pod("Failed", json!([ended(3, "")])), ("0/1", "ExitCode:3", "0")),
        ] {
            let (ready, status, restarts) = shown(&pod);
            assert_eq!((ready.as_str(), status.as_str(), restarts.as_str()), expected, "{pod}");
        }
        let mut going = pod("Running", json!([running]));
        going["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z".into();
        assert_eq!(shown(&going).1, "Terminating");
    }

    #[test]
    fn init_containers_come_first() {
        let pod = json!({"metadata": {"name": "p"},
            "spec": {"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]},
            "status": {"phase": "Pending",
                "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 0}}},
                                          {"name": "j", "state": {"running": {}}}],
                "containerStatuses": [{"name": "a", "state": {"waiting": {"reason": "PodInitializing"}}}]}});
        assert_eq!(shown(&pod).1, "Init:1/2");
    }
}
