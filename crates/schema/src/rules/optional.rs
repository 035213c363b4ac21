//! `a.?b` and `a[?b]`: the interpreter's own fail where the field or entry is absent, which is what
//! they are there for.

use std::sync::Arc;

use kube_cel::cel::objects::{Key, OptionalValue, Value};
use kube_cel::cel::{Context, ExecutionError};

/// What selections of fields and entries that may be absent become.
pub(crate) const SELECT: &str = "@optional";

/// Adds the function to an interpreter.
pub(crate) fn register(context: &mut Context<'_>) {
    context.add_function(SELECT, |from: Value, key: Value| -> Result<Value, ExecutionError> {
        let optional = <&OptionalValue>::try_from(&from).ok();
        let from = match optional {
            Some(optional) => optional.value(),
            None => Some(&from),
        };
        let found = match from {
            Some(from) => entry(from, &key)?,
            None => None,
        };
        let found = found.map_or_else(OptionalValue::none, OptionalValue::of);
        Ok(Value::Opaque(Arc::new(found)))
    });
}

fn entry(from: &Value, key: &Value) -> Result<Option<Value>, ExecutionError> {
    match (from, key) {
        (Value::Map(map), Value::String(name)) => {
            Ok(map.map.get(&Key::String(Arc::clone(name))).cloned())
        }
        (Value::Map(map), Value::Int(number)) => Ok(map.map.get(&Key::Int(*number)).cloned()),
        (Value::Map(map), Value::Bool(flag)) => Ok(map.map.get(&Key::Bool(*flag)).cloned()),
        (Value::List(items), Value::Int(index)) => {
            Ok(usize::try_from(*index).ok().and_then(|index| items.get(index)).cloned())
        }
        _ => Err(ExecutionError::NoSuchOverload),
    }
}
