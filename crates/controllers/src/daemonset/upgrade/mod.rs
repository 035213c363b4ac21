//! Upgrades for nodes that come and go: daemon sets of `updateStrategy: OnDelete` whose annotation says how their
//! daemons are replaced all the same, as OpenYurt has it. `AdvancedRollingUpdate` goes on without the nodes that
//! are not ready; with `OTA` every node waits for an approval of its own.

mod advanced;
pub(crate) mod offer;
mod ota;

use k8s_openapi::{api::apps::v1::DaemonSet, apimachinery::pkg::util::intstr::IntOrString};

use toono_openyurt::keys::{MAX_UNAVAILABLE, UPDATE_STRATEGY};

use super::{Daemons, Work};
use crate::{error::SyncError, kinds::node::Node};
pub(super) use ota::Heir;

/// OpenYurt's default.
const DEFAULT_MAX_UNAVAILABLE: &str = "10%";

/// How daemons are replaced.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Strategy {
    /// Some at a time, on nodes that are ready.
    Advanced { max_unavailable: IntOrString },
    /// On each node once that node, or its owner, has approved.
    Ota,
}

/// Why a set's annotations say nothing; its daemons stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadStrategy {
    #[error(
        "annotation {UPDATE_STRATEGY}={0:?} is unknown, so no daemon is replaced; give AdvancedRollingUpdate or OTA"
    )]
    Unknown(String),
    #[error(
        "annotation {MAX_UNAVAILABLE}={0:?} is neither a number nor a percentage up to 100%, so no daemon \
         is replaced; give one such as 3 or 10%"
    )]
    MaxUnavailable(String),
    #[error(
        "annotation {UPDATE_STRATEGY} counts only with spec.updateStrategy.type OnDelete; \
         the daemons are replaced as {0} says"
    )]
    NotOnDelete(String),
}

impl BadStrategy {
    /// For an event.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "UnknownUpdateStrategy",
            Self::MaxUnavailable(_) => "InvalidMaxUnavailable",
            Self::NotOnDelete(_) => "UpdateStrategyIgnored",
        }
    }
}

/// What a set's annotations say of its upgrades.
pub(super) fn strategy(set: &DaemonSet) -> Result<Option<Strategy>, BadStrategy> {
    let annotations = set.metadata.annotations.as_ref();
    let annotation = |name: &str| annotations.and_then(|all| all.get(name)).map(String::as_str);
    let Some(text) = annotation(UPDATE_STRATEGY) else { return Ok(None) };
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    let type_ = strategy.and_then(|strategy| strategy.type_.as_deref()).unwrap_or("RollingUpdate");
    if type_ != "OnDelete" {
        return Err(BadStrategy::NotOnDelete(type_.to_owned()));
    }
    // OpenYurt compares without case, and knows an older name of the first one.
    match text.to_ascii_lowercase().as_str() {
        "ota" => Ok(Some(Strategy::Ota)),
        "advancedrollingupdate" | "auto" => {
            let most = annotation(MAX_UNAVAILABLE).unwrap_or(DEFAULT_MAX_UNAVAILABLE);
            Ok(Some(Strategy::Advanced { max_unavailable: number_or_percentage(most)? }))
        }
        _ => Err(BadStrategy::Unknown(text.to_owned())),
    }
}

/// Zero is the default, as with OpenYurt: with none nothing would ever be replaced.
fn number_or_percentage(text: &str) -> Result<IntOrString, BadStrategy> {
    const MOST_PERCENT: u32 = 100;
    let bad = || BadStrategy::MaxUnavailable(text.to_owned());
    let parsed = match text.strip_suffix('%') {
        Some(number) => match number.parse::<u32>().map_err(|_| bad())? {
            0 => DEFAULT_MAX_UNAVAILABLE.to_owned(),
            1..=MOST_PERCENT => text.to_owned(),
            _ => return Err(bad()),
        },
        None => match text.parse::<u32>().ok().and_then(|number| i32::try_from(number).ok()) {
            Some(0) => DEFAULT_MAX_UNAVAILABLE.to_owned(),
            Some(number) => return Ok(IntOrString::Int(number)),
            None => return Err(bad()),
        },
    };
    Ok(IntOrString::String(parsed))
}

/// One step of the upgrade.
pub(super) async fn step(
    work: &Work<'_>,
    daemons: &Daemons,
    strategy: &Strategy,
) -> Result<(), SyncError> {
    match strategy {
        Strategy::Advanced { max_unavailable } => {
            advanced::step(work, daemons, max_unavailable).await
        }
        Strategy::Ota => ota::step(work, daemons).await,
    }
}

/// The daemons that take the place of those that ended, and that are not to be newer than they were.
pub(super) fn heirs(work: &Work<'_>, daemons: &Daemons) -> Vec<Heir> {
    match strategy(work.set) {
        Ok(Some(Strategy::Ota)) => ota::heirs(work, daemons),
        _ => Vec::new(),
    }
}

/// Whether it matters to a set's upgrade that a node became ready, or ceased to be.
pub(super) fn follows_readiness(set: &DaemonSet) -> bool {
    matches!(strategy(set), Ok(Some(Strategy::Advanced { .. })))
}

pub(crate) fn is_ready(node: &Node) -> bool {
    node.condition("Ready").is_some_and(|ready| &*ready.status == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(type_: &str, annotations: &[(&str, &str)]) -> Result<Option<Strategy>, BadStrategy> {
        let annotations: serde_json::Map<_, _> =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let set = json!({"metadata": {"name": "d", "annotations": annotations}, "spec": {
            "selector": {}, "template": {}, "updateStrategy": {"type": type_}}});
        strategy(&serde_json::from_value(set).unwrap())
    }

    fn advanced(most: &str) -> Result<Option<Strategy>, BadStrategy> {
        said("OnDelete", &[(UPDATE_STRATEGY, "AdvancedRollingUpdate"), (MAX_UNAVAILABLE, most)])
    }

    #[test]
    fn annotations_are_read_as_openyurt_reads_them() {
        let of = |max_unavailable| Ok(Some(Strategy::Advanced { max_unavailable }));
        let percent = |text: &str| of(IntOrString::String(text.to_owned()));
        assert_eq!(said("OnDelete", &[]), Ok(None));
        assert_eq!(said("OnDelete", &[(UPDATE_STRATEGY, "OTA")]), Ok(Some(Strategy::Ota)));
        assert_eq!(said("OnDelete", &[(UPDATE_STRATEGY, "ota")]), Ok(Some(Strategy::Ota)));
        assert_eq!(said("OnDelete", &[(UPDATE_STRATEGY, "Auto")]), percent("10%"));
        assert_eq!(advanced("25%"), percent("25%"));
        assert_eq!(advanced("3"), of(IntOrString::Int(3)));
        assert_eq!((advanced("0"), advanced("0%")), (percent("10%"), percent("10%")));
    }

    #[test]
    fn conditions_are_called_as_openyurt_calls_them() {
        use toono_openyurt::keys;
        use toono_wire::upgrade;
        assert_eq!(keys::POD_NEED_UPGRADE, upgrade::NEEDED);
        assert_eq!(keys::POD_IMAGE_READY, upgrade::IMAGE_READY);
    }

    #[test]
    fn what_cannot_be_meant_is_told_and_replaces_nothing() {
        for bad in ["", "-1", "many", "101%", "3.5", "%", "99999999999"] {
            assert_eq!(advanced(bad), Err(BadStrategy::MaxUnavailable(bad.to_owned())), "{bad}");
        }
        let unknown = said("OnDelete", &[(UPDATE_STRATEGY, "Sometimes")]).unwrap_err();
        assert!(unknown.to_string().contains("AdvancedRollingUpdate or OTA"), "{unknown}");
        let ignored = said("RollingUpdate", &[(UPDATE_STRATEGY, "OTA")]).unwrap_err();
        assert_eq!(ignored.reason(), "UpdateStrategyIgnored");
    }
}
