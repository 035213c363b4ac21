//! Status on its way up: what a node says of itself and of its pods becomes writes to the API.
//!
//! A node writes only its own Node's status and the status of pods bound to it.

use std::sync::Arc;

use futures::{StreamExt, stream};
use serde_json::{Value, json};
use toono_api::names;
use toono_wire::report::{EventReport, PodReport, Report, ReportReply};

use crate::{
    calls::{CONFLICT_RETRIES, Refusal, code, modify, timestamp},
    fleet::Inner,
    objects::{at, set, set_condition},
    readiness,
};

/// Pods of one report written at once.
const CONCURRENT_WRITES: usize = 8;

/// What became of one pod's report.
enum Outcome {
    Written,
    /// The pod does not exist (any more), or is not this node's.
    Gone,
    Retry,
}

/// `POST /fleet/v1/report`.
pub(crate) async fn report(
    inner: &Arc<Inner>,
    node: &str,
    report: Report,
) -> Result<ReportReply, Refusal> {
    if let Some(status) = &report.node {
        node_status(inner, node, status).await?;
    }
    let mut reply = ReportReply::default();
    // Events first: those of a pod that this very report ends must still find it.
    for event in &report.events {
        record(inner, node, event).await;
    }
    let outcomes: Vec<(String, Outcome)> = stream::iter(report.pods)
        .map(|pod| async move {
            let outcome = pod_status(inner, node, &pod).await;
            (pod.uid, outcome)
        })
        .buffer_unordered(CONCURRENT_WRITES)
        .collect()
        .await;
    for (uid, outcome) in outcomes {
        match outcome {
            Outcome::Written => {}
            Outcome::Gone => reply.gone.push(uid),
            Outcome::Retry => reply.retry.push(uid),
        }
    }
    let mut state = inner.state();
    let index = state.table.index(node);
    if let Some(member) = index.and_then(|index| state.table.member_mut(index))
        && reply.retry.is_empty()
        && report.digest != 0
    {
        member.reported = Some(report.digest);
    }
    Ok(reply)
}

/// The node's own status. Its Ready condition counts only while its heartbeats arrive: a node whose
/// datagrams do not get through is not ready, whatever it says.
async fn node_status(inner: &Inner, node: &str, reported: &Value) -> Result<(), Refusal> {
    let now = timestamp();
    let path = format!("/api/v1/nodes/{node}");
    let written = modify(&inner.calls, &path, "/status", |object| {
        let alive = {
            let state = inner.state();
            state.table.index(node).is_some_and(|index| {
                state.table.heard(index).is_some() && inner.alive(&state, index)
            })
        };
        let mut status = at(object, &["status"]).clone();
        let changed = merge_status(&mut status, reported, alive, &now);
        set(object, &["status"], status);
        changed
    })
    .await?;
    readiness::admit(inner, &written.to_string());
    Ok(())
}

/// Fields that the node names replace the old ones; conditions merge by type.
fn merge_status(status: &mut Value, reported: &Value, alive: bool, now: &str) -> bool {
    let before = status.clone();
    if !status.is_object() {
        *status = json!({});
    }
    for (field, value) in reported.as_object().into_iter().flatten() {
        if field == "conditions" {
            for condition in value.as_array().into_iter().flatten() {
                if alive || at(condition, &["type"]) != "Ready" {
                    set_condition(status, condition.clone(), now);
                }
            }
        } else if let Some(fields) = status.as_object_mut() {
            fields.insert(field.clone(), value.clone());
        }
    }
    *status != before
}

async fn pod_status(inner: &Inner, node: &str, report: &PodReport) -> Outcome {
    let named = names::dns_subdomain(&report.name).is_empty()
        && names::dns_label(&report.namespace).is_empty();
    if !named {
        return Outcome::Gone;
    }
    let path = format!("/api/v1/namespaces/{}/pods/{}", report.namespace, report.name);
    match write_pod(inner, node, &path, report).await {
        Ok(outcome) => outcome,
        Err(error) if code(&error) == Some(404) => Outcome::Gone,
        // The node said something that the API will never take; asking again would not help.
        Err(error) if matches!(code(&error), Some(400 | 422)) => {
            tracing::warn!(node, pod = report.name, %error, "the API refuses a pod's status");
            Outcome::Written
        }
        Err(error) => {
            tracing::warn!(node, pod = report.name, %error, "cannot write a pod's status");
            Outcome::Retry
        }
    }
}

async fn write_pod(
    inner: &Inner,
    node: &str,
    path: &str,
    report: &PodReport,
) -> Result<Outcome, kube::Error> {
    let mut pod = inner.calls.get(path).await?;
    let mut round = 0;
    loop {
        let same = at(&pod, &["metadata", "uid"]) == report.uid.as_str()
            && at(&pod, &["spec", "nodeName"]) == node;
        if !same {
            return Ok(Outcome::Gone);
        }
        let status = pod_status_merged(at(&pod, &["status"]), &report.status);
        if status == *at(&pod, &["status"]) {
            break;
        }
        set(&mut pod, &["status"], status);
        round += 1;
        match inner.calls.put(&format!("{path}/status"), &pod).await {
            Ok(written) => {
                pod = written;
                break;
            }
            Err(error) if code(&error) == Some(409) && round < CONFLICT_RETRIES => {
                pod = inner.calls.get(path).await?;
            }
            Err(error) => return Err(error),
        }
    }
    if !report.gone {
        return Ok(Outcome::Written);
    }
    remove(inner, path, &pod, report).await
}

/// Removes a pod whose containers are gone, and that someone asked to delete.
async fn remove(
    inner: &Inner,
    path: &str,
    pod: &Value,
    report: &PodReport,
) -> Result<Outcome, kube::Error> {
    if at(pod, &["metadata", "uid"]) != report.uid.as_str() {
        return Ok(Outcome::Gone);
    }
    if at(pod, &["metadata", "deletionTimestamp"]).is_null() {
        return Ok(Outcome::Written);
    }
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
                         "preconditions": {"uid": report.uid}});
    match inner.calls.delete(path, &options).await {
        Ok(_) => Ok(Outcome::Gone),
        // Another pod has the name by now.
        Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(Outcome::Gone),
        Err(error) => Err(error),
    }
}

/// The node's view replaces the old status; conditions that the node does not speak of
/// (`PodScheduled`, readiness gates) stay, and so does the QoS class, which the server sets.
fn pod_status_merged(old: &Value, reported: &Value) -> Value {
    let mut status = reported.clone();
    let Some(fields) = status.as_object_mut() else { return old.clone() };
    let mut conditions =
        fields.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    for kept in at(old, &["conditions"]).as_array().into_iter().flatten() {
        if !conditions.iter().any(|condition| at(condition, &["type"]) == at(kept, &["type"])) {
            conditions.push(kept.clone());
        }
    }
    fields.insert("conditions".to_owned(), conditions.into());
    for field in ["qosClass", "nominatedNodeName"] {
        if !fields.contains_key(field) && !at(old, &[field]).is_null() {
            fields.insert(field.to_owned(), at(old, &[field]).clone());
        }
    }
    status
}

/// An event that cannot be recorded is lost, as in Kubernetes.
async fn record(inner: &Inner, node: &str, event: &EventReport) {
    let own = event.pod_uid.is_empty()
        || inner
            .state()
            .bundles
            .pod(node, &event.pod_uid)
            .is_some_and(|names| names == (&*event.namespace, &*event.pod));
    if !own {
        tracing::debug!(node, pod = event.pod, "an event about a pod that is not the node's");
        return;
    }
    if let Err(error) = inner.recorder.record(&inner.calls, node, event, inner.now()).await {
        tracing::debug!(node, reason = event.reason, %error, "event lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_conditions_of_a_pod_stay() {
        let old = json!({"phase": "Pending", "qosClass": "Burstable", "message": "old",
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}]});
        let new = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        assert_eq!(
            pod_status_merged(&old, &new),
            json!({"phase": "Running", "qosClass": "Burstable",
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}]})
        );
    }

    #[test]
    fn readiness_of_a_silent_node_is_not_its_own_to_tell() {
        let reported =
            json!({"capacity": {"cpu": "2"}, "conditions": [{"type": "Ready", "status": "True"}]});
        let mut status = json!({"images": []});
        assert!(merge_status(&mut status, &reported, false, "t"));
        assert_eq!(status, json!({"images": [], "capacity": {"cpu": "2"}}));
        assert!(merge_status(&mut status, &reported, true, "t"));
        assert_eq!(status["conditions"][0]["status"], "True");
        assert!(!merge_status(&mut status, &reported, true, "u"));
    }
}
