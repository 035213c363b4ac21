//! How a pod fails for reasons of the node: it is not let in, or has to leave.

use std::time::Duration;

use super::{Failure, PodMachine};
use crate::moment::Moment;

/// What is short cannot be waited for; the kubelet's grace period of evictions by hard thresholds.
const EVICTION_GRACE: Duration = Duration::from_secs(1);
/// What the status of such a pod says.
const EVICTED: &str = "Evicted";

impl PodMachine {
    /// Ends the pod to make room on the node, or because it takes more than it may: `disrupts` says that it has
    /// kept to its limits. With `grace` there is time: as much as the pod asks for, but no more than that.
    pub fn evict(&mut self, message: String, disrupts: bool, grace: Option<Duration>, now: Moment) {
        if self.is_over() {
            return;
        }
        let grace = grace.map_or(EVICTION_GRACE, |most| most.min(self.plan.grace));
        let kill_at = now.elapsed + grace.max(EVICTION_GRACE);
        self.fail(EVICTED, message.clone(), kill_at, disrupts);
        self.parts(now).3.events.pod_warning(EVICTED, message);
    }

    /// Lets the pod not run here at all, for a reason in the kubelet's words such as `OutOfcpu`. For one that has
    /// never run.
    pub fn refuse(&mut self, reason: &str, message: &str, now: Moment) {
        if self.is_over() {
            return;
        }
        let text = format!("Pod was rejected: {message}");
        self.fail(reason, text, now.elapsed, false);
        self.parts(now).3.events.pod_warning(reason, message.to_owned());
    }

    fn fail(&mut self, reason: &str, message: String, kill_at: Duration, disrupts: bool) {
        self.failure = Some(Failure { reason: reason.to_owned(), message, kill_at, disrupts });
    }
}
