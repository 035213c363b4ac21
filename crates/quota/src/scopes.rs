//! Which objects a quota counts: `scopes` and `scopeSelector`, all of which must match.

use serde_json::Value;

use crate::{
    pods::is_best_effort,
    usage::{Kind, at, items, text},
};

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    scope: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// All requirements of a quota.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scopes(Vec<Requirement>);

impl Scopes {
    pub(crate) fn read(quota: &Value) -> Self {
        let bare = items(quota, &["spec", "scopes"]).filter_map(Value::as_str);
        let bare = bare.map(|scope| Requirement {
            scope: scope.to_owned(),
            operator: Operator::Exists,
            values: Vec::new(),
        });
        let selected = items(quota, &["spec", "scopeSelector", "matchExpressions"]).map(|term| {
            let values = items(term, &["values"]).filter_map(Value::as_str);
            Requirement {
                scope: text(term, &["scopeName"]).unwrap_or_default().to_owned(),
                operator: match text(term, &["operator"]) {
                    Some("In") => Operator::In,
                    Some("NotIn") => Operator::NotIn,
                    Some("DoesNotExist") => Operator::DoesNotExist,
                    _ => Operator::Exists,
                },
                values: values.map(str::to_owned).collect(),
            }
        });
        Self(bare.chain(selected).collect())
    }

    /// Whether the quota counts this object. Only pods and claims have scopes; a quota with any
    /// counts nothing else.
    pub(crate) fn match_object(&self, kind: Kind<'_>, object: &Value) -> bool {
        self.0.iter().all(|requirement| {
            if kind.is("pods") {
                requirement.matches_pod(object)
            } else if kind.is("persistentvolumeclaims") {
                requirement.matches_claim(object)
            } else {
                false
            }
        })
    }
}

impl Requirement {
    fn matches_pod(&self, pod: &Value) -> bool {
        let terminates =
            || at(pod, &["spec", "activeDeadlineSeconds"]).and_then(Value::as_i64) >= Some(0);
        match self.scope.as_str() {
            "Terminating" => terminates(),
            "NotTerminating" => !terminates(),
            "BestEffort" => is_best_effort(pod),
            "NotBestEffort" => !is_best_effort(pod),
            "PriorityClass" => self.matches_name(text(pod, &["spec", "priorityClassName"])),
            "CrossNamespacePodAffinity" => reaches_other_namespaces(pod),
            _ => false,
        }
    }

    fn matches_claim(&self, claim: &Value) -> bool {
        if self.scope != "VolumeAttributesClass" {
            return false;
        }
        let wanted = text(claim, &["spec", "volumeAttributesClassName"]);
        let current = text(claim, &["status", "currentVolumeAttributesClassName"]);
        self.matches_name(wanted) || current.is_some() && self.matches_name(current)
    }

    fn matches_name(&self, name: Option<&str>) -> bool {
        let listed = name.is_some_and(|name| self.values.iter().any(|value| value == name));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => name.is_some(),
            Operator::DoesNotExist => name.is_none(),
        }
    }
}

/// Whether any of the pod's affinity terms names other namespaces.
fn reaches_other_namespaces(pod: &Value) -> bool {
    let names = |term: &Value| {
        at(term, &["namespaceSelector"]).is_some() || items(term, &["namespaces"]).next().is_some()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let path = |list| ["spec", "affinity", kind, list];
        let required = path("requiredDuringSchedulingIgnoredDuringExecution");
        let preferred = path("preferredDuringSchedulingIgnoredDuringExecution");
        items(pod, &required).any(names)
            || items(pod, &preferred)
                .filter_map(|preferred| at(preferred, &["podAffinityTerm"]))
                .any(names)
    })
}
