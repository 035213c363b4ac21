//! Condition `Autonomy` of a node: whether it is trusted to go on by itself, and can. Nodes whose owners never asked for
//! that have none.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use serde_json::json;

use crate::{
    context::Context,
    error::{SyncError, is_not_found},
    key::Key,
    kinds::node::{Node, WatchedNode},
    patch,
    worker::Again,
};

const AUTONOMY: &str = "Autonomy";
const DISK_PRESSURE: &str = "DiskPressure";

/// What the condition says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    status: &'static str,
    reason: &'static str,
    message: &'static str,
}

const ENABLED: Told = Told {
    status: "True",
    reason: "AutonomyEnabled",
    message: "Its pods stay when it is silent, as long as its annotation says",
};
const DISABLED: Told = Told {
    status: "False",
    reason: "AutonomyDisabled",
    message: "No annotation asks for autonomy: its pods stay as long as they tolerate its silence",
};
/// The node keeps what it is to run on its disk.
const DOUBTFUL: Told = Told {
    status: "Unknown",
    reason: "DiskPressure",
    message: "Its disk is nearly full: it may not keep what it is to run while it is silent",
};

/// What is to be told anew; none where the node says it already, or has nothing to say.
fn news(node: &Node) -> Option<Told> {
    let status = |type_: &str| node.condition(type_).map(|condition| &*condition.status);
    let known = status(AUTONOMY);
    let wanted = match (node.autonomy().is_some(), status(DISK_PRESSURE)) {
        (false, _) if known.is_none() => return None,
        (false, _) => DISABLED,
        (true, Some("True")) => DOUBTFUL,
        // A silent node's disk is as it was when it was heard last.
        (true, Some("Unknown")) if known == Some(DOUBTFUL.status) => return None,
        (true, _) => ENABLED,
    };
    (known != Some(wanted.status)).then_some(wanted)
}

/// Whether there is nothing to tell.
pub(super) fn is_told(node: &Node) -> bool {
    news(node).is_none()
}

/// Writes the condition.
pub(super) async fn sync(context: &Context, key: &Key) -> Result<Again, SyncError> {
    let Some(node) = context.nodes.get(key) else { return Ok(None) };
    let Some(Told { status, reason, message }) = news(&node) else { return Ok(None) };
    let now = Time(jiff::Timestamp::now());
    let change = json!({"status": {"conditions": [{"type": AUTONOMY, "status": status,
        "reason": reason, "message": message, "lastTransitionTime": now, "lastHeartbeatTime": now}]}});
    let api: Api<WatchedNode> = Api::all(context.client.clone());
    match patch::merge_status_lists(&api, &key.name, &patch::on_top_of(&*node, change)).await {
        Ok(_) => Ok(None),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(SyncError::api("tell the autonomy of", "Node", key)(error)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn it_is_told_where_somebody_asked_and_doubted_where_the_disk_is_full() {
        let node = |asked: bool, known: Value, disk: &str| -> Node {
            let annotations =
                if asked { json!({"node.openyurt.io/autonomy-duration": "0"}) } else { json!({}) };
            let conditions = json!([{"type": AUTONOMY, "status": known}, {"type": DISK_PRESSURE, "status": disk}]);
            let mut node = json!({"metadata": {"name": "n", "annotations": annotations},
                "status": {"conditions": conditions}});
            if known.is_null() {
                node["status"]["conditions"].as_array_mut().unwrap().remove(0);
            }
            serde_json::from_value(node).unwrap()
        };
        let null = Value::Null;
        for (asked, known, disk, expected) in [
            (false, null.clone(), "False", None),
            (true, null.clone(), "False", Some(ENABLED)),
            (true, "True".into(), "False", None),
            (true, "True".into(), "True", Some(DOUBTFUL)),
            (true, "Unknown".into(), "True", None),
            (true, "Unknown".into(), "Unknown", None),
            (true, "True".into(), "Unknown", None),
            (true, "Unknown".into(), "False", Some(ENABLED)),
            (false, "True".into(), "True", Some(DISABLED)),
            (false, "False".into(), "False", None),
            (true, "False".into(), "Unknown", Some(ENABLED)),
        ] {
            let found = news(&node(asked, known.clone(), disk));
            assert_eq!(found, expected, "{asked} {known} {disk}");
        }
    }
}
