//! What one user may read, by itself: small enough to travel to where the roles and bindings are not.

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::{Deserialize, Serialize};

use crate::{attributes::Attributes, rule};

/// The verbs that read.
const READS: [&str; 4] = ["get", "list", "watch", "*"];

/// The rules of a user that count in one place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    /// Where; everywhere if it is empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    namespace: String,
    /// Of each rule only the verbs that read; each rule once.
    rules: Vec<PolicyRule>,
}

impl Grant {
    pub(crate) fn of<'r>(namespace: &str, all: impl Iterator<Item = &'r PolicyRule>) -> Self {
        let mut rules: Vec<PolicyRule> = Vec::new();
        for rule in all {
            let mut rule = rule.clone();
            rule.verbs.retain(|verb| READS.contains(&verb.as_str()));
            if !rule.verbs.is_empty() && !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        Self { namespace: namespace.to_owned(), rules }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

/// Whether a read is allowed to whom these grants are. The user in the attributes is not looked at.
#[must_use]
pub fn permits(grants: &[Grant], attributes: &Attributes<'_>) -> bool {
    let scope = attributes.scope();
    let count = grants.iter().filter(|it| it.namespace.is_empty() || it.namespace == scope);
    READS.contains(&attributes.verb)
        && count.flat_map(|it| &it.rules).any(|rule| rule::allows(rule, attributes))
}
