//! JSON Patch (RFC 6902), with bounds on what a small patch may make of an object.

use json_patch::{Patch, PatchOperation, jsonptr::Pointer};
use serde_json::Value;

use crate::PatchError;

/// Most operations of one JSON patch, as in Kubernetes.
pub const JSON_PATCH_MAX_OPERATIONS: usize = 10_000;
/// Most bytes that the `copy` and `move` operations of one patch handle together; Kubernetes bounds
/// copies by the same. Without it forty copies of an object into itself make a terabyte.
pub const JSON_PATCH_MAX_COPY_BYTES: usize = 3 * 1024 * 1024;
/// Most items of lists that the operations of one patch may shift together. Each insertion into a list
/// and each removal shifts what comes after it: ten thousand of them at the front of a long list would
/// take a minute. This many take some tens of milliseconds.
pub const JSON_PATCH_MAX_SHIFTED_ITEMS: usize = 4_000_000;
/// Deepest nesting that a patch may make. What reads JSON refuses anything much deeper, and a
/// recursion over a value must not overflow the stack.
pub const JSON_PATCH_MAX_DEPTH: usize = 100;

/// Applies a JSON patch.
pub(crate) fn json_patch(object: &mut Value, patch: Value) -> Result<(), PatchError> {
    let patch: Patch =
        serde_json::from_value(patch).map_err(|error| PatchError::Malformed(error.to_string()))?;
    if patch.0.len() > JSON_PATCH_MAX_OPERATIONS {
        return Err(PatchError::TooManyOperations(patch.0.len()));
    }
    let mut budget = JSON_PATCH_MAX_COPY_BYTES;
    let mut shifts = JSON_PATCH_MAX_SHIFTED_ITEMS;
    for (index, operation) in patch.0.iter().enumerate() {
        admit(object, operation, &mut budget)?;
        shifts =
            shifts.checked_sub(shifted(object, operation)).ok_or(PatchError::TooMuchShifted)?;
        json_patch::patch(object, std::slice::from_ref(operation)).map_err(|error| {
            PatchError::DoesNotApply(format!("operation {index} failed: {}", error.kind))
        })?;
    }
    Ok(())
}

/// Refuses an operation that would make the object too large or too deep. So no value is ever
/// deeper than the limit, and none that is looked at here is.
fn admit(object: &Value, operation: &PatchOperation, budget: &mut usize) -> Result<(), PatchError> {
    let room = JSON_PATCH_MAX_DEPTH.saturating_sub(operation.path().count());
    match operation {
        PatchOperation::Add(add) => measure(&add.value, room).map(drop),
        PatchOperation::Replace(replace) => measure(&replace.value, room).map(drop),
        PatchOperation::Copy(copy) => spend(object, &copy.from, room, budget),
        PatchOperation::Move(moved) => spend(object, &moved.from, room, budget),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => Ok(()),
    }
}

/// How many items an operation shifts within its lists, at most.
fn shifted(object: &Value, operation: &PatchOperation) -> usize {
    let behind = |pointer: &Pointer| {
        let Some((parent, last)) = pointer.split_back() else { return 0 };
        let Ok(Value::Array(items)) = parent.resolve(object) else { return 0 };
        let at = last.encoded().parse().unwrap_or(items.len());
        items.len().saturating_sub(at)
    };
    match operation {
        PatchOperation::Add(add) => behind(&add.path),
        PatchOperation::Remove(remove) => behind(&remove.path),
        PatchOperation::Copy(copy) => behind(&copy.path),
        PatchOperation::Move(moved) => behind(&moved.from) + behind(&moved.path),
        PatchOperation::Replace(_) | PatchOperation::Test(_) => 0,
    }
}

fn spend(
    object: &Value,
    from: &Pointer,
    room: usize,
    budget: &mut usize,
) -> Result<(), PatchError> {
    // A source that is not there is the patch's own failure.
    let Ok(source) = from.resolve(object) else { return Ok(()) };
    let bytes = measure(source, room)?;
    *budget = budget.checked_sub(bytes).ok_or(PatchError::TooMuchCopied)?;
    Ok(())
}

/// About how many bytes of JSON a value is, if it nests no deeper than `room`.
fn measure(value: &Value, room: usize) -> Result<usize, PatchError> {
    let inner = || room.checked_sub(1).ok_or(PatchError::TooDeep);
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(8),
        Value::String(text) => Ok(text.len() + 2),
        Value::Array(items) => {
            let room = inner()?;
            items.iter().try_fold(2, |bytes, item| Ok(bytes + 1 + measure(item, room)?))
        }
        Value::Object(fields) => {
            let room = inner()?;
            fields.iter().try_fold(2, |bytes, (name, field)| {
                Ok(bytes + name.len() + 4 + measure(field, room)?)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(object: Value, operations: Vec<Value>) -> Result<Value, PatchError> {
        let mut object = object;
        json_patch(&mut object, operations.into()).map(|()| object)
    }

    #[test]
    fn operations_apply_in_order() {
        let operations = vec![
            json!({"op": "test", "path": "/a", "value": 1}),
            json!({"op": "copy", "from": "/a", "path": "/b"}),
            json!({"op": "move", "from": "/b", "path": "/c"}),
            json!({"op": "add", "path": "/list/-", "value": {"x": []}}),
            json!({"op": "replace", "path": "/a", "value": 2}),
        ];
        let after = patched(json!({"a": 1, "list": []}), operations).unwrap();
        assert_eq!(after, json!({"a": 2, "c": 1, "list": [{"x": []}]}));
    }

    #[test]
    fn what_does_not_apply_says_which_and_why() {
        let operations = vec![
            json!({"op": "add", "path": "/b", "value": 1}),
            json!({"op": "remove", "path": "/x"}),
        ];
        let error = patched(json!({}), operations).unwrap_err().to_string();
        assert!(error.contains("operation 1 failed"), "{error}");
    }

    #[test]
    fn copies_of_copies_come_to_an_end() {
        let double =
            |index: usize| json!({"op": "copy", "from": "/m", "path": format!("/m/{index}")});
        let error = patched(json!({"m": {"a": "x"}}), (0..40).map(double).collect()).unwrap_err();
        assert!(matches!(error, PatchError::TooMuchCopied), "{error}");
    }

    #[test]
    fn long_lists_are_not_shifted_again_and_again() {
        let list: Value = (0..100_000).collect();
        let add = |path: &str| json!({"op": "add", "path": path, "value": 1});
        let at_end = vec![add("/a/-"); JSON_PATCH_MAX_OPERATIONS];
        assert!(patched(json!({"a": list.clone()}), at_end).is_ok());
        let in_front = vec![add("/a/0"); JSON_PATCH_MAX_OPERATIONS];
        let error = patched(json!({"a": list}), in_front).unwrap_err();
        assert!(matches!(error, PatchError::TooMuchShifted), "{error}");
    }

    #[test]
    fn nothing_gets_deeper_than_can_be_read() {
        let path = |depth: usize| "/m".repeat(depth);
        let add = |depth| json!({"op": "add", "path": path(depth), "value": {}});
        assert!(patched(json!({}), (1..JSON_PATCH_MAX_DEPTH).map(add).collect()).is_ok());
        for operations in [
            (1..4_000).map(add).collect(),
            // Each moves all there is one level down.
            (0..3_000)
                .flat_map(|_| {
                    [
                        json!({"op": "move", "from": "/m", "path": "/n"}),
                        json!({"op": "add", "path": "/m", "value": {}}),
                        json!({"op": "move", "from": "/n", "path": "/m/m"}),
                    ]
                })
                .collect::<Vec<_>>(),
        ] {
            let error = patched(json!({"m": {}}), operations).unwrap_err();
            assert!(matches!(error, PatchError::TooDeep), "{error}");
        }
    }
}
