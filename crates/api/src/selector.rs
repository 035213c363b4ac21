//! Label and field selectors: their text form, the `LabelSelector` object, and matching.

use std::{collections::BTreeSet, fmt};

use serde_json::Value;

use crate::names;

/// The fields by which pods may be selected, besides name and namespace
/// (<https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/>).
pub const POD_FIELDS: [&str; 8] = [
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
];

/// Longest selector text that is parsed; a URL carries no more.
pub const MAX_TEXT_BYTES: usize = 64 * 1024;

/// All requirements must hold. No requirement selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

/// One condition on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    Absent,
    GreaterThan(i64),
    LessThan(i64),
}

/// Why a text or object is not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The text does not follow the grammar.
    #[error("unable to parse requirement: {0}")]
    Syntax(String),
    /// The kind has no such field selector.
    #[error("field label not supported: {0}")]
    UnknownField(String),
    /// The operator of a `matchExpressions` item is unknown.
    #[error("{0:?} is not a valid label selector operator")]
    UnknownOperator(String),
}

fn syntax(why: impl Into<String>) -> SelectorError {
    SelectorError::Syntax(why.into())
}

impl LabelSelector {
    /// Selects everything.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects nothing (what an absent `LabelSelector` object means).
    #[must_use]
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Whether every object matches.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    ///
    /// # Errors
    /// When the text does not follow the grammar.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(syntax(format!("longer than {MAX_TEXT_BYTES} bytes")));
        }
        let requirements =
            split_terms(text).into_iter().map(parse_requirement).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { requirements, nothing: false })
    }

    /// Reads a `metav1.LabelSelector` object: `matchLabels` and `matchExpressions`.
    ///
    /// # Errors
    /// When an operator is unknown.
    pub fn from_object(selector: &Value) -> Result<Self, SelectorError> {
        let mut requirements: Vec<Requirement> = selector
            .get("matchLabels")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some(equals(key, value.as_str()?)))
            .collect();
        for expression in crate::meta::items_at(selector, &["matchExpressions"]) {
            requirements.push(expression_requirement(expression)?);
        }
        Ok(Self { requirements, nothing: false })
    }

    /// Reads a plain map of labels that must all be equal (`Service.spec.selector`).
    #[must_use]
    pub fn from_map<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let requirements = labels.into_iter().map(|(key, value)| equals(key, value)).collect();
        Self { requirements, nothing: false }
    }

    /// Whether labels, looked up by `label`, satisfy every requirement.
    pub fn matches<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        !self.nothing
            && self
                .requirements
                .iter()
                .all(|requirement| requirement.matches(label(&requirement.key)))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, requirement) in self.requirements.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

fn equals(key: &str, value: &str) -> Requirement {
    Requirement { key: key.to_owned(), operator: Operator::In([value.to_owned()].into()) }
}

fn expression_requirement(expression: &Value) -> Result<Requirement, SelectorError> {
    let text = |field: &str| expression.get(field).and_then(Value::as_str).unwrap_or_default();
    let values = crate::meta::items_at(expression, &["values"])
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let operator = match text("operator") {
        "In" => Operator::In(values),
        "NotIn" => Operator::NotIn(values),
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::Absent,
        other => return Err(SelectorError::UnknownOperator(other.to_owned())),
    };
    Ok(Requirement { key: text("key").to_owned(), operator })
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let number = |value: Option<&str>| value.and_then(|text| text.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::Absent => value.is_none(),
            Operator::GreaterThan(bound) => number(value).is_some_and(|value| value > *bound),
            Operator::LessThan(bound) => number(value).is_some_and(|value| value < *bound),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |values: &BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(",");
        match &self.operator {
            Operator::In(values) if values.len() == 1 => write!(f, "{}={}", self.key, join(values)),
            Operator::In(values) => write!(f, "{} in ({})", self.key, join(values)),
            Operator::NotIn(values) if values.len() == 1 => {
                write!(f, "{}!={}", self.key, join(values))
            }
            Operator::NotIn(values) => write!(f, "{} notin ({})", self.key, join(values)),
            Operator::Exists => f.write_str(&self.key),
            Operator::Absent => write!(f, "!{}", self.key),
            Operator::GreaterThan(bound) => write!(f, "{}>{bound}", self.key),
            Operator::LessThan(bound) => write!(f, "{}<{bound}", self.key),
        }
    }
}

/// Splits at commas that are not inside parentheses.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let mut depth = 0usize;
    let mut rest = text;
    let mut from = 0;
    for (position, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                let (term, after) = rest.split_at(position - from);
                terms.push(term.trim());
                rest = after.strip_prefix(',').unwrap_or(after);
                from = position + 1;
            }
            _ => {}
        }
    }
    terms.push(rest.trim());
    if terms.iter().all(|term| term.is_empty()) {
        terms.clear();
    }
    terms
}

fn parse_requirement(term: &str) -> Result<Requirement, SelectorError> {
    if let Some(key) = term.strip_prefix('!') {
        return Ok(Requirement { key: label_key(key)?, operator: Operator::Absent });
    }
    for (sign, negated) in [("!=", true), ("==", false), ("=", false)] {
        if let Some((key, value)) = term.split_once(sign) {
            let values = [label_text(value)?].into();
            let operator = if negated { Operator::NotIn(values) } else { Operator::In(values) };
            return Ok(Requirement { key: label_key(key)?, operator });
        }
    }
    if let Some((key, bound)) = term.split_once('>') {
        return Ok(Requirement {
            key: label_key(key)?,
            operator: Operator::GreaterThan(integer(bound)?),
        });
    }
    if let Some((key, bound)) = term.split_once('<') {
        return Ok(Requirement {
            key: label_key(key)?,
            operator: Operator::LessThan(integer(bound)?),
        });
    }
    match term.split_once(char::is_whitespace) {
        None => Ok(Requirement { key: label_key(term)?, operator: Operator::Exists }),
        Some((key, set)) => parse_set(key, set.trim()),
    }
}

fn parse_set(key: &str, set: &str) -> Result<Requirement, SelectorError> {
    let (negated, list) = match (set.strip_prefix("notin"), set.strip_prefix("in")) {
        (Some(list), _) => (true, list),
        (None, Some(list)) => (false, list),
        (None, None) => {
            return Err(syntax(format!("found '{set}', expected: in, notin, =, ==, !=, gt, lt")));
        }
    };
    let values = list
        .trim()
        .strip_prefix('(')
        .and_then(|list| list.strip_suffix(')'))
        .ok_or_else(|| syntax(format!("found '{list}', expected: '(' and ')'")))?
        .split(',')
        .map(label_text)
        .collect::<Result<BTreeSet<_>, _>>()?;
    let operator = if negated { Operator::NotIn(values) } else { Operator::In(values) };
    Ok(Requirement { key: label_key(key)?, operator })
}

fn integer(text: &str) -> Result<i64, SelectorError> {
    text.trim()
        .parse()
        .map_err(|_| syntax(format!("for 'Gt', 'Lt' operators, {text:?} must be an integer")))
}

fn label_key(key: &str) -> Result<String, SelectorError> {
    let key = key.trim();
    match names::qualified_name(key).first() {
        None => Ok(key.to_owned()),
        Some(why) => Err(syntax(format!("key: Invalid value: {key:?}: {why}"))),
    }
}

fn label_text(value: &str) -> Result<String, SelectorError> {
    let value = value.trim();
    match names::label_value(value).first() {
        None => Ok(value.to_owned()),
        Some(why) => Err(syntax(format!("values: Invalid value: {value:?}: {why}"))),
    }
}

/// All terms must hold: each a field, the value to compare with, and whether they must differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

/// One comparison of a field selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTerm {
    /// The field, such as `spec.nodeName`.
    pub field: String,
    /// What it is compared with.
    pub value: String,
    /// Whether the field must be different.
    pub negated: bool,
}

impl FieldSelector {
    /// Reads `a=b,c!=d`; a backslash keeps the next character as it is.
    ///
    /// # Errors
    /// When a term is no comparison, or compares a field that is not among `known`.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for term in text.split(',').filter(|term| !term.is_empty()) {
            let (field, value, negated) = if let Some((field, value)) = term.split_once("!=") {
                (field, value, true)
            } else if let Some((field, value)) = term.split_once("==").or(term.split_once('=')) {
                (field, value, false)
            } else {
                return Err(syntax(format!(
                    "invalid field selector: {term:?}; can't understand it"
                )));
            };
            if !known.contains(&field) {
                return Err(SelectorError::UnknownField(field.to_owned()));
            }
            let value = value.replace('\\', "");
            terms.push(FieldTerm { field: field.to_owned(), value, negated });
        }
        Ok(Self { terms })
    }

    /// Whether every object matches.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The terms.
    #[must_use]
    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// The value that the field must equal, if a term says so.
    #[must_use]
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|term| term.field == field && !term.negated)
            .map(|term| term.value.as_str())
    }

    /// Whether a decoded object matches. An absent field is an empty text.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        self.terms.iter().all(|term| {
            let (path, absent) = field_path(&term.field);
            let value = path.split('.').try_fold(object, |value, part| value.get(part));
            let same = match value {
                None | Some(Value::Null) => term.value == absent,
                Some(Value::String(text)) => *text == term.value,
                Some(other) => format!("{other}") == term.value,
            };
            same != term.negated
        })
    }
}

/// Where the value of a selectable field is, and as what its absence counts.
fn field_path(field: &str) -> (&str, &'static str) {
    match field {
        "source" => ("source.component", ""),
        "status.successful" => ("status.succeeded", "0"),
        "status.replicas" => (field, "0"),
        "spec.unschedulable" | "spec.hostNetwork" => (field, "false"),
        _ => (field, ""),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn label(key: &str) -> Option<&'static str> {
        match key {
            "app" => Some("web"),
            "n" => Some("5"),
            "x.io/tier" => Some("front"),
            _ => None,
        }
    }

    #[test]
    fn label_selectors_match() {
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app!=web", false),
            ("none!=web", true),
            ("app in (db, web)", true),
            ("app notin (db,web)", false),
            ("none notin (a)", true),
            ("app", true),
            ("!app", false),
            ("!none", true),
            ("x.io/tier=front,app=web", true),
            ("x.io/tier=front,app=db", false),
            ("n>4", true),
            ("n<5", false),
            ("app in (a,b),n", false),
        ] {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.matches(label), expected, "{text}");
            let again = LabelSelector::parse(&selector.to_string()).unwrap();
            assert_eq!(again, selector, "{text}");
        }
        for bad in ["a b", "=x", "a in", "a in (b", "a=b c", "a>x", "a,,b"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
        assert!(!LabelSelector::nothing().matches(label));
    }

    #[test]
    fn selector_objects_match() {
        let object = json!({"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "n", "operator": "In", "values": ["5"]}, {"key": "zzz", "operator": "DoesNotExist"}]});
        let selector = LabelSelector::from_object(&object).unwrap();
        assert!(selector.matches(label));
        assert_eq!(selector.to_string(), "app=web,n=5,!zzz");
        assert!(
            LabelSelector::from_object(
                &json!({"matchExpressions": [{"key": "a", "operator": "Like"}]})
            )
            .is_err()
        );
    }

    #[test]
    fn field_selectors_match() {
        let known = ["metadata.name", "spec.nodeName", "status.phase", "spec.unschedulable"];
        let pod = json!({"metadata": {"name": "a"}, "spec": {"unschedulable": true}, "status": {"phase": "Running"}});
        for (text, expected) in [
            ("", true),
            ("metadata.name=a", true),
            ("metadata.name!=a", false),
            ("spec.nodeName=", true),
            ("spec.nodeName!=", false),
            ("status.phase!=Failed,status.phase!=Succeeded", true),
            ("spec.unschedulable=true", true),
        ] {
            assert_eq!(
                FieldSelector::parse(text, &known).unwrap().matches(&pod),
                expected,
                "{text}"
            );
        }
        assert_eq!(
            FieldSelector::parse("spec.foo=1", &known).unwrap_err().to_string(),
            "field label not supported: spec.foo"
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            let _ = LabelSelector::parse(&text);
            let _ = FieldSelector::parse(&text, &["metadata.name"]);
        }
    }
}
