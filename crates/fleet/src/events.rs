//! Events of nodes as `v1.Event` objects; a repeated one is counted, not stored again.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use toono_wire::report::EventReport;

use crate::{
    calls::{Calls, code},
    objects::at,
};

/// The same event again within this time raises a count; as Kubernetes' correlator.
const SAME_WITHIN: Duration = Duration::from_secs(600);
/// Distinct recent events remembered; Kubernetes' correlator keeps as many.
const REMEMBERED: usize = 4_096;

/// Remembers recent events.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    recent: Mutex<HashMap<u64, Recent>>,
    made: AtomicU64,
}

#[derive(Debug, Clone)]
struct Recent {
    name: String,
    count: u32,
    at: Duration,
}

impl Recorder {
    /// Records one event of a node. `namespace` is where it is stored.
    pub(crate) async fn record(
        &self,
        calls: &Calls,
        node: &str,
        event: &EventReport,
        now: Duration,
    ) -> Result<(), kube::Error> {
        let key = key(node, event);
        let path = format!("/api/v1/namespaces/{}/events", namespace(event));
        if let Some(known) = self.known(key, now) {
            let count = known.count + 1;
            let patch = json!({"count": count, "lastTimestamp": event.at});
            match calls.merge(&format!("{path}/{}", known.name), &patch).await {
                Ok(_) => {
                    self.remember(key, Recent { count, at: now, ..known });
                    return Ok(());
                }
                // It has expired or was deleted: a new one then.
                Err(error) if code(&error) == Some(404) => {}
                Err(error) => return Err(error),
            }
        }
        let object = self.object(node, event);
        let name = at(&object, &["metadata", "name"]).as_str().unwrap_or_default().to_owned();
        calls.post(&path, &object).await?;
        self.remember(key, Recent { name, count: 1, at: now });
        Ok(())
    }

    fn object(&self, node: &str, event: &EventReport) -> serde_json::Value {
        let of_node = event.pod_uid.is_empty();
        let involved = if of_node {
            json!({"kind": "Node", "apiVersion": "v1", "name": node, "uid": node})
        } else {
            json!({"kind": "Pod", "apiVersion": "v1", "namespace": event.namespace, "name": event.pod,
                   "uid": event.pod_uid, "fieldPath": event.field_path})
        };
        // As client-go names them: the object's name and a number that grows.
        let nanos = u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or_default();
        let number = nanos.wrapping_add(self.made.fetch_add(1, Ordering::Relaxed));
        let subject = if of_node { node } else { event.pod.as_str() };
        json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": format!("{subject}.{number:016x}"), "namespace": namespace(event)},
            "involvedObject": involved,
            "type": if event.kind == "Warning" { "Warning" } else { "Normal" },
            "reason": event.reason, "message": event.message,
            "source": {"component": "kubelet", "host": node},
            "reportingComponent": "kubelet", "reportingInstance": node,
            "firstTimestamp": event.at, "lastTimestamp": event.at, "count": 1,
        })
    }

    fn known(&self, key: u64, now: Duration) -> Option<Recent> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.get(&key).filter(|known| now < known.at + SAME_WITHIN).cloned()
    }

    fn remember(&self, key: u64, event: Recent) {
        let now = event.at;
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= REMEMBERED && !recent.contains_key(&key) {
            recent.retain(|_, known| now < known.at + SAME_WITHIN);
        }
        if recent.len() >= REMEMBERED && !recent.contains_key(&key) {
            let oldest = recent.iter().min_by_key(|(_, known)| known.at).map(|(key, _)| *key);
            oldest.map(|oldest| recent.remove(&oldest));
        }
        recent.insert(key, event);
    }
}

/// Events of cluster-scoped objects live in `default`, as Kubernetes has it.
fn namespace(event: &EventReport) -> &str {
    if event.pod_uid.is_empty() { "default" } else { &event.namespace }
}

fn key(node: &str, event: &EventReport) -> u64 {
    let mut hasher = DefaultHasher::new();
    let EventReport { namespace, pod, pod_uid, field_path, kind, reason, message, at: _ } = event;
    (node, namespace, pod, pod_uid, field_path, kind, reason, message).hash(&mut hasher);
    hasher.finish()
}
