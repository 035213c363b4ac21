//! `x-kubernetes-validations`: rules in CEL, compiled once and evaluated within a budget.
//!
//! The interpreter has neither a type checker nor a step limit and recurses deeply. So: names and
//! functions are resolved here when a rule is compiled; `meter` rewrites each rule so that its
//! loops and copies are paid for; parsing and evaluation run on a stack of their own.

mod compile;
mod condition;
mod evaluate;
mod functions;
mod meter;
mod optional;
mod values;

use std::sync::Arc;

use kube_cel::cel::parser::Expression;

use crate::error::FieldErrorKind;

pub use condition::evaluate_condition;

pub(crate) use compile::{check_node, warnings};
pub(crate) use evaluate::{evaluate, has_rules};
pub use meter::{Budget, StopSignal};

/// Longest rule. The interpreter recurses once per operand of a chain, so its length bounds depth.
pub const MAX_RULE_BYTES: usize = 4096;
/// Longest message or message expression, as in Kubernetes.
pub const MAX_MESSAGE_BYTES: usize = 5120;
/// Deepest nesting of brackets in a rule. The parser takes some 150 KiB of stack for each in a
/// build without optimization.
pub const MAX_RULE_NESTING: usize = 48;
/// Stack for parsing and for evaluating rules: several times what the longest rule was seen to
/// need. Only touched pages become memory.
const STACK_BYTES: usize = 128 << 20;
/// What one rule may cost on one value, in steps; Kubernetes' figure for its own cost unit.
pub const RULE_STEPS: u64 = 1_000_000;
/// What all rules may cost on one object, in steps; Kubernetes' figure for its own cost unit.
pub const OBJECT_STEPS: u64 = 10_000_000;

/// A rule as the schema's author wrote it.
pub(crate) struct RawRule<'r> {
    pub(crate) rule: &'r str,
    pub(crate) message: Option<&'r str>,
    pub(crate) message_expression: Option<&'r str>,
    pub(crate) reason: Option<&'r str>,
    pub(crate) field_path: Option<&'r str>,
    pub(crate) optional_old_self: Option<bool>,
}

/// A compiled rule.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) source: Arc<str>,
    pub(crate) program: Arc<Program>,
    pub(crate) message: Option<Arc<str>>,
    pub(crate) message_expression: Option<(Arc<str>, Arc<Program>)>,
    pub(crate) reason: FieldErrorKind,
    pub(crate) reason_name: Option<Arc<str>>,
    pub(crate) field_path: Option<FieldPath>,
    pub(crate) optional_old_self: Option<bool>,
}

impl Rule {
    /// Whether the rule compares with the value before the write.
    pub(crate) fn is_transition(&self) -> bool {
        self.program.uses_old_self
    }
}

/// Which field below its own a rule blames.
#[derive(Debug, Clone)]
pub(crate) struct FieldPath {
    pub(crate) source: Arc<str>,
    pub(crate) names: Box<[Box<str>]>,
}

/// An expression in both forms: as written, to be checked, and metered, to be run.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) written: Expression,
    pub(crate) metered: Expression,
    pub(crate) uses_old_self: bool,
}

/// Runs `work` where there is room to recurse, and turns a panic of the interpreter into `None`.
fn on_deep_stack<R>(work: impl FnOnce() -> R) -> Option<R> {
    // What the closure borrows is only read, or is discarded when `None` is returned.
    let work = std::panic::AssertUnwindSafe(work);
    stacker::grow(STACK_BYTES, || std::panic::catch_unwind(work).ok())
}
