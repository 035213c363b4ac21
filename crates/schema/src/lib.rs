//! Structural schemas of custom resources: compile, prune, default, validate, publish; printer
//! columns and subresources.
//!
//! Pure functions over JSON, without I/O and without a clock. It knows nothing of how custom
//! resources are stored or served. A write goes through [`Schema::default`], [`Schema::prune`] and
//! [`Schema::validate`].
//!
//! # Limits of the rules in CEL
//! - There is no static type checker: unknown variables, functions and fields of `self` are refused
//!   when the schema is compiled, other type errors show when a rule runs.
//! - The estimate of costs ([`Schema::rule_warnings`]) is coarse, so it warns and never refuses.
//!   What bounds a rule is [`Budget`], in steps of this crate, not in Kubernetes' cost units. One
//!   step is one loop turn, or 16 bytes or one value copied; a regular expression costs a
//!   thousand. Between two payments at most one call of a library function over already paid
//!   arguments runs; some of those (`sets.*`, `distinct`) take time quadratic in their arguments.
//! - Lists of type set and map compare in order. `sortBy`, `cel.bind`, two-variable comprehensions
//!   and the authorizer library do not exist.

mod columns;
mod correlate;
mod defaults;
mod error;
mod formats;
mod node;
mod openapi;
mod parse;
mod path;
mod prune;
mod rules;
mod structural;
mod subresources;
mod validate;

use serde_json::{Map, Value};

use crate::error::Errors;
use crate::node::Node;
use crate::path::Path;

pub use columns::{Cell, Column, ColumnError, ColumnType, JsonPath, MAX_PATH_BYTES, PathError};
pub use error::{FieldError, FieldErrorKind, MAX_ERRORS};
pub use openapi::PublishedKind;
pub use prune::UnknownField;
pub use rules::{
    Budget, MAX_MESSAGE_BYTES, MAX_RULE_BYTES, MAX_RULE_NESTING, OBJECT_STEPS, RULE_STEPS,
    StopSignal, evaluate_condition,
};
pub use subresources::{ScaleError, ScalePaths, Subresources, keep_status, only_status};

/// Deepest nesting of a schema's JSON, which is what the JSON parser allows as well. Every walk
/// over a value follows the schema, so it bounds those too.
pub const MAX_SCHEMA_DEPTH: usize = 128;
/// Deepest nesting of an object's JSON, as the JSON parser has it.
pub const MAX_VALUE_DEPTH: usize = 128;

const RULES_NOT_CHECKED: &str = "some validation rules were not checked because the object was \
                                 invalid; correct the existing errors to complete validation";

/// A compiled structural schema of one version of a custom resource. Cheap to share, not to clone.
#[derive(Debug, Clone)]
pub struct Schema {
    root: Node,
}

impl Schema {
    /// Compiles `openAPIV3Schema` of a version; `path` is where it stands in its object, as
    /// `spec.versions[0].schema.openAPIV3Schema`.
    ///
    /// # Errors
    /// Everything that keeps it from being a structural schema whose defaults are valid and whose
    /// rules can be evaluated, up to [`MAX_ERRORS`].
    pub fn compile(raw: &Value, path: &str) -> Result<Self, Vec<FieldError>> {
        let path = Path::root(path);
        let mut errors = Errors::default();
        structural::check(raw, &path, &mut errors);
        if !errors.is_empty() {
            return Err(errors.into_vec());
        }
        let root = parse::node(raw, &path, &mut errors);
        check_defaults(&root, true, None, &path, &mut errors);
        rules::check_node(&root, true, None, &path, &mut errors);
        if errors.is_empty() { Ok(Self { root }) } else { Err(errors.into_vec()) }
    }

    /// Whether any field has a default.
    #[must_use]
    pub fn has_defaults(&self) -> bool {
        defaults::any(&self.root)
    }

    /// Whether names lead to a field.
    #[must_use]
    pub fn has_field(&self, names: &[&str]) -> bool {
        self.field(names).is_some()
    }

    fn field(&self, names: &[&str]) -> Option<&Node> {
        names.iter().try_fold(&self.root, |node, name| node.child(name))
    }

    /// The type of the field that names lead to, if it is a scalar one.
    #[must_use]
    pub fn scalar_at(&self, names: &[&str]) -> Option<&'static str> {
        let node = self.field(names)?;
        let kind = node.kind.filter(|kind| kind.is_scalar())?;
        Some(kind.name())
    }

    /// Removes what the schema does not know and names it, up to [`MAX_ERRORS`] fields. The
    /// object's own `apiVersion`, `kind` and `metadata`, and those of embedded objects, stay.
    pub fn prune(&self, object: &mut Value) -> Vec<UnknownField> {
        prune::prune(object, &self.root, true)
    }

    /// Sets absent fields that have a default. A null where the schema allows none counts as
    /// absent.
    pub fn default(&self, object: &mut Value) {
        defaults::apply(object, &self.root);
    }

    /// Everything about the object that the schema does not allow, up to [`MAX_ERRORS`], and, if
    /// it is sound enough for them, the rules in CEL (`x-kubernetes-validations`) that it breaks
    /// or that cannot be evaluated within the budget. `metadata` is the caller's to check.
    ///
    /// `old` is the object before the write: transition rules compare with it, and what is as it
    /// was there may stay wrong.
    #[must_use]
    pub fn validate(
        &self,
        object: &Value,
        old: Option<&Value>,
        budget: &Budget,
    ) -> Vec<FieldError> {
        let mut errors = Errors::default();
        let path = Path::root("");
        let allowed = |value| structural::is_depth_allowed(value, MAX_VALUE_DEPTH);
        if !allowed(object) || !old.is_none_or(allowed) {
            let detail = format!("must not nest deeper than {MAX_VALUE_DEPTH} levels");
            errors.push(FieldError::forbidden(&path, &detail));
            return errors.into_vec();
        }
        validate::validate(object, old, &self.root, &path, &mut errors);
        if errors.are_blocking() {
            if rules::has_rules(&self.root) {
                errors.push(FieldError::invalid(&path, &Value::Null, RULES_NOT_CHECKED));
            }
        } else {
            rules::evaluate(&self.root, object, old, budget, &path, &mut errors);
        }
        errors.into_vec()
    }

    /// Warnings for the author of the schema: rules whose cost is estimated to be high.
    #[must_use]
    pub fn rule_warnings(&self) -> Vec<String> {
        rules::warnings(&self.root)
    }

    /// The components that OpenAPI v3 publishes for the kind and its list, by name. They refer to
    /// `ObjectMeta` and `ListMeta` of the `io.k8s.apimachinery` package.
    #[must_use]
    pub fn openapi_components(&self, kind: &PublishedKind) -> Map<String, Value> {
        openapi::components(&self.root, kind)
    }

    /// The schema as it was compiled, as JSON; keys are in order.
    #[must_use]
    pub fn to_json(&self) -> Value {
        openapi::to_json(&self.root)
    }
}

/// Defaults have to be pruned already and valid, so that defaulting never breaks an object. `meta`
/// is the name of the root's own field (`metadata`, …) that the node is part of.
fn check_defaults(
    node: &Node,
    is_root: bool,
    meta: Option<&str>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    if let Some(default) = &node.default {
        let at = path.field("default");
        if let Some(name) = meta {
            errors
                .push(FieldError::forbidden(&at, &format!("must not be set in top-level {name}")));
        }
        let mut pruned = (**default).clone();
        prune::prune(&mut pruned, node, node.embedded || is_root);
        if pruned != **default {
            errors.push(FieldError::invalid(&at, default, "must not have unknown fields"));
        }
        // What is nested in a default gets its own defaults before it is validated.
        defaults::apply(&mut pruned, node);
        let before = errors.len();
        validate::validate(&pruned, None, node, &at, errors);
        if errors.len() == before {
            rules::evaluate(node, &pruned, None, &Budget::default(), &at, errors);
        }
    }
    for (name, child) in &node.properties {
        let is_meta = matches!(name.as_ref(), "metadata" | "apiVersion" | "kind");
        let meta = meta.or_else(|| (is_root && is_meta).then_some(name.as_ref()));
        check_defaults(child, false, meta, &path.field("properties").key(name), errors);
    }
    if let node::Additional::Of(child) = &node.additional {
        check_defaults(child, false, meta, &path.field("additionalProperties"), errors);
    }
    if let Some(child) = &node.items {
        check_defaults(child, false, meta, &path.field("items"), errors);
    }
}
