//! Everything that the API said of the nodes and of their pods, by watches that any client could have.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::judge::Turn;
use crate::{
    Failure,
    access::Access,
    events::{Event, NODES, Object, Watch},
};

/// Where the pods are.
pub(super) const PODS: &str = "/api/v1/namespaces/default/pods";
/// A pod's name is this and its node's.
pub(super) const POD_PREFIX: &str = "tiny-";

/// What was told so far, by number of the node.
pub(super) struct Seen {
    began: Instant,
    numbers: HashMap<String, usize>,
    pub(super) nodes: Vec<Vec<Turn>>,
    pub(super) pods: Vec<Pod>,
    /// All changes, one line each.
    pub(super) history: Vec<String>,
}

/// The pod of a node. There is one, for ever.
#[derive(Debug, Default, Clone)]
pub(super) struct Pod {
    uid: String,
    container: String,
    pub(super) ready: bool,
    /// What should not have become of it, one line each.
    pub(super) faults: Vec<String>,
}

/// Watches all of these nodes and their pods.
pub(super) async fn begin(
    access: &Access,
    names: &[String],
    began: Instant,
) -> Result<Watch<Seen>, Failure> {
    let seen = Seen {
        began,
        numbers: names.iter().cloned().zip(0..).collect(),
        nodes: vec![Vec::new(); names.len()],
        pods: vec![Pod::default(); names.len()],
        history: Vec::new(),
    };
    Watch::begin(access, &[NODES, PODS], seen, Seen::take).await
}

impl Seen {
    /// Names of nodes that are not ready now.
    pub(super) fn not_ready(&self) -> usize {
        self.nodes.iter().filter(|turns| !turns.last().is_some_and(|turn| turn.ready)).count()
    }

    pub(super) fn pods_not_ready(&self) -> usize {
        self.pods.iter().filter(|pod| !pod.ready).count()
    }

    /// Adds a line to the history.
    pub(super) fn note(&mut self, at: Duration, what: &str) {
        self.history.push(format!("{:.3} {what}", at.as_secs_f64()));
    }

    fn take(&mut self, collection: &str, event: &Event) {
        let at = self.began.elapsed();
        let name = event.object.metadata.name.as_str();
        let told = if collection == NODES {
            self.numbers.get(name).copied().and_then(|number| self.take_node(number, event, at))
        } else {
            let number = name.strip_prefix(POD_PREFIX).and_then(|node| self.numbers.get(node));
            let pod = number.and_then(|number| self.pods.get_mut(*number));
            pod.and_then(|pod| pod.take(event))
        };
        if let Some(told) = told {
            self.note(at, &format!("{name} {told}"));
        }
    }

    fn take_node(&mut self, number: usize, event: &Event, at: Duration) -> Option<String> {
        let turns = self.nodes.get_mut(number)?;
        let ready = event.r#type != "DELETED" && event.object.is("Ready");
        if turns.last().is_some_and(|last| last.ready) == ready {
            return None;
        }
        turns.push(Turn { at, ready });
        Some(if ready { "Ready" } else { "NotReady" }.to_owned())
    }
}

impl Pod {
    /// Takes a change in; what it was, if anything is other than before.
    fn take(&mut self, event: &Event) -> Option<String> {
        let object = &event.object;
        let mut told = self.faults_of(event);
        let ready = event.r#type != "DELETED" && object.is("Ready");
        if ready != std::mem::replace(&mut self.ready, ready) {
            told.push(if ready { "Ready" } else { "NotReady" }.to_owned());
        }
        (!told.is_empty()).then(|| told.join(", "))
    }

    fn faults_of(&mut self, event: &Event) -> Vec<String> {
        let (metadata, mut faults) = (&event.object.metadata, Vec::new());
        if event.r#type == "DELETED" {
            faults.push("was removed".to_owned());
        } else if metadata.deletion_timestamp.is_some() {
            faults.push("is being deleted".to_owned());
        }
        let (container, restarts) = container(&event.object);
        if restarts > 0 {
            faults.push(format!("restarted {restarts} times"));
        }
        for (known, now, what) in [
            (&mut self.uid, metadata.uid.as_str(), "is another pod"),
            (&mut self.container, container, "has another container"),
        ] {
            if known.is_empty() {
                now.clone_into(known);
            } else if known.as_str() != now {
                faults.push(format!("{what}: {now:?}"));
            }
        }
        faults.retain(|fault| !self.faults.contains(fault));
        self.faults.extend(faults.iter().cloned());
        faults
    }
}

/// Id and restarts of the one container; none before it was started first.
fn container(pod: &Object) -> (&str, u64) {
    let status = pod.status.get("containerStatuses").and_then(|list| list.get(0));
    let field = |name: &str| status.and_then(|status| status.get(name));
    let id = field("containerID").and_then(Value::as_str).unwrap_or_default();
    (id, field("restartCount").and_then(Value::as_u64).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(r#type: &str, uid: &str, container: &str, restarts: u64, ready: &str) -> Event {
        let object = json!({"metadata": {"uid": uid}, "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "containerStatuses": [{"containerID": container, "restartCount": restarts}]}});
        Event { r#type: r#type.to_owned(), object: serde_json::from_value(object).unwrap() }
    }

    #[test]
    fn a_pod_that_stays_has_no_faults() {
        let mut pod = Pod::default();
        assert_eq!(pod.take(&event("ADDED", "u", "", 0, "False")), None);
        assert_eq!(pod.take(&event("MODIFIED", "u", "c", 0, "True")).as_deref(), Some("Ready"));
        assert_eq!(pod.take(&event("MODIFIED", "u", "c", 0, "False")).as_deref(), Some("NotReady"));
        assert_eq!(pod.take(&event("MODIFIED", "u", "c", 0, "True")).as_deref(), Some("Ready"));
        assert_eq!(pod.faults, [""; 0]);
    }

    #[test]
    fn what_becomes_of_a_pod_is_a_fault() {
        let known = || {
            let mut pod = Pod::default();
            pod.take(&event("ADDED", "u", "c", 0, "True"));
            pod
        };
        for (next, fault) in [
            (event("MODIFIED", "u", "c", 1, "True"), "restarted 1 times"),
            (event("MODIFIED", "u", "d", 0, "True"), "has another container: \"d\""),
            (event("ADDED", "v", "c", 0, "True"), "is another pod: \"v\""),
            (event("DELETED", "u", "c", 0, "True"), "was removed"),
        ] {
            let mut pod = known();
            pod.take(&next);
            pod.take(&next);
            assert_eq!(pod.faults, [fault]);
        }
    }
}
