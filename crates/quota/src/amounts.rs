//! Amounts by resource name, as `status.hard` and `status.used` are.

use std::{collections::BTreeMap, fmt};

use serde_json::{Map, Value};
use toono_api::Quantity;

/// How much of each resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts(BTreeMap<String, Quantity>);

impl Amounts {
    /// Reads a map of quantities; what is no quantity is left out (the API stores none such).
    #[must_use]
    pub fn read(value: Option<&Value>) -> Self {
        let entries = value.and_then(Value::as_object).into_iter().flatten();
        Self(entries.filter_map(|(name, amount)| Some((name.clone(), quantity(amount)?))).collect())
    }

    /// As it is written into an object.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let entries = self.0.iter();
        Value::Object(
            entries
                .map(|(name, amount)| (name.clone(), Value::String(amount.to_string())))
                .collect::<Map<_, _>>(),
        )
    }

    /// The amount of one resource.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<Quantity> {
        self.0.get(name).copied()
    }

    /// The names of the resources.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether it names no resource.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets one amount.
    pub fn set(&mut self, name: impl Into<String>, amount: Quantity) {
        self.0.insert(name.into(), amount);
    }

    /// Adds to one amount.
    pub fn add(&mut self, name: &str, amount: Quantity) {
        match self.0.get_mut(name) {
            Some(known) => *known = known.saturating_add(amount),
            None => self.set(name, amount),
        }
    }

    /// Adds all of `other`.
    pub fn add_all(&mut self, other: &Self) {
        other.0.iter().for_each(|(name, amount)| self.add(name, *amount));
    }

    /// Raises each amount to that of `other` where that is more.
    pub(crate) fn raise_to(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let known = self.of(name).unwrap_or(Quantity::ZERO);
            if *amount > known || !self.0.contains_key(name) {
                self.set(name.clone(), *amount);
            }
        }
    }

    /// `self` without `other`; nothing goes below zero.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let less = |name: &String, amount: &Quantity| match other.0.get(name) {
            Some(gone) if gone >= amount => amount.saturating_sub(*amount),
            Some(gone) => amount.saturating_sub(*gone),
            None => *amount,
        };
        Self(self.0.iter().map(|(name, amount)| (name.clone(), less(name, amount))).collect())
    }

    /// Only the resources that satisfy `keep`.
    #[must_use]
    pub fn only(&self, keep: impl Fn(&str) -> bool) -> Self {
        let kept = self.0.iter().filter(|(name, _)| keep(name));
        Self(kept.map(|(name, amount)| (name.clone(), *amount)).collect())
    }

    /// Only the resources of which there is something.
    #[must_use]
    pub(crate) fn positive(&self) -> Self {
        self.only(|name| self.of(name).is_some_and(|amount| amount > Quantity::ZERO))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Quantity)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }
}

/// `cpu=1,pods=2`, as Kubernetes prints amounts in messages.
impl fmt::Display for Amounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, amount)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{name}={amount}")?;
        }
        Ok(())
    }
}

fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}
