//! Where in an object something is, as a list on the stack: no allocation until an error is shown.

use std::fmt;

/// One step from a value to a value inside it.
#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Root(&'a str),
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

/// The way from the root of an object to a value in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

impl<'a> Path<'a> {
    /// The start; `""` for an object, or where the object is embedded.
    pub(crate) fn root(prefix: &'a str) -> Self {
        Self { parent: None, step: Step::Root(prefix) }
    }

    /// `.name`
    pub(crate) fn field<'b>(&'b self, name: &'b str) -> Path<'b> {
        Path { parent: Some(self), step: Step::Field(name) }
    }

    /// `[3]`
    pub(crate) fn index(&self, index: usize) -> Path<'_> {
        Path { parent: Some(self), step: Step::Index(index) }
    }

    /// `[name]`
    pub(crate) fn key<'b>(&'b self, key: &'b str) -> Path<'b> {
        Path { parent: Some(self), step: Step::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An index or key at the very start still needs no dot; a field does unless it is first.
        let mut steps = Vec::new();
        let mut at = Some(self);
        while let Some(path) = at {
            steps.push(path.step);
            at = path.parent;
        }
        let mut started = false;
        for step in steps.into_iter().rev() {
            match step {
                Step::Root(prefix) => {
                    out.write_str(prefix)?;
                    started = !prefix.is_empty();
                    continue;
                }
                Step::Field(name) if started => write!(out, ".{name}")?,
                Step::Field(name) => out.write_str(name)?,
                Step::Index(index) => write!(out, "[{index}]")?,
                Step::Key(key) => write!(out, "[{key}]")?,
            }
            started = true;
        }
        Ok(())
    }
}
