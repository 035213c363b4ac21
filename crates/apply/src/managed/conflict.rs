//! What is said of places that others own: as text, and as the causes of a `metav1.Status`.

use std::fmt;

use serde_json::{Value, json};

use super::{
    field_set::FieldSet,
    managers::{ManagerId, Operation},
    path::{Element, path_text},
};

/// One place that is applied with another value than its owner gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The owner.
    pub manager: ManagerId,
    /// The place.
    pub path: Vec<Element>,
}

/// Every place on which an apply conflicts with others; there is at least one. Ordered by manager,
/// then by place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflicts(pub Vec<Conflict>);

impl Conflicts {
    pub(super) fn of(managers: impl IntoIterator<Item = (ManagerId, FieldSet)>) -> Self {
        let conflicts = managers.into_iter().flat_map(|(manager, set)| {
            let paths = set.paths().into_iter();
            paths.map(move |path| Conflict { manager: manager.clone(), path })
        });
        Self(conflicts.collect())
    }

    /// Those on places outside a set; `None` when there are none.
    pub(super) fn outside(self, allowed: &FieldSet) -> Option<Self> {
        let left: Vec<Conflict> =
            self.0.into_iter().filter(|conflict| !allowed.contains(&conflict.path)).collect();
        (!left.is_empty()).then_some(Self(left))
    }

    /// The conflicts as the causes of a `metav1.Status`.
    #[must_use]
    pub fn causes(&self) -> Vec<Value> {
        let cause = |conflict: &Conflict| {
            json!({
                "reason": "FieldManagerConflict",
                "message": format!("conflict with {}", manager_text(&conflict.manager)),
                "field": path_text(&conflict.path),
            })
        };
        self.0.iter().map(cause).collect()
    }
}

fn manager_text(manager: &ManagerId) -> String {
    let mut text = format!("{:?}", manager.name);
    if !manager.subresource.is_empty() {
        text.push_str(&format!(" with subresource {:?}", manager.subresource));
    }
    if manager.operation == Operation::Update {
        text.push_str(&format!(" using {}", manager.api_version));
    }
    text
}

/// In Kubernetes' words.
impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            let manager = manager_text(&only.manager);
            let path = path_text(&only.path);
            return write!(f, "Apply failed with 1 conflict: conflict with {manager}: {path}");
        }
        let mut lines = Vec::new();
        let mut last = None;
        for conflict in &self.0 {
            if last != Some(&conflict.manager) {
                lines.push(format!("conflicts with {}:", manager_text(&conflict.manager)));
                last = Some(&conflict.manager);
            }
            lines.push(format!("- {}", path_text(&conflict.path)));
        }
        write!(f, "Apply failed with {} conflicts: {}", self.0.len(), lines.join("\n"))
    }
}

impl std::error::Error for Conflicts {}
