//! Compiles rules and refuses those that could never be evaluated.

use std::sync::{Arc, LazyLock};

use kube_cel::KubeCelExt as _;
use kube_cel::cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr};
use kube_cel::cel::parser::Parser;
use kube_cel::cel::{Context, ExecutionError};
use serde_json::{Value, json};

use crate::columns::JsonPath;
use crate::error::{Errors, FieldError, FieldErrorKind};
use crate::node::{Additional, ListType, Node, Type};
use crate::path::Path;
use crate::prune::IMPLICIT;
use crate::rules::values::escaped;
use crate::rules::{
    FieldPath, MAX_MESSAGE_BYTES, MAX_RULE_BYTES, MAX_RULE_NESTING, Program, RawRule, Rule, meter,
    on_deep_stack,
};

const REASONS: [(&str, FieldErrorKind); 4] = [
    ("FieldValueDuplicate", FieldErrorKind::Duplicate),
    ("FieldValueForbidden", FieldErrorKind::Forbidden),
    ("FieldValueInvalid", FieldErrorKind::Invalid),
    ("FieldValueRequired", FieldErrorKind::Required),
];

impl Rule {
    /// Compiles a rule, reporting what is wrong with it.
    pub(crate) fn compile(raw: &RawRule<'_>, path: &Path<'_>, errors: &mut Errors) -> Option<Self> {
        let before = errors.len();
        if raw.rule.trim().is_empty() {
            errors.push(FieldError::required(&path.field("rule"), "rule is not specified"));
            return None;
        }
        check_message(raw, path, errors);
        let reason = reason(raw, path, errors);
        let field_path = field_path(raw, path, errors);
        let rule = program(raw.rule, RULE_VARIABLES, &path.field("rule"), errors);
        let message_expression = raw.message_expression.filter(|text| !text.trim().is_empty());
        let message_expression = message_expression.and_then(|text| {
            let program = program(text, RULE_VARIABLES, &path.field("messageExpression"), errors)?;
            Some((text.into(), Arc::new(program)))
        });
        if errors.len() > before {
            return None;
        }
        Some(Self {
            source: raw.rule.into(),
            program: Arc::new(rule?),
            message: raw.message.filter(|text| !text.is_empty()).map(Arc::from),
            message_expression,
            reason,
            reason_name: raw.reason.map(Arc::from),
            field_path,
            optional_old_self: raw.optional_old_self,
        })
    }
}

fn field_path(raw: &RawRule<'_>, path: &Path<'_>, errors: &mut Errors) -> Option<FieldPath> {
    let source = raw.field_path.filter(|text| !text.is_empty())?;
    let at = path.field("fieldPath");
    if source.trim().is_empty() {
        let detail = "fieldPath must be non-empty if specified";
        errors.push(FieldError::invalid(&at, &json!(source), detail));
    }
    if source.contains('\n') {
        let detail = "fieldPath must not contain line breaks";
        errors.push(FieldError::invalid(&at, &json!(source), detail));
    }
    let parsed = JsonPath::parse(source).ok();
    let Some(names) = parsed.as_ref().and_then(JsonPath::field_names) else {
        let detail = "fieldPath must be a valid path";
        errors.push(FieldError::invalid(&at, &json!(source), detail));
        return None;
    };
    Some(FieldPath { source: source.into(), names: names.into_iter().map(Box::from).collect() })
}

fn check_message(raw: &RawRule<'_>, path: &Path<'_>, errors: &mut Errors) {
    let at = path.field("message");
    let message = raw.message.unwrap_or_default();
    if !message.is_empty() && message.trim().is_empty() {
        let detail = "message must be non-empty if specified";
        errors.push(FieldError::invalid(&at, &json!(message), detail));
    } else if has_line_break(message) {
        let detail = "message must not contain line breaks";
        errors.push(FieldError::invalid(&at, &json!(message), detail));
    } else if has_line_break(raw.rule) && message.is_empty() {
        let detail = "message must be specified if rule contains line breaks";
        errors.push(FieldError::required(&at, detail));
    }
    if raw.message_expression.is_some_and(|text| !text.is_empty() && text.trim().is_empty()) {
        let detail = "messageExpression must be non-empty if specified";
        errors.push(FieldError::required(&path.field("messageExpression"), detail));
    }
    if message.len() > MAX_MESSAGE_BYTES {
        errors.push(FieldError::too_long(&at, MAX_MESSAGE_BYTES as u64));
    }
}

/// Breaks around a text do not count.
fn has_line_break(text: &str) -> bool {
    text.trim().contains(['\n', '\r'])
}

fn reason(raw: &RawRule<'_>, path: &Path<'_>, errors: &mut Errors) -> FieldErrorKind {
    let Some(name) = raw.reason else { return FieldErrorKind::Invalid };
    if let Some((_, kind)) = REASONS.iter().find(|(known, _)| *known == name) {
        return *kind;
    }
    let names: Vec<Value> = REASONS.iter().map(|(name, _)| json!(name)).collect();
    errors.push(FieldError::not_supported(&path.field("reason"), &json!(name), names.iter()));
    FieldErrorKind::Invalid
}

/// The variables of rules.
const RULE_VARIABLES: &[&str] = &["self", "oldSelf"];

pub(crate) fn program(
    source: &str,
    variables: &[&str],
    path: &Path<'_>,
    errors: &mut Errors,
) -> Option<Program> {
    let mut refuse = |detail: String| {
        let detail = format!("compilation failed: {detail}");
        errors.push(FieldError::invalid(path, &json!(source), detail));
    };
    if source.len() > MAX_RULE_BYTES {
        errors.push(FieldError::too_long(path, MAX_RULE_BYTES as u64));
        return None;
    }
    if bracket_depth(source) > MAX_RULE_NESTING {
        refuse(format!("must not nest deeper than {MAX_RULE_NESTING} levels"));
        return None;
    }
    let compiled = on_deep_stack(|| {
        let written = Parser::new()
            .enable_optional_syntax(true)
            .parse(source)
            .map_err(|error| error.to_string())?;
        let metered = meter::rewrite(&written, variables)?;
        let mut uses_old_self = false;
        for name in meter::functions(&written) {
            if !is_function(&name) {
                return Err(format!("undeclared reference to '{name}'"));
            }
        }
        visit(&written, &mut |expr| {
            uses_old_self |= matches!(expr, Expr::Ident(name) if name == "oldSelf");
        });
        Ok(Program { written, metered, uses_old_self })
    });
    match compiled {
        Some(Ok(program)) => Some(program),
        Some(Err(detail)) => {
            refuse(detail);
            None
        }
        None => {
            refuse("the expression cannot be parsed".to_owned());
            None
        }
    }
}

/// The deepest nesting of brackets; those in strings count too, which only makes it stricter.
fn bracket_depth(source: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Whether the interpreter has a function, asked by calling it without arguments: one that exists
/// complains of those, one that does not is undeclared.
fn is_function(name: &str) -> bool {
    // Making one takes as long as parsing a short rule.
    static INTERPRETER: LazyLock<Context<'static>> = LazyLock::new(|| {
        let mut context = Context::default().with_all();
        meter::register(&mut context, &Arc::default());
        context
    });
    let call = CallExpr { func_name: name.to_owned(), target: None, args: Vec::new() };
    let call = IdedExpr { id: 0, expr: Expr::Call(call) };
    let result =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| INTERPRETER.resolve(&call)));
    !matches!(result, Ok(Err(ExecutionError::UndeclaredReference(_))))
}

/// Calls `see` with every expression inside `expr`.
pub(crate) fn visit(expr: &IdedExpr, see: &mut dyn FnMut(&Expr)) {
    see(&expr.expr);
    match &expr.expr {
        Expr::Call(call) => {
            call.target.iter().for_each(|target| visit(target, see));
            call.args.iter().for_each(|arg| visit(arg, see));
        }
        Expr::Comprehension(comprehension) => {
            let parts = [
                &comprehension.iter_range,
                &comprehension.accu_init,
                &comprehension.loop_cond,
                &comprehension.loop_step,
                &comprehension.result,
            ];
            parts.into_iter().for_each(|part| visit(part, see));
        }
        Expr::List(list) => list.elements.iter().for_each(|element| visit(element, see)),
        Expr::Map(map) => {
            for entry in &map.entries {
                if let EntryExpr::MapEntry(entry) = &entry.expr {
                    visit(&entry.key, see);
                    visit(&entry.value, see);
                }
            }
        }
        Expr::Select(select) => visit(&select.operand, see),
        Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}

/// Checks the rules of a whole schema against its shape: no unknown field of `self`, no `oldSelf`
/// where an old value cannot be found.
///
/// `uncorrelatable` is the outermost place below which old values cannot be found.
pub(crate) fn check_node(
    node: &Node,
    is_root: bool,
    uncorrelatable: Option<&str>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    for (index, rule) in node.rules.iter().enumerate() {
        let at = path.field("x-kubernetes-validations");
        let at = at.index(index);
        let source = json!(rule.source.as_ref());
        match (rule.is_transition(), uncorrelatable, rule.optional_old_self) {
            (true, Some(within), _) => {
                let detail = format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within \
                     {within}"
                );
                errors.push(FieldError::invalid(&at.field("rule"), &source, detail));
            }
            (false, _, Some(is_set)) => {
                let detail = "may not be set if oldSelf is not used in rule";
                let at = at.field("optionalOldSelf");
                errors.push(FieldError::invalid(&at, &json!(is_set), detail));
            }
            _ => {}
        }
        let unknown = on_deep_stack(|| unknown_field(&rule.program.written, node, is_root));
        let unknown = unknown.flatten();
        if let Some(field) = unknown {
            let detail = format!("compilation failed: undefined field '{field}'");
            errors.push(FieldError::invalid(&at.field("rule"), &source, detail));
        }
        if let Some(field_path) = &rule.field_path
            && !leads_to_field(field_path, node)
        {
            let detail = "fieldPath must be a valid path";
            let at = at.field("fieldPath");
            errors.push(FieldError::invalid(&at, &json!(field_path.source.as_ref()), detail));
        }
    }
    let here = path.to_string();
    let below = uncorrelatable.or((node.atomic_map == Some(true)).then_some(&here));
    for (name, child) in &node.properties {
        check_node(child, false, below, &path.field("properties").key(name), errors);
    }
    if let Additional::Of(child) = &node.additional {
        check_node(child, false, below, &path.field("additionalProperties"), errors);
    }
    if let Some(child) = &node.items {
        let is_map = matches!(node.list, ListType::Map(_));
        let below = uncorrelatable.or((!is_map).then_some(&here));
        check_node(child, false, below, &path.field("items"), errors);
    }
}

fn leads_to_field(field_path: &FieldPath, node: &Node) -> bool {
    field_path.names.iter().try_fold(node, |node, name| node.child(name)).is_some()
}

/// The first field of `self` or `oldSelf` that the schema does not have. The root and embedded
/// objects have fields that no schema needs to name.
fn unknown_field(expr: &IdedExpr, node: &Node, is_root: bool) -> Option<String> {
    let (mut found, mut in_chain) = (None, false);
    visit(expr, &mut |expr| {
        // A chain is gone along once, from its last selection: they can be as long as a rule.
        let is_selection = matches!(expr, Expr::Select(_));
        let within = std::mem::replace(&mut in_chain, is_selection);
        if !within && found.is_none() {
            owner_of(expr, node, is_root, &mut found);
        }
    });
    found
}

/// The schema of what a chain of selections from `self` yields; and the field in it that is unknown.
fn owner_of<'n>(
    expr: &Expr,
    node: &'n Node,
    is_root: bool,
    unknown: &mut Option<String>,
) -> Option<&'n Node> {
    let select = match expr {
        Expr::Ident(name) if name == "self" => return Some(node),
        Expr::Select(select) => select,
        _ => return None,
    };
    let owner = owner_of(&select.operand.expr, node, is_root, unknown)?;
    let found = field(owner, &select.field);
    let is_whole = owner.embedded || (is_root && std::ptr::eq(owner, node));
    let is_implicit = is_whole && IMPLICIT.contains(&select.field.as_str());
    if found.is_none() && is_closed(owner) && !is_implicit {
        *unknown = Some(select.field.clone());
    }
    found.filter(|_| !select.test)
}

fn field<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    if let Additional::Of(values) = &node.additional {
        return Some(values);
    }
    // Only names with two underscores stand for others.
    if !name.contains("__") {
        return node.property(name).filter(|_| escaped(name) == name);
    }
    node.properties.iter().find(|(known, _)| escaped(known) == name).map(|(_, node)| node)
}

/// Whether an object has only its named fields.
fn is_closed(node: &Node) -> bool {
    node.kind == Some(Type::Object)
        && !node.properties.is_empty()
        && matches!(node.additional, Additional::Unspecified)
}

/// What a coarse estimate says about the costs of all rules, each warning once.
pub(crate) fn warnings(node: &Node) -> Vec<String> {
    let mut warnings = Vec::new();
    collect_warnings(node, &mut warnings);
    warnings.sort();
    warnings.dedup();
    warnings
}

fn collect_warnings(node: &Node, warnings: &mut Vec<String>) {
    if !node.rules.is_empty() {
        let schema = kube_cel::compile_schema(&crate::openapi::to_json(node));
        for rule in &node.rules {
            let found = on_deep_stack(|| kube_cel::estimate_rule_cost(&rule.source, &schema));
            warnings.extend(found.into_iter().flatten().map(|warning| {
                format!("x-kubernetes-validations rule {:?}: {}", rule.source, warning.message)
            }));
        }
    }
    node.properties.iter().for_each(|(_, child)| collect_warnings(child, warnings));
    if let Additional::Of(child) = &node.additional {
        collect_warnings(child, warnings);
    }
    if let Some(child) = &node.items {
        collect_warnings(child, warnings);
    }
}
