//! Says what of a Service's topology keys is none: nodes pass over it, so that traffic goes where nobody meant it to.

use std::sync::Arc;

use toono_openyurt::keys;
use toono_wire::pool::near::TopologyKeys;

use crate::{
    context::Context,
    error::SyncError,
    informer::Change,
    key::Key,
    kinds::Service,
    queue::WorkQueue,
    recorder::Severity,
    worker::{self, Again},
};

const COMPONENT: &str = "service-topology-controller";
const REASON: &str = "UnknownTopologyKey";
/// The longest list of keys that is repeated: an event's message has a limit.
const MOST_CHARACTERS: usize = 200;

/// Reads the annotation. The queue holds services whose keys are others than before.
pub(super) struct Controller {
    queue: Arc<WorkQueue<Key>>,
}

impl Controller {
    pub(super) fn new(context: &mut Context) -> Self {
        let queue = Arc::new(WorkQueue::new());
        context.services.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                if let Some(service) = changed(change) {
                    queue.add(Key::of(&service.metadata));
                }
            }
        });
        Self { queue }
    }

    pub(super) async fn run(&self, context: &Context) {
        let tell = |key: Key| async move { tell(context, &key) };
        worker::run(COMPONENT, 1, Arc::clone(&self.queue), tell).await;
    }
}

/// The service, if it has other keys than before and some of them are unknown.
fn changed(change: &Change<Service>) -> Option<&Service> {
    let new = change.new.as_deref()?;
    let is_same = change.old.as_deref().is_some_and(|old| said(old) == said(new));
    let is_wrong = TopologyKeys::unknown(said(new)).next().is_some();
    (is_wrong && !is_same).then_some(new)
}

fn said(service: &Service) -> &str {
    let annotations = service.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(keys::TOPOLOGY_KEYS)).map_or("", String::as_str)
}

fn tell(context: &Context, key: &Key) -> Result<Again, SyncError> {
    if let Some(service) = context.services.get(key)
        && let Some(message) = message(said(&service))
    {
        context.recorder.record(COMPONENT, &*service, Severity::Warning, REASON, message);
    }
    Ok(None)
}

/// What is wrong with this value; nothing where all of it is known.
fn message(value: &str) -> Option<String> {
    let unknown: Vec<&str> = TopologyKeys::unknown(value).collect();
    if unknown.is_empty() {
        return None;
    }
    let mut named = unknown.join(", ");
    if let Some((end, _)) = named.char_indices().nth(MOST_CHARACTERS) {
        named.truncate(end);
        named.push('…');
    }
    let left = match TopologyKeys::parse(value) == TopologyKeys::default() {
        true => "no key is left, so traffic goes to the endpoints of all pools",
        false => "the other keys count",
    };
    let known = TopologyKeys::KNOWN.join(", ");
    let annotation = keys::TOPOLOGY_KEYS;
    Some(format!("{annotation}: {named}: not known and passed over; {left}. Known are: {known}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_no_key_is_named_with_those_that_are() {
        let known = "kubernetes.io/hostname, openyurt.io/nodepool, kubernetes.io/zone, *";
        assert_eq!(
            message("kubernetes.io/hostnames, openyurt.io/nodepool,pool").unwrap(),
            format!(
                "openyurt.io/topologyKeys: kubernetes.io/hostnames, pool: not known and passed over; \
                 the other keys count. Known are: {known}"
            )
        );
        assert!(message("topology.kubernetes.io/zone").unwrap().contains("no key is left"));
        assert!(message(&"é,".repeat(1_000)).unwrap().len() < 1_024);
        for right in ["", " , ", "*", "openyurt.io/nodepool, kubernetes.io/zone"] {
            assert_eq!(message(right), None, "{right:?}");
        }
    }

    #[test]
    fn the_keys_are_openyurts() {
        let openyurts = [keys::TOPOLOGY_NODE, keys::TOPOLOGY_NODE_POOL, keys::TOPOLOGY_ZONE, "*"];
        assert_eq!(TopologyKeys::KNOWN, openyurts);
    }

    #[test]
    fn a_service_is_looked_at_when_its_keys_change() {
        let service = |value: &str| {
            let annotations = json!({keys::TOPOLOGY_KEYS: value});
            let object = json!({"metadata": {"name": "web", "annotations": annotations}});
            Arc::new(serde_json::from_value::<Service>(object).unwrap())
        };
        for (old, new, tells) in [
            (None, "pool", true),
            (Some("pool"), "pool", false),
            (Some("pool"), "pools", true),
            (Some("pool"), "*", false),
            (Some("*"), "pool", true),
        ] {
            let old = old.map(service);
            let change = Change { known: old.clone(), old, new: Some(service(new)) };
            assert_eq!(changed(&change).is_some(), tells, "{new}");
        }
    }
}
