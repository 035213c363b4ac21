//! A place in an object: its value, and the path by which errors name it.
//!
//! Rules walk objects with it. The path is only put together when there is something to say, and when more was
//! said than an answer tells, lists and maps end: a body has room for millions of mistakes.

use std::cell::Cell;

use serde_json::Value;

use crate::error::{CAUSES_MAX, FieldError, FieldReason};

static ABSENT: Value = Value::Null;

/// One step on the way to a place.
#[derive(Debug, Clone, Copy)]
enum Step<'p> {
    /// The object itself.
    Root,
    /// `.field`
    Field(&'p str),
    /// `.field[position]`
    Item(&'p str, usize),
    /// `.field[key]`
    Entry(&'p str, &'p str),
}

/// A value and where it stands. Absent values are places too.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'p, 'v> {
    /// What stands there; `Null` when nothing does.
    pub(super) value: &'v Value,
    step: Step<'p>,
    parent: Option<&'p At<'p, 'v>>,
    told: &'p Told,
}

/// How many mistakes were made of an object so far.
#[derive(Debug, Default)]
struct Told(Cell<usize>);

impl Told {
    fn one_more(&self) {
        self.0.set(self.0.get() + 1);
    }

    /// Whether more is known to be wrong than an answer tells, so that it says that there is more.
    fn is_enough(&self) -> bool {
        self.0.get() > CAUSES_MAX
    }
}

/// A whole object, to which the places in it refer.
#[derive(Debug)]
pub(super) struct Root<'v> {
    value: &'v Value,
    told: Told,
}

impl<'v> Root<'v> {
    /// The object as a place.
    pub(super) fn at(&self) -> At<'_, 'v> {
        At { value: self.value, step: Step::Root, parent: None, told: &self.told }
    }

    /// The field of that name.
    pub(super) fn get<'q>(&'q self, field: &'q str) -> At<'q, 'v> {
        let value = self.value.get(field).unwrap_or(&ABSENT);
        At { value, step: Step::Field(field), parent: None, told: &self.told }
    }

    /// The items of the list in a field.
    pub(super) fn each<'q>(&'q self, field: &'q str) -> impl Iterator<Item = At<'q, 'v>> {
        items(self.value, field, None, &self.told)
    }

    /// The entries of the map in a field, with their keys.
    pub(super) fn entries<'q>(
        &'q self,
        field: &'q str,
    ) -> impl Iterator<Item = (&'v str, At<'q, 'v>)>
    where
        'v: 'q,
    {
        entries(self.value, field, None, &self.told)
    }
}

fn items<'q, 'v>(
    value: &'v Value,
    field: &'q str,
    parent: Option<&'q At<'q, 'v>>,
    told: &'q Told,
) -> impl Iterator<Item = At<'q, 'v>> {
    let items = value.get(field).and_then(Value::as_array);
    let items = items.into_iter().flatten().enumerate().take_while(|_| !told.is_enough());
    items.map(move |(position, value)| At {
        value,
        step: Step::Item(field, position),
        parent,
        told,
    })
}

fn entries<'q, 'v: 'q>(
    value: &'v Value,
    field: &'q str,
    parent: Option<&'q At<'q, 'v>>,
    told: &'q Told,
) -> impl Iterator<Item = (&'v str, At<'q, 'v>)> {
    let entries = value.get(field).and_then(Value::as_object);
    let entries = entries.into_iter().flatten().take_while(|_| !told.is_enough());
    entries.map(move |(key, value)| {
        let key = key.as_str();
        (key, At { value, step: Step::Entry(field, key), parent, told })
    })
}

impl<'v> At<'_, 'v> {
    /// The whole object.
    pub(super) fn root(value: &'v Value) -> Root<'v> {
        Root { value, told: Told::default() }
    }

    /// The field of that name.
    pub(super) fn get<'q>(&'q self, field: &'q str) -> At<'q, 'v> {
        let value = self.value.get(field).unwrap_or(&ABSENT);
        At { value, step: Step::Field(field), parent: Some(self), told: self.told }
    }

    /// The items of the list in a field.
    pub(super) fn each<'q>(&'q self, field: &'q str) -> impl Iterator<Item = At<'q, 'v>> {
        items(self.value, field, Some(self), self.told)
    }

    /// The entries of the map in a field, with their keys.
    pub(super) fn entries<'q>(
        &'q self,
        field: &'q str,
    ) -> impl Iterator<Item = (&'v str, At<'q, 'v>)>
    where
        'v: 'q,
    {
        entries(self.value, field, Some(self), self.told)
    }

    /// How many items or entries stand here.
    pub(super) fn len(&self) -> usize {
        match self.value {
            Value::Array(items) => items.len(),
            Value::Object(entries) => entries.len(),
            _ => 0,
        }
    }

    /// Whether something stands here, be it empty.
    pub(super) fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// The text here; empty when there is none.
    pub(super) fn text(&self) -> &'v str {
        self.value.as_str().unwrap_or_default()
    }

    /// The whole number here.
    pub(super) fn number(&self) -> Option<i64> {
        self.value.as_i64()
    }

    /// Whether `true` stands here.
    pub(super) fn is_true(&self) -> bool {
        self.value == &Value::Bool(true)
    }

    /// Whether more is known to be wrong with the object than an answer tells.
    pub(super) fn is_told_enough(&self) -> bool {
        self.told.is_enough()
    }

    /// `spec.containers[0].image`
    pub(super) fn path(&self) -> String {
        let mut path = self.parent.map(At::path).unwrap_or_default();
        let mut field = |name: &str| {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(name);
        };
        match self.step {
            Step::Root => {}
            Step::Field(name) => field(name),
            Step::Item(name, position) => field(&format!("{name}[{position}]")),
            Step::Entry(name, key) => field(&format!("{name}[{key}]")),
        }
        path
    }

    pub(super) fn required(&self, why: &str) -> FieldError {
        self.told.one_more();
        FieldError::required(self.path(), why)
    }

    /// What is absent is told as an empty text, as Go's zero of most fields is.
    pub(super) fn invalid(&self, why: &str) -> FieldError {
        if !self.is_set() {
            return self.invalid_empty(why);
        }
        self.told.one_more();
        FieldError::invalid(self.path(), self.value, why)
    }

    /// Something is wrong with the whole of it, which is not told.
    pub(super) fn invalid_empty(&self, why: &str) -> FieldError {
        self.invalid_text("", why)
    }

    /// A value that is made of it is wrong.
    pub(super) fn invalid_value(&self, value: &Value, why: &str) -> FieldError {
        self.told.one_more();
        FieldError::invalid(self.path(), value, why)
    }

    /// A text that tells it was seen before.
    pub(super) fn duplicate_text(&self, text: &str) -> FieldError {
        self.told.one_more();
        FieldError::duplicate(self.path(), text)
    }

    /// A text that has to do with it is wrong.
    pub(super) fn invalid_text(&self, text: &str, why: &str) -> FieldError {
        self.told.one_more();
        FieldError::invalid_text(self.path(), text, why)
    }

    pub(super) fn unsupported(&self, known: &[&str]) -> FieldError {
        self.told.one_more();
        FieldError::not_supported(self.path(), self.text(), known)
    }

    pub(super) fn duplicate(&self) -> FieldError {
        self.told.one_more();
        FieldError {
            reason: FieldReason::Duplicate,
            field: self.path(),
            message: format!("Duplicate value: {}", self.value),
        }
    }

    pub(super) fn forbidden(&self, why: &str) -> FieldError {
        self.told.one_more();
        FieldError::forbidden(self.path(), why)
    }

    pub(super) fn not_found(&self) -> FieldError {
        self.told.one_more();
        FieldError {
            reason: FieldReason::NotFound,
            field: self.path(),
            message: format!("Not found: {}", self.value),
        }
    }

    pub(super) fn too_long(&self, max_bytes: usize) -> FieldError {
        self.told.one_more();
        FieldError {
            reason: FieldReason::TooLong,
            field: self.path(),
            message: format!("Too long: may not be more than {max_bytes} bytes"),
        }
    }

    pub(super) fn too_many(&self, max: usize) -> FieldError {
        self.told.one_more();
        FieldError {
            reason: FieldReason::TooMany,
            field: self.path(),
            message: format!("Too many: {}: must have at most {max} items", self.len()),
        }
    }
}
