//! Printer columns: the part of JSONPath that `additionalPrinterColumns` may use, compiled, and
//! the cells that it yields.

use serde_json::{Map, Value};

/// Longest JSONPath.
pub const MAX_PATH_BYTES: usize = 1024;
/// Most values that one path may yield: a cell shows the first.
const MAX_RESULTS: usize = 1000;

/// Why a text is no JSONPath that columns may use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("JSONPath {path:?}: {problem}")]
pub struct PathError {
    /// The text.
    pub path: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// A compiled JSONPath: `.spec.replicas`, `.status.conditions[?(@.type=="Ready")].status`, `[0]`,
/// `[*]`, `['a.b']`; with or without braces around it.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath(Box<[Step]>);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(Box<str>),
    /// From the end where negative.
    Index(i64),
    All,
    /// Elements at whose path the comparison holds; without one, elements that have the path.
    Where(JsonPath, Option<(Comparison, Value)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// The longer operator first, as one begins with the other.
const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

impl JsonPath {
    /// Compiles a path.
    ///
    /// # Errors
    /// If the text is not of the supported subset.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let error = |problem| PathError { path: text.chars().take(80).collect(), problem };
        if text.len() > MAX_PATH_BYTES {
            return Err(error("is too long"));
        }
        let inner = text.trim();
        let inner = inner.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(inner);
        let inner = inner.strip_prefix('$').unwrap_or(inner);
        if inner.is_empty() {
            return Err(error("is empty"));
        }
        steps(inner, true).map(Self).map_err(error)
    }

    /// The values that the path leads to, in order.
    #[must_use]
    pub fn find<'v>(&self, root: &'v Value) -> Vec<&'v Value> {
        self.0.iter().fold(vec![root], |found, step| {
            found.into_iter().flat_map(|value| step.follow(value)).take(MAX_RESULTS).collect()
        })
    }

    /// The names, if the path is nothing but names.
    pub(crate) fn field_names(&self) -> Option<Vec<&str>> {
        self.0
            .iter()
            .map(|step| match step {
                Step::Field(name) => Some(name.as_ref()),
                _ => None,
            })
            .collect()
    }
}

impl Step {
    fn follow<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match (self, value) {
            (Self::Field(name), Value::Object(map)) => map.get(name.as_ref()).into_iter().collect(),
            (Self::Index(index), Value::Array(items)) => {
                let found = match usize::try_from(*index) {
                    Ok(index) => Some(index),
                    Err(_) => usize::try_from(index.unsigned_abs())
                        .ok()
                        .and_then(|back| items.len().checked_sub(back)),
                };
                found.and_then(|index| items.get(index)).into_iter().collect()
            }
            (Self::All, Value::Array(items)) => items.iter().take(MAX_RESULTS).collect(),
            (Self::All, Value::Object(map)) => map.values().take(MAX_RESULTS).collect(),
            (Self::Where(path, condition), Value::Array(items)) => items
                .iter()
                .filter(|item| {
                    path.find(item).first().is_some_and(|found| match condition {
                        Some((comparison, wanted)) => comparison.holds(found, wanted),
                        None => true,
                    })
                })
                .take(MAX_RESULTS)
                .collect(),
            _ => Vec::new(),
        }
    }
}

impl Comparison {
    fn holds(self, left: &Value, right: &Value) -> bool {
        use std::cmp::Ordering::{Equal, Greater, Less};
        let order = match (left, right) {
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            (Value::Number(left), Value::Number(right)) => {
                left.as_f64().zip(right.as_f64()).and_then(|(l, r)| l.partial_cmp(&r))
            }
            (left, right) if left == right => Some(Equal),
            _ => None,
        };
        match self {
            Self::Equal => order == Some(Equal),
            Self::NotEqual => order != Some(Equal),
            Self::Less => order == Some(Less),
            Self::LessOrEqual => matches!(order, Some(Less | Equal)),
            Self::Greater => order == Some(Greater),
            Self::GreaterOrEqual => matches!(order, Some(Greater | Equal)),
        }
    }
}

/// Reads steps. A filter's own path may not hold another filter, which bounds the recursion.
fn steps(text: &str, filters: bool) -> Result<Box<[Step]>, &'static str> {
    let mut rest = text;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if rest.starts_with("..") {
            return Err("recursive descent is not supported");
        }
        if let Some(tail) = rest.strip_prefix('.') {
            if tail.starts_with('[') {
                rest = tail;
                continue;
            }
            let (name, tail) = name(tail)?;
            steps.push(if name == "*" { Step::All } else { Step::Field(name.into()) });
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix('[') {
            let (step, tail) = bracket(tail, filters)?;
            steps.push(step);
            rest = tail;
        } else {
            return Err("must begin with a dot or a bracket");
        }
    }
    Ok(steps.into())
}

/// A name up to the next dot or bracket; a backslash takes the next character as it is.
fn name(text: &str) -> Result<(String, &str), &'static str> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => {
                end = at;
                break;
            }
            _ => name.push(c),
        }
    }
    if name.is_empty() {
        return Err("a name is missing");
    }
    Ok((name, text.get(end..).unwrap_or_default()))
}

fn bracket(text: &str, filters: bool) -> Result<(Step, &str), &'static str> {
    if let Some(filter) = text.strip_prefix("?(") {
        if !filters {
            return Err("a filter inside a filter is not supported");
        }
        let end = unquoted(filter, ")]").ok_or("a filter is not closed")?;
        let (inner, tail) = filter.split_at(end);
        return Ok((filter_step(inner)?, tail.get(2..).unwrap_or_default()));
    }
    let end = unquoted(text, "]").ok_or("a bracket is not closed")?;
    let (inner, tail) = text.split_at(end);
    let inner = inner.trim();
    let step = match unquote(inner) {
        Some(name) if !name.is_empty() => Step::Field(name.into()),
        Some(_) => return Err("a name is missing"),
        None if inner == "*" => Step::All,
        None => Step::Index(inner.parse().map_err(|_| "slices and unions are not supported")?),
    };
    Ok((step, tail.get(1..).unwrap_or_default()))
}

fn filter_step(inner: &str) -> Result<Step, &'static str> {
    let found = COMPARISONS
        .iter()
        .filter_map(|(text, comparison)| Some((unquoted(inner, text)?, *text, *comparison)))
        .min_by_key(|(at, ..)| *at);
    let (path, condition) = match found {
        None => (inner, None),
        Some((at, text, comparison)) => {
            let (path, literal) = inner.split_at(at);
            let literal = literal.get(text.len()..).unwrap_or_default().trim();
            let value = match unquote(literal) {
                Some(text) => Value::String(text.to_owned()),
                None => serde_json::from_str(literal)
                    .ok()
                    .filter(|value: &Value| !value.is_object() && !value.is_array())
                    .ok_or("a filter must compare with a literal")?,
            };
            (path, Some((comparison, value)))
        }
    };
    let path = path.trim().strip_prefix('@').ok_or("a filter must begin with @")?;
    Ok(Step::Where(JsonPath(steps(path.trim_end(), false)?), condition))
}

fn unquote(text: &str) -> Option<&str> {
    ['\'', '"'].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
}

/// Where `needle` first stands outside of quotes.
fn unquoted(text: &str, needle: &str) -> Option<usize> {
    let mut quote = None;
    text.char_indices().find_map(|(at, c)| {
        match quote {
            Some(open) => {
                if c == open {
                    quote = None;
                }
                return None;
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            None => {}
        }
        text.get(at..)?.starts_with(needle).then_some(at)
    })
}

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// Whole numbers.
    Integer,
    /// Numbers.
    Number,
    /// Texts, and anything else as JSON.
    String,
    /// Flags.
    Boolean,
    /// A time, shown as an age.
    Date,
}

impl ColumnType {
    /// The type of that name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            "integer" => Self::Integer,
            "number" => Self::Number,
            "string" => Self::String,
            "boolean" => Self::Boolean,
            "date" => Self::Date,
            _ => return None,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Number => "number",
            Self::String => "string",
            Self::Boolean => "boolean",
            Self::Date => "date",
        }
    }
}

/// What a table shows in one place.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Nothing, as the object has no such value of that type.
    Empty,
    /// A number, text or flag.
    Value(Value),
    /// A moment, in seconds since 1970; the age is the caller's to compute.
    Time(i64),
    /// A time that is none; Kubernetes shows `<invalid>`.
    InvalidTime,
}

/// One entry of `additionalPrinterColumns`, compiled.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// The heading.
    pub name: String,
    /// The type of its cells.
    pub kind: ColumnType,
    /// A format for clients, as `date-time`.
    pub format: String,
    /// A text for people.
    pub description: String,
    /// Above 0: shown only in wide output.
    pub priority: i32,
    path: JsonPath,
}

/// Why an entry of `additionalPrinterColumns` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    /// A field is absent.
    #[error("a printer column has no {0}")]
    Missing(&'static str),
    /// The type is not known.
    #[error(
        "printer column {column:?} has the unknown type {kind:?}; supported: boolean, date, \
         integer, number, string"
    )]
    Type {
        /// The column.
        column: String,
        /// Its type.
        kind: String,
    },
    /// The path cannot be used.
    #[error("printer column {column:?} has an unusable path")]
    Path {
        /// The column.
        column: String,
        /// What is wrong with it.
        #[source]
        source: PathError,
    },
}

impl Column {
    /// Compiles an entry of `additionalPrinterColumns`.
    ///
    /// # Errors
    /// If a field is missing, the type unknown or the path unusable.
    pub fn parse(raw: &Map<String, Value>) -> Result<Self, ColumnError> {
        let text = |name: &str| raw.get(name).and_then(Value::as_str).unwrap_or_default();
        let required = |name: &'static str| match text(name) {
            "" => Err(ColumnError::Missing(name)),
            text => Ok(text),
        };
        let name = required("name")?.to_owned();
        let kind = required("type")?;
        let kind = ColumnType::of_name(kind)
            .ok_or_else(|| ColumnError::Type { column: name.clone(), kind: kind.to_owned() })?;
        let path = JsonPath::parse(required("jsonPath")?)
            .map_err(|source| ColumnError::Path { column: name.clone(), source })?;
        let priority = raw.get("priority").and_then(Value::as_i64).unwrap_or_default();
        Ok(Self {
            name,
            kind,
            format: text("format").to_owned(),
            description: text("description").to_owned(),
            priority: i32::try_from(priority).unwrap_or(i32::MAX),
            path,
        })
    }

    /// The cell of an object: the first value that the path leads to, if of the column's type.
    #[must_use]
    pub fn cell(&self, object: &Value) -> Cell {
        let Some(value) = self.path.find(object).into_iter().next() else { return Cell::Empty };
        match (self.kind, value) {
            (_, Value::Null) => Cell::Empty,
            (ColumnType::Integer, Value::Number(number)) => whole(number),
            (ColumnType::Number, Value::Number(_)) | (ColumnType::Boolean, Value::Bool(_)) => {
                Cell::Value(value.clone())
            }
            (ColumnType::String, Value::String(text)) => Cell::Value(Value::String(text.clone())),
            (ColumnType::String, other) => Cell::Value(Value::String(other.to_string())),
            (ColumnType::Date, Value::String(text)) => chrono::DateTime::parse_from_rfc3339(text)
                .map_or(Cell::InvalidTime, |time| Cell::Time(time.timestamp())),
            _ => Cell::Empty,
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a float is cut to its whole part on purpose")]
fn whole(number: &serde_json::Number) -> Cell {
    let whole = number.as_i64().or_else(|| number.as_f64().map(|float| float as i64));
    whole.map_or(Cell::Empty, |whole| Cell::Value(Value::from(whole)))
}
