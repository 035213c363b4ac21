//! Whether some rules grant everything that other rules grant, by Kubernetes' comparison.
//!
//! The servant's rules are taken apart into single grants (one verb on one resource of one group, for one
//! name if names are given; or one verb on one URL). Each must be covered by one rule of the owner.
//! The comparison is of patterns, not of what exists: `*` is covered by `*` only.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::{
    quote::QuotedList,
    rule::{any_or_all, list, url_matches},
};

/// Most single grants that the servant's rules may come apart into. A role of a megabyte could come
/// apart into more than any machine can compare; real ones come to a few thousand at the most.
pub const MAX_COMBINATIONS: usize = 16 * 1024;

/// The rules come apart into too many single grants to be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the rules are {found} combinations of group, resource, name and verb: at most {MAX_COMBINATIONS} can be compared"
)]
pub struct TooManyCombinations {
    /// How many they are.
    pub found: usize,
}

/// One verb on one thing.
#[derive(Clone, Copy)]
enum Grant<'r> {
    Resource { group: &'r str, resource: &'r str, name: Option<&'r str>, verb: &'r str },
    Url { url: &'r str, verb: &'r str },
}

/// Whether the owner's rules cover the servant's. Rules too many to compare are not covered.
#[must_use]
pub fn covers(owner: &[PolicyRule], servant: &[PolicyRule]) -> bool {
    uncovered(owner, servant).is_ok_and(|missing| missing.is_empty())
}

/// What the servant's rules grant beyond the owner's, as single grants.
///
/// # Errors
/// When the servant's rules are too many combinations.
pub fn uncovered(
    owner: &[PolicyRule],
    servant: &[PolicyRule],
) -> Result<Vec<PolicyRule>, TooManyCombinations> {
    let found = servant.iter().map(combinations).fold(0, usize::saturating_add);
    if found > MAX_COMBINATIONS {
        return Err(TooManyCombinations { found });
    }
    let mut missing = Vec::new();
    for rule in servant {
        each_grant(rule, |grant| {
            if !owner.iter().any(|owner| grant.is_covered_by(owner)) {
                missing.push(grant.into_rule());
            }
        });
    }
    Ok(missing)
}

fn combinations(rule: &PolicyRule) -> usize {
    let names = list(&rule.resource_names).len().max(1);
    let resources = [list(&rule.resources).len(), names]
        .into_iter()
        .fold(list(&rule.api_groups).len(), usize::saturating_mul);
    resources.saturating_add(list(&rule.non_resource_urls).len()).saturating_mul(rule.verbs.len())
}

fn each_grant<'r>(rule: &'r PolicyRule, mut take: impl FnMut(Grant<'r>)) {
    let names = list(&rule.resource_names);
    for group in list(&rule.api_groups) {
        for resource in list(&rule.resources) {
            for verb in &rule.verbs {
                if names.is_empty() {
                    take(Grant::Resource { group, resource, name: None, verb });
                }
                for name in names {
                    take(Grant::Resource { group, resource, name: Some(name), verb });
                }
            }
        }
    }
    for url in list(&rule.non_resource_urls) {
        for verb in &rule.verbs {
            take(Grant::Url { url, verb });
        }
    }
}

impl Grant<'_> {
    fn is_covered_by(self, owner: &PolicyRule) -> bool {
        let names = list(&owner.resource_names);
        match self {
            Self::Resource { group, resource, name, verb } => {
                any_or_all(&owner.verbs, verb)
                    && any_or_all(list(&owner.api_groups), group)
                    && covers_resource(list(&owner.resources), resource)
                    && (names.is_empty()
                        || name.is_some_and(|name| names.iter().any(|n| n == name)))
            }
            // Names restrict URLs too, if someone writes both into one rule.
            Self::Url { url, verb } => {
                any_or_all(&owner.verbs, verb)
                    && names.is_empty()
                    && list(&owner.non_resource_urls)
                        .iter()
                        .any(|pattern| url_matches(pattern, url))
            }
        }
    }

    fn into_rule(self) -> PolicyRule {
        let one = |text: &str| Some(vec![text.to_owned()]);
        match self {
            Self::Resource { group, resource, name, verb } => PolicyRule {
                api_groups: one(group),
                resources: one(resource),
                resource_names: name.and_then(one),
                verbs: vec![verb.to_owned()],
                ..PolicyRule::default()
            },
            Self::Url { url, verb } => PolicyRule {
                non_resource_urls: one(url),
                verbs: vec![verb.to_owned()],
                ..PolicyRule::default()
            },
        }
    }
}

fn covers_resource(patterns: &[String], resource: &str) -> bool {
    let below = resource.split_once('/').map(|(_, below)| below);
    patterns.iter().any(|pattern| {
        pattern == "*"
            || pattern == resource
            || below.is_some_and(|below| pattern.strip_prefix("*/") == Some(below))
    })
}

/// Missing rules, one a line, in Kubernetes' short form. Rules that differ only by verb share a line.
pub(crate) fn listing(missing: &[PolicyRule]) -> String {
    let mut by_resource: BTreeMap<(&[String], &[String]), PolicyRule> = BTreeMap::new();
    let mut single = Vec::new();
    for rule in missing {
        if rule.resource_names.is_some() || rule.non_resource_urls.is_some() {
            single.push(short_form(rule));
            continue;
        }
        by_resource
            .entry((list(&rule.api_groups), list(&rule.resources)))
            .and_modify(|merged| merged.verbs.extend_from_slice(&rule.verbs))
            .or_insert_with(|| rule.clone());
    }
    let merged = by_resource.values().map(short_form);
    let lines: BTreeSet<String> = merged.chain(single).collect();
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

fn short_form(rule: &PolicyRule) -> String {
    let parts: Vec<String> = [
        ("APIGroups", list(&rule.api_groups)),
        ("Resources", list(&rule.resources)),
        ("NonResourceURLs", list(&rule.non_resource_urls)),
        ("ResourceNames", list(&rule.resource_names)),
        ("Verbs", &rule.verbs),
    ]
    .into_iter()
    .filter(|(_, texts)| !texts.is_empty())
    .map(|(field, texts)| format!("{field}:{}", QuotedList(texts)))
    .collect();
    format!("{{{}}}", parts.join(", "))
}
