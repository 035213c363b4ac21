//! What a rule may cost: rewrites an expression so that it pays for its loops and for what it
//! copies, and stops it when its budget is gone.
//!
//! Inserted calls: `@loop(x)` pays the size of `x`; `@charge(x)` pays for copies of `x`, and `@step(n, x)`
//! `n` more than that. All yield `x`. Functions whose result can be far larger than what goes in are replaced by
//! ones that look at the size first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, ListExpr, LiteralValue, MapEntryExpr,
    MapExpr, SelectExpr, operators,
};
use kube_cel::cel::extractors::{Arguments, This};
use kube_cel::cel::objects::{Key, Value};
use kube_cel::cel::{Context, ExecutionError};

use crate::rules::compile::visit;
use crate::rules::{OBJECT_STEPS, RULE_STEPS};
use crate::rules::{functions, optional};

/// Told true when evaluation must end, as when a deadline has passed. Asked once per loop turn.
pub type StopSignal = Arc<dyn Fn() -> bool + Send + Sync>;

/// What the rules of one object may cost.
#[derive(Clone)]
pub struct Budget {
    /// Steps of one rule on one value.
    pub rule_steps: u64,
    /// Steps of all rules on the object.
    pub object_steps: u64,
    /// Ends evaluation early; time is the caller's.
    pub stop: Option<StopSignal>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { rule_steps: RULE_STEPS, object_steps: OBJECT_STEPS, stop: None }
    }
}

/// Bytes of text that cost one step.
pub(crate) const BYTES_PER_STEP: usize = 16;
/// What goes into a call and what comes out of it is copied part by part, more than once: steps for each
/// step of its size. What a loop goes over is copied as well, but only once for all its turns.
const STEPS_PER_COPY: u64 = 4;
/// Longest regular expression, format template or list made by `lists.range`.
pub(crate) const MAX_ARGUMENT_SIZE: usize = 4096;

const LOOP: &str = "@loop";
const STEP: &str = "@step";
const CHARGE: &str = "@charge";
const TEMPLATE: &str = "@template";
const RANGE: &str = "@range";
const REPLACE: &str = "@replace";
const JOIN: &str = "@join";
/// The prefix of what users cannot write.
const INSERTED: char = '@';

/// Operators and the like whose cost does not grow with their operands.
const CHEAP: [&str; 16] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::NOT_STRICTLY_FALSE,
    operators::HAS,
];
/// Operators that are replaced.
const OPTIONAL: [&str; 2] = [operators::OPT_SELECT, operators::OPT_INDEX];
/// Operators that the interpreter handles itself and whose cost grows with their operands.
const COMPARING: [&str; 4] =
    [operators::ADD, operators::EQUALS, operators::NOT_EQUALS, operators::IN];

/// The types that a rule may compare `type(x)` with.
const TYPES: [&str; 9] =
    ["int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type"];

/// What is left of a budget.
#[derive(Default)]
pub(crate) struct Meter {
    left: AtomicU64,
    exhausted: AtomicBool,
    stop: Option<StopSignal>,
}

impl Meter {
    pub(crate) fn new(stop: Option<StopSignal>) -> Self {
        Self { left: AtomicU64::new(0), exhausted: AtomicBool::new(false), stop }
    }

    /// Starts anew with this many steps.
    pub(crate) fn refill(&self, steps: u64) {
        self.left.store(steps, Ordering::Relaxed);
        self.exhausted.store(false, Ordering::Relaxed);
    }

    pub(crate) fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// Whether a payment failed. Stays so, since CEL's `||` may swallow the error itself.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.exhausted.load(Ordering::Relaxed)
    }

    /// Pays; false if the budget is gone or the caller says stop.
    pub(crate) fn pay(&self, steps: u64) -> bool {
        let left = self.left();
        let stopped = || self.stop.as_ref().is_some_and(|stop| stop());
        if self.is_exhausted() || steps > left || stopped() {
            self.exhausted.store(true, Ordering::Relaxed);
            self.left.store(0, Ordering::Relaxed);
            return false;
        }
        self.left.store(left - steps, Ordering::Relaxed);
        true
    }

    /// Takes `steps` and, for each step of the value's size, `each`.
    fn charge(&self, steps: u64, value: Value, each: u64) -> Result<Value, ExecutionError> {
        // Counting ends where the budget would, so that a huge value is not walked for nothing.
        let size = size_of(&value, self.left()).saturating_mul(each);
        if size < self.left() && self.pay(steps.saturating_add(size)) {
            Ok(value)
        } else {
            self.pay(u64::MAX);
            Err(out_of_budget())
        }
    }
}

pub(crate) fn out_of_budget() -> ExecutionError {
    ExecutionError::function_error("budget", "actual cost limit exceeded")
}

/// The size of a value, as far as a limit.
pub(crate) fn size_of(value: &Value, limit: u64) -> u64 {
    let mut left = limit;
    measure(value, &mut left);
    limit - left
}

/// Takes the size of a value from `limit`: a step per value and per [`BYTES_PER_STEP`] of text.
fn measure(value: &Value, limit: &mut u64) {
    let own = match value {
        Value::String(text) => text.len() / BYTES_PER_STEP,
        Value::Bytes(bytes) => bytes.len() / BYTES_PER_STEP,
        _ => 0,
    };
    *limit = limit.saturating_sub(1 + own as u64);
    match value {
        Value::List(items) => {
            for item in items.iter() {
                if *limit == 0 {
                    return;
                }
                measure(item, limit);
            }
        }
        Value::Map(map) => {
            for (key, item) in map.map.iter() {
                if *limit == 0 {
                    return;
                }
                let key = if let Key::String(text) = key { text.len() / BYTES_PER_STEP } else { 0 };
                *limit = limit.saturating_sub(1 + key as u64);
                measure(item, limit);
            }
        }
        _ => {}
    }
}

/// Adds the inserted functions to an interpreter.
pub(crate) fn register(context: &mut Context<'_>, meter: &Arc<Meter>) {
    let own = meter.clone();
    context.add_function(LOOP, move |value: Value| own.charge(0, value, 1));
    let own = meter.clone();
    context.add_function(STEP, move |steps: i64, value: Value| {
        own.charge(steps.unsigned_abs(), value, STEPS_PER_COPY)
    });
    let own = meter.clone();
    context.add_function(CHARGE, move |value: Value| own.charge(0, value, STEPS_PER_COPY));
    context.add_function(TEMPLATE, |value: Value| match &value {
        Value::String(text) if !is_modest_template(text) => Err(too_large("format")),
        _ => Ok(value),
    });
    context.add_function(RANGE, |value: Value| match &value {
        Value::Int(count) if *count > MAX_ARGUMENT_SIZE as i64 => Err(too_large("range")),
        _ => Ok(value),
    });
    let own = meter.clone();
    context.add_function(REPLACE, move |This(text): This<Value>, Arguments(args): Arguments| {
        replace(&own, &text, &args)
    });
    let own = meter.clone();
    context.add_function(JOIN, move |This(list): This<Value>, Arguments(args): Arguments| {
        join(&own, &list, &args)
    });
    functions::register(context, meter);
    optional::register(context);
    // Types are not checked beforehand, so there is nothing for `dyn` to hide.
    context.add_function("type", |value: Value| -> Result<Value, ExecutionError> {
        let name = match value {
            Value::Int(_) => "int",
            Value::UInt(_) => "uint",
            Value::Float(_) => "double",
            Value::Bool(_) => "bool",
            Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::Null => "null_type",
            _ => "dyn",
        };
        Ok(Value::String(Arc::new(type_text(name))))
    });
    context.add_function("dyn", |value: Value| -> Result<Value, ExecutionError> { Ok(value) });
}

/// How a type is told apart from other values: the interpreter has none, so it is a text that no
/// user can write by accident.
fn type_text(name: &str) -> String {
    format!("{INSERTED}type:{name}")
}

fn too_large(function: &str) -> ExecutionError {
    ExecutionError::function_error(function, "argument is too large")
}

/// A template is modest if it is short and asks for no width or precision of more than two digits.
fn is_modest_template(text: &str) -> bool {
    let digits = text.split(|c: char| !c.is_ascii_digit()).map(str::len).max();
    text.len() <= MAX_ARGUMENT_SIZE && digits.unwrap_or_default() <= 2
}

fn pay_for(meter: &Meter, bytes: usize) -> Result<(), ExecutionError> {
    let steps = 1 + (bytes / BYTES_PER_STEP) as u64;
    if meter.pay(steps) { Ok(()) } else { Err(out_of_budget()) }
}

fn replace(meter: &Meter, text: &Value, args: &[Value]) -> Result<Value, ExecutionError> {
    let (Value::String(text), [Value::String(from), Value::String(to), rest @ ..]) = (text, args)
    else {
        return Err(ExecutionError::NoSuchOverload);
    };
    let most = match rest {
        [] => usize::MAX,
        [Value::Int(most)] => usize::try_from(*most).unwrap_or(usize::MAX),
        _ => return Err(ExecutionError::NoSuchOverload),
    };
    pay_for(meter, text.len())?;
    let matches = text.matches(from.as_str()).take(most).count();
    pay_for(meter, text.len().saturating_add(matches.saturating_mul(to.len())))?;
    Ok(Value::String(Arc::new(text.replacen(from.as_str(), to, most))))
}

fn join(meter: &Meter, list: &Value, args: &[Value]) -> Result<Value, ExecutionError> {
    let separator = match args {
        [] => "",
        [Value::String(separator)] => separator.as_str(),
        _ => return Err(ExecutionError::NoSuchOverload),
    };
    let Value::List(items) = list else { return Err(ExecutionError::NoSuchOverload) };
    let mut texts = Vec::with_capacity(items.len());
    let mut bytes = items.len().saturating_mul(separator.len());
    for item in items.iter() {
        let Value::String(text) = item else { return Err(ExecutionError::NoSuchOverload) };
        bytes = bytes.saturating_add(text.len());
        texts.push(text.as_str());
    }
    pay_for(meter, bytes)?;
    Ok(Value::String(Arc::new(texts.join(separator))))
}

/// The names of the functions that an expression calls and the interpreter must have.
pub(crate) fn functions(expr: &IdedExpr) -> Vec<String> {
    let mut names = Vec::new();
    visit(expr, &mut |expr| {
        let Expr::Call(call) = expr else { return };
        let name = call.func_name.as_str();
        if CHEAP.contains(&name) || COMPARING.contains(&name) || OPTIONAL.contains(&name) {
            return;
        }
        // A namespace is no variable: `sets.contains` is one name.
        let qualified = match call.target.as_deref() {
            Some(IdedExpr { expr: Expr::Ident(prefix), .. }) if is_namespace(prefix) => {
                format!("{prefix}.{name}")
            }
            _ => name.to_owned(),
        };
        names.push(qualified);
    });
    names.sort();
    names.dedup();
    names
}

fn is_namespace(name: &str) -> bool {
    matches!(
        name,
        "sets"
            | "math"
            | "optional"
            | "base64"
            | "lists"
            | "strings"
            | "jsonpatch"
            | "format"
            | "cel"
    )
}

/// The metered form of an expression, or what in it cannot be evaluated.
pub(crate) fn rewrite(expr: &IdedExpr, variables: &[&str]) -> Result<IdedExpr, String> {
    let mut scope = variables.iter().map(|name| (*name).to_owned()).collect();
    metered(expr, &mut scope)
}

fn metered(expr: &IdedExpr, scope: &mut Vec<String>) -> Result<IdedExpr, String> {
    let rewritten = match &expr.expr {
        Expr::Ident(name) if scope.contains(name) => Expr::Ident(name.clone()),
        Expr::Ident(name) if TYPES.contains(&name.as_str()) => {
            Expr::Literal(LiteralValue::String(type_text(name).into()))
        }
        Expr::Ident(name) => return Err(format!("undeclared reference to '{name}'")),
        Expr::Literal(_) => expr.expr.clone(),
        Expr::Unspecified => return Err("an empty expression cannot be evaluated".to_owned()),
        Expr::Struct(_) => return Err("message construction is not supported".to_owned()),
        Expr::Select(select) => selected(select, metered(&select.operand, scope)?),
        Expr::List(list) => Expr::List(ListExpr {
            elements: all(&list.elements, scope)?,
            optional_indices: list.optional_indices.clone(),
        }),
        Expr::Map(map) => map_literal(map, scope)?,
        Expr::Comprehension(comprehension) => looped(comprehension, scope)?,
        Expr::Call(call) => called(call, scope)?,
    };
    Ok(IdedExpr { id: expr.id, expr: rewritten })
}

fn selected(select: &SelectExpr, operand: IdedExpr) -> Expr {
    if !select.test && is_optional(&operand) {
        let field = Expr::Literal(LiteralValue::String(select.field.as_str().into()));
        return inserted(optional::SELECT, vec![operand, IdedExpr { id: 0, expr: field }]).expr;
    }
    // Part by part: a copy of the selection would be one of all below it, at every step of a chain.
    let (field, test) = (select.field.clone(), select.test);
    Expr::Select(SelectExpr { operand: Box::new(operand), field, test })
}

fn all(exprs: &[IdedExpr], scope: &mut Vec<String>) -> Result<Vec<IdedExpr>, String> {
    exprs.iter().map(|expr| metered(expr, scope)).collect()
}

fn map_literal(map: &MapExpr, scope: &mut Vec<String>) -> Result<Expr, String> {
    let mut map = map.clone();
    for entry in &mut map.entries {
        match &mut entry.expr {
            EntryExpr::StructField(_) => {
                return Err("message construction is not supported".to_owned());
            }
            EntryExpr::MapEntry(MapEntryExpr { key, value, .. }) => {
                *key = metered(key, scope)?;
                *value = metered(value, scope)?;
            }
        }
    }
    Ok(Expr::Map(map))
}

fn looped(raw: &ComprehensionExpr, scope: &mut Vec<String>) -> Result<Expr, String> {
    let iter_range = charged(LOOP, metered(&raw.iter_range, scope)?);
    let accu_init = metered(&raw.accu_init, scope)?;
    let outer = scope.len();
    scope.extend([raw.iter_var.clone(), raw.accu_var.clone()]);
    scope.extend(raw.iter_var2.clone());
    // A turn costs at least what its body has of expressions.
    let mut weight = 0;
    visit(&raw.loop_step, &mut |_| weight += 1);
    let weight = IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::Int(weight.into())) };
    let step = metered(&raw.loop_step, scope)?;
    let rewritten = ComprehensionExpr {
        iter_range,
        accu_init,
        loop_cond: metered(&raw.loop_cond, scope)?,
        loop_step: inserted(STEP, vec![weight, step]),
        result: metered(&raw.result, scope)?,
        iter_var: raw.iter_var.clone(),
        iter_var2: raw.iter_var2.clone(),
        accu_var: raw.accu_var.clone(),
    };
    scope.truncate(outer);
    Ok(Expr::Comprehension(Box::new(rewritten)))
}

fn called(call: &CallExpr, scope: &mut Vec<String>) -> Result<Expr, String> {
    let name = call.func_name.as_str();
    if name.starts_with(INSERTED) && !CHEAP.contains(&name) && !COMPARING.contains(&name) {
        return Err(format!("undeclared reference to '{name}'"));
    }
    let mut target = None;
    let mut is_qualified = false;
    match call.target.as_deref() {
        // The prefix of a qualified name is not evaluated.
        Some(prefix @ IdedExpr { expr: Expr::Ident(prefix_name), .. })
            if !scope.contains(prefix_name) && is_namespace(prefix_name) =>
        {
            is_qualified = true;
            target = Some(Box::new(prefix.clone()));
        }
        Some(other) => target = Some(Box::new(metered(other, scope)?)),
        None => {}
    }
    let mut args = all(&call.args, scope)?;
    let is_chained = name == operators::INDEX && args.first().is_some_and(is_optional);
    if OPTIONAL.contains(&name) || is_chained {
        return Ok(inserted(optional::SELECT, args).expr);
    }
    if CHEAP.contains(&name) {
        return Ok(Expr::Call(CallExpr { func_name: name.to_owned(), target, args }));
    }
    if !is_qualified {
        target = target.map(|target| Box::new(charged(CHARGE, *target)));
    }
    args = match name {
        "range" => args.into_iter().map(|arg| inserted(RANGE, vec![arg])).collect(),
        _ => args.into_iter().map(|arg| charged(CHARGE, arg)).collect(),
    };
    let func_name = match (name, target.is_some() && !is_qualified) {
        ("replace", true) => REPLACE,
        ("join", true) => JOIN,
        ("format", true) => {
            target = target.map(|target| Box::new(inserted(TEMPLATE, vec![*target])));
            name
        }
        _ => name,
    };
    let call = CallExpr { func_name: func_name.to_owned(), target, args };
    // What a function makes is paid for as well; an operator's result is no larger than its input.
    if COMPARING.contains(&name) {
        return Ok(Expr::Call(call));
    }
    Ok(inserted(CHARGE, vec![IdedExpr { id: 0, expr: Expr::Call(call) }]).expr)
}

/// Whether a metered chain of selections has one of an optional part in it: what follows is optional too.
fn is_optional(metered: &IdedExpr) -> bool {
    matches!(&metered.expr, Expr::Call(call) if call.func_name == optional::SELECT)
}

fn inserted(name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    let call = CallExpr { func_name: name.to_owned(), target: None, args };
    IdedExpr { id: 0, expr: Expr::Call(call) }
}

/// A literal is paid for by the length of the rule.
fn charged(call: &str, expr: IdedExpr) -> IdedExpr {
    match expr.expr {
        Expr::Literal(_) => expr,
        _ => inserted(call, vec![expr]),
    }
}
