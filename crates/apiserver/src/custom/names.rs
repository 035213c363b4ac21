//! Which of the names that a definition asks for become its own: those that no other definition of the
//! group has.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{
    status::set_condition,
    view::{Names, View},
};

/// The names that definitions of one group have.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Plural, singular and short names, which share the paths that people type.
    resources: HashSet<String>,
    kinds: HashSet<String>,
}

impl Taken {
    /// Adds the accepted names of a definition.
    pub(super) fn add(&mut self, names: Names<'_>) {
        let resources = ["plural", "singular"].map(|field| names.text(field));
        let resources = resources.into_iter().chain(names.texts("shortNames"));
        self.resources.extend(resources.filter(|name| !name.is_empty()).map(str::to_owned));
        let kinds = ["kind", "listKind"].map(|field| names.text(field));
        self.kinds.extend(kinds.into_iter().filter(|name| !name.is_empty()).map(str::to_owned));
    }
}

/// A name that cannot be had: the reason, and what is said of it.
type Conflict = (&'static str, String);

/// Brings the status of a definition in line with the names that others of its group have. Names that
/// it has stay its own.
pub(super) fn settle(definition: &mut Value, others: &Taken, now: &str) {
    let (accepted, conflict) = accept(View(definition), others);
    if let Some(status) = definition
        .as_object_mut()
        .map(|fields| fields.entry("status").or_insert_with(|| json!({})))
        .and_then(Value::as_object_mut)
    {
        status.insert("acceptedNames".to_owned(), accepted);
    }
    match conflict {
        None => {
            let text = "no conflicts found";
            set_condition(definition, ("NamesAccepted", true), "NoConflicts", text, now);
            if !View(definition).is_established() {
                let text = "the initial names have been accepted";
                let kind = ("Established", true);
                set_condition(definition, kind, "InitialNamesAccepted", text, now);
            }
        }
        Some((reason, text)) => {
            set_condition(definition, ("NamesAccepted", false), reason, &text, now);
            if !View(definition).is_established() {
                let text = "not all names are accepted";
                set_condition(definition, ("Established", false), "NotAccepted", text, now);
            }
        }
    }
}

fn accept(definition: View<'_>, others: &Taken) -> (Value, Option<Conflict>) {
    let (wanted, present) = (definition.names(), definition.accepted());
    let mut accepted = present.0.as_object().cloned().unwrap_or_default();
    let mut conflict: Option<Conflict> = None;
    for (field, reason, taken) in [
        ("plural", "PluralConflict", &others.resources),
        ("singular", "SingularConflict", &others.resources),
        ("kind", "KindConflict", &others.kinds),
        ("listKind", "ListKindConflict", &others.kinds),
    ] {
        let name = wanted.text(field);
        if name != present.text(field) && taken.contains(name) {
            conflict = Some((reason, format!("{name:?} is already in use")));
        } else {
            accepted.insert(field.to_owned(), name.into());
        }
    }
    let is_taken = |name: &&str| {
        others.resources.contains(*name) && !present.texts("shortNames").any(|own| own == *name)
    };
    let taken: Vec<&str> = wanted.texts("shortNames").filter(is_taken).collect();
    if taken.is_empty() {
        copy(&mut accepted, wanted, "shortNames");
    } else {
        let texts: Vec<String> =
            taken.iter().map(|name| format!("{name:?} is already in use")).collect();
        let text = if let [one] = texts.as_slice() {
            one.clone()
        } else {
            format!("[{}]", texts.join(", "))
        };
        conflict = Some(("ShortNamesConflict", text));
    }
    copy(&mut accepted, wanted, "categories");
    (Value::Object(accepted), conflict)
}

fn copy(to: &mut serde_json::Map<String, Value>, from: Names<'_>, field: &str) {
    match from.0.get(field) {
        Some(value) => to.insert(field.to_owned(), value.clone()),
        None => to.remove(field),
    };
}
