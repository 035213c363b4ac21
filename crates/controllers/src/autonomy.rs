//! For how long a node that falls silent is trusted with its pods. Pure.
//!
//! The owner says it by an annotation of the node. While that time lasts its pods are neither evicted nor taken
//! out of endpoints: they are believed to run on where nobody hears of them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::kinds::node::{Node, Taint};

/// What a node has while its own reports say that it is not ready.
pub(crate) const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// What a node has while nobody hears it.
pub(crate) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// For how long a silent node keeps its pods whatever they tolerate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Autonomy {
    None,
    For(SignedDuration),
    ForEver,
}

impl Autonomy {
    /// A node's. A text that is no duration is read as for ever: the owner wanted autonomy, and an eviction cannot
    /// be taken back.
    pub(crate) fn of(node: &Node) -> Self {
        node.autonomy().map_or(Self::None, |text| Self::parse(text).unwrap_or(Self::ForEver))
    }

    /// Reads a Go duration, of which zero and less are for ever.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == "0" {
            return Some(Self::ForEver);
        }
        let duration: kube::core::Duration = text.parse().ok()?;
        if duration.is_negative() {
            return Some(Self::ForEver);
        }
        let duration = SignedDuration::try_from(Duration::from(duration)).ok()?;
        Some(if duration.is_zero() { Self::ForEver } else { Self::For(duration) })
    }

    /// How much of it is left of a silence that began then.
    pub(crate) fn left(self, since: Timestamp, now: Timestamp) -> Left {
        let Self::For(duration) = self else {
            return if self == Self::None { Left::Nothing } else { Left::Everything };
        };
        match Duration::try_from(duration - now.duration_since(since)) {
            Ok(left) if !left.is_zero() => Left::This(left),
            _ => Left::Nothing,
        }
    }
}

/// What is left of a node's autonomy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    This(Duration),
    Everything,
}

/// Since when a node has been silent; evictions count from the same moment.
pub(crate) fn silent_since(node: &Node) -> Option<Timestamp> {
    let tells = |taint: &&Taint| is_silence(&taint.key) && &*taint.effect == "NoExecute";
    node.taints().iter().filter(tells).filter_map(|taint| taint.added).min()
}

/// Whether a taint with this key says no more than that the node is silent.
pub(crate) fn is_silence(key: &str) -> bool {
    [NOT_READY, UNREACHABLE].contains(&key)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::node::{AUTONOMY, BINDING, OLD_AUTONOMY};

    #[test]
    fn annotations_say_for_how_long() {
        let lasts = |seconds| Autonomy::For(SignedDuration::from_secs(seconds));
        for (annotations, expected) in [
            (json!({}), Autonomy::None),
            (json!({AUTONOMY: "90s"}), lasts(90)),
            (json!({AUTONOMY: "1h30m"}), lasts(5400)),
            (json!({AUTONOMY: "0"}), Autonomy::ForEver),
            (json!({AUTONOMY: "0s"}), Autonomy::ForEver),
            (json!({AUTONOMY: "-1m"}), Autonomy::ForEver),
            (json!({AUTONOMY: "two days"}), Autonomy::ForEver),
            (json!({OLD_AUTONOMY: "true"}), Autonomy::ForEver),
            (json!({OLD_AUTONOMY: "true", AUTONOMY: "90s"}), Autonomy::ForEver),
            (json!({OLD_AUTONOMY: "false", AUTONOMY: "90s"}), lasts(90)),
            (json!({OLD_AUTONOMY: "false"}), Autonomy::None),
            (json!({BINDING: "true"}), Autonomy::ForEver),
        ] {
            let node = json!({"metadata": {"name": "n", "annotations": annotations}});
            let node: Node = serde_json::from_value(node).unwrap();
            assert_eq!(Autonomy::of(&node), expected, "{annotations}");
        }
        assert_eq!(Autonomy::parse("two days"), None);
    }

    #[test]
    fn it_is_counted_from_the_first_word_of_silence() {
        let taint = |key, effect, at| json!({"key": key, "effect": effect, "timeAdded": at});
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": {"taints": [
            taint("mine", "NoExecute", "2026-01-01T00:00:00Z"),
            taint(UNREACHABLE, "NoSchedule", "2026-01-01T00:00:01Z"),
            taint(UNREACHABLE, "NoExecute", "2026-01-01T00:00:02Z")]}}))
            .unwrap();
        let since = silent_since(&node).unwrap();
        assert_eq!(since, "2026-01-01T00:00:02Z".parse().unwrap());
        let minute = Autonomy::For(SignedDuration::from_secs(60));
        let at = |seconds| since + SignedDuration::from_secs(seconds);
        assert_eq!(minute.left(since, at(20)), Left::This(Duration::from_secs(40)));
        assert_eq!(minute.left(since, at(60)), Left::Nothing);
        assert_eq!(Autonomy::None.left(since, since), Left::Nothing);
        assert_eq!(Autonomy::ForEver.left(since, at(1 << 30)), Left::Everything);
    }
}
