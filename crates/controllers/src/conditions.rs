//! Conditions of OpenYurt's objects.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use toono_openyurt::node_pool::NodePoolCondition;

/// Puts a condition in the place of the one of its type; whether that changed anything. The time of the transition
/// is kept while the status stays.
pub(crate) fn set(conditions: &mut Vec<NodePoolCondition>, mut new: NodePoolCondition) -> bool {
    let Some(old) = conditions.iter_mut().find(|old| old.type_ == new.type_) else {
        new.last_transition_time = Some(Time(jiff::Timestamp::now()));
        conditions.push(new);
        return true;
    };
    new.last_transition_time = match old.status == new.status {
        true => old.last_transition_time.clone(),
        false => Some(Time(jiff::Timestamp::now())),
    };
    let changed = *old != new;
    *old = new;
    changed
}
