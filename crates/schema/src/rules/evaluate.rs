//! Evaluates the rules of a schema on an object, beside its previous state.

use std::sync::Arc;

use kube_cel::KubeCelExt as _;
use kube_cel::cel::objects::{OptionalValue, Value as Cel};
use kube_cel::cel::{Context, ExecutionError};
use serde_json::Value;

use crate::correlate::{self, Entries};
use crate::error::{Errors, FieldError};
use crate::node::{Additional, Node, Type};
use crate::path::Path;
use crate::rules::meter::{Budget, Meter, register};
use crate::rules::values::convert;
use crate::rules::{MAX_MESSAGE_BYTES, Program, Rule, on_deep_stack};

/// Evaluates all rules below `node`. Transition rules apply where the old value is found.
pub(crate) fn evaluate(
    node: &Node,
    value: &Value,
    old: Option<&Value>,
    budget: &Budget,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    if !has_rules(node) {
        return;
    }
    let done = on_deep_stack(|| {
        let meter = Arc::new(Meter::new(budget.stop.clone()));
        let mut context = Context::default().with_all();
        register(&mut context, &meter);
        let mut run = Run { context, meter, budget, left: budget.object_steps, errors };
        run.node(node, value, old, false, path);
    });
    if done.is_none() {
        let detail = "a validation rule could not be evaluated";
        errors.push(FieldError::internal(path, detail));
    }
}

/// Whether a schema has any rule at all; most have none.
pub(crate) fn has_rules(node: &Node) -> bool {
    !node.rules.is_empty()
        || node.properties.iter().any(|(_, child)| has_rules(child))
        || node.items.as_deref().is_some_and(has_rules)
        || matches!(&node.additional, Additional::Of(child) if has_rules(child))
}

struct Run<'r> {
    context: Context<'r>,
    meter: Arc<Meter>,
    budget: &'r Budget,
    /// Steps that are left for the object.
    left: u64,
    errors: &'r mut Errors,
}

impl Run<'_> {
    /// False when no further rules can be run. What is `unchanged` may break rules that do not
    /// look at the old value.
    fn node(
        &mut self,
        node: &Node,
        value: &Value,
        old: Option<&Value>,
        unchanged: bool,
        path: &Path<'_>,
    ) -> bool {
        if value.is_null() {
            return true;
        }
        let unchanged = unchanged || old == Some(value);
        if !node.rules.is_empty() && !self.rules(node, value, old, unchanged, path) {
            return false;
        }
        match value {
            Value::Object(map) => {
                let old = correlate::fields(node, old);
                map.iter().all(|(name, value)| {
                    let old = old.and_then(|old| old.get(name));
                    match (node.property(name), &node.additional) {
                        (Some(child), _) => {
                            self.node(child, value, old, unchanged, &path.field(name))
                        }
                        (None, Additional::Of(child)) => {
                            self.node(child, value, old, unchanged, &path.key(name))
                        }
                        _ => true,
                    }
                })
            }
            Value::Array(items) => match &node.items {
                Some(child) if has_rules(child) => {
                    self.items(node, child, items, old, unchanged, path)
                }
                _ => true,
            },
            _ => true,
        }
    }

    fn items(
        &mut self,
        node: &Node,
        child: &Node,
        items: &[Value],
        old: Option<&Value>,
        unchanged: bool,
        path: &Path<'_>,
    ) -> bool {
        let earlier = Entries::of(node, old);
        items.iter().enumerate().all(|(index, item)| {
            let old = earlier.before(item, child);
            self.node(child, item, old, unchanged, &path.index(index))
        })
    }

    fn rules(
        &mut self,
        node: &Node,
        value: &Value,
        old: Option<&Value>,
        unchanged: bool,
        path: &Path<'_>,
    ) -> bool {
        for rule in &node.rules {
            let is_transition = rule.is_transition();
            if unchanged && !is_transition {
                continue;
            }
            if is_transition && old.is_none() && rule.optional_old_self != Some(true) {
                continue;
            }
            let allowed = self.budget.rule_steps.min(self.left);
            self.meter.refill(allowed);
            let verdict = self.rule(rule, node, value, old.filter(|_| is_transition));
            self.left -= allowed - self.meter.left().min(allowed);
            if self.meter.is_exhausted() {
                let text = if self.left == 0 {
                    "validation failed due to running out of cost budget, no further validation \
                     rules will be run"
                        .to_owned()
                } else {
                    format!(
                        "'operation cancelled: actual cost limit exceeded': no further \
                         validation rules will be run due to call cost exceeds limit for rule: {}",
                        described(rule)
                    )
                };
                self.errors.push(FieldError::invalid(path, &type_name(node), text));
                return false;
            }
            if let Err(text) = verdict {
                self.refuse(rule, node, path, &text);
            }
        }
        !self.errors.is_full()
    }

    /// `Err` with the message if the value breaks the rule.
    fn rule(
        &self,
        rule: &Rule,
        node: &Node,
        value: &Value,
        old: Option<&Value>,
    ) -> Result<(), String> {
        let fallback = || match &rule.message {
            Some(message) => message.trim().to_owned(),
            None => format!("failed rule: {}", rule.source.trim()),
        };
        let Some(current) = convert(value, Some(node), &self.meter) else { return Ok(()) };
        let mut scope = self.context.new_inner_scope();
        if rule.is_transition() {
            let old = match old {
                Some(old) => match convert(old, Some(node), &self.meter) {
                    Some(old) => Some(old),
                    None => return Ok(()),
                },
                None => None,
            };
            let old = match (rule.optional_old_self, old) {
                (Some(true), Some(old)) => Cel::Opaque(Arc::new(OptionalValue::of(old))),
                (Some(true), None) => Cel::Opaque(Arc::new(OptionalValue::none())),
                (_, old) => old.unwrap_or(Cel::Null),
            };
            scope.add_variable_from_value("oldSelf", old);
        }
        scope.add_variable_from_value("self", current);
        match run(&rule.program, &scope) {
            Ok(Cel::Bool(true)) => Ok(()),
            Ok(Cel::Bool(false)) => Err(self.message(rule, &scope).unwrap_or_else(fallback)),
            Ok(_) => Err(format!("rule must evaluate to a bool: {}", rule.source.trim())),
            Err(error) => Err(evaluation_error(&error, rule)),
        }
    }

    /// The message that the rule makes itself, if it is usable; else the fixed one is shown.
    fn message(&self, rule: &Rule, scope: &Context<'_>) -> Option<String> {
        let (_, program) = rule.message_expression.as_ref()?;
        let left = self.meter.left();
        let made = run(program, scope);
        if self.meter.is_exhausted() {
            // The verdict stands; only its wording was too dear.
            self.meter.refill(left.min(1));
            return None;
        }
        match made {
            Ok(Cel::String(text))
                if !text.trim().is_empty()
                    && !text.contains('\n')
                    && text.len() <= MAX_MESSAGE_BYTES =>
            {
                Some(text.to_string())
            }
            _ => None,
        }
    }

    fn refuse(&mut self, rule: &Rule, node: &Node, path: &Path<'_>, text: &str) {
        let found = type_name(node);
        let found = found.as_str().unwrap_or_default();
        let mut error = FieldError::of_kind(rule.reason, path, found, text);
        if let Some(field_path) = &rule.field_path {
            let at = field_path.names.join(".");
            error.field = match path.to_string() {
                root if root.is_empty() => at,
                root => format!("{root}.{at}"),
            };
        }
        self.errors.push(error);
    }
}

fn run(program: &Program, scope: &Context<'_>) -> Result<Cel, kube_cel::cel::ExecutionError> {
    scope.resolve(&program.metered)
}

/// What stands for the value in a message: its type in the schema, empty where it has none.
fn type_name(node: &Node) -> Value {
    Value::from(node.kind.map_or("", Type::name))
}

/// What a rule is called where it could not be evaluated.
fn described(rule: &Rule) -> &str {
    rule.message.as_deref().unwrap_or(&rule.source).trim()
}

/// The interpreter's errors in the words of Kubernetes'.
fn evaluation_error(error: &ExecutionError, rule: &Rule) -> String {
    let rule = described(rule);
    let no_overload = || {
        format!(
            "'no such overload': call arguments did not match a supported operator, function or \
             macro signature for rule: {rule}"
        )
    };
    let text = match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::IndexOutOfBounds(index) => match index {
            Cel::Int(index) => format!("index out of bounds: {index}"),
            _ => "index out of bounds".to_owned(),
        },
        ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".to_owned(),
        ExecutionError::Overflow(..) => "integer overflow".to_owned(),
        ExecutionError::NoSuchOverload
        | ExecutionError::ValuesNotComparable(..)
        | ExecutionError::UnsupportedBinaryOperator(..)
        | ExecutionError::UnsupportedUnaryOperator(..)
        | ExecutionError::UnexpectedType { .. }
        | ExecutionError::UnsupportedTargetType { .. } => return no_overload(),
        other => other.to_string(),
    };
    format!("{text} evaluating rule: {rule}")
}
