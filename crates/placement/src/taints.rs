//! Taints and tolerations.

use k8s_openapi::api::core::v1 as core;

/// What a taint does to pods that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// New pods stay away.
    NoSchedule,
    /// New pods prefer other nodes.
    PreferNoSchedule,
    /// New pods stay away and running ones are evicted.
    NoExecute,
}

impl Effect {
    /// Reads the API's word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "NoSchedule" => Some(Self::NoSchedule),
            "PreferNoSchedule" => Some(Self::PreferNoSchedule),
            "NoExecute" => Some(Self::NoExecute),
            _ => None,
        }
    }
}

/// A node's taint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Taint {
    /// The taint's key.
    pub key: Box<str>,
    /// The taint's value, often empty.
    pub value: Box<str>,
    /// What it does.
    pub effect: Effect,
}

impl Taint {
    /// Reads the API's object; `None` for an effect that no version knows.
    #[must_use]
    pub fn from_core(taint: &core::Taint) -> Option<Self> {
        Some(Self {
            key: taint.key.as_str().into(),
            value: taint.value.as_deref().unwrap_or_default().into(),
            effect: Effect::parse(&taint.effect)?,
        })
    }
}

/// A pod's toleration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Toleration {
    /// The key; empty tolerates every key (with `exists`).
    pub key: Box<str>,
    /// Any value will do (operator `Exists`).
    pub exists: bool,
    /// The value, when `exists` is false.
    pub value: Box<str>,
    /// The effect; `None` tolerates all.
    pub effect: Option<Effect>,
    /// For how long a NoExecute taint is tolerated; `None` is for ever.
    pub seconds: Option<i64>,
}

impl Toleration {
    /// Reads the API's object; `None` for words that no version knows.
    #[must_use]
    pub fn from_core(toleration: &core::Toleration) -> Option<Self> {
        let exists = match toleration.operator.as_deref() {
            Some("Exists") => true,
            Some("Equal" | "") | None => false,
            Some(_) => return None,
        };
        let effect = match toleration.effect.as_deref() {
            None | Some("") => None,
            Some(effect) => Some(Effect::parse(effect)?),
        };
        Some(Self {
            key: toleration.key.as_deref().unwrap_or_default().into(),
            exists,
            value: toleration.value.as_deref().unwrap_or_default().into(),
            effect,
            seconds: toleration.toleration_seconds,
        })
    }

    /// Whether `taint` is tolerated.
    #[must_use]
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|effect| effect == taint.effect)
            && (self.key.is_empty() || self.key == taint.key)
            && (self.exists || (!self.key.is_empty() && self.value == taint.value))
    }
}
