//! Label requirements (`key In [a b]`) as written in selectors and affinities, and their compiled
//! form over interned labels.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::NodeSelectorRequirement, apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use crate::intern::{Interner, Symbol};

/// How a label's value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The label is there and its value is one of those listed.
    In,
    /// The label is missing or its value is none of those listed.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is missing.
    DoesNotExist,
    /// The label's value is an integer above the one listed.
    Gt,
    /// The label's value is an integer below the one listed.
    Lt,
    /// An operator of no Kubernetes version: it matches nothing.
    Unknown,
}

impl Operator {
    fn parse(text: &str) -> Self {
        match text {
            "In" => Self::In,
            "NotIn" => Self::NotIn,
            "Exists" => Self::Exists,
            "DoesNotExist" => Self::DoesNotExist,
            "Gt" => Self::Gt,
            "Lt" => Self::Lt,
            _ => Self::Unknown,
        }
    }
}

/// One requirement on a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// The label's key.
    pub key: Box<str>,
    /// How it is compared.
    pub operator: Operator,
    /// With what.
    pub values: Vec<Box<str>>,
}

impl Requirement {
    pub(crate) fn equals(key: &str, value: &str) -> Self {
        Self { key: key.into(), operator: Operator::In, values: vec![value.into()] }
    }

    pub(crate) fn of_node(requirement: &NodeSelectorRequirement) -> Self {
        Self::new(&requirement.key, &requirement.operator, requirement.values.as_deref())
    }

    fn new(key: &str, operator: &str, values: Option<&[String]>) -> Self {
        Self {
            key: key.into(),
            operator: Operator::parse(operator),
            values: values.unwrap_or_default().iter().map(|value| value.as_str().into()).collect(),
        }
    }

    /// The requirements of a label selector; an empty selector has none and so matches all.
    #[must_use]
    pub fn of_selector(selector: &LabelSelector) -> Vec<Self> {
        let labels =
            selector.match_labels.iter().flatten().map(|(key, value)| Self::equals(key, value));
        let expressions = selector.match_expressions.iter().flatten().map(|expression| {
            Self::new(&expression.key, &expression.operator, expression.values.as_deref())
        });
        labels.chain(expressions).collect()
    }

    /// Whether a label value (`None` when the label is missing) meets this.
    #[must_use]
    pub fn accepts(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|known| &**known == value);
        match self.operator {
            Operator::In => value.is_some_and(listed),
            Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt => self.compares(value, |label, bound| label > bound),
            Operator::Lt => self.compares(value, |label, bound| label < bound),
            Operator::Unknown => false,
        }
    }

    /// Whether `labels` meet this.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.accepts(labels.get(&*self.key).map(String::as_str))
    }

    fn compares(&self, value: Option<&str>, test: impl Fn(i64, i64) -> bool) -> bool {
        let bound = self.values.first().and_then(|bound| bound.parse().ok());
        match (value.and_then(|value| value.parse().ok()), bound) {
            (Some(label), Some(bound)) => test(label, bound),
            _ => false,
        }
    }
}

/// A requirement whose strings were resolved once, for testing many nodes.
#[derive(Debug)]
pub(crate) struct Compiled<'a> {
    pub(crate) key: Symbol,
    values: Vec<Symbol>,
    source: &'a Requirement,
}

impl<'a> Compiled<'a> {
    pub(crate) fn new(source: &'a Requirement, symbols: &Interner) -> Self {
        Self {
            key: symbols.lookup(&source.key),
            values: source.values.iter().map(|value| symbols.lookup(value)).collect(),
            source,
        }
    }

    /// Whether labels sorted by key meet this.
    pub(crate) fn matches(&self, labels: &[(Symbol, Symbol)], symbols: &Interner) -> bool {
        self.accepts(label(labels, self.key), symbols)
    }

    /// Whether the key's value (`None` when the label is missing) meets this.
    pub(crate) fn accepts(&self, value: Option<Symbol>, symbols: &Interner) -> bool {
        match self.source.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(&value)),
            Operator::NotIn => !value.is_some_and(|value| self.values.contains(&value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt | Operator::Lt | Operator::Unknown => {
                self.source.accepts(value.map(|value| symbols.text(value)))
            }
        }
    }
}

/// The value of `key` among labels sorted by key.
pub(crate) fn label(labels: &[(Symbol, Symbol)], key: Symbol) -> Option<Symbol> {
    let at = labels.binary_search_by_key(&key, |(known, _)| *known).ok()?;
    labels.get(at).map(|(_, value)| *value)
}
