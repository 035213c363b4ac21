//! How long a request is kept: those that ended for an hour, those that nobody looked at for a
//! day. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::request::{APPROVED, DENIED, FAILED, SigningRequest};

/// Kubernetes' times.
const KEPT_WHEN_DONE: Duration = Duration::from_secs(60 * 60);
const KEPT_WHEN_PENDING: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a request is kept from now on; zero when its time is up, nothing when no time is set.
pub(super) fn remaining(request: &SigningRequest, now: Timestamp) -> Option<Duration> {
    let updated = |type_: &str| {
        let condition = request.condition(type_)?;
        condition.last_update_time.as_ref().or(condition.last_transition_time.as_ref())
    };
    let created = request.metadata.creation_timestamp.as_ref();
    let until = |since: Option<&Time>, kept: Duration| since.map(|time| time.0 + kept);
    let ends = [
        until(updated(APPROVED).filter(|_| request.is_issued()), KEPT_WHEN_DONE),
        until(updated(DENIED), KEPT_WHEN_DONE),
        until(updated(FAILED), KEPT_WHEN_DONE),
        until(created.filter(|_| request.status.conditions.is_empty()), KEPT_WHEN_PENDING),
    ];
    let end = ends.into_iter().flatten().min()?;
    Some(Duration::try_from(end.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn requests_go_an_hour_after_their_end_or_a_day_after_their_beginning() {
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        let left = |status: Value| {
            let request = json!({"metadata": {"creationTimestamp": "2026-01-01T12:00:00Z"},
                "status": status});
            let request: SigningRequest = serde_json::from_value(request).unwrap();
            remaining(&request, now).map(|left| left.as_secs() / 60)
        };
        let condition = |type_: &str, at: &str| json!([{"type": type_, "status": "True", "lastUpdateTime": at}]);
        let ago = "2026-01-01T23:30:00Z";
        assert_eq!(left(json!({})), Some(12 * 60));
        assert_eq!(left(json!({"conditions": condition(APPROVED, ago)})), None, "not issued yet");
        let issued = json!({"conditions": condition(APPROVED, ago), "certificate": "eA=="});
        assert_eq!(left(issued), Some(30));
        assert_eq!(left(json!({"conditions": condition(DENIED, ago)})), Some(30));
        let long_ago = condition(FAILED, "2026-01-01T22:00:00Z");
        assert_eq!(left(json!({"conditions": long_ago})), Some(0));
    }
}
