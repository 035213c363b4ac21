//! An apply: what is applied merged into what is live, and who owns what after it. It checks and records nothing.

use serde_json::{Map, Value};
use toono_api::Place;

use super::{
    Write,
    compare::Comparison,
    conflict::Conflicts,
    field_set::FieldSet,
    lose,
    managers::{ManagerId, Managers, Operation, Owned},
    merge::{self, Overlay},
    tracked, walk,
};

/// An apply: merges, removes what the manager alone owned and no longer applies, and settles who
/// owns what.
pub(super) fn merge_and_own(
    write: &Write<'_>,
    live: &Value,
    applied: &Value,
    before: &Managers,
    force: bool,
) -> Result<(Value, Managers), Conflicts> {
    let id = ManagerId {
        name: write.manager.to_owned(),
        operation: Operation::Apply,
        api_version: String::new(),
        subresource: write.subresource.to_owned(),
    };
    let place = write.place;
    let last = before.0.get(&id);
    let Overlay { merged, places, changes } = if live.is_object() {
        merge::overlay(live, applied, place)
    } else {
        let changes = Comparison::of(live, applied, place);
        Overlay { merged: applied.clone(), places: walk::places(applied, place), changes }
    };
    let fields = places.recursive_difference(write.reset);
    // Most appliers go on to apply what they did.
    let gone = last.filter(|last| !last.fields.is_subset(&fields));
    let others = || before.0.iter().filter(|(other, _)| **other != id);
    let pruned = gone.and_then(|last| {
        let all = others().map(|(_, owned)| owned.fields.clone()).chain([fields.clone()]);
        prune(&merged, place, &last.fields, &FieldSet::union_of(all.collect()))
    });
    let (object, changes) = match pruned {
        Some(pruned) => {
            // An applied map or list that lost its last part is there, empty. All else that is applied is there.
            let object = if has_empty(applied) {
                merge::overlay(&pruned, applied, place).merged
            } else {
                pruned
            };
            let changes = Comparison::of(live, &object, place);
            (object, changes)
        }
        None => (merged, changes),
    };
    let changes = changes.without(write.reset);
    let mut managers = Managers(others().map(|(id, owned)| (id.clone(), owned.clone())).collect());
    take_over(&mut managers, changes, force)?;
    let fields = tracked(fields);
    if !fields.is_empty() {
        let time = match last {
            Some(last) if last.fields == fields && object == *live => last.time.clone(),
            _ => Some(write.now.to_owned()),
        };
        let api_version = write.api_version.to_owned();
        managers.0.insert(id, Owned { api_version, time, fields });
    }
    Ok((object, managers))
}

/// Whether a map or list in it has no parts, or something is null.
fn has_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty() || fields.values().any(has_empty),
        Value::Array(items) => items.is_empty() || items.iter().any(has_empty),
        Value::Null => true,
        _ => false,
    }
}

/// Takes from the other managers what an apply sets to another value and what it removes.
///
/// # Errors
/// When others own what it sets, unless it is forced.
fn take_over(managers: &mut Managers, changes: Comparison, force: bool) -> Result<(), Conflicts> {
    let (set, removed) = changes.split();
    let contested = |fields: &FieldSet| fields.intersection(&set);
    let mut conflicts = managers
        .0
        .iter()
        .map(|(id, owned)| (id, contested(&owned.fields)))
        .filter(|(_, contested)| !contested.is_empty())
        .peekable();
    if !force && conflicts.peek().is_some() {
        return Err(Conflicts::of(conflicts.map(|(id, contested)| (id.clone(), contested))));
    }
    managers.0.values_mut().for_each(|owned| lose(owned, &set, &removed));
    managers.0.retain(|_, owned| !owned.fields.is_empty());
    Ok(())
}

/// The merged object without what was applied last time and is owned by nobody now; `None` if that
/// is nothing.
///
/// An orphaned item of a list or map goes with all below it that nobody owns. What others own below
/// a field that the type names keeps that field.
fn prune(merged: &Value, place: Place<'_>, last: &FieldSet, owned: &FieldSet) -> Option<Value> {
    let last = walk::with_named(last, place);
    let owned = walk::with_named(owned, place);
    if last.clone().difference(&owned).is_empty() {
        return None;
    }
    let named = |set: &FieldSet| walk::with_named(set, place);
    let left = |remove: &FieldSet| {
        walk::places_without(merged, remove, place).map_or_else(FieldSet::new, |left| named(&left))
    };
    let all = named(&walk::places(merged, place));
    let kept = left(&last).union(owned);
    let kept = left(&all.clone().difference(&kept));
    // Only what was applied last time may go.
    let pruned = merge::without(merged, &all.difference(&kept).intersection(&last), place);
    Some(pruned.unwrap_or_else(|| Value::Object(Map::new())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use toono_api::kinds;

    use super::{super::examples::objects, *};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn what_is_applied_is_still_there_when_others_parts_have_gone(
            live in objects(),
            applied in objects(),
            last in objects(),
        ) {
            for place in [kinds::pod::POD.place(), kinds::core::SERVICE.place(), Place::UNKNOWN] {
                if !live.is_object()
                    || has_empty(&applied)
                    || walk::check(&applied, place, walk::At::Root).is_err()
                {
                    continue;
                }
                let merge::Overlay { merged, places, .. } = merge::overlay(&live, &applied, place);
                for last in [walk::places(&last, place), walk::places(&live, place)] {
                    if let Some(pruned) = prune(&merged, place, &last, &places) {
                        let again = merge::overlay(&pruned, &applied, place).merged;
                        prop_assert_eq!(again, pruned);
                    }
                }
            }
        }
    }
}
