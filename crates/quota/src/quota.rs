//! One ResourceQuota: what it counts, what it allows, what its usage becomes.

use jiff::Timestamp;
use serde_json::Value;
use toono_api::Quantity;

use crate::{Amounts, Kind, constraints, scopes::Scopes, usage, usage::at};

/// A quota as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    name: String,
    wanted: Amounts,
    hard: Amounts,
    used: Amounts,
    scopes: Scopes,
}

/// Why a quota refuses an object. The text follows `<object> is forbidden: `.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is not enough left.
    #[error("exceeded quota: {quota}, requested: {requested}, used: {used}, limited: {limited}")]
    Exceeded {
        /// The quota's name.
        quota: String,
        /// What is asked for of the resources that there is not enough of.
        requested: Amounts,
        /// What is used of them.
        used: Amounts,
        /// What there is of them.
        limited: Amounts,
    },
    /// A container must say how much it wants.
    #[error("failed quota: {quota}: {missing}")]
    Unstated {
        /// The quota's name.
        quota: String,
        /// What is missing where.
        missing: String,
    },
    /// The quota was never counted.
    #[error("status unknown for quota: {quota}, resources: {resources}")]
    Unknown {
        /// The quota's name.
        quota: String,
        /// The resources, separated by commas.
        resources: String,
    },
}

impl Quota {
    /// Reads a ResourceQuota.
    #[must_use]
    pub fn read(quota: &Value) -> Self {
        let name = at(quota, &["metadata", "name"]).and_then(Value::as_str);
        Self {
            name: name.unwrap_or_default().to_owned(),
            wanted: Amounts::read(at(quota, &["spec", "hard"])),
            hard: Amounts::read(at(quota, &["status", "hard"])),
            used: Amounts::read(at(quota, &["status", "used"])),
            scopes: Scopes::read(quota),
        }
    }

    /// `spec.hard`.
    #[must_use]
    pub fn wanted(&self) -> &Amounts {
        &self.wanted
    }

    /// `status.used`.
    #[must_use]
    pub fn used(&self) -> &Amounts {
        &self.used
    }

    /// Whether `status.hard` is what `spec.hard` asks for.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.wanted == self.hard
    }

    /// What an object uses of the resources in `spec.hard`; nothing if the scopes leave it out.
    #[must_use]
    pub fn count(&self, kind: Kind<'_>, object: &Value, now: Timestamp) -> Amounts {
        self.count_of(&self.wanted, kind, object, now)
    }

    fn count_of(&self, of: &Amounts, kind: Kind<'_>, object: &Value, now: Timestamp) -> Amounts {
        if !self.scopes.match_object(kind, object) {
            return Amounts::default();
        }
        usage(kind, object, now).only(|name| of.of(name).is_some())
    }

    /// The usage once `new` takes the place of `old` (nothing on creation); none if that costs
    /// nothing here. The caller stores it together with the object, or not at all.
    ///
    /// # Errors
    /// The quota refuses it.
    pub fn charge(
        &self,
        kind: Kind<'_>,
        old: Option<&Value>,
        new: &Value,
        now: Timestamp,
    ) -> Result<Option<Amounts>, Denied> {
        let counted = self.count_of(&self.wanted, kind, new, now);
        if counted.is_empty() {
            return Ok(None);
        }
        if old.is_none() && kind.is("pods") {
            self.require_statements(new)?;
        }
        let before = old.map(|old| self.count_of(&self.wanted, kind, old, now)).unwrap_or_default();
        let more = counted.without(&before).positive();
        if more.is_empty() {
            return Ok(None);
        }
        self.require_status(&more)?;
        self.require_room(&more)?;
        let mut used = self.used.clone();
        used.add_all(&more);
        Ok(Some(used))
    }

    /// The usage once `gone` is no more; none if that frees nothing here.
    #[must_use]
    pub fn release(&self, kind: Kind<'_>, gone: &Value, now: Timestamp) -> Option<Amounts> {
        let freed = self.count_of(&self.used, kind, gone, now);
        let used = self.used.without(&freed);
        (used != self.used).then_some(used)
    }

    /// The usage that a recount found, complete: what nobody uses is zero.
    #[must_use]
    pub fn recounted(&self, counted: &Amounts) -> Amounts {
        let mut used = Amounts::default();
        for name in self.wanted.names() {
            used.set(name, counted.of(name).unwrap_or(Quantity::ZERO));
        }
        used
    }

    fn require_statements(&self, pod: &Value) -> Result<(), Denied> {
        match constraints::missing(&self.wanted, pod) {
            Some(missing) => Err(Denied::Unstated { quota: self.name.clone(), missing }),
            None => Ok(()),
        }
    }

    fn require_status(&self, more: &Amounts) -> Result<(), Denied> {
        let unknown = more.names().any(|name| self.hard.of(name).or(self.used.of(name)).is_none());
        if !unknown {
            return Ok(());
        }
        let resources: Vec<_> = more.names().collect();
        Err(Denied::Unknown { quota: self.name.clone(), resources: resources.join(",") })
    }

    fn require_room(&self, more: &Amounts) -> Result<(), Denied> {
        let exceeds = |name: &str| {
            let Some(limit) = self.hard.of(name) else { return false };
            let used = self.used.of(name).unwrap_or(Quantity::ZERO);
            more.of(name).is_some_and(|more| used.saturating_add(more) > limit)
        };
        let requested = more.only(exceeds);
        if requested.is_empty() {
            return Ok(());
        }
        let of_these = |amounts: &Amounts| amounts.only(|name| requested.of(name).is_some());
        Err(Denied::Exceeded {
            quota: self.name.clone(),
            used: of_these(&self.used),
            limited: of_these(&self.hard),
            requested,
        })
    }
}
