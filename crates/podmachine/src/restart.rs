//! Whether a container that has ended runs again: the policies, and the rules for exit codes.

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule};

/// A pod's policy, or a container's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    pub(crate) fn read(text: Option<&str>) -> Option<Self> {
        match text? {
            "Never" => Some(Self::Never),
            "OnFailure" => Some(Self::OnFailure),
            _ => Some(Self::Always),
        }
    }
}

/// When a container runs again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Restarts {
    pub(crate) policy: RestartPolicy,
    /// Exit codes with which it runs again, whatever the policy.
    rules: Vec<Rule>,
}

/// Exit codes that are in the list, or are not.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    codes: Vec<i32>,
    listed: bool,
}

impl Restarts {
    pub(crate) fn by(policy: RestartPolicy) -> Self {
        Self { policy, rules: Vec::new() }
    }

    /// By a container's own rules, and this policy.
    pub(crate) fn read(container: &Container, policy: RestartPolicy) -> Self {
        let rules = container.restart_policy_rules.iter().flatten().filter_map(Rule::read);
        Self { policy, rules: rules.collect() }
    }

    /// Whether it runs again after this exit code.
    pub(crate) fn after(&self, code: i32) -> bool {
        self.rules.iter().any(|rule| rule.codes.contains(&code) == rule.listed)
            || match self.policy {
                RestartPolicy::Always => true,
                RestartPolicy::OnFailure => code != 0,
                RestartPolicy::Never => false,
            }
    }
}

impl Rule {
    fn read(rule: &ContainerRestartRule) -> Option<Self> {
        let exit_codes = rule.exit_codes.as_ref().filter(|_| acts(rule))?;
        let codes = exit_codes.values.clone().unwrap_or_default();
        Some(Self { codes, listed: exit_codes.operator == "In" })
    }
}

/// Whether the rule asks for what this node does: to run that container again.
pub(crate) fn acts(rule: &ContainerRestartRule) -> bool {
    rule.action == "Restart"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_come_before_the_policy() {
        let of = |rules: serde_json::Value, policy| {
            let container = serde_json::json!({"name": "c", "restartPolicyRules": rules});
            Restarts::read(&serde_json::from_value(container).unwrap(), policy)
        };
        let rule = |operator: &str, values: &[i32]| {
            serde_json::json!([{"action": "Restart",
                "exitCodes": {"operator": operator, "values": values}}])
        };
        let listed = of(rule("In", &[42]), RestartPolicy::Never);
        assert_eq!([42, 1, 0].map(|code| listed.after(code)), [true, false, false]);
        let others = of(rule("NotIn", &[42]), RestartPolicy::Never);
        assert_eq!([42, 1, 0].map(|code| others.after(code)), [false, true, true]);
        let failing = of(rule("In", &[0]), RestartPolicy::OnFailure);
        assert_eq!([0, 1].map(|code| failing.after(code)), [true, true]);
        assert!(!Restarts::by(RestartPolicy::OnFailure).after(0));
        assert!(Restarts::by(RestartPolicy::Always).after(0));
    }
}
