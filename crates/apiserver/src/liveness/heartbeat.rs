//! When a node was last heard, in its Ready condition as it is served. It must not touch anything else of
//! the object, nor decode it: a list may be of a million.

use bytes::Bytes;
use memchr::memmem;
use toono_mvcc::Entry;

use crate::{server::ApiServer, verbs::whole_seconds};

/// The end of the Ready condition. Fields are stored in the order of their names, and text inside a value
/// cannot look like it, since its quotes are escaped.
const READY: &[u8] = br#","type":"Ready"}"#;
/// The beginning of a condition that tells when it was last heard of.
const HEARTBEAT: &[u8] = br#"{"lastHeartbeatTime":""#;
/// What says that another condition began in between.
const TYPE: &[u8] = br#","type":""#;
/// `2026-01-01T00:00:00Z`.
const TIME_BYTES: usize = 20;

/// Shows in Nodes when they were last heard, where that is after what is written.
pub(crate) fn freshen(server: &ApiServer, nodes: &mut [Entry]) {
    let names: Vec<&str> = nodes.iter().map(|node| node.key.name()).collect();
    let heard = server.inner.lives.heard(&names);
    drop(names);
    for (node, heard) in nodes.iter_mut().zip(heard) {
        let fresh = heard.and_then(|heard| with_heartbeat(&node.value, &whole_seconds(heard)));
        if let Some(fresh) = fresh {
            node.value = fresh;
        }
    }
}

/// The Node with this time in its Ready condition; none if it has a later one, or no such condition.
fn with_heartbeat(node: &Bytes, heard: &str) -> Option<Bytes> {
    let ready = memmem::rfind(node, READY)?;
    let condition = memmem::rfind(node.get(..ready)?, HEARTBEAT)?;
    let time = condition + HEARTBEAT.len();
    if memmem::find(node.get(time..ready)?, TYPE).is_some() {
        return None;
    }
    let (before, rest) = (node.get(..time)?, node.get(time..)?);
    let (written, rest) = (rest.get(..TIME_BYTES)?, rest.get(TIME_BYTES..)?);
    // Times of one form are ordered as their texts.
    if !rest.starts_with(b"\"") || heard.len() != TIME_BYTES || written >= heard.as_bytes() {
        return None;
    }
    Some([before, heard.as_bytes(), rest].concat().into())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const HEARD: &str = "2026-01-01T00:00:30Z";

    fn shown(conditions: Value) -> Option<Value> {
        let node = json!({"metadata": {"annotations": {"type": "Ready"}},
            "status": {"conditions": conditions, "images": [{"names": [",\"type\":\"Ready\"}"]}]}});
        let shown = with_heartbeat(&node.to_string().into(), HEARD)?;
        let shown: Value = serde_json::from_slice(&shown).unwrap();
        assert_eq!(shown["metadata"], node["metadata"]);
        Some(shown["status"]["conditions"].clone())
    }

    #[test]
    fn the_time_moves_forward_and_nothing_else_does() {
        let condition = |kind: &str, time: &str| json!({"type": kind, "status": "True", "lastHeartbeatTime": time, "message": "}{\"type\":\""});
        let old = "2026-01-01T00:00:00Z";
        let before = json!([condition("A", old), condition("Ready", old), condition("Z", old)]);
        let after = json!([condition("A", old), condition("Ready", HEARD), condition("Z", old)]);
        assert_eq!(shown(before), Some(after));
        for (what, conditions) in [
            ("it is as new", json!([condition("Ready", HEARD)])),
            ("it has fractions", json!([condition("Ready", "2026-01-01T00:00:00.5Z")])),
            ("it has no time", json!([condition("A", old), {"type": "Ready", "status": "True"}])),
            ("there is none", json!([condition("A", old)])),
        ] {
            assert_eq!(shown(conditions), None, "{what}");
        }
    }
}
