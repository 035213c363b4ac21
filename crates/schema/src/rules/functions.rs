//! Functions of the interpreter whose time is not bounded by the size of what goes in: those that
//! compare each item of a list with each of another, and those of regular expressions. These pay for
//! what they are about to do, and a regular expression is compiled once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube_cel::cel::extractors::{Arguments, This};
use kube_cel::cel::objects::Value;
use kube_cel::cel::{Context, ExecutionError};
use regex::{Regex, RegexBuilder};

use crate::rules::meter::{BYTES_PER_STEP, MAX_ARGUMENT_SIZE, Meter, out_of_budget, size_of};

/// What a compiled expression may take in bytes, how many steps it costs to find out, and how many
/// each [`BYTES_PER_STEP`] of a text cost then: in the worst case all of the expression is looked at
/// for each letter. The smallest that suffices is found by trying, so that counted repetitions of
/// repetitions are paid for by what they become.
const SIZES: [(usize, u64, u64); 5] = [
    (16 << 10, 1_000, 8),
    (64 << 10, 4_000, 256),
    (256 << 10, 16_000, 512),
    (1 << 20, 64_000, 2_048),
    (4 << 20, 512_000, 8_192),
];
/// Most compiled expressions that are kept for one object: far more than its rules have.
const PATTERNS_MAX: usize = 64;

type List = Arc<Vec<Value>>;

/// A compiled expression, and what its use costs for each [`BYTES_PER_STEP`] of text.
#[derive(Clone)]
struct Pattern {
    regex: Regex,
    weight: u64,
}

/// Those that were compiled.
type Patterns = Arc<Mutex<BTreeMap<Arc<String>, Pattern>>>;

/// Replaces the functions of an interpreter.
pub(crate) fn register(context: &mut Context<'_>, meter: &Arc<Meter>) {
    let own = Arc::clone(meter);
    context.add_function("sets.contains", move |all: List, some: List| contains(&own, &all, &some));
    let own = Arc::clone(meter);
    context.add_function(
        "sets.equivalent",
        move |one: List, other: List| -> Result<bool, ExecutionError> {
            Ok(contains(&own, &one, &other)? && contains(&own, &other, &one)?)
        },
    );
    let own = Arc::clone(meter);
    context.add_function(
        "sets.intersects",
        move |one: List, other: List| -> Result<bool, ExecutionError> {
            pay_pairs(&own, &one, &other)?;
            Ok(one.iter().any(|item| other.contains(item)))
        },
    );
    let own = Arc::clone(meter);
    context.add_function("distinct", move |This(list): This<List>| distinct(&own, &list));
    let patterns = Patterns::default();
    let (own, known) = (Arc::clone(meter), Arc::clone(&patterns));
    context.add_function(
        "matches",
        move |This(text): This<Arc<String>>, raw: Arc<String>| -> Result<bool, ExecutionError> {
            let regex = pattern(&own, &known, "matches", &raw, &text)?;
            Ok(regex.is_match(&text))
        },
    );
    let (own, known) = (Arc::clone(meter), Arc::clone(&patterns));
    context.add_function(
        "find",
        move |This(text): This<Arc<String>>, raw: Arc<String>| -> Result<Value, ExecutionError> {
            let regex = pattern(&own, &known, "find", &raw, &text)?;
            let found = regex.find(&text).map_or("", |found| found.as_str());
            Ok(Value::String(Arc::new(found.to_owned())))
        },
    );
    let own = Arc::clone(meter);
    context.add_function(
        "findAll",
        move |This(text): This<Arc<String>>, Arguments(args): Arguments| {
            find_all(&own, &patterns, &text, &args)
        },
    );
}

/// Each item of one list may be compared with each of the other: no comparison looks further than
/// the smaller of the two is large.
fn pay_pairs(meter: &Meter, one: &List, other: &List) -> Result<(), ExecutionError> {
    let list = Value::List(Arc::clone(one));
    let steps = size_of(&list, meter.left()).saturating_mul(1 + other.len() as u64);
    if meter.pay(steps) { Ok(()) } else { Err(out_of_budget()) }
}

fn contains(meter: &Meter, all: &List, some: &List) -> Result<bool, ExecutionError> {
    pay_pairs(meter, all, some)?;
    Ok(some.iter().all(|item| all.contains(item)))
}

fn distinct(meter: &Meter, list: &List) -> Result<Value, ExecutionError> {
    pay_pairs(meter, list, list)?;
    let mut found: Vec<Value> = Vec::new();
    for item in list.iter() {
        if !found.contains(item) {
            found.push(item.clone());
        }
    }
    Ok(Value::List(Arc::new(found)))
}

/// The compiled expression, when it and its use on a text are paid for.
fn pattern(
    meter: &Meter,
    known: &Patterns,
    function: &str,
    raw: &Arc<String>,
    text: &str,
) -> Result<Regex, ExecutionError> {
    if raw.len() > MAX_ARGUMENT_SIZE {
        return Err(ExecutionError::function_error(function, "argument is too large"));
    }
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    let pattern = match known.get(raw) {
        Some(pattern) => pattern.clone(),
        None => {
            let pattern = compiled(meter, function, raw)?;
            if known.len() < PATTERNS_MAX {
                known.insert(Arc::clone(raw), pattern.clone());
            }
            pattern
        }
    };
    let steps = (1 + text.len() / BYTES_PER_STEP) as u64;
    if meter.pay(steps.saturating_mul(pattern.weight)) {
        Ok(pattern.regex)
    } else {
        Err(out_of_budget())
    }
}

fn compiled(meter: &Meter, function: &str, raw: &str) -> Result<Pattern, ExecutionError> {
    let mut why = String::new();
    for (bytes, steps, weight) in SIZES {
        if !meter.pay(steps) {
            return Err(out_of_budget());
        }
        match RegexBuilder::new(raw).size_limit(bytes).dfa_size_limit(bytes).build() {
            Ok(regex) => return Ok(Pattern { regex, weight }),
            Err(regex::Error::CompiledTooBig(_)) => {
                why = format!("{raw:?} is larger than {bytes} bytes when compiled");
            }
            Err(error) => {
                return Err(ExecutionError::function_error(
                    function,
                    format!("'{raw}' not a valid regex:\n{error}"),
                ));
            }
        }
    }
    Err(ExecutionError::function_error(function, why))
}

fn find_all(
    meter: &Meter,
    known: &Patterns,
    text: &str,
    args: &[Value],
) -> Result<Value, ExecutionError> {
    let (raw, most) = match args {
        [Value::String(raw)] => (raw, usize::MAX),
        [Value::String(raw), Value::Int(most)] => {
            (raw, usize::try_from(*most).unwrap_or(usize::MAX))
        }
        _ => return Err(ExecutionError::NoSuchOverload),
    };
    let regex = pattern(meter, known, "findAll", raw, text)?;
    let found = regex.find_iter(text).take(most);
    let found = found.map(|found| Value::String(Arc::new(found.as_str().to_owned())));
    Ok(Value::List(Arc::new(found.collect())))
}
