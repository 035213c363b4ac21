//! A job's rules: what a pod's failure means, and when enough indexes have succeeded.

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule,
};

use super::indexes::Indexes;
use crate::{
    key::Key,
    kinds::{pod::Pod, status::ContainerReport},
};

/// What a pod's failure means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It counts towards the limits.
    Counts,
    /// It does not.
    Ignored,
    /// Its index has failed, whatever the limit.
    FailsIndex,
    /// The job has failed, and why.
    FailsJob(String),
}

/// What the failure of this pod means, by the first rule that matches it.
pub(super) fn judge(spec: &JobSpec, pod: &Pod) -> Failure {
    let rules = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    for (index, rule) in rules.enumerate() {
        let Some(matched) = matches(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Failure::Ignored,
            "FailIndex" => Failure::FailsIndex,
            "FailJob" => {
                let what = matched.message(&Key::of(&pod.metadata));
                Failure::FailsJob(format!("{what} matching FailJob rule at index {index}"))
            }
            _ => Failure::Counts,
        };
    }
    Failure::Counts
}

enum Matched {
    ExitCode { container: String, code: i32 },
    Condition { type_: String },
}

impl Matched {
    fn message(&self, pod: &Key) -> String {
        match self {
            Self::ExitCode { container, code } => {
                format!("Container {container} for pod {pod} failed with exit code {code}")
            }
            Self::Condition { type_ } => format!("Pod {pod} has condition {type_}"),
        }
    }
}

fn matches(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<Matched> {
    let report = pod.report();
    if let Some(wanted) = &rule.on_exit_codes {
        let mut all = report.containers.iter().chain(&report.init_containers);
        return all.find_map(|container| exit_code(wanted, container));
    }
    let patterns = rule.on_pod_conditions.as_ref()?;
    let mut matching = report.conditions.iter().filter(|condition| {
        patterns.iter().any(|pattern| {
            let status = pattern.status.as_deref().unwrap_or("True");
            *pattern.type_ == *condition.type_ && *status == *condition.status
        })
    });
    matching.next().map(|condition| Matched::Condition { type_: condition.type_.to_string() })
}

fn exit_code(
    wanted: &PodFailurePolicyOnExitCodesRequirement,
    container: &ContainerReport,
) -> Option<Matched> {
    if wanted.container_name.as_ref().is_some_and(|name| **name != *container.name) {
        return None;
    }
    let code = container.terminated.as_ref()?.exit_code;
    let listed = wanted.values.contains(&code);
    let matches = match wanted.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    };
    (code != 0 && matches)
        .then(|| Matched::ExitCode { container: container.name.to_string(), code })
}

/// The rule of the success policy that is met, as the condition tells it.
pub(super) fn met(spec: &JobSpec, succeeded: &Indexes) -> Option<String> {
    let completions = spec.completions.unwrap_or(0);
    if succeeded.is_empty() {
        return None;
    }
    let mut rules = spec.success_policy.iter().flat_map(|policy| &policy.rules);
    let index = rules.position(|rule| match &rule.succeeded_indexes {
        Some(wanted) => {
            let wanted = Indexes::parse(wanted, completions);
            let enough = rule.succeeded_count.is_some_and(|n| succeeded.common(&wanted) >= n);
            !wanted.is_empty() && (enough || succeeded.contains_all(&wanted))
        }
        None => rule.succeeded_count.is_some_and(|wanted| succeeded.total() >= wanted),
    })?;
    Some(format!("Matched rules at index {index}"))
}
