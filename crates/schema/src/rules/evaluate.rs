//! Evaluates the rules of a schema on an object, beside its previous state.

use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::KubeCelExt as _;
use kube_cel::cel::Context;
use kube_cel::cel::objects::{OptionalValue, Value as Cel};
use serde_json::Value;

use crate::error::{Errors, FieldError};
use crate::node::{Additional, ListType, Node, Type};
use crate::path::Path;
use crate::rules::meter::{Budget, Meter, register};
use crate::rules::values::convert;
use crate::rules::{MAX_MESSAGE_BYTES, Program, Rule, on_deep_stack};
use crate::validate::map_key;

/// Evaluates all rules below `node`. Transition rules apply where the old value is found.
pub(crate) fn evaluate(
    node: &Node,
    value: &Value,
    old: Option<&Value>,
    budget: &Budget,
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
        run.node(node, value, old, &Path::root(""));
    });
    if done.is_none() {
        let detail = "a validation rule could not be evaluated";
        errors.push(FieldError::internal(&Path::root(""), detail));
    }
}

/// Whether a schema has any rule at all; most have none.
fn has_rules(node: &Node) -> bool {
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
    /// False when no further rules can be run.
    fn node(&mut self, node: &Node, value: &Value, old: Option<&Value>, path: &Path<'_>) -> bool {
        if value.is_null() {
            return true;
        }
        if !node.rules.is_empty() && !self.rules(node, value, old, path) {
            return false;
        }
        match value {
            Value::Object(map) => {
                let old = old.filter(|_| node.atomic_map != Some(true)).and_then(Value::as_object);
                map.iter().all(|(name, value)| {
                    let old = old.and_then(|old| old.get(name));
                    match (node.property(name), &node.additional) {
                        (Some(child), _) => self.node(child, value, old, &path.field(name)),
                        (None, Additional::Of(child)) => {
                            self.node(child, value, old, &path.key(name))
                        }
                        _ => true,
                    }
                })
            }
            Value::Array(items) => match &node.items {
                Some(child) if has_rules(child) => self.items(node, child, items, old, path),
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
        path: &Path<'_>,
    ) -> bool {
        // Only entries with keys can be followed from one state to the next.
        let mut earlier: HashMap<String, &Value> = HashMap::new();
        let keys: &[Arc<str>] = match &node.list {
            ListType::Map(keys) => keys,
            _ => &[],
        };
        let identity = |item: &Value| map_key(item, keys, Some(child)).map(|key| key.to_string());
        if !keys.is_empty() {
            let old = old.and_then(Value::as_array).into_iter().flatten();
            earlier.extend(old.filter_map(|item| Some((identity(item)?, item))));
        }
        items.iter().enumerate().all(|(index, item)| {
            let old = (!keys.is_empty())
                .then(|| identity(item))
                .flatten()
                .and_then(|key| earlier.get(&key).copied());
            self.node(child, item, old, &path.index(index))
        })
    }

    fn rules(&mut self, node: &Node, value: &Value, old: Option<&Value>, path: &Path<'_>) -> bool {
        for rule in &node.rules {
            let is_transition = rule.is_transition();
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
                        "no further validation rules will be run due to call cost exceeds limit \
                         for rule: {}",
                        rule.source
                    )
                };
                self.errors.push(FieldError::invalid(path, &type_name(node, value), text));
                return false;
            }
            if let Err(text) = verdict {
                self.refuse(rule, node, value, path, &text);
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
            Some(message) => message.to_string(),
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
            Err(error) => Err(format!("{error} evaluating rule: {}", fallback())),
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

    fn refuse(&mut self, rule: &Rule, node: &Node, value: &Value, path: &Path<'_>, text: &str) {
        let found = type_name(node, value);
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

fn type_name(node: &Node, value: &Value) -> Value {
    let name = node.kind.map_or_else(|| crate::parse::json_type(value), Type::name);
    Value::String(name.to_owned())
}
